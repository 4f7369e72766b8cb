"""What the kernel counts for the whole machine: /proc and cgroups of both versions, and texts that are neither."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.system.machine import (
    CpuTimes,
    Machine,
    ProcessTimes,
    is_limit,
    list_cgroup_folders,
    parse_cpu_times,
    parse_pids,
    parse_pressure_ns,
    parse_process_times,
    parse_throttled_ns,
)

TICK = 10_000_000
STAT = """\
cpu  100 20 300 4000 50 {irq} 7 8 90 10
cpu0 50 10 150 2000 25 {irq} 7 8 45 5
cpu1 50 10 150 2000 25 0 0 0 45 5
intr 12345 0 1
ctxt 678
"""
PRESSURE = """\
some avg10=26.16 avg60=12.48 avg300=5.84 total=12462812672
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""
PROCESS = "77 (a (b) c) S 1 77 77 0 -1 4194560 4000 900 1 0 {user} {system} 9 9 20 0 1 0 {started} 22 33 44\n"
V2 = "usage_usec 123\nuser_usec 100\nsystem_usec 23\nnr_periods 9\nnr_throttled 3\nthrottled_usec {us}\n"
V1 = "nr_periods 9\nnr_throttled 3\nthrottled_time {ns}\n"


def test_leaves_softirq_out_where_kernel_measures_interrupts() -> None:
    """Their time is not in the processes' times; on loopback they are the run's own traffic."""
    assert parse_cpu_times(STAT.format(irq=6)) == CpuTimes(busy_ns=426 * TICK, steal_ns=8 * TICK, cpus=2)


def test_counts_softirq_where_processes_include_it() -> None:
    """A kernel that does not measure interrupts never counts any as `irq`."""
    assert parse_cpu_times(STAT.format(irq=0)) == CpuTimes(busy_ns=427 * TICK, steal_ns=8 * TICK, cpus=2)


@pytest.mark.parametrize(
    "text", ["", "cpu", "cpu  1 2 3 4 5 6 7 8\n", "cpu 1 2 3\ncpu0 1 2 3\n", "cpu a b c d e f g h\ncpu0 1\n", "\0"]
)
def test_has_no_cpu_times_without_counters(text: str) -> None:
    """A line of the total, with steal, and a line for each CPU are needed."""
    assert parse_cpu_times(text) is None


def test_reads_pressure_of_some_process() -> None:
    """The total of `some`, which is in microseconds."""
    assert parse_pressure_ns(PRESSURE) == 12462812672 * 1000
    assert parse_pressure_ns(PRESSURE.splitlines()[1]) is None


def test_reads_throttling_of_both_versions() -> None:
    """Version 2 counts microseconds, version 1 nanoseconds; the root of version 2 counts none."""
    assert parse_throttled_ns(V2.format(us=45)) == 45_000
    assert parse_throttled_ns(V1.format(ns=45)) == 45
    assert parse_throttled_ns("usage_usec 123\n") is None


@pytest.mark.parametrize(
    ("text", "limited"),
    [("50000 100000\n", True), ("max 100000\n", False), ("-1\n", False), ("40000", True), ("", False)],
)
def test_knows_a_limit(text: str, limited: bool) -> None:
    """A quota in microseconds per period; `max` and -1 are none."""
    assert is_limit(text) == limited


def test_reads_process_with_brackets_in_its_name() -> None:
    """User and system time without children's, and the start."""
    assert parse_process_times(PROCESS.format(user=5, system=7, started=99)) == ProcessTimes(99 * TICK, 12 * TICK)


def test_lists_own_cgroup_before_those_around_it() -> None:
    """Of version 2, and of version 1 where the CPU controller is; with other controllers there is nothing to read."""
    text = "4:memory:/m\n1:cpu,cpuacct:/a/b\n0::/c\n"
    assert list(list_cgroup_folders(text)) == [
        *map(PurePosixPath, ("cpu,cpuacct/a/b", "cpu,cpuacct/a", "cpu,cpuacct")),
        *map(PurePosixPath, ("cpu/a/b", "cpu/a", "cpu")),
        *map(PurePosixPath, ("c", ".", "unified/c", "unified")),
    ]


def test_never_leaves_the_cgroups() -> None:
    """A cgroup outside the process's namespace has a path with `..`."""
    assert list(list_cgroup_folders("0::/../other\n1:cpu:relative\n")) == []


_COUNTER_TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(["cpu", "cpu0", "some", "total=", "-1", "9" * 30, "7", "٣", ")", "(", "throttled_usec", "\n"])
    ).map(" ".join),
)


@given(_COUNTER_TEXTS)
def test_odd_texts_are_no_figures(text: str) -> None:
    """A text that is no counter gives None; what is read is never negative, and fits into 64 bits."""
    cpu, process = parse_cpu_times(text), parse_process_times(text)
    values = [parse_pressure_ns(text), parse_throttled_ns(text), *((cpu.busy_ns, cpu.steal_ns) if cpu else ())]
    values += (process.cpu_ns, process.started_ns) if process else ()
    assert all(value is None or value >= 0 for value in values)
    assert all(pid > 0 for pid in parse_pids(text))
    assert all(".." not in folder.parts and not folder.is_absolute() for folder in list_cgroup_folders(text))
    assert is_limit(text) in (True, False)


@given(st.lists(st.integers(0, 10**12), min_size=10, max_size=10), st.integers(1, 64))
def test_busy_time_never_includes_idle_or_guest_time(values: list[int], cpus: int) -> None:
    """Guest time is part of user time, and would count twice."""
    lines = ["cpu  " + " ".join(map(str, values)), *(f"cpu{index} 0 0 0 0 0 0 0 0" for index in range(cpus))]
    found = parse_cpu_times("\n".join(lines))
    assert found is not None
    assert found.cpus == cpus
    assert found.steal_ns == values[7] * TICK
    assert found.busy_ns <= sum(values[:3] + values[5:7]) * TICK


def test_machine_without_files_has_no_figures(tmp_path: Path) -> None:
    """An absent file is a figure that is not available, never an error."""
    machine = Machine(tmp_path, tmp_path)
    assert machine.cpu_times() is None
    assert machine.pressure_ns() is None
    assert machine.throttled_ns() is None
    assert machine.process_times(1) is None
    assert machine.children(1) == ()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_throttling_is_of_nearest_cgroup_with_limit(tmp_path: Path) -> None:
    """The own cgroup may have no limit while one around it has."""
    _write(tmp_path / "self/cgroup", "0::/outer/middle/own\n")
    for index, (folder, limit) in enumerate(
        (("outer", "1000 9"), ("outer/middle", "2000 9"), ("outer/middle/own", "max 9"))
    ):
        _write(tmp_path / folder / "cpu.max", limit)
        _write(tmp_path / folder / "cpu.stat", V2.format(us=index))
    assert Machine(tmp_path, tmp_path).throttled_ns() == 1000


def test_throttling_without_limit_is_of_own_cgroup(tmp_path: Path) -> None:
    """It counts none, and a limit that is set later shows there."""
    _write(tmp_path / "self/cgroup", "1:cpu:/a\n0::/\n")
    _write(tmp_path / "cpu/a/cpu.cfs_quota_us", "-1\n")
    _write(tmp_path / "cpu/a/cpu.stat", V1.format(ns=0))
    assert Machine(tmp_path, tmp_path).throttled_ns() == 0
