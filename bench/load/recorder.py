"""Records every request of a Locust run, exactly. Loaded by Locust itself, beside any locustfile:

    locust -f locustfiles/bookinfo.py,bench/load/recorder.py --record-to FOLDER

It needs nothing but Locust and the standard library, and the locustfile needs to know nothing of it: a user's
`wait_time` and `context` are wrapped to learn when a request should have started and when it did.

Files in FOLDER:
    samples.bin      one row of `ROW` per request, in the order of completion
    names.txt        the requests' names, one per line: a row's last field counts into it
    started.json     the clock's zero: monotonic and wall
    generator.json   at the end: what Locust itself counted
"""

import json
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

# intended_ns, started_ns, latency_ns, status, ok, bytes, name; `bench.samples.RAW_ROW` reads it.
ROW = struct.Struct("<qqqhBiH")

FLUSH_S = 0.5
_FIRST_ARRIVAL_NS = 500_000_000  # leaves the users time to be there before the first arrival is due


class Recorder:
    """Writes one row per request event; buffered, flushed every `FLUSH_S` seconds and at the end."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.rows = (folder / "samples.bin").open("wb", buffering=1 << 16)
        self.names: dict[str, int] = {}
        self.recorded = 0
        self.problem = ""
        self.zero_ns = time.perf_counter_ns()

    def start(self, **_: Any) -> None:
        """The clock's zero is the start of the test, before the first user."""
        self.zero_ns = time.perf_counter_ns()
        self._write("started.json", {"zero_ns": self.zero_ns, "wall_s": time.time()})
        gevent.spawn(self._flush_regularly)

    def request(
        self,
        name: str,
        response_time: float,
        response_length: int,
        response: Any,
        exception: BaseException | None,
        context: dict[str, Any],
        **_: Any,
    ) -> None:
        """Locust's request event."""
        started_ns = context["started_ns"] - self.zero_ns
        self.rows.write(
            ROW.pack(
                context["intended_ns"] - self.zero_ns,
                started_ns,
                round(response_time * 1e6),
                getattr(response, "status_code", 0) or 0,
                exception is None,
                response_length or 0,
                self.names[name] if name in self.names else self._add_name(name),
            )
        )
        self.recorded += 1

    def finish(self, **_: Any) -> None:
        """The last rows, and Locust's own account."""
        self.flush()
        total = self.environment.stats.total
        self._write(
            "generator.json",
            {
                "locust_requests": total.num_requests,
                "locust_failures": total.num_failures,
                "locust_p95_ms": total.get_response_time_percentile(0.95) if total.num_requests else None,
                "recorded": self.recorded,
                "problem": self.problem,
            },
        )

    def _add_name(self, name: str) -> int:
        self.names[name] = len(self.names)
        with (self.folder / "names.txt").open("a", encoding="utf-8") as file:
            file.write(" ".join(name.splitlines()) + "\n")
        return self.names[name]

    def _flush_regularly(self) -> None:
        while not self.problem:
            gevent.sleep(FLUSH_S)
            self.flush()

    def flush(self, **_: Any) -> None:
        """A full disk ends the load at once: requests that cannot be recorded must not be sent."""
        try:
            self.rows.flush()
        except OSError as error:
            self.problem = self.problem or f"samples cannot be written: {error.strerror}"
            if self.environment.runner is not None:
                self.environment.process_exit_code = 1
                self.environment.runner.quit()

    def _write(self, name: str, content: dict[str, Any]) -> None:
        try:
            (self.folder / name).write_text(json.dumps(content), "utf-8")
        except OSError as error:
            self.problem = f"{name} cannot be written: {error.strerror}"


def pace(user_class: Any, arrivals: Iterator[int] | None) -> None:
    """Wraps a user class so that every request's context says when it was due and when it started.

    Closed loop: due when the user's wait was over. Open loop (`arrivals` in nanoseconds): the user waits for the
    next arrival that no other user has taken; when all users are busy it is taken late, and the delay counts.
    """
    wait_time, context = user_class.wait_time, user_class.context

    def timed_wait(self: Any) -> float:
        now = time.perf_counter_ns()
        due = next(arrivals) if arrivals is not None else now + round(wait_time(self) * 1e9)
        self.intended_ns = due
        return max(0.0, (due - now) / 1e9)

    def timed_context(self: Any) -> dict[str, Any]:
        now = time.perf_counter_ns()
        intended = self.__dict__.pop("intended_ns", now)
        return {**context(self), "started_ns": now, "intended_ns": intended}

    user_class.wait_time = timed_wait
    user_class.context = timed_context
    if arrivals is not None:
        user_class.on_start = _start_with_arrival(user_class.on_start)


def poisson_arrivals(rate_per_s: float, seed: int, clock: Callable[[], int] = time.perf_counter_ns) -> Iterator[int]:
    """Due times of an open loop with exponential gaps; the first `next` fixes the schedule's beginning."""
    draw = random.Random(seed)  # noqa: S311  # a schedule, no secret
    due = clock() + _FIRST_ARRIVAL_NS
    while True:
        yield due
        due += round(draw.expovariate(rate_per_s) * 1e9)


def _start_with_arrival(on_start: Callable[[Any], None]) -> Callable[[Any], None]:
    def start(self: Any) -> None:
        on_start(self)
        gevent.sleep(self.wait_time())

    return start


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("meshbench recorder")
    group.add_argument("--record-to", default="", help="Folder for the exact samples (default: none are kept)")
    group.add_argument("--arrival-rate", type=float, default=0, help="Open loop: arrivals per second (default: closed)")
    group.add_argument("--seed", type=int, default=0, help="Seed of the first waits and of the arrivals")


@events.init.add_listener
def _attach(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if not options.record_to:
        return
    random.seed(options.seed)
    recorder = Recorder(environment, Path(options.record_to))
    arrivals = poisson_arrivals(options.arrival_rate, options.seed) if options.arrival_rate else None
    for user_class in environment.user_classes:
        pace(user_class, arrivals)
    environment.events.test_start.add_listener(recorder.start)
    environment.events.request.add_listener(recorder.request)
    # `quitting` comes before the requests in flight have ended, `quit` after it
    environment.events.quitting.add_listener(recorder.flush)
    environment.events.quit.add_listener(recorder.finish)
