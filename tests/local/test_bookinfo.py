"""Bookinfo's services as real processes on loopback: what a client receives."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from bench.application.bookinfo.pages import find_problem
from tests.bookinfo import ROOT, connect, fetch, running

VERSIONS = ("v1", "v2", "v3")


@pytest.fixture(scope="module")
def bookinfo() -> Iterator[dict[str, str]]:
    """The addresses of all services; `v1`, `v2` and `v3` are front ends pinned to that version of reviews."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(running(name)) for name in ("details", "ratings")}
        for version in VERSIONS:
            ratings = connect(ratings=found["ratings"])
            found[f"reviews-{version}"] = stack.enter_context(
                running("reviews", "--version", version, *ratings, HOSTNAME=f"reviews-{version}-6c5b5b7d9f-abcde")
            )
            peers = connect(found["details"], found[f"reviews-{version}"], found["ratings"])
            found[version] = stack.enter_context(running("productpage", *peers))
        yield found


@pytest.mark.parametrize(
    ("version", "path", "size", "kind"),
    [
        ("v1", "/productpage", 9_429, "text/html; charset=utf-8"),
        ("v2", "/productpage", 15_072, "text/html; charset=utf-8"),
        ("v3", "/productpage", 15_068, "text/html; charset=utf-8"),
        ("v3", "/", 2_092, "text/html; charset=utf-8"),
        ("v3", "/index.html", 2_092, "text/html; charset=utf-8"),
        ("v3", "/health", 23, "text/html; charset=utf-8"),
        ("v3", "/api/v1/products", 395, "application/json"),
        ("v3", "/api/v1/products/0", 195, "application/json"),
        ("v1", "/api/v1/products/0/reviews", 356, "application/json"),
        ("v2", "/api/v1/products/0/reviews", 440, "application/json"),
        ("v3", "/api/v1/products/0/reviews", 436, "application/json"),
        ("v3", "/api/v1/products/0/ratings", 54, "application/json"),
        ("details", "/details/0", 178, "application/json"),
        ("reviews-v1", "/reviews/0", 358, "application/json"),
        ("reviews-v2", "/reviews/0", 442, "application/json"),
        ("reviews-v3", "/reviews/0", 438, "application/json"),
        ("ratings", "/ratings/0", 48, "application/json"),
        ("details", "/health", 31, "application/json"),
        ("reviews-v3", "/health", 32, "application/json"),
        ("ratings", "/health", 31, "application/json"),
    ],
)
def test_responses_match_original_size_and_type(
    bookinfo: dict[str, str], version: str, path: str, size: int, kind: str
) -> None:
    """Every endpoint responds with 200, the original's content type and, within a tenth, its size."""
    answer = fetch(bookinfo[version], path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == kind
    assert len(answer.body) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize(
    ("service", "method", "path", "body", "status"),
    [
        ("details", "GET", "/details/abc", None, 400),
        ("details", "POST", "/details/0", None, 200),
        ("details", "GET", "/nothing", None, 404),
        ("reviews-v3", "GET", "/reviews/abc", None, 404),
        ("reviews-v3", "POST", "/reviews/0", "{}", 405),
        ("ratings", "GET", "/ratings/abc", None, 400),
        ("ratings", "POST", "/ratings/abc", "{}", 400),
        ("ratings", "POST", "/ratings/1", "no JSON", 400),
        ("v3", "GET", "/nothing", None, 404),
        ("v3", "GET", "/login", None, 405),
        ("v3", "GET", "/api/v1/products/abc", None, 400),
        ("v3", "GET", "/api/v1/products/abc/reviews", None, 404),
    ],
)
def test_errors_match_original_status(
    bookinfo: dict[str, str], service: str, method: str, path: str, body: str | None, status: int
) -> None:
    """A request that causes an error gets the same status as from the original."""
    assert fetch(bookinfo[service], path, method, body).status == status


@pytest.mark.parametrize("version", VERSIONS)
def test_pages_are_complete_and_of_their_version(bookinfo: dict[str, str], version: str) -> None:
    """Each front end pinned to a version responds with a page that the check accepts for that version."""
    assert find_problem(fetch(bookinfo[version], "/productpage").body, {"reviews": version}) is None


def test_json_matches_original_fields(bookinfo: dict[str, str]) -> None:
    """The JSON responses have the original's fields and types."""
    details, reviews = (
        json.loads(fetch(bookinfo["v3"], f"/api/v1/products/0{part}").body) for part in ("", "/reviews")
    )
    assert list(details) == [
        "id",
        "author",
        "year",
        "type",
        "pages",
        "publisher",
        "language",
        "ISBN-10",
        "ISBN-13",
    ]
    assert (reviews["id"], reviews["clustername"]) == ("0", "null")
    assert [one["rating"] for one in reviews["reviews"]] == [{"stars": n, "color": "red"} for n in (5, 4)]


def test_posted_ratings_are_kept_for_their_product(bookinfo: dict[str, str]) -> None:
    """POST responds with the stored ratings, and GET returns them for that product alone."""
    posted = fetch(bookinfo["ratings"], "/ratings/7", "POST", '{"Reviewer1": 1}')
    assert (posted.status, json.loads(posted.body)) == (200, {"id": 7, "ratings": {"Reviewer1": 1}})
    assert fetch(bookinfo["ratings"], "/ratings/7").body == posted.body
    assert b'"Reviewer1":5' in fetch(bookinfo["ratings"], "/ratings/8").body


def test_faulty_ratings_versions_fail() -> None:
    """v2 has no database and v-faulty fails at times, so that checks can be tried on them."""
    with running("ratings", "--version", "v2") as address:
        assert fetch(address, "/ratings/0", "POST", "{}").status == 501
        assert fetch(address, "/ratings/0").status == 500
    with running("ratings", SERVICE_VERSION="v-faulty") as address:
        assert {fetch(address, "/ratings/0").status for _ in range(40)} == {200, 503}


def test_login_cookie_works_on_every_replica(bookinfo: dict[str, str]) -> None:
    """A login redirects to the Referer; every front end then knows the user until logout clears the cookie."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Referer": "http://here/productpage"}
    login = fetch(bookinfo["v1"], "/login", "POST", "username=Marco&passwd=any", form)
    assert (login.status, login.headers["Location"]) == (302, "http://here/productpage")
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    assert cookie.startswith("session=")
    assert b"Marco" in fetch(bookinfo["v2"], "/productpage", headers={"Cookie": cookie}).body
    assert b"Marco" not in fetch(bookinfo["v2"], "/productpage", headers={"Cookie": "session=Marco"}).body
    logout = fetch(bookinfo["v1"], "/logout", headers={"Cookie": cookie})
    assert (logout.status, logout.headers["Location"]) == (302, "None")
    assert 'session=""' in logout.headers["Set-Cookie"]


def test_client_connection_is_reused(bookinfo: dict[str, str]) -> None:
    """Two pages arrive over one connection, and each declares in Vary that it depends on the cookie."""
    with closing(http.client.HTTPConnection(bookinfo["v3"], timeout=10)) as connection:
        connection.connect()
        socket = connection.sock
        for _ in range(2):
            connection.request("GET", "/productpage")
            response = connection.getresponse()
            assert (response.read() != b"", response.headers["Vary"]) == (True, "Cookie")
        assert connection.sock is socket


def test_port_in_use_exits_with_one_line(bookinfo: dict[str, str]) -> None:
    """A service that cannot listen prints its name, the address and the reason, and exits with 1."""
    taken = bookinfo["details"].rpartition(":")[2]
    result = subprocess.run(
        [sys.executable, "-m", "bench.application.bookinfo", "details", "--port", taken],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"details: cannot listen on 127\.0\.0\.1:{taken}: .*in use.*\n", result.stderr)
