"""What the recorder does inside Locust, told as JSON: Locust patches the process that imports it, so tests ask a
process of its own.

    python -m tests.recording FACT FOLDER
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import gevent
from locust import User, constant, events, task
from locust.env import Environment

from bench.load import pacing, recorder

STEP_NS = 1_000_000_000


def packed_rows(folder: Path) -> None:
    """Three rows, out of order, and a torn one."""
    rows = [recorder.ROW.pack(10 * n, 11 * n, 1_000_000 * n, 200 + n, n != 2, 15_000 + n, n % 2) for n in (3, 1, 2)]
    (folder / "samples.bin").write_bytes(b"".join(rows) + rows[0][:20])


def closed_loop(_: Path) -> dict[str, Any]:
    """A paced user's wait, and the contexts of the request after it and of a second one in the same task."""
    user = _user(None)
    wait_s = user.wait_time()
    return {"wait_s": wait_s, "first": user.context(), "second": user.context()}


def open_loop(_: Path) -> dict[str, Any]:
    """Waits and dues of a user for whom one arrival is to come and the next was due a second ago."""
    now = time.perf_counter_ns()
    user = _user(iter([now + STEP_NS, now - STEP_NS]))
    taken = [(user.wait_time(), user.context()) for _ in range(2)]
    return {"waits_s": [wait for wait, _ in taken], "dues_s": [(c["intended_ns"] - now) / 1e9 for _, c in taken]}


def arrivals(_: Path) -> dict[str, Any]:
    """The first arrival after the clock's reading, and the gaps that follow, of two equal seeds and another."""
    first, again, other = (
        list(islice(pacing.poisson_arrivals(50.0, seed, clock=lambda: STEP_NS), 20_001)) for seed in (1, 1, 2)
    )
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(first)]
    return {"first_s": (first[0] - STEP_NS) / 1e9, "gaps_s": gaps, "same": first == again, "other": first != other}


def load(folder: Path) -> dict[str, Any]:
    """A second of load from three users, every third request a failure; what Locust itself counted."""
    environment = _recorded(folder)
    _run(environment, seconds=1.0)
    return {"requests": environment.stats.total.num_requests, "failures": environment.stats.total.num_failures}


def two_starts(folder: Path) -> dict[str, Any]:
    """The zero after a first start of the test and after another, as Locust's page can make them."""
    made = recorder.Recorder(folder, part="", give_up=lambda _: None)
    zeros = []
    for _ in range(2):
        made.start()
        zeros.append(made.zero_ns)
    return {"zeros": zeros, "stored": json.loads((folder / "started.json").read_text("utf-8"))["zero_ns"]}


def full_disk(folder: Path) -> dict[str, Any]:
    """The same for much longer, with nowhere to write the rows."""
    (folder / "samples.bin").symlink_to("/dev/full")
    environment = _recorded(folder)
    began = time.monotonic()
    _run(environment, seconds=30.0)
    return {"exit_code": environment.process_exit_code, "seconds": time.monotonic() - began}


class Asking(User):
    """Sends nothing: it only tells Locust of requests, as a client would."""

    wait_time = constant(0.02)
    asked = 0

    def context(self) -> dict[str, Any]:
        return {"own": "kept"}

    @task
    def ask(self) -> None:
        """A request of 1 ms."""
        began = self.context()
        gevent.sleep(0.001)
        Asking.asked += 1
        failure = ValueError("not the page") if Asking.asked % 3 == 0 else None
        self.environment.events.request.fire(
            request_type="GET",
            name=f"page {Asking.asked % 2}\n",
            response_time=1.25,
            response_length=100,
            response=None,
            exception=failure,
            context=began,
        )


def _user(due: Any) -> Any:
    paced = type("Paced", (Asking,), {})
    pacing.pace(paced, due)
    return paced(Environment(events=events, user_classes=[paced]))


def _recorded(folder: Path) -> Environment:
    """Locust with the recorder attached, as its own command line would have it."""
    environment = Environment(events=events, user_classes=[Asking])
    environment.create_local_runner()
    options = {"record_to": str(folder), "arrival_rate": 0.0, "seed": 1}
    environment.parsed_options = type("Options", (), options)()
    events.init.fire(environment=environment)  # type: ignore[no-untyped-call]  # Locust's own
    return environment


def _run(environment: Environment, *, seconds: float) -> None:
    runner = environment.runner
    assert runner is not None
    runner.start(3, spawn_rate=3)
    with gevent.Timeout(seconds, False):
        runner.greenlet.join()
    runner.quit()
    events.quit.fire(exit_code=0)  # type: ignore[no-untyped-call]  # Locust's own


FACTS: dict[str, Callable[[Path], Any]] = {
    fact.__name__: fact for fact in (packed_rows, closed_loop, open_loop, arrivals, load, two_starts, full_disk)
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(FACTS[sys.argv[1]](Path(sys.argv[2]))))
