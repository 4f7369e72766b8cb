"""Noise of a unit of trials: CPU time of the run and of all others from the first reading on, and its shares."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.noise import NoiseShares, make_noise_series, measure_noise
from bench.analysis.resource_usage import measure_processes
from bench.results.noise import NoiseRecorder
from bench.results.records import Window
from bench.results.resources import ResourceTrace, Row, write_resources
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

    def recorder(self, *own: int) -> NoiseRecorder:
        now_ns = lambda: round(self.now_s * S)  # noqa: E731
        recorder = NoiseRecorder(cast("Machine", self), clock=now_ns, boot_clock=now_ns)
        recorder.add(map(process, own))
        return recorder


def process(pid: int) -> Process:
    popen = SimpleNamespace(pid=pid, poll=lambda: None)
    return Process("p", "service", popen, Path("log"))  # type: ignore[arg-type]


def last(recorder: NoiseRecorder, zero_s: float = 100) -> dict[str, float]:
    """The last value of each counter, in seconds."""
    return {name: value / S for _, name, _, value, _ in recorder.rows(round(zero_s * S))}


def test_others_are_what_the_run_did_not_use() -> None:
    """Busy time less that of the run's processes and of this one, since the first reading."""
    machine = FakeMachine(busy_s=1000, used_s={os.getpid(): 50, 7: 20, 8: 3})
    recorder = machine.recorder(7, 8)
    recorder.tick()
    machine.now_s, machine.busy_s, machine.steal_s = 110, 1012, 0.5
    machine.used_s |= {os.getpid(): 51, 7: 24, 8: 5}
    recorder.tick()
    assert last(recorder) == {"capacity": 20, "own": 7, "others": 5, "steal": 0.5, "throttled": 0}


def test_ended_processes_keep_what_they_used() -> None:
    """Otherwise a generator that has ended would become work of others."""
    machine = FakeMachine(busy_s=0, used_s={7: 0})
    recorder = machine.recorder(7)
    recorder.tick()
    machine.now_s, machine.busy_s, machine.used_s[7] = 105, 4, 4
    recorder.tick()
    machine.now_s, machine.used_s = 110, {}
    recorder.tick()
    assert last(recorder)["own"] == 4
    assert last(recorder)["others"] == 0


def test_children_and_later_processes_are_the_run_s() -> None:
    """Locust's workers are forks. One that started after the first reading counts from its start, an older one from
    when it was first seen."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder(7)
    recorder.tick()
    machine.now_s, machine.busy_s, machine.forked = 110, 9, {7: (8,)}
    machine.used_s |= {8: 2, 9: 30}
    machine.started_s = {8: 101}
    recorder.add([process(9)])
    recorder.tick()
    machine.now_s, machine.used_s[9] = 120, 31
    recorder.tick()
    assert last(recorder)["own"] == 3
    assert last(recorder)["others"] == 7


def test_new_process_with_same_pid_adds_up() -> None:
    """Pids are used again."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder(7)
    recorder.tick()
    machine.now_s, machine.used_s[7] = 105, 4
    recorder.tick()
    machine.now_s, machine.used_s[7], machine.started_s[7] = 110, 1, 106
    recorder.tick()
    assert last(recorder)["own"] == 5


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=20))
def test_counters_never_fall(steps: Sequence[tuple[float, float]]) -> None:
    """Busy time is sampled, so that it may lag behind what the processes used."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder(7)
    for busy_s, own_s in steps:
        machine.now_s += 1
        machine.busy_s += busy_s
        machine.used_s[7] += own_s
        recorder.tick()
    for name in ("own", "others", "capacity", "steal"):
        values = [row[3] for row in recorder.rows(0) if row[1] == name]
        assert values == sorted(values)
        assert all(value >= 0 for value in values)


def test_several_loads_share_a_reading() -> None:
    """Each load of a unit ticks; a reading is new for all of them."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder(7)
    for now_s in (100.0, 100.1, 100.2, 100.5, 100.6, 101.0):
        machine.now_s = now_s
        recorder.tick()
    times = sorted({row[0] / S for row in recorder.rows(0)})
    assert times == [100.0, 100.5, 101.0]


def test_rows_are_on_the_clock_of_their_trial() -> None:
    """From the last reading before its zero on."""
    machine = FakeMachine(used_s={7: 0})
    recorder = machine.recorder(7)
    for now_s in range(100, 105):
        machine.now_s = now_s
        recorder.tick()
    assert sorted({row[0] / S for row in recorder.rows(round(102.5 * S))}) == [-0.5, 0.5, 1.5]


