"""Noise on this machine: a busy process that is not the run's is seen, one of the run is not."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.results.noise import NoiseRecorder
from bench.system.cancellation import CancelToken, wait_until
from bench.system.machine import Machine
from bench.system.processes import Process
from tests.benchmarks.noise import disturb

pytestmark = pytest.mark.skipif(Machine().cpu_times() is None, reason="needs /proc/stat")

S = 1_000_000_000


def _count_seconds(recorder: NoiseRecorder, pid: int) -> tuple[float, float]:
    """Record until a process has used a second of CPU time; return what the run and all others used meanwhile."""

    def has_used_a_second() -> bool:
        recorder.tick()
        times = recorder.machine.process_times(pid)
        return times is not None and times.cpu_ns > S

    def has_new_rows() -> bool:
        recorder.tick()
        return len(recorder.rows(0)) > known

    assert wait_until(has_used_a_second, timeout_s=60, watch=CancelToken())
    known = len(recorder.rows(0))  # the last ones may be of before
    assert wait_until(has_new_rows, timeout_s=60, watch=CancelToken())
    last = {name: value / S for _, name, _, value, _ in recorder.rows(0)}
    return last["own"], last["others"]


def test_busy_process_of_others_is_noise() -> None:
    """A second of CPU time that no process of the run used."""
    with disturb() as pid:
        own, others = _count_seconds(NoiseRecorder(), pid)
    assert others > 0.5
    assert own < others


def test_busy_process_of_the_run_is_no_noise() -> None:
    """Its CPU time is the run's own."""
    with disturb() as pid:
        popen = SimpleNamespace(pid=pid, poll=lambda: None)
        recorder = NoiseRecorder()
        recorder.add([Process("loop", "service", popen, Path("log"))])  # type: ignore[arg-type]
        own, _ = _count_seconds(recorder, pid)
    assert own > 0.5


def test_disturber_ends_with_its_block() -> None:
    """A busy loop that stays would disturb every later run."""
    with disturb() as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
