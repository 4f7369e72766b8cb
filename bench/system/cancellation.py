"""Waiting, and being told to stop: every wait of a run goes through here.

Signal handlers only take a note (work inside a handler can deadlock a cleanup); the note becomes an exception in
the main flow, at the next wait.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from bench.errors import Interrupted, RunTimeoutError

T = TypeVar("T")

POLL_S = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watch:
    """What can end a run from outside: signals (counted) and the run's own time limit."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.noted_s: float | None = None  # when the first one came
        self.deadline: float | None = None

    def check(self) -> None:
        """Raises Interrupted or RunTimeoutError if the run has to end."""
        if self.signals:
            raise Interrupted(self.signals[0])
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise RunTimeoutError("the run took longer than --timeout; what was measured until then is kept")

    @property
    def impatient(self) -> bool:
        """A second signal: end at once, without waiting for anything."""
        return len(self.signals) > 1

    @property
    def hasty(self) -> bool:
        """A CI system's signal, after which it leaves some ten seconds; a keyboard leaves time."""
        return bool(self.signals) and self.signals[0] != signal.SIGINT

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.signals.append(number)
        self.noted_s = self.noted_s or time.monotonic()


class Patience(Watch):
    """For what has to be done after a signal, too, as cleaning up: only a second one ends it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.signals = watch.signals

    def check(self) -> None:
        """Raises Interrupted at the second signal."""
        if self.impatient:
            raise Interrupted(self.signals[0])


@contextmanager
def watching(timeout_s: float | None = None) -> Iterator[Watch]:
    """Catches SIGINT, SIGTERM and SIGHUP for the time of a run, and starts its time limit."""
    watch = Watch()
    if timeout_s is not None:
        watch.deadline = time.monotonic() + timeout_s
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # under nohup, and it stays so
    caught = [number for number in _SIGNALS if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, watch.note) for number in caught}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until(check: Callable[[], T | None], *, timeout_s: float, watch: Watch, poll_s: float = POLL_S) -> T | None:
    """The first true answer of `check`, or None when `timeout_s` seconds have passed without one."""
    deadline = time.monotonic() + timeout_s
    while True:
        watch.check()
        answer = check()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            return None
        time.sleep(poll_s)
