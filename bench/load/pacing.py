"""Schedule requests: at the end of a user's wait, or at the next arrival of an open loop. Runs inside Locust."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent

_FIRST_ARRIVAL_NS = 500_000_000  # gives the users time to start before the first arrival is due
_TOLERANCE_NS = 1_000_000  # of a start that was converted from the wall clock


def pace(arrivals: Iterator[int] | None, *, task_set: Any, first_task_set: Any) -> None:
    """Record at each wait of a user when its next request is due; in an open loop, wait for the next arrival instead.

    Closed loop: due when the user's wait is over. Open loop (`arrivals` in ns on the monotonic clock): the user waits
    for the next arrival that no other user has taken; when all users are busy it is taken late, and the delay counts.
    The first arrival is waited for after the user's `on_start`.

    `task_set` and `first_task_set` are Locust's TaskSet and DefaultTaskSet. Every wait of every user goes through
    `TaskSet._sleep`, on any class or task set, and Locust itself ends users around it. It is replaced and not wrapped,
    so that nothing is done twice. In an open loop no `wait_time` is called: it may need state that only a task sets.
    """

    def sleep(_: Any, seconds: float) -> None:
        now = time.perf_counter_ns()
        due = now + round(seconds * 1_000_000_000) if arrivals is None else next(arrivals)
        gevent.sleep(max(0.0, (due - now) / 1e9))
        gevent.getcurrent().meshbench_due_ns = due

    def first_wait(self: Any) -> None:
        self.wait()

    def wait(self: Any) -> None:
        """Call Locust's own method, with an instance attribute that hides every `wait_time` of a class."""
        self.wait_time = lambda: 0.0
        locusts_wait(self)

    locusts_wait = task_set.wait
    task_set._sleep = sleep  # noqa: SLF001  # its `wait` around it stays Locust's
    if arrivals is not None:
        task_set.wait = wait
        first_task_set.on_start = first_wait


def take_due(started_ns: int) -> int:
    """Return when the request that started then was due (both in ns on the monotonic clock).

    The first request since the user's wait, in its greenlet or one that it spawned, was due at the wait's end, each
    other when it started: further requests of a task, and those of `on_start` and `on_stop`. In an open loop the
    latency of such requests excludes the user's delay at its arrival.
    """
    waited = _find_waiting(gevent.getcurrent())
    due: int | None = getattr(waited, "meshbench_due_ns", None)
    if due is None or started_ns < due - _TOLERANCE_NS:
        return started_ns
    waited.meshbench_due_ns = None
    return min(due, started_ns)  # the wait was over before it started: a smaller value is a conversion error


def _find_waiting(greenlet: Any) -> Any:
    """Find the greenlet whose wait a request follows: its own, or the one that it was spawned from; None without."""
    while greenlet is not None and getattr(greenlet, "meshbench_due_ns", None) is None:
        spawned_from = getattr(greenlet, "spawning_greenlet", None)
        greenlet = spawned_from() if spawned_from else None
    return greenlet


def poisson_arrivals(rate_per_s: float, seed: int, clock: Callable[[], int] = time.perf_counter_ns) -> Iterator[int]:
    """Due times of an open loop with exponential gaps; the first `next` fixes the schedule's beginning."""
    draw = random.Random(seed)  # noqa: S311  # a schedule, no secret
    due = clock() + _FIRST_ARRIVAL_NS
    while True:
        yield due
        due += round(draw.expovariate(rate_per_s) * 1e9)
