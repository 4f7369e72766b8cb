"""Record what else used the machine during the trials of a unit: rows of role `noise` for `resources.parquet`.

Each process name is a counter of ns since the first reading, in `cpu_ns`: `capacity` (all CPUs), `own` (CPU time of the
run), `others` (of all other processes), `steal` (the hypervisor's), `pressure` (some process waited for a CPU),
`throttled` (a limit stopped the run). A counter that the machine does not have has no rows.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bench.results.resources import TICK_S, Row
from bench.system.machine import CpuTimes, Machine
from bench.system.processes import Process, Role
from bench.units import NANOSECONDS

NOISE: Final[Role] = "noise"
CAPACITY: Final = "capacity"
OWN: Final = "own"
OTHERS: Final = "others"
STEAL: Final = "steal"
PRESSURE: Final = "pressure"
THROTTLED: Final = "throttled"

_EVERY_NS: Final = round(0.8 * TICK_S * NANOSECONDS)


def _now_boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass
class _OwnCpu:
    """CPU time that processes used since `first_ns` (ns since the start of the machine). Those that have ended keep
    what they had used when they were last read."""

    machine: Machine
    first_ns: int
    _before_ns: dict[tuple[int, int], int] = field(default_factory=dict)  # by pid and start: used before `first_ns`
    _last_ns: dict[tuple[int, int], int] = field(default_factory=dict)

    def read(self, pids: Iterable[int]) -> int:
        """Read these processes and their descendants; return the CPU time of all that were ever read."""
        for pid in _list_trees(self.machine, pids):
            if (times := self.machine.process_times(pid)) is not None:
                same = (pid, times.started_ns)
                is_new = times.started_ns >= self.first_ns
                self._before_ns.setdefault(same, 0 if is_new else times.cpu_ns)
                self._last_ns[same] = max(times.cpu_ns, self._last_ns.get(same, 0))
        return sum(last_ns - self._before_ns[same] for same, last_ns in self._last_ns.items())


def _list_trees(machine: Machine, pids: Iterable[int]) -> set[int]:
    """Return these processes and their descendants. Of this process, only those that are listed: it may have started
    what does not belong to the run."""
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            if pid != os.getpid():
                waiting.extend(machine.children(pid))
    return found


@dataclass
class NoiseRecorder:
    """Collect noise rows for all trials of a unit: `add` all processes of the run, those under test and those that send
    load, and call `tick` about every `TICK_S` seconds, from as many loads as there are. A call that comes soon after
    another one reads nothing.

    clock: the clock of all samples, which `rows` moves to a trial's zero
    boot_clock: ns since the start of the machine, as in `ProcessTimes.started_ns`
    """

    machine: Machine = field(default_factory=Machine)
    clock: Callable[[], int] = time.perf_counter_ns
    boot_clock: Callable[[], int] = _now_boot_ns
    _processes: list[Process] = field(default_factory=list)
    _counted: list[tuple[int, str, int]] = field(default_factory=list)
    _own: _OwnCpu | None = None
    _at_ns: int = 0
    _first: dict[str, int] = field(default_factory=dict)
    _capacity_ns: int = 0
    _others_ns: int = 0

    def add(self, processes: Iterable[Process]) -> None:
        """Count these processes, and their children, as the run's own. This process is one, too."""
        self._processes.extend(processes)

    def tick(self) -> None:
        """Read all counters."""
        at_ns = self.clock()
        if self._own is None:
            self._own, self._at_ns = _OwnCpu(self.machine, self.boot_clock()), at_ns
        elif at_ns - self._at_ns < _EVERY_NS:
            return
        times, pids = self.machine.cpu_times(), [process.pid for process in self._processes if process.running]
        own_ns = self._own.read([os.getpid(), *pids])
        self._count(at_ns, PRESSURE, self.machine.pressure_ns())
        self._count(at_ns, THROTTLED, self.machine.throttled_ns())
        self._count(at_ns, OWN, own_ns)
        if times is not None:
            self._count_cpus(at_ns, times, own_ns)
        self._at_ns = at_ns

    def _count_cpus(self, at_ns: int, times: CpuTimes, own_ns: int) -> None:
        self._capacity_ns += times.cpus * (at_ns - self._at_ns)
        busy_ns = times.busy_ns - self._first.setdefault("busy", times.busy_ns)
        # Busy time is sampled at ticks and that of processes is exact: the difference may fall a little for a while.
        self._others_ns = max(self._others_ns, busy_ns - own_ns)
        self._count(at_ns, CAPACITY, self._capacity_ns)
        self._count(at_ns, OTHERS, self._others_ns)
        self._count(at_ns, STEAL, times.steal_ns)

    def _count(self, at_ns: int, name: str, value_ns: int | None) -> None:
        if value_ns is not None:
            self._counted.append((at_ns, name, value_ns - self._first.setdefault(name, value_ns)))

    def read_last(self) -> dict[str, int]:
        """Return the counters of the last tick, by name."""
        last_ns = max((at_ns for at_ns, _, _ in self._counted), default=0)
        return {name: value_ns for at_ns, name, value_ns in self._counted if at_ns == last_ns}

    def rows(self, zero_ns: int) -> list[Row]:
        """Return the rows so far for a trial whose samples' clock is 0 at `zero_ns` of `clock`, without earlier ones
        but the last."""
        return [(at_ns - zero_ns, name, NOISE, value_ns, 0) for at_ns, name, value_ns in self._since(zero_ns)]

    def _since(self, zero_ns: int) -> Iterator[tuple[int, str, int]]:
        began_ns = max((at_ns for at_ns, _, _ in self._counted if at_ns <= zero_ns), default=zero_ns)
        return (row for row in self._counted if row[0] >= began_ns)
