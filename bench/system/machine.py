"""Read what the kernel counts for the whole machine: CPU time, waiting for a CPU, throttling.

A machine without one of the files, or with another text in it, has no such figure: None, never an error. Times of
/proc are in clock ticks of 10 ms, so they describe windows of 5 s and longer.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from bench.units import NANOSECONDS

_TICK_NS: Final = NANOSECONDS // os.sysconf("SC_CLK_TCK")
_NS_PER_US: Final = 1000
_CPU_FIELDS: Final = 8  # user nice system idle iowait irq softirq steal; guest time is part of user
_UNIFIED: Final = ("", "unified")  # folders of cgroup v2: alone, and beside version 1
_LIMITS: Final = ("cpu.max", "cpu.cfs_quota_us")
_LONGEST: Final = 18  # digits: longer numbers are no counters, and would not fit into 64 bits


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time of a machine since it started. `busy_ns` is comparable with the sum over its processes."""

    busy_ns: int
    steal_ns: int
    cpus: int


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """CPU time of one process so far, without its children, and when it started (ns after the machine)."""

    started_ns: int
    cpu_ns: int


def parse_cpu_times(text: str) -> CpuTimes | None:
    """Parse /proc/stat.

    A kernel that measures interrupts (`irq` is not 0) leaves their time out of the processes' times. There, `softirq`
    is left out: on loopback it is the run's own traffic. A kernel that does not measure them counts that time for the
    process that was interrupted, and counts ticks in `softirq` in addition. There, it is included: the run's own part
    is subtracted with its processes.
    """
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    total = next((line for line in lines if line[0] == "cpu"), [])
    values = [_parse_count(word) for word in total[1 : 1 + _CPU_FIELDS]]
    cpus = sum(re.fullmatch(r"cpu\d+", line[0], re.ASCII) is not None for line in lines)
    known = [value for value in values if value is not None]
    if not cpus or len(known) < _CPU_FIELDS:
        return None
    user, nice, system, _, _, irq, softirq, steal = known
    busy = user + nice + system + irq + (0 if irq else softirq)
    return CpuTimes(busy * _TICK_NS, steal * _TICK_NS, cpus)


def parse_pressure_ns(text: str) -> int | None:
    """Parse /proc/pressure/cpu: for how long some process has waited for a CPU."""
    found = re.search(r"^some\b.*\btotal=(\d+)\s*$", text, re.MULTILINE | re.ASCII)
    total = _parse_count(found[1]) if found else None
    return None if total is None else total * _NS_PER_US


def parse_throttled_ns(text: str) -> int | None:
    """Parse a cgroup's cpu.stat, of version 1 or 2: for how long its limit has stopped it, summed over CPUs."""
    counts = {words[0]: _parse_count(words[1]) for line in text.splitlines() if len(words := line.split()) == 2}
    if (microseconds := counts.get("throttled_usec")) is not None:
        return microseconds * _NS_PER_US
    return counts.get("throttled_time")


def is_limit(text: str) -> bool:
    """Return whether a cgroup's cpu.max (`50000 100000`) or cpu.cfs_quota_us (`50000`) limits its CPU time."""
    words = text.split()
    return bool(words) and bool(_parse_count(words[0]))


def parse_process_times(text: str) -> ProcessTimes | None:
    """Parse /proc/PID/stat. The name of a process may contain spaces and brackets."""
    words = text.rpartition(")")[2].split()
    if len(words) < 20:
        return None
    user, system, started = (_parse_count(words[index]) for index in (11, 12, 19))
    if user is None or system is None or started is None:
        return None
    return ProcessTimes(started * _TICK_NS, (user + system) * _TICK_NS)


def parse_pids(text: str) -> tuple[int, ...]:
    """Parse /proc/PID/task/PID/children."""
    return tuple(pid for word in text.split() if (pid := _parse_count(word)))


def list_cgroup_folders(text: str) -> Iterator[PurePosixPath]:
    """Yield the folders below /sys/fs/cgroup that may limit the CPU time of a process with this /proc/PID/cgroup: its
    own first, then those that contain it."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/") or ".." in path.split("/"):
            continue
        if number == "0" and not controllers:
            mounts: tuple[str, ...] = _UNIFIED
        elif "cpu" in controllers.split(","):
            mounts = (controllers, "cpu")
        else:
            continue
        own = PurePosixPath(path.strip("/"))
        for mount in dict.fromkeys(mounts):
            yield from (mount / folder for folder in (own, *own.parents))


def _parse_count(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _LONGEST else None


@dataclass(frozen=True)
class Machine:
    """The files of a running Linux. `proc` and `cgroups` are where they are mounted."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def cpu_times(self) -> CpuTimes | None:
        """Read the CPU time of the machine."""
        return parse_cpu_times(_read(self.proc / "stat"))

    def pressure_ns(self) -> int | None:
        """Read for how long some process has waited for a CPU."""
        return parse_pressure_ns(_read(self.proc / "pressure" / "cpu"))

    def throttled_ns(self) -> int | None:
        """Read for how long the limit of this process's cgroup has stopped it and its children."""
        return parse_throttled_ns(_read(self._throttled))

    @cached_property
    def _throttled(self) -> Path:
        """Find the cpu.stat of the nearest cgroup with a limit, else of the nearest that counts throttling."""
        folders = [self.cgroups / folder for folder in list_cgroup_folders(_read(self.proc / "self" / "cgroup"))]
        counting = [one for one in folders if parse_throttled_ns(_read(one / "cpu.stat")) is not None]
        limited = [one for one in counting if any(is_limit(_read(one / name)) for name in _LIMITS)]
        return next(iter((*limited, *counting)), self.cgroups) / "cpu.stat"

    def process_times(self, pid: int) -> ProcessTimes | None:
        """Read the CPU time of a process; None for one that has ended."""
        return parse_process_times(_read(self.proc / str(pid) / "stat"))

    def boot_id(self) -> str:
        """Read the id of the current boot; empty where there is none."""
        return _read(self.proc / "sys" / "kernel" / "random" / "boot_id").strip()

    def children(self, pid: int) -> tuple[int, ...]:
        """Read the pids of the processes that the main thread of a process has started, and that run."""
        return parse_pids(_read(self.proc / str(pid) / "task" / str(pid) / "children"))


def _read(path: Path) -> str:
    """Return the text of a file; empty where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
