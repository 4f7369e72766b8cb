"""When a request should start: the end of a user's wait, or the next arrival of a schedule. Runs inside Locust."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent

_FIRST_ARRIVAL_NS = 500_000_000  # leaves the users time to be there before the first arrival is due


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
