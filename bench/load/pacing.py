"""Schedule requests: at the end of a user's wait, or at the next arrival of an open loop. Runs inside Locust.

A gate makes users wait while other configurations are loaded: its clock stands still meanwhile, and so do waits and
arrivals, which go on afterwards where they were.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

_FIRST_ARRIVAL_NS = 500_000_000  # gives the users time to start before the first arrival is due
_TOLERANCE_NS = 1_000_000  # of a start that was converted from the wall clock
_GATE_POLL_S = 0.05
_STOPPING = "stopping"  # Locust's state of a user that ends after its task

NoteTask = Callable[[int, int, int, int | None], None]
"""Called when a wait ends: when the task before it began, when the wait began, when it ended, and when the next task
was due, in ns on the monotonic clock. The last is None where no task follows, since the user is ended."""


class Gate:
    """Makes users wait as long as `folder` has a file `hold`, as it does when the gate is made.

    Once all users wait, so that no request is in flight, the file `held{part}` gets the content of `hold`; it is
    removed when the users go on. A user that waits for its next request goes on after as much time as was left when the
    gate closed: users keep their distance from each other, and do not start in step.
    """

    def __init__(self, folder: Path, part: str, count_users: Callable[[], int | None]) -> None:
        """Make the gate, closed. `count_users` returns None until all users are started."""
        self._hold, self._answer = folder / "hold", folder / f"held{part}"
        self._count_users = count_users
        self._closed_ns: int | None = time.perf_counter_ns()
        self._stood_ns = 0
        self._opened = Event()
        self._waiting = 0
        self._answered = ""

    def now_ns(self) -> int:
        """Return the clock that stands still while the gate is closed: ns, behind the monotonic clock by that time."""
        return (time.perf_counter_ns() if self._closed_ns is None else self._closed_ns) - self._stood_ns

    def enter(self) -> None:
        """Wait until the gate is open; a user's first act."""
        self._waiting += 1
        try:
            self._opened.wait()
        finally:
            self._waiting -= 1

    def wait_until(self, due_ns: int) -> int:
        """Wait until this time of the gate's clock, and the gate is open; return that time on the monotonic clock."""
        self._waiting += 1
        try:
            gevent.sleep(max(0, due_ns - self.now_ns()) / 1e9)
            while not self._opened.is_set() or due_ns > self.now_ns():
                self._opened.wait()
                gevent.sleep(max(0, due_ns - self.now_ns()) / 1e9)
        finally:
            self._waiting -= 1
        return due_ns + self._stood_ns

    def watch(self) -> None:
        """Open and close the gate as the file comes and goes, forever."""
        while True:
            self._look()
            gevent.sleep(_GATE_POLL_S)

    def _look(self) -> None:
        try:
            hold = self._hold.read_text("utf-8")
        except FileNotFoundError:
            self._open()
        else:
            self._close(hold)

    def _open(self) -> None:
        if self._closed_ns is not None:
            self._stood_ns += time.perf_counter_ns() - self._closed_ns
            self._closed_ns, self._answered = None, ""
            self._answer.unlink(missing_ok=True)
            self._opened.set()

    def _close(self, hold: str) -> None:
        if self._closed_ns is None:
            self._closed_ns = time.perf_counter_ns()
            self._opened.clear()
        users = self._count_users()
        if hold != self._answered and users is not None and self._waiting >= users:
            draft = self._answer.with_name(f"{self._answer.name}.draft")
            draft.write_text(hold, "utf-8")
            draft.replace(self._answer)
            self._answered = hold


def begin_users(user: Any, *, gate: Gate | None = None) -> None:
    """Make every user pass the gate, if there is one, before it does anything, and count its `on_start` to its first
    task. `user` is Locust's User."""

    def run(self: Any) -> None:
        if gate is not None:
            gate.enter()
        gevent.getcurrent().meshbench_began_ns = time.perf_counter_ns()
        locusts_run(self)

    locusts_run = user.run
    user.run = run


def pace(
    arrivals: Iterator[int] | None,
    note: NoteTask,
    *,
    task_set: Any,
    first_task_set: Any,
    gate: Gate | None = None,
) -> None:
    """Record at each wait of a user when its next task is due; in an open loop, wait for the next arrival instead.

    Closed loop: due when the user's wait is over. Open loop (`arrivals` in ns on the monotonic clock): the user waits
    for the next arrival that no other user has taken; when all users are busy it is taken late, and the delay counts.
    The first arrival is waited for after the user's `on_start`. `note` gets the times of each task, see `NoteTask`.

    `task_set` and `first_task_set` are Locust's TaskSet and DefaultTaskSet. Every wait of every user goes through
    `TaskSet._sleep`, on any class or task set, and Locust itself ends users around it. It is replaced and not wrapped,
    so that nothing is done twice. In an open loop no `wait_time` is called: it may need state that only a task sets.
    With a gate, waits and arrivals are on its clock, and no user goes on while it is closed.
    """

    def sleep_at_gate(seconds: float) -> int:
        assert gate is not None  # noqa: S101  # else `sleep_freely` is used
        due = gate.now_ns() + round(seconds * 1_000_000_000) if arrivals is None else next(arrivals)
        return gate.wait_until(due)

    def sleep_freely(seconds: float) -> int:
        now = time.perf_counter_ns()
        due = now + round(seconds * 1_000_000_000) if arrivals is None else next(arrivals)
        gevent.sleep(max(0.0, (due - now) / 1e9))
        return due

    def sleep(_: Any, seconds: float) -> None:
        waited = time.perf_counter_ns()
        due = None
        try:
            due = sleep_until_due(max(0.0, seconds))
        finally:  # a user that is ended in its wait has waited all the same
            end_wait(waited, due)

    def end_wait(waited: int, due: int | None) -> None:
        user, now = gevent.getcurrent(), time.perf_counter_ns()
        note(getattr(user, "meshbench_began_ns", waited), waited, now, due)
        user.meshbench_began_ns, user.meshbench_due_ns = now, due

    def wait(self: Any) -> None:
        """Call Locust's own method, in an open loop with an instance attribute that hides every `wait_time` of a class.
        Where it ends the user instead, the user's last task is noted here."""
        if arrivals is not None:
            self.wait_time = lambda: 0.0
        if self.user._state == _STOPPING:  # noqa: SLF001  # as Locust's method decides it
            end_wait(time.perf_counter_ns(), None)
        locusts_wait(self)

    def first_wait(self: Any) -> None:
        self.wait()

    sleep_until_due = sleep_freely if gate is None else sleep_at_gate
    locusts_wait = task_set.wait
    # its `wait` around it stays Locust's
    task_set._sleep = sleep  # noqa: SLF001
    task_set.wait = wait
    if arrivals is not None:
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
