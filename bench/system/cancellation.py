"""Wait, and end at a signal or time limit: every wait of a run uses this module.

Signal handlers only note the signal, since work inside a handler can deadlock a cleanup. The note becomes an exception
in the main flow, at the next wait.
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


class CancelToken:
    """Carries signals and the run's time limit to whatever waits."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.noted_s: float | None = None  # when the first one came
        self.deadline: float | None = None

    def check(self) -> None:
        """Raise Interrupted or RunTimeoutError if the run has to end."""
        if self.signals:
            raise Interrupted(self.signals[0])
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise RunTimeoutError("the run took longer than --timeout; complete trials are kept")

    @property
    def is_forced(self) -> bool:
        """Whether a second signal came: end at once, without waiting."""
        return len(self.signals) > 1

    @property
    def has_short_deadline(self) -> bool:
        """Whether a CI system sent the signal, which allows about ten seconds before SIGKILL; Ctrl-C has no limit."""
        return bool(self.signals) and self.signals[0] != signal.SIGINT

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal; this is the signal handler."""
        self.signals.append(number)
        self.noted_s = self.noted_s or time.monotonic()


class Shield(CancelToken):
    """Protects work that a first signal must not interrupt, such as a removal; a second signal ends it."""

    def __init__(self, watch: CancelToken) -> None:
        super().__init__()
        self.signals = watch.signals

    def check(self) -> None:
        """Raise Interrupted at the second signal."""
        if self.is_forced:
            raise Interrupted(self.signals[0])


@contextmanager
def catch_signals(timeout_s: float | None = None) -> Iterator[CancelToken]:
    """Catch SIGINT, SIGTERM and SIGHUP during a run, and start its time limit."""
    watch = CancelToken()
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


def wait_until(
    check: Callable[[], T | None], *, timeout_s: float, watch: CancelToken, poll_s: float = POLL_S
) -> T | None:
    """Return the first true result of `check`, or None after `timeout_s` seconds without one."""
    deadline = time.monotonic() + timeout_s
    while True:
        watch.check()
        result = check()
        if result:
            return result
        if time.monotonic() >= deadline:
            return None
        time.sleep(poll_s)
