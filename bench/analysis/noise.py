"""Compute what else used the machine during a trial, from the rows of role `noise` in its resource trace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.analysis.resource_usage import find_rows, measure_cpu_s
from bench.results.noise import CAPACITY, NOISE, OTHERS, OWN, PRESSURE, STEAL, THROTTLED
from bench.results.records import Window
from bench.results.resources import ResourceTrace
from bench.units import NANOSECONDS

Floats = npt.NDArray[np.float64]

LONGEST_SERIES_S: Final = 7 * 24 * 3600  # a figure of a longer trial shows its begin
_STEP_NS: Final = NANOSECONDS  # of the figure: shorter steps show single ticks of the kernel's counters


@dataclass(frozen=True, slots=True)
class NoiseShares:
    """Shares inside the windows, as in `RepeatSummary`; None where unknown."""

    used_cpu: float | None = None
    other_cpu: float | None = None
    steal: float | None = None
    pressure: float | None = None
    throttled: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSeries:
    """Shares of all CPUs over time, second by second: `at_s` is the end of each; `others` and `steal`, 0 where there is
    no such counter."""

    at_s: Floats
    others: Floats
    steal: Floats


def measure_noise(trace: ResourceTrace, windows: Sequence[Window]) -> NoiseShares:
    """Return the shares over all windows together. CPU times are shares of all CPUs, waiting and throttling of the
    time. None where a counter is missing, or where a window is shorter than the time between its readings."""
    shares = {name: _measure_rate(trace, index, windows) for name, index in _find_counters(trace).items()}
    cpus = shares.get(CAPACITY)

    def of_cpus(name: str) -> float | None:
        rate = shares.get(name)
        return rate / cpus if rate is not None and cpus else None

    def of_time(name: str) -> float | None:
        rate = shares.get(name)
        return None if rate is None else min(rate, 1.0)  # throttling adds up over CPUs

    return NoiseShares(of_cpus(OWN), of_cpus(OTHERS), of_cpus(STEAL), of_time(PRESSURE), of_time(THROTTLED))


def make_noise_series(trace: ResourceTrace) -> NoiseSeries | None:
    """Return the noise over time; None where the CPU time of others is unknown."""
    counters = _find_counters(trace)
    if CAPACITY not in counters or OTHERS not in counters:
        return None
    at_ns = trace.at_ns[find_rows(trace, counters[CAPACITY])]
    first_ns = max(int(at_ns[0]), 0)
    edges = np.arange(first_ns, min(int(at_ns[-1]), first_ns + LONGEST_SERIES_S * NANOSECONDS) + 1, _STEP_NS)
    if len(edges) < 2:
        return None
    capacity = _count_steps(trace, counters[CAPACITY], edges)
    steal = _count_steps(trace, counters[STEAL], edges) if STEAL in counters else np.zeros(len(capacity))
    others = _count_steps(trace, counters[OTHERS], edges)
    known = np.maximum(capacity, 1.0)
    return NoiseSeries(edges[1:] / NANOSECONDS, others / known, steal / known)


def _find_counters(trace: ResourceTrace) -> dict[str, int]:
    """Return the indexes of the noise counters by name."""
    parts = zip(trace.processes, trace.roles, strict=True)
    return {name: index for index, (name, role) in enumerate(parts) if role == NOISE}


def _measure_rate(trace: ResourceTrace, index: int, windows: Sequence[Window]) -> float | None:
    """Return by how much a counter grew per time inside the windows."""
    at_ns = trace.at_ns[find_rows(trace, index)]
    if not windows or len(at_ns) < 2:
        return None
    if min(window.end_ns - window.start_ns for window in windows) < np.median(np.diff(at_ns)):
        return None
    used_s, seen_s = measure_cpu_s(trace, index, windows)
    return None if used_s is None else used_s / seen_s


def _count_steps(trace: ResourceTrace, index: int, edges: npt.NDArray[np.int64]) -> Floats:
    rows = find_rows(trace, index)
    steps: Floats = np.diff(np.interp(edges, trace.at_ns[rows], trace.cpu_ns[rows]))
    return steps
