"""What processes used while a window lasted, from their resource trace."""

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from bench.records import ProcessUse, Window
from bench.resources import ResourceTrace
from bench.units import NANOSECONDS

Role = Literal["service", "sidecar", "generator"]


def process_use(trace: ResourceTrace, windows: Sequence[Window], requests: int) -> tuple[ProcessUse, ...]:
    """CPU and memory of every process inside the windows, and CPU time per request, which all share."""
    indexes = range(len(trace.processes))
    return tuple(_use(trace, index, windows=windows, requests=requests) for index in indexes)


def generator_cores(trace: ResourceTrace, windows: Sequence[Window]) -> float | None:
    """Cores that the load generator used inside the windows; None where it was not seen."""
    used = [_cpu_s(trace, index, windows) for index, role in enumerate(trace.roles) if role == "generator"]
    return sum(used) / sum(window.seconds for window in windows) if used and windows else None


def _use(trace: ResourceTrace, index: int, *, windows: Sequence[Window], requests: int) -> ProcessUse:
    cpu_s = _cpu_s(trace, index, windows)
    return ProcessUse(
        process=trace.processes[index],
        role=cast("Role", trace.roles[index]),
        cpu_s=cpu_s,
        cpu_ms_per_request=cpu_s * 1e3 / requests if requests else None,
        rss_max_bytes=_rss_max(trace, index, windows),
    )


def _cpu_s(trace: ResourceTrace, index: int, windows: Sequence[Window]) -> float:
    """CPU time inside the windows; at an edge it lies on the line between the ticks before and after."""
    rows = _rows(trace, index)
    edges = [edge for window in windows for edge in (window.start_ns, window.end_ns)]
    used = np.interp(edges, trace.at_ns[rows], trace.cpu_ns[rows])
    return float(np.sum(used[1::2] - used[::2])) / NANOSECONDS


def _rss_max(trace: ResourceTrace, index: int, windows: Sequence[Window]) -> int:
    rows = _rows(trace, index)
    at_ns = trace.at_ns[rows]
    inside = np.logical_or.reduce([(at_ns >= w.start_ns) & (at_ns < w.end_ns) for w in windows])
    return int(trace.rss_bytes[rows][inside].max(initial=0))


def _rows(trace: ResourceTrace, index: int) -> npt.NDArray[np.intp]:
    return np.flatnonzero(trace.process == index)
