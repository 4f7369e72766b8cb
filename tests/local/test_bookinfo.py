"""Bookinfo's services as real processes on loopback: what a client and a back end see on the wire."""

import http.client
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.bookinfo.pages import page_problem

ROOT = Path(__file__).parents[2]
NOWHERE = "127.0.0.1:1"
VERSIONS = ("v1", "v2", "v3")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class BackEnd:
    """A listening socket in a back end's place: keeps every request's head, by connection."""

    answer: Callable[[], bytes | None]  # None: no answer, until the client gives up
    connections: list[list[str]] = field(default_factory=list)
    closed_by_client: threading.Event = field(default_factory=threading.Event)
    address: str = ""


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bench.bookinfo", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
    )


def address_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    match = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", process.stdout.readline())
    assert match, process.communicate(timeout=5)
    return match[1]


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[str]:
    with start(*arguments, **environment) as process:
        try:
            yield address_of(process)
        finally:
            process.terminate()
            process.wait(timeout=5)


def connect(details: str = NOWHERE, reviews: str = NOWHERE, ratings: str = NOWHERE) -> list[str]:
    peers = {"details": details, "reviews": reviews, "ratings": ratings}
    return [part for name, address in peers.items() for part in ("--connect-to", f"{name}:9080={address}")]


def fetch(
    address: str,
    path: str,
    method: str = "GET",
    body: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def http_answer(status: int, data: object) -> bytes:
    body = json.dumps(data).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def back_end(answer: Callable[[], bytes | None]) -> Iterator[BackEnd]:
    found = BackEnd(answer)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            requests: list[str] = []
            found.connections.append(requests)
            while head := b"".join(iter(self.rfile.readline, b"\r\n")) if self.rfile.peek(1) else b"":
                requests.append(head.decode().lower())
                if (reply := found.answer()) is not None:
                    self.wfile.write(reply)
            found.closed_by_client.set()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield found
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def bookinfo() -> Iterator[dict[str, str]]:
    """The addresses of all services; `v1`, `v2` and `v3` are front ends pinned to that version of reviews."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(running(name)) for name in ("details", "ratings")}
        for version in VERSIONS:
            ratings = connect(ratings=found["ratings"])
            found[f"reviews-{version}"] = stack.enter_context(
                running(
                    "reviews", "--version", version, *ratings, HOSTNAME=f"reviews-{version}-6c5b5b7d9f-abcde"
                )
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
def test_answers_weigh_what_the_originals_weigh(
    bookinfo: dict[str, str], version: str, path: str, size: int, kind: str
) -> None:
    """Every endpoint answers 200 with the original's content type and, within a tenth, its size."""
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
def test_mistakes_have_the_originals_status(
    bookinfo: dict[str, str], service: str, method: str, path: str, body: str | None, status: int
) -> None:
    """A script or proof that provokes an error meets the same status as with the original."""
    assert fetch(bookinfo[service], path, method, body).status == status


@pytest.mark.parametrize("version", VERSIONS)
def test_pages_are_whole_and_of_their_version(bookinfo: dict[str, str], version: str) -> None:
    """Each pinned version gives a page that the check accepts for it."""
    assert page_problem(fetch(bookinfo[version], "/productpage").body, version) is None


def test_data_has_the_originals_fields(bookinfo: dict[str, str]) -> None:
    """The JSON that a client reads has the same fields and types."""
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
    """POST answers with what is stored, and GET gives it back, for that product alone."""
    posted = fetch(bookinfo["ratings"], "/ratings/7", "POST", '{"Reviewer1": 1}')
    assert (posted.status, json.loads(posted.body)) == (200, {"id": 7, "ratings": {"Reviewer1": 1}})
    assert fetch(bookinfo["ratings"], "/ratings/7").body == posted.body
    assert b'"Reviewer1":5' in fetch(bookinfo["ratings"], "/ratings/8").body


def test_ratings_that_go_wrong_on_purpose() -> None:
    """v2 has no database, and v-faulty fails now and then, so that checks can be tried out on them."""
    with running("ratings", "--version", "v2") as address:
        assert fetch(address, "/ratings/0", "POST", "{}").status == 501
        assert fetch(address, "/ratings/0").status == 500
    with running("ratings", SERVICE_VERSION="v-faulty") as address:
        assert {fetch(address, "/ratings/0").status for _ in range(40)} == {200, 503}


def test_login_is_carried_by_a_cookie_that_every_replica_reads(bookinfo: dict[str, str]) -> None:
    """Login leads back to the Referer; any front end then knows the name, until logout clears the cookie."""
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


def test_clients_keep_their_connection(bookinfo: dict[str, str]) -> None:
    """Two pages come over one connection, and each says that it depends on the cookie."""
    with closing(http.client.HTTPConnection(bookinfo["v3"], timeout=10)) as connection:
        connection.connect()
        socket = connection.sock
        for _ in range(2):
            connection.request("GET", "/productpage")
            response = connection.getresponse()
            assert (response.read() != b"", response.headers["Vary"]) == (True, "Cookie")
        assert connection.sock is socket


def test_details_come_first_and_every_call_has_its_own_connection() -> None:
    """reviews is asked only after details has answered; each call is a connection that the caller closes."""
    order: list[str] = []

    def details() -> bytes:
        time.sleep(0.1)  # reviews would overtake here if it were asked at the same time
        order.append("details")
        return http_answer(200, {})

    def reviews() -> bytes:
        order.append("reviews")
        return http_answer(200, {"reviews": []})

    with (
        back_end(details) as first,
        back_end(reviews) as second,
        running("productpage", *connect(first.address, second.address)) as front,
    ):
        assert [fetch(front, "/productpage").status for _ in range(2)] == [200, 200]
        assert order == ["details", "reviews"] * 2
        for peer, name in ((first, "details"), (second, "reviews")):
            assert peer.closed_by_client.wait(5)
            assert [len(requests) for requests in peer.connections] == [1, 1]
            head = peer.connections[0][0]
            assert head.startswith(f"get /{name}/0 http/1.1")
            assert f"host: {name}:9080\r\n" in head
            assert "connection: keep-alive\r\n" in head


def test_headers_go_along_to_the_back_ends() -> None:
    """Trace headers and the login reach ratings through both services; a client's own end-user does not."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    trace = {
        "x-request-id": "id-7",
        "traceparent": "00-1-2-01",
        "sw8": "s",
        "User-Agent": "me",
        "end-user": "Eve",
    }
    with (
        back_end(lambda: http_answer(200, {"ratings": {"Reviewer1": 5, "Reviewer2": 4}})) as ratings,
        running("reviews", "--version", "v3", *connect(ratings=ratings.address)) as reviews,
        running("productpage", *connect(reviews=reviews)) as front,
    ):
        login = fetch(front, "/login", "POST", "username=Marco", form)
        cookie = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
        fetch(front, "/api/v1/products/0/reviews", headers=trace)
        fetch(front, "/api/v1/products/0/reviews", headers=trace | cookie)
        (anonymous, marco) = [head for requests in ratings.connections for head in requests]
    for head in (anonymous, marco):
        assert all(f"{name.lower()}: {trace[name]}\r\n" in head for name in trace if name != "end-user")
        assert "host: ratings:9080\r\n" in head
    assert "end-user" not in anonymous
    assert "end-user: marco\r\n" in marco
    assert len(ratings.connections) == 1  # reviews keeps its connection, unlike productpage


def test_a_failing_back_end_shows_in_the_api_and_not_in_the_pages_status() -> None:
    """details is asked once and reviews twice; the page is 200 with texts, the API passes the status on."""
    with (
        back_end(lambda: http_answer(503, {})) as details,
        back_end(lambda: http_answer(503, {})) as reviews,
        running("productpage", *connect(details.address, reviews.address)) as front,
    ):
        page = fetch(front, "/productpage")
        assert (len(details.connections), len(reviews.connections)) == (1, 2)
        assert (page.status, page_problem(page.body, "v1")) == (
            200,
            "page says: Error fetching product details",
        )
        assert fetch(front, "/api/v1/products/0/reviews").status == 503
        metrics = fetch(front, "/metrics").body.decode()
    assert 'request_result_total{destination_app="reviews",response_code="503"} 2\n' in metrics


def test_without_back_ends_the_page_is_small_and_the_api_an_error() -> None:
    """With nothing listening the page is 200 and of the original's size; the API says 500 and why."""
    with running("productpage", *connect()) as front:
        page = fetch(front, "/productpage")
        data = fetch(front, "/api/v1/products/0/ratings")
    assert (page.status, len(page.body)) == (200, pytest.approx(6_167, rel=0.1))
    assert b"Error fetching product details" in page.body
    assert b"Error fetching product reviews" in page.body
    assert (data.status, list(json.loads(data.body))) == (500, ["error"])


def test_callers_wait_as_long_as_the_originals() -> None:
    """productpage gives a silent back end 3 s, reviews v3 gives ratings 2.5 s, and then both go on."""

    def timed(address: str, path: str) -> tuple[Answer, float]:
        before = time.monotonic()
        return fetch(address, path), time.monotonic() - before

    with (
        back_end(lambda: None) as silent,
        running("reviews", "--version", "v3", *connect(ratings=silent.address)) as reviews,
        running("productpage", *connect(details=silent.address)) as front,
        ThreadPoolExecutor() as pool,
    ):
        by_front = pool.submit(timed, front, "/api/v1/products/0")
        by_reviews = pool.submit(timed, reviews, "/reviews/0")
        (front_answer, front_s), (reviews_answer, reviews_s) = by_front.result(), by_reviews.result()
    assert (front_answer.status, front_s) == (500, pytest.approx(3.0, abs=0.4))
    assert (reviews_answer.status, reviews_s) == (200, pytest.approx(2.5, abs=0.4))
    assert reviews_answer.body.count(b"Ratings service is currently unavailable") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service_at_once(number: int) -> None:
    """Told to end, a service is gone within half a second, even in the middle of a call, with code 0."""
    asked = threading.Event()

    def silent() -> None:
        asked.set()

    with (
        back_end(silent) as details,
        start("productpage", *connect(details=details.address)) as process,
        closing(http.client.HTTPConnection(address_of(process), timeout=10)) as client,
    ):
        client.request("GET", "/productpage")
        assert asked.wait(5)
        before = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - before < 0.5
        assert process.stderr
        assert process.stderr.read() == ""


def test_a_taken_port_is_one_clear_line(bookinfo: dict[str, str]) -> None:
    """A service that cannot listen says which, where and why, and ends with 1."""
    taken = bookinfo["details"].rpartition(":")[2]
    result = subprocess.run(
        [sys.executable, "-m", "bench.bookinfo", "details", "--port", taken],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"details: cannot listen on 127\.0\.0\.1:{taken}: .*in use.*\n", result.stderr)
