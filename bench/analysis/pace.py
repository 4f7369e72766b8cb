"""Compute how users spent the windows: in waits and in tasks, as they happened."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.analysis.percentiles import percentile_ns
from bench.results.records import PaceRecord, Window
from bench.units import NANOSECONDS, NS_PER_MS

_SAME_WAIT: Final = 0.2  # of the think time: a busy client ends waits late
_SAME_WAIT_S: Final = 0.005


def measure_pace(tasks: npt.NDArray[Any], windows: Sequence[Window]) -> PaceRecord | None:
    """Return the users' time in waits and tasks in the windows, from rows of `TASK_ROW`; None without a task there.

    A task belongs to the window in which it was due. The lateness of a wait is that of its end: the client's own.
    """
    due_ns = tasks["due_ns"]
    late_ns = (tasks["began_ns"] - due_ns)[_is_inside(due_ns, windows)]
    if not len(late_ns):
        return None
    return PaceRecord(
        tasks=len(late_ns),
        waiting_s=_sum_inside(tasks["waited_ns"], tasks["began_ns"], windows),
        working_s=_sum_inside(tasks["previous_ns"], tasks["waited_ns"], windows),
        late_p95_ms=percentile_ns(late_ns, 0.95) / NS_PER_MS,
    )


def is_think_time(pace: PaceRecord, think_time_s: float) -> bool:
    """Return whether users waited about as long as the scenario's think time."""
    return abs(pace.mean_wait_s - think_time_s) <= _SAME_WAIT * think_time_s + _SAME_WAIT_S


def _is_inside(at_ns: npt.NDArray[np.int64], windows: Sequence[Window]) -> npt.NDArray[np.bool_]:
    inside = np.zeros(len(at_ns), np.bool_)
    for window in windows:
        inside |= (at_ns >= window.start_ns) & (at_ns < window.end_ns)
    return inside


def _sum_inside(begin_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64], windows: Sequence[Window]) -> float:
    """Return how many seconds of the intervals are in the windows."""
    parts = (np.clip(end_ns, w.start_ns, w.end_ns) - np.clip(begin_ns, w.start_ns, w.end_ns) for w in windows)
    return sum(int(part.sum()) for part in parts) / NANOSECONDS
