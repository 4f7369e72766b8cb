"""Record CPU time and memory of every process of a trial over time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import psutil

from bench.errors import StoreError
from bench.results.samples import is_beyond_any_run, read_columns, write_columns
from bench.system.processes import Process, Role

TICK_S = 0.5
COLUMNS: Final = {"at_ns": "int64", "process": "string", "role": "string", "cpu_ns": "int64", "rss_bytes": "int64"}
"""Arrow's types of the columns of `resources.parquet`."""

Row = tuple[int, str, str, int, int]  # at_ns, process, role, cpu_ns, rss_bytes: see ResourceTrace


@dataclass(frozen=True, slots=True, eq=False)
class ResourceTrace:
    """One row per process and tick, as arrays of equal length. Rows of role `noise` are counters of the machine: see
    `bench.results.noise`.

    at_ns: on the samples' clock
    process: index into `processes` and `roles`; a process has one role
    cpu_ns: CPU time of the process so far, user and system
    rss_bytes: resident size
    """

    at_ns: npt.NDArray[np.int64]
    process: npt.NDArray[np.int32]
    cpu_ns: npt.NDArray[np.int64]
    rss_bytes: npt.NDArray[np.int64]
    processes: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass
class Recorder:
    """Collect a ResourceTrace: call `tick` about every `TICK_S` seconds."""

    zero_ns: int
    rows: list[Row] = field(default_factory=list)
    _known: dict[int, psutil.Process] = field(default_factory=dict)

    def tick(self, processes: Sequence[Process]) -> None:
        """Add one row per running process."""
        for process in processes:
            if process.running:
                self._add(process)

    def _add(self, process: Process) -> None:
        try:
            known = self._known.get(process.pid) or psutil.Process(process.pid)
            self._known[process.pid] = known
            with known.oneshot():
                cpu, memory = known.cpu_times(), known.memory_info()
        except psutil.NoSuchProcess:
            return  # it has ended, which the checks of the trial report
        at_ns = time.perf_counter_ns() - self.zero_ns
        self.rows.append((at_ns, process.name, process.role, round((cpu.user + cpu.system) * 1e9), memory.rss))


def write_resources(path: Path, rows: Sequence[Row]) -> ResourceTrace:
    """Write `resources.parquet`, and return its content."""
    at_ns, names, roles, cpu_ns, rss = zip(*rows, strict=True) if rows else ((),) * 5
    columns: dict[str, npt.NDArray[Any]] = {
        "at_ns": np.array(at_ns, np.int64),
        "process": np.array(names, np.str_),
        "role": np.array(roles, np.str_),
        "cpu_ns": np.array(cpu_ns, np.int64),
        "rss_bytes": np.array(rss, np.int64),
    }
    write_columns(path, columns)
    return _make_trace(columns)


def read_resources(path: Path) -> ResourceTrace:
    """Read `resources.parquet`. Raises StoreError for anything but what `write_resources` writes."""
    columns = read_columns(path, COLUMNS)
    if unknown := sorted({*columns["role"].tolist()} - {*get_args(Role)}):
        raise StoreError(f"{path}: the role {unknown[0]!r} is not known")
    if is_beyond_any_run(columns["at_ns"]) or any((columns[name] < 0).any() for name in ("cpu_ns", "rss_bytes")):
        raise StoreError(f"{path}: it has times or sizes that no process has")
    return _make_trace(columns)


def _make_trace(columns: Mapping[str, npt.NDArray[Any]]) -> ResourceTrace:
    names, roles = columns["process"].astype(np.str_), columns["role"].astype(np.str_)
    # A service may have the name of a counter: they differ by role.
    keys = np.char.add(np.char.add(names, "\0 "), np.where(roles == "noise", roles, ""))
    _, rows, process = np.unique(keys, return_index=True, return_inverse=True)
    first = rows.tolist()
    return ResourceTrace(
        at_ns=columns["at_ns"],
        process=process.astype(np.int32),
        cpu_ns=columns["cpu_ns"],
        rss_bytes=columns["rss_bytes"],
        processes=tuple(str(names[row]) for row in first),
        roles=tuple(str(roles[row]) for row in first),
    )
