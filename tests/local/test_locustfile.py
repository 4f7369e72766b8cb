"""The locustfile is a standard one: Locust users run it as any other, with and without Locust's web page."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from bench.envoy.addresses import free_ports
from tests.bookinfo import ROOT, Answer, connect, fetch, running

pytestmark = pytest.mark.measures

LOCUST = [sys.executable, "-m", "locust", "--locustfile", "locustfiles/bookinfo.py", "--loglevel", "WARNING"]


@pytest.fixture(scope="module")
def front() -> Iterator[str]:
    """The address of the front end of a complete Bookinfo."""
    with ExitStack() as stack:
        details, ratings = (stack.enter_context(running(name)) for name in ("details", "ratings"))
        reviews = stack.enter_context(running("reviews", "--version", "v3", *connect(ratings=ratings)))
        yield stack.enter_context(running("productpage", *connect(details, reviews, ratings)))


def headless(front: str, *options: str) -> dict[str, int]:
    """Locust's own statistics of the product page."""
    [(name, found)] = by_name(front, *options).items()
    assert name == "/productpage"
    return found


def by_name(front: str, *options: str) -> dict[str, dict[str, int]]:
    """Three seconds of load from three users; Locust's own statistics, by request name."""
    given = ["--headless", "--json", "--host", f"http://{front}", "--users", "3", "--spawn-rate", "3"]
    argv = [*LOCUST, *given, "--run-time", "3s", "--exit-code-on-error", "0", *options]
    child = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    return {
        found["name"]: {"requests": found["num_requests"], "failures": found["num_failures"]}
        for found in json.loads(child.stdout)
    }


@contextmanager
def web_page(folder: Path) -> Iterator[str]:
    """Locust with its web page on loopback; its address."""
    port = free_ports(["web"])["web"]
    argv = [*LOCUST, "--web-host", "127.0.0.1", "--web-port", str(port)]
    with (folder / "locust.log").open("w+") as log, subprocess.Popen(argv, cwd=ROOT, stderr=log) as locust:
        try:
            address = f"127.0.0.1:{port}"
            wait_until(lambda: locust.poll() is not None or answers(address))
            assert locust.poll() is None, (folder / "locust.log").read_text("utf-8")
            yield address
        finally:
            locust.terminate()


def answers(address: str) -> bool:
    try:
        return fetch(address, "/").status == 200
    except ConnectionRefusedError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def swarm(address: str, **settings: str) -> Answer:
    """Send what the page's start button sends."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    return fetch(address, "/swarm", "POST", urlencode(settings), form)


def test_locustfile_runs_under_plain_locust(front: str) -> None:
    """Without meshbench, the file loads the product page, and no request fails."""
    found = headless(front, "--think-time", "0.05", "--versions", '{"reviews": "v3"}')
    assert found["requests"] > 10
    assert found["failures"] == 0


def test_think_time_limits_requests(front: str) -> None:
    """Three users who think for a second after each response send at most four requests each in three seconds."""
    assert 3 <= headless(front, "--think-time", "1")["requests"] <= 12


def test_page_of_wrong_version_is_a_failure(front: str) -> None:
    """A page counts as valid only when the requested version of reviews made it, whatever its status."""
    found = headless(front, "--versions", '{"reviews": "v2"}')
    assert found["failures"] == found["requests"] > 0


def test_logged_in_users_are_checked_for_their_version(front: str) -> None:
    """Half of the users log in, once each, and are counted separately; each user group is checked for its version."""
    found = by_name(
        front, "--versions", '{"reviews": "v3"}', "--logged-in", '{"Marco": {"reviews": "v2"}}', "--think-time", "0.05"
    )
    assert found["login"] == {"requests": 1, "failures": 0}
    assert found["page as others"]["failures"] == 0
    assert found["page as others"]["requests"] > 10
    assert found["page as Marco"]["failures"] == found["page as Marco"]["requests"] > 5


def test_locustfile_works_on_locusts_web_page(front: str, tmp_path: Path) -> None:
    """The page offers the file's settings; its start button starts users, and requests are counted."""
    with web_page(tmp_path) as address:
        page = fetch(address, "/").body.decode()
        assert "think_time" in page
        assert "Reader" in page
        started = swarm(
            address, user_count="3", spawn_rate="3", host=f"http://{front}", think_time="0.05", reviews="v3"
        )
        assert started.status == 200, started.body
        wait_until(lambda: requests(address)["num_requests"] > 10)
        assert requests(address)["num_failures"] == 0
        fetch(address, "/stop")


def requests(address: str) -> dict[str, int]:
    """Locust's own totals."""
    stats = json.loads(fetch(address, "/stats/requests").body)["stats"]
    found: dict[str, int] = next(row for row in stats if row["name"] == "Aggregated")
    return found
