"""Child processes, and what they used."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

MESHBENCH = str(Path(sys.executable).with_name("meshbench"))


@dataclass(frozen=True, slots=True)
class Used:
    """What a command used from start to end. `peak_bytes` is at least our own: memory counts from the fork."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def used_by(argv: Sequence[str], *, accepted: Collection[int] = (0,)) -> Used:
    """Run a command to its end and discard its output. Raises CalledProcessError if it fails."""
    began = time.perf_counter()
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)  # reaped here: there is nothing left to wait for
    if child.returncode not in accepted:
        raise subprocess.CalledProcessError(child.returncode, argv)
    return Used(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def cpu_ns(pid: int) -> int:
    """Return the CPU time of another process so far, of all its threads; exact, where /proc counts in steps of 10
    ms."""
    return time.clock_gettime_ns((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) names
