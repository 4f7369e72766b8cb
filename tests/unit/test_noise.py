"""Noise of a unit of trials: CPU time of the run and of all others, from the first reading on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.results.noise import NoiseRecorder
from bench.system.machine import CpuTimes, Machine, ProcessTimes
from bench.system.processes import Process

S = 1_000_000_000


@dataclass
class FakeMachine:
    """A machine with the counters that a test sets, in seconds."""

    busy_s: float = 0.0
    steal_s: float = 0.0
    now_s: float = 100.0
    used_s: dict[int, float] = field(default_factory=dict)
    started_s: dict[int, float] = field(default_factory=dict)
    forked: dict[int, tuple[int, ...]] = field(default_factory=dict)
    has_stat: bool = True

    def cpu_times(self) -> CpuTimes | None:
        return CpuTimes(round(self.busy_s * S), round(self.steal_s * S), 2) if self.has_stat else None

    def pressure_ns(self) -> int | None:
        return None

    def throttled_ns(self) -> int | None:
        return 0

    def process_times(self, pid: int) -> ProcessTimes | None:
        if pid not in self.used_s:
            return None
        return ProcessTimes(round(self.started_s.get(pid, 0) * S), round(self.used_s[pid] * S))

    def children(self, pid: int) -> tuple[int, ...]:
        return self.forked.get(pid, ())

    def recorder(self) -> NoiseRecorder:
        now_ns = lambda: round(self.now_s * S)  # noqa: E731
        return NoiseRecorder(cast("Machine", self), clock=now_ns, boot_clock=now_ns)


def process(pid: int) -> Process:
    popen = SimpleNamespace(pid=pid, poll=lambda: None)
    return Process("p", "service", popen, Path("log"))  # type: ignore[arg-type]


def last(recorder: NoiseRecorder, zero_s: float = 100) -> dict[str, float]:
    """The last value of each counter, in seconds."""
    return {name: value / S for _, name, _, value, _ in recorder.rows(round(zero_s * S))}


def test_others_are_what_the_run_did_not_use() -> None:
    """Busy time less that of the run's processes and of this one, since the first reading."""
    machine = FakeMachine(busy_s=1000, used_s={os.getpid(): 50, 7: 20, 8: 3})
    recorder = machine.recorder()
    recorder.tick([process(7), process(8)])
    machine.now_s, machine.busy_s, machine.steal_s = 110, 1012, 0.5
    machine.used_s |= {os.getpid(): 51, 7: 24, 8: 5}
    recorder.tick([process(7), process(8)])
    assert last(recorder) == {"capacity": 20, "own": 7, "others": 5, "steal": 0.5, "throttled": 0}


def test_ended_processes_keep_what_they_used() -> None:
    """Otherwise a generator that has ended would become work of others."""
    machine = FakeMachine(busy_s=0, used_s={7: 0})
    recorder = machine.recorder()
    recorder.tick([process(7)])
    machine.now_s, machine.busy_s, machine.used_s[7] = 105, 4, 4
    recorder.tick([process(7)])
    machine.now_s, machine.used_s = 110, {}
    recorder.tick([])
    assert last(recorder)["own"] == 4
    assert last(recorder)["others"] == 0


def test_children_and_later_processes_are_the_run_s() -> None:
    """Locust's workers are forks. One that started after the first reading counts from its start, an older one from
    when it was first seen."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder()
    recorder.tick([process(7)])
    machine.now_s, machine.busy_s, machine.forked = 110, 9, {7: (8,)}
    machine.used_s |= {8: 2, 9: 30}
    machine.started_s = {8: 101}
    recorder.tick([process(7), process(9)])
    machine.now_s, machine.used_s[9] = 120, 31
    recorder.tick([process(7), process(9)])
    assert last(recorder)["own"] == 3
    assert last(recorder)["others"] == 7


def test_new_process_with_same_pid_adds_up() -> None:
    """Pids are used again."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder()
    recorder.tick([process(7)])
    machine.now_s, machine.used_s[7] = 105, 4
    recorder.tick([process(7)])
    machine.now_s, machine.used_s[7], machine.started_s[7] = 110, 1, 106
    recorder.tick([process(7)])
    assert last(recorder)["own"] == 5


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=20))
def test_counters_never_fall(steps: Sequence[tuple[float, float]]) -> None:
    """Busy time is sampled, so that it may lag behind what the processes used."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder()
    for busy_s, own_s in steps:
        machine.now_s += 1
        machine.busy_s += busy_s
        machine.used_s[7] += own_s
        recorder.tick([process(7)])
    for name in ("own", "others", "capacity", "steal"):
        values = [row[3] for row in recorder.rows(0) if row[1] == name]
        assert values == sorted(values)
        assert all(value >= 0 for value in values)


def test_several_loads_share_a_reading() -> None:
    """Each load of a unit ticks; a reading is new for all of them."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder()
    for now_s in (100.0, 100.1, 100.2, 100.5, 100.6, 101.0):
        machine.now_s = now_s
        recorder.tick([process(7)])
    times = sorted({row[0] / S for row in recorder.rows(0)})
    assert times == [100.0, 100.5, 101.0]


def test_rows_are_on_the_clock_of_their_trial() -> None:
    """From the last reading before its zero on."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder()
    for now_s in range(100, 105):
        machine.now_s = now_s
        recorder.tick([process(7)])
    assert sorted({row[0] / S for row in recorder.rows(round(102.5 * S))}) == [-0.5, 0.5, 1.5]


def test_machine_without_counters_has_no_rows_of_them() -> None:
    """Others are unknown without the machine's busy time."""
    machine = FakeMachine(used_s={7: 0}, has_stat=False)
    recorder = machine.recorder()
    recorder.tick([process(7)])
    assert last(recorder).keys() == {"own", "throttled"}


def test_this_machine_can_be_read() -> None:
    """Whatever it lacks, a reading is no error."""
    recorder = NoiseRecorder()
    recorder.tick([])
    assert last(recorder, 0)["own"] == pytest.approx(0)
