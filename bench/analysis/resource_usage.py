"""Compute what processes used during the windows of a trial, from their resource trace."""

from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from bench.results.noise import NOISE
from bench.results.records import Window
from bench.results.resources import ResourceTrace
from bench.results.summary_records import ProcessUse
from bench.system.processes import Role
from bench.units import NANOSECONDS

_LEAST_SEEN: Final = 0.5  # share of the windows between readings: less does not represent the rest


def measure_processes(trace: ResourceTrace, windows: Sequence[Window], requests: int) -> tuple[ProcessUse, ...]:
    """Return CPU and memory of every process inside the windows, and its CPU time per request of the load. Noise is no
    process of the run: see `bench.analysis.noise`."""
    indexes = (index for index, role in enumerate(trace.roles) if role != NOISE)
    return tuple(_measure_process(trace, index, windows=windows, requests=requests) for index in indexes)


def measure_generator_cores(trace: ResourceTrace, windows: Sequence[Window]) -> float | None:
    """Return the cores that the load generator used inside the windows; None where it was not observed."""
    found = [measure_cpu_s(trace, index, windows) for index, role in enumerate(trace.roles) if role == "generator"]
    cores = [cpu_s / seen_s for cpu_s, seen_s in found if cpu_s is not None]
    return sum(cores) if cores and len(cores) == len(found) else None


def _measure_process(trace: ResourceTrace, index: int, *, windows: Sequence[Window], requests: int) -> ProcessUse:
    cpu_s, seen_s = measure_cpu_s(trace, index, windows)
    seen_requests = requests * seen_s / sum(window.seconds for window in windows) if windows else 0
    return ProcessUse(
        process=trace.processes[index],
        role=cast("Role", trace.roles[index]),
        cpu_s=cpu_s,
        seen_s=seen_s,
        cpu_ms_per_request=cpu_s * 1e3 / seen_requests if cpu_s is not None and seen_requests else None,
        rss_max_bytes=_find_rss_max(trace, index, windows),
    )


def measure_cpu_s(trace: ResourceTrace, index: int, windows: Sequence[Window]) -> tuple[float | None, float]:
    """Return the CPU time inside the windows, and how many seconds of them were observed.

    At an edge it is interpolated between the readings before and after; beyond the first and the last reading
    nothing is known. None where too little was observed, or where the counter was reset.
    """
    rows = find_rows(trace, index)
    at_ns, cpu_ns = trace.at_ns[rows], trace.cpu_ns[rows]
    if len(rows) < 2 or (np.diff(cpu_ns) < 0).any():
        return None, 0.0
    edges = np.array([[window.start_ns, window.end_ns] for window in windows]).reshape(-1, 2)
    seen = np.clip(edges, at_ns[0], at_ns[-1])
    used = np.interp(seen, at_ns, cpu_ns)
    seen_s = float(np.sum(seen[:, 1] - seen[:, 0])) / NANOSECONDS
    if seen_s <= 0 or seen_s < _LEAST_SEEN * sum(window.seconds for window in windows):
        return None, seen_s
    return float(np.sum(used[:, 1] - used[:, 0])) / NANOSECONDS, seen_s


def _find_rss_max(trace: ResourceTrace, index: int, windows: Sequence[Window]) -> int | None:
    """Return the largest reading inside the windows; None where there is none."""
    rows = find_rows(trace, index)
    inside = find_inside(trace.at_ns[rows], windows)
    return int(trace.rss_bytes[rows][inside].max()) if inside.any() else None


def find_inside(at_ns: npt.NDArray[np.int64], windows: Sequence[Window]) -> npt.NDArray[np.bool_]:
    """Return for each time whether it is inside one of the windows."""
    inside = np.zeros(len(at_ns), np.bool_)
    for window in windows:
        inside |= (at_ns >= window.start_ns) & (at_ns < window.end_ns)
    return inside


def find_rows(trace: ResourceTrace, index: int) -> npt.NDArray[np.intp]:
    """Return the rows of one process, which are in the order of time."""
    return np.flatnonzero(trace.process == index)
