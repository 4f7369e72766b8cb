"""Convert the times of requests to the load's clock: pairs of both clocks, starts, latencies. Runs inside Locust.

Locust's request event has the start of the request on the wall clock (`start_time`, in seconds) and its duration
(`response_time`, in ms); samples are stored on the monotonic clock. A start is converted by a pair of both clocks that
is read when the event arrives, so that no earlier state of the wall clock can shift it. On Linux both clocks are slewed
together, and only setting the wall clock (or a machine that slept) moves one against the other.
"""

import time
from collections.abc import Callable
from typing import Any

_NARROW_NS = 20_000  # a pair that took longer to read was interrupted between its clocks
_READINGS = 5
_STEP_NS = 1_000_000
_SLEWED = 0.001  # 1000 ppm: twice what a kernel slews, where it slews the wall clock alone
_REFERENCE_NS = 500_000_000  # how long a pair is what later ones are compared with
_MOST_NS = 24 * 3600 * 1_000_000_000  # longer than any load: more is a time in another unit
_TOLERANCE_NS = 1_000_000  # clients may round times to whole milliseconds


def wall_ns() -> int:
    """Return the wall clock's time in ns, from the same call that Locust takes `start_time` from."""
    return int(time.time() * 1e9)


class Clocks:
    """The monotonic and the wall clock, read as one. `step_ns` is the largest step of one against the other so far."""

    def __init__(self, monotonic: Callable[[], int] = time.perf_counter_ns, wall: Callable[[], int] = wall_ns) -> None:
        self.step_ns = 0
        self._monotonic = monotonic
        self._wall = wall
        self.restart()

    def restart(self) -> None:
        """Read the clocks again: earlier steps do not count."""
        self._at_ns, self._ahead_ns, _ = self._narrow_pair()

    def read(self) -> tuple[int, int]:
        """Return the monotonic time, and by how much the wall clock is ahead of it, both in ns."""
        before = self._monotonic()
        wall = self._wall()
        now = self._monotonic()
        if (width := now - before) > _NARROW_NS:
            now, ahead, width = self._narrow_pair()
        else:
            ahead = wall - (before + now) // 2
        if not -_STEP_NS < ahead - self._ahead_ns < _STEP_NS or now - self._at_ns > _REFERENCE_NS:
            self._compare(now, ahead, width)
        return now, ahead

    def _narrow_pair(self) -> tuple[int, int, int]:
        """Return monotonic time, lead of the wall clock and duration of the reading (ns): the fastest of several."""
        best = self._pair()
        for _ in range(_READINGS):
            if best[2] <= _NARROW_NS:
                break
            best = min(best, self._pair(), key=lambda pair: pair[2])
        return best

    def _pair(self) -> tuple[int, int, int]:
        before, wall, after = self._monotonic(), self._wall(), self._monotonic()
        return after, wall - (before + after) // 2, after - before

    def _compare(self, now: int, ahead: int, width: int) -> None:
        """Record a step: a move against the reference pair that neither slewing nor reading the pair explains."""
        moved, elapsed = abs(ahead - self._ahead_ns), now - self._at_ns
        stepped = moved > _STEP_NS + _SLEWED * elapsed + width
        if stepped:
            self.step_ns = max(self.step_ns, moved)
        if stepped or elapsed > _REFERENCE_NS:
            self._at_ns, self._ahead_ns = now, ahead


def convert_latency(response_time: Any) -> int:
    """Return Locust's `response_time` (ms) in ns, nothing added. Raises ValueError where it is not a time."""
    try:
        latency_ns: int = round(response_time * 1e6)
    except (TypeError, ValueError, OverflowError):
        latency_ns = -1
    if not 0 <= latency_ns <= _MOST_NS:
        raise ValueError(f"its response_time {response_time!r} is not a time in ms")
    return latency_ns


def convert_start(start_time: Any, *, latency_ns: int, now_ns: int, ahead_ns: int, zero_ns: int) -> int | None:
    """Return when a request started, in ns on the monotonic clock, from the event's `start_time` (wall clock, seconds).

    None where the event has no start, or one that cannot be: so late that the request would end after its event, or so
    early that it would have ended before the load's start (`zero_ns`), as values of another clock or unit are.
    """
    try:
        started_ns = int(start_time * 1e9) - ahead_ns
    except (TypeError, ValueError, OverflowError):
        return None
    earliest_ns, latest_ns = zero_ns - latency_ns - _TOLERANCE_NS, now_ns - latency_ns + _TOLERANCE_NS
    return started_ns if earliest_ns <= started_ns <= latest_ns else None
