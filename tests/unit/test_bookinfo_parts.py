"""Bookinfo's settings, forwarded headers, login cookie and counter."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.application.bookinfo.http import b3_headers, productpage_headers, reviews_headers
from bench.application.bookinfo.login import sign, verify
from bench.application.bookinfo.productpage import format_metrics
from bench.application.bookinfo.settings import Settings, read_settings

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
B3 = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


def settings(*arguments: str, **environment: str) -> Settings:
    return read_settings(arguments, environment)


@given(st.text())
def test_reads_signed_user_name(user: str) -> None:
    """The name that logs in is the name that later requests carry."""
    try:
        user.encode()
    except UnicodeEncodeError:  # lone surrogates, which no form can send
        return
    assert verify(sign(user)) == user


@given(st.text(max_size=80))
def test_ignores_unsigned_cookie(cookie: str) -> None:
    """A cookie without a valid signature never logs a user in and never breaks a page."""
    assert verify(cookie) == ""


def test_refuses_signature_of_another_name() -> None:
    """Another name with a valid signature is refused, and so is a missing cookie."""
    assert verify(sign("Eve").split(".")[0] + "." + sign("Marco").split(".")[1]) == ""
    assert verify(None) == ""


@pytest.mark.parametrize(
    ("incoming", "outgoing"),
    [
        ({}, {}),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-parentspanid": SPAN, "x-b3-sampled": "1"}, B3),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}, B3 | {"x-b3-sampled": "0"}),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"}, B3),
        (
            {"x-b3-traceid": TRACE[16:], "x-b3-spanid": SPAN},
            B3 | {"x-b3-traceid": "0" * 16 + TRACE[16:], "x-b3-sampled": "0"},
        ),
        ({"b3": f"{TRACE}-{SPAN}-1"}, B3),
        ({"b3": f"{TRACE}-{SPAN}-d-{SPAN}"}, B3),
        ({"b3": "nonsense", **B3}, {}),
        ({"x-b3-traceid": TRACE}, {}),
    ],
)
def test_productpage_rewrites_b3(incoming: dict[str, str], outgoing: dict[str, str]) -> None:
    """productpage passes B3 headers on like the original's tracing library, which drops malformed ones."""
    assert b3_headers(incoming) == outgoing


def test_productpage_sets_end_user_from_login_only() -> None:
    """A client cannot become another user by sending the header."""
    incoming = {"end-user": "Eve", "cookie": "session=x", "x-request-id": "7", "x-other": "no"}
    assert productpage_headers(incoming, "") == {"cookie": "session=x", "x-request-id": "7"}
    assert productpage_headers(incoming, "Marco")["end-user"] == "Marco"


def test_reviews_forwards_headers_unchanged() -> None:
    """Behind productpage, B3 with its parent and end-user are forwarded unchanged."""
    incoming = {"end-user": "Marco", "x-b3-parentspanid": "p", "x-b3-flags": "f", "jwt": "j", "accept": "no"}
    assert reviews_headers(incoming) == {key: incoming[key] for key in incoming if key != "accept"}


def test_peers_have_original_names_by_default() -> None:
    """Without environment and options every call goes to the bare service name on 9080."""
    peers = settings("productpage").peers
    assert {peer.authority for peer in peers.values()} == {"details:9080", "reviews:9080", "ratings:9080"}
    assert all(peer.address == peer.authority for peer in peers.values())


def test_original_variables_set_peer_names() -> None:
    """SERVICES_DOMAIN, *_HOSTNAME and *_SERVICE_PORT have the same meaning as in the original."""
    found = settings("productpage", SERVICES_DOMAIN="ns.svc", REVIEWS_HOSTNAME="reviews-v3", REVIEWS_SERVICE_PORT="80")
    assert found.peers["reviews"].authority == "reviews-v3.ns.svc:80"
    assert found.peers["details"].authority == "details.ns.svc:9080"


def test_connect_to_keeps_the_host_header() -> None:
    """The option changes the address only, like curl's option of that name."""
    peer = settings("reviews", "--connect-to", "ratings:9080=127.0.0.1:4711").peers["ratings"]
    assert (peer.authority, peer.address) == ("ratings:9080", "127.0.0.1:4711")


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--version", "v1"], {}, (False, "black")),
        (["--version", "v2"], {}, (True, "black")),
        (["--version", "v3"], {}, (True, "red")),
        ([], {"SERVICE_VERSION": "v3"}, (True, "red")),
        ([], {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}, (True, "red")),
        ([], {}, (False, "black")),
    ],
)
def test_reviews_versions(arguments: list[str], environment: dict[str, str], expected: tuple[bool, str]) -> None:
    """A version, or the original image's variables for it, decides calls and colour."""
    found = read_settings(["reviews", *arguments], environment)
    assert (found.ratings_enabled, found.star_colour) == expected


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["details", "--version", "v9"], {}, "details has no version 'v9'; it has v1"),
        (["reviews", "--connect-to", "nonsense"], {}, "'nonsense' is not HOST:PORT=ADDRESS:PORT"),
        (
            ["reviews", "--connect-to", "rating:9080=127.0.0.1:1"],
            {},
            "no call goes to rating:9080; calls go to",
        ),
        (["productpage"], {"FLOOD_FACTOR": "many"}, "FLOOD_FACTOR is 'many'"),
        (["frontpage"], {}, "invalid choice: 'frontpage'"),
        ([], {"SERVICE_NAME": "frontpage"}, "invalid choice: 'frontpage'"),
        ([], {}, "SERVICE is not given, and SERVICE_NAME is not set"),
    ],
)
def test_refuses_invalid_settings(
    arguments: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invalid option or variable ends the process with exit code 2 and one sentence that names it."""
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, environment)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_counts_results_in_prometheus_text() -> None:
    """A scraper reads one line per back end and status."""
    lines = format_metrics(Counter({("details", 200): 3, ("reviews", 503): 1})).splitlines()
    assert 'request_result_total{destination_app="details",response_code="200"} 3' in lines
    assert 'request_result_total{destination_app="reviews",response_code="503"} 1' in lines