def test_machine_without_counters_has_no_rows_of_them() -> None:
    """Others are unknown without the machine's busy time."""
    machine = FakeMachine(used_s={7: 0}, has_stat=False)
    recorder = machine.recorder(7)
    recorder.tick()
    assert last(recorder).keys() == {"own", "throttled"}


def test_this_machine_can_be_read() -> None:
    """Whatever it lacks, a reading is no error."""
    recorder = NoiseRecorder()
    recorder.tick()
    assert last(recorder, 0)["own"] == pytest.approx(0)


def trace(path: Path, *, every_s: float = 0.5, until_s: float = 40, **per_s: Callable[[float], float]) -> ResourceTrace:
    """Return a trace of counters, each of which grows by a rate that depends on the time."""
    rows: list[Row] = []
    values = dict.fromkeys(per_s, 0.0)
    for step in range(round(until_s / every_s) + 1):
        at_s = step * every_s
        rows += [(round(at_s * S), name, "noise", round(value * S), 0) for name, value in values.items()]
        values = {name: value + per_s[name](at_s) * every_s for name, value in values.items()}
    return write_resources(path, rows)


def window(start_s: float, end_s: float) -> Window:
    return Window(start_ns=round(start_s * S), end_ns=round(end_s * S))


def test_shares_are_those_of_all_windows(tmp_path: Path) -> None:
    """An interleaved trial has several; what happened between them does not count."""
    found = measure_noise(
        trace(
            tmp_path / "resources.parquet",
            capacity=lambda _: 2,
            own=lambda _: 0.5,
            others=lambda at_s: 1.0 if 10 <= at_s < 20 else 0.2 if at_s >= 30 else 0.0,
            steal=lambda at_s: 0.1 if at_s < 10 else 0,
            pressure=lambda _: 0.3,
            throttled=lambda _: 1.7,
        ),
        [window(0, 10), window(30, 40)],
    )
    assert found.used_cpu == pytest.approx(0.25)
    assert found.other_cpu == pytest.approx(0.05)
    assert found.steal == pytest.approx(0.025)
    assert found.pressure == pytest.approx(0.3)
    assert found.throttled == 1.0


def test_shares_of_unknown_counters_are_unknown(tmp_path: Path) -> None:
    """Without the capacity no share of it is known; without rows nothing is."""
    found = measure_noise(trace(tmp_path / "one.parquet", own=lambda _: 1, pressure=lambda _: 0.1), [window(0, 10)])
    assert found.pressure == pytest.approx(0.1)
    assert (found.used_cpu, found.other_cpu) == (None, None)
    assert measure_noise(trace(tmp_path / "none.parquet"), [window(0, 10)]) == NoiseShares()


def test_coarse_readings_do_not_describe_short_windows(tmp_path: Path) -> None:
    """Kubelets renew their figures every 15 s: a window of 5 s would get the mean of three."""
    coarse = trace(tmp_path / "resources.parquet", every_s=15, until_s=60, capacity=lambda _: 2, others=lambda _: 1)
    assert measure_noise(coarse, [window(20, 25)]) == NoiseShares()
    assert measure_noise(coarse, [window(10, 40)]).other_cpu == pytest.approx(0.5)


def test_noise_is_no_process_of_the_run(tmp_path: Path) -> None:
    """Even where a service has the name of a counter."""
    rows = [
        (at * S, "others", role, at * cpu * S, 9) for at in range(5) for role, cpu in (("service", 1), ("noise", 2))
    ]
    (use,) = measure_processes(write_resources(tmp_path / "resources.parquet", rows), [window(0, 4)], 10)
    assert (use.process, use.role, use.cpu_s) == ("others", "service", 4)


def test_series_shows_when_others_worked(tmp_path: Path) -> None:
    """Second by second, as shares of all CPUs."""
    series = make_noise_series(
        trace(
            tmp_path / "resources.parquet",
            until_s=10,
            capacity=lambda _: 2,
            others=lambda at_s: 1.0 if 4 <= at_s < 6 else 0.0,
        )
    )
    assert series is not None
    assert series.at_s.tolist() == list(range(1, 11))
    assert series.others.tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0])
    assert not series.steal.any()


def test_no_series_without_noise(tmp_path: Path) -> None:
    """Runs of before have no such rows, and a load that ended at once has too few."""
    assert make_noise_series(trace(tmp_path / "none.parquet")) is None
    short = trace(tmp_path / "short.parquet", until_s=0.5, capacity=lambda _: 2, others=lambda _: 1)
    assert make_noise_series(short) is None
