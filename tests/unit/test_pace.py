"""How users spent a window: the overlap of their waits and tasks with it."""

import numpy as np
import pytest

from bench.analysis.pace import is_think_time, measure_pace
from bench.results.records import PaceRecord, Window
from bench.results.samples import TASK_ROW

S = 1_000_000_000


def tasks_of(*rows: tuple[float, float, float, float]) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """Rows of these times in seconds."""
    return np.array([tuple(round(at * S) for at in row) for row in rows], TASK_ROW)


def test_waits_and_tasks_count_inside_the_windows() -> None:
    """Only the parts of waits and tasks inside the windows count, and a task where it was due."""
    tasks = tasks_of((0.0, 1.0, 3.0, 3.0), (3.0, 3.5, 4.5, 4.49), (4.5, 7.0, 9.0, -1.0))
    one = measure_pace(tasks, [Window(start_ns=2 * S, end_ns=4 * S)])
    assert one is not None
    assert (one.tasks, one.waiting_s, one.working_s, one.late_p95_ms) == (1, 1.5, 0.5, 0.0)
    two = measure_pace(tasks, [Window(start_ns=2 * S, end_ns=4 * S), Window(start_ns=4 * S, end_ns=8 * S)])
    assert two is not None
    assert (two.tasks, two.waiting_s, two.working_s) == (2, 3.0, 3.0)
    assert two.late_p95_ms == pytest.approx(10)
    assert two.mean_wait_s == 1.5


@pytest.mark.parametrize(("mean_ms", "same"), [(100, True), (119, True), (130, False), (40, False)])
def test_waits_are_compared_with_the_think_time(mean_ms: float, same: bool) -> None:
    """A busy client waits somewhat longer; a file with other waits is recognised."""
    pace = PaceRecord(tasks=10, waiting_s=10 * mean_ms / 1e3, working_s=1.0, late_p95_ms=1.0)
    assert is_think_time(pace, 0.1) == same


def test_window_without_a_task_has_no_pace() -> None:
    """Users that do nothing in a window, or have no waits, have no pace there."""
    assert measure_pace(tasks_of(), [Window(start_ns=0, end_ns=S)]) is None
    assert measure_pace(tasks_of((0.0, 1.0, 3.0, 3.0)), [Window(start_ns=0, end_ns=S)]) is None
    assert measure_pace(tasks_of((0.0, 1.0, 3.0, 3.0)), []) is None
