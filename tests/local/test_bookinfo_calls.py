"""How Bookinfo's services call each other: order, connections, headers, timeouts, and how failures appear."""

import http.client
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from bench.application.bookinfo.pages import find_problem
from tests.bookinfo import Answer, address_of, back_end, connect, fetch, http_answer, running, start


def test_details_is_called_before_reviews() -> None:
    """reviews is called after details has responded; each call has its own connection, which the caller closes."""
    order: list[str] = []

    def details() -> bytes:
        time.sleep(0.1)  # reviews would respond first here if it were called at the same time
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


def test_trace_headers_and_login_reach_ratings() -> None:
    """Trace headers and the login reach ratings through both services; a client's own end-user header does not."""
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


def test_failing_backend_keeps_page_status_200() -> None:
    """details is called once and reviews twice; the page is 200 with error texts, the API passes the status on."""
    with (
        back_end(lambda: http_answer(503, {})) as details,
        back_end(lambda: http_answer(503, {})) as reviews,
        running("productpage", *connect(details.address, reviews.address)) as front,
    ):
        page = fetch(front, "/productpage")
        assert (len(details.connections), len(reviews.connections)) == (1, 2)
        assert (page.status, find_problem(page.body, {"reviews": "v1"})) == (
            200,
            "page says: Error fetching product details",
        )
        assert fetch(front, "/api/v1/products/0/reviews").status == 503
        metrics = fetch(front, "/metrics").body.decode()
    assert 'request_result_total{destination_app="reviews",response_code="503"} 2\n' in metrics


def test_missing_backends_shrink_page_and_fail_api() -> None:
    """With nothing listening the page is 200 and of the original's size; the API responds with 500 and the reason."""
    with running("productpage", *connect()) as front:
        page = fetch(front, "/productpage")
        data = fetch(front, "/api/v1/products/0/ratings")
    assert page.status == 200
    assert len(page.body) == pytest.approx(6_167, rel=0.1)
    assert b"Error fetching product details" in page.body
    assert b"Error fetching product reviews" in page.body
    assert (data.status, list(json.loads(data.body))) == (500, ["error"])


def test_callers_time_out_like_the_originals() -> None:
    """productpage waits 3 s for a silent backend and reviews v3 waits 2.5 s for ratings; then both continue."""

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
    assert (front_answer.status, reviews_answer.status) == (500, 200)
    assert front_s == pytest.approx(3.0, abs=0.4)
    assert reviews_s == pytest.approx(2.5, abs=0.4)
    assert reviews_answer.body.count(b"Ratings service is currently unavailable") == 2


@pytest.mark.measures
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_service_at_once(number: int) -> None:
    """A service exits with 0 within half a second after SIGTERM, even during a call."""
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
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert process.stderr
        assert process.stderr.read() == ""
