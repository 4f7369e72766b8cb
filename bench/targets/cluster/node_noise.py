"""Compute what else the nodes of a run do, from the figures of their kubelets: node usage less that of the run's pods.

A kubelet renews each figure on its own schedule. So the pods' CPU time is interpolated at the times of the node's
figures, and only where the figures of all are known.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.load.recorded import Start
from bench.results.noise import CAPACITY, NOISE, OTHERS, OWN
from bench.results.resources import Row
from bench.units import NANOSECONDS

Key = tuple[str, str, str]  # namespace, pod, container; of a node: "", its name, ""
Floats = npt.NDArray[np.float64]

_LATEST_S: Final = 8e9  # the year 2223: its nanoseconds fit into 64 bits
_LARGEST: Final = 1 << 62
_FEWEST: Final = 2  # readings that a difference needs


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure: when, by the node's wall clock; CPU time so far; working set. Raises ValueError for what no process
    has."""

    wall_s: float
    cpu_ns: int
    memory_bytes: int

    def __post_init__(self) -> None:
        if not (0 <= self.wall_s < _LATEST_S and 0 <= self.cpu_ns < _LARGEST and 0 <= self.memory_bytes < _LARGEST):
            raise ValueError("a time, a CPU time or a size is out of bounds")


@dataclass
class NodeNoise:
    """Collects the figures of nodes with `cpus` (by name), and of the run's containers on them: those in the namespaces
    `spaces`. Its rows are those of `bench.results.noise`, as far as kubelets know them: no pressure, steal or
    throttling."""

    cpus: Mapping[str, float]
    spaces: Collection[str]
    _readings: dict[str, dict[Key, list[Reading]]] = field(default_factory=dict)

    def add(self, node: str, found: Mapping[Key, Reading]) -> None:
        """Add the figures of a node's summary that are new."""
        known = self._readings.setdefault(node, {})
        for key, reading in found.items():
            if key[0] in self.spaces or key == ("", node, ""):
                series = known.setdefault(key, [])
                if not series or reading.wall_s > series[-1].wall_s:
                    series.append(reading)

    def rows(self, start: Start) -> Iterator[Row]:
        """Yield CPU time of the nodes' capacity, of the run and of all others, in ns since the first figure, on the
        clock of the load that began at `start`; nothing where a figure is missing."""
        times_s = self._common_times()
        if len(times_s) < _FEWEST:
            return
        own, whole, cpus = np.zeros(len(times_s)), np.zeros(len(times_s)), 0.0
        for node, known in self._readings.items():
            cpus += self.cpus.get(node, 0.0)
            for key, series in known.items():
                used = _interpolate(series, times_s)
                if key[0]:
                    own += used
                else:
                    whole += used
        # An interpolated sum may be a little more than the node's own figure for a while.
        others = np.maximum.accumulate(np.maximum(whole - own, 0.0))
        counters = {CAPACITY: (times_s - times_s[0]) * NANOSECONDS * cpus, OWN: own, OTHERS: others}
        for name, values in counters.items():
            for at_s, value in zip(times_s, values, strict=True):
                yield round((at_s - start.wall_s) * NANOSECONDS), name, NOISE, round(value), 0

    def _common_times(self) -> Floats:
        """Return the times of the first node's figures at which those of all nodes and containers are known."""
        every = [series for known in self._readings.values() for series in known.values()]
        nodes = [known.get(("", node, ""), []) for node, known in self._readings.items()]
        if not nodes or any(len(series) < _FEWEST for series in every) or any(not series for series in nodes):
            return np.zeros(0)
        first, last = max(series[0].wall_s for series in every), min(series[-1].wall_s for series in every)
        times = (one.wall_s for one in nodes[0])
        return np.array([at_s for at_s in times if first <= at_s <= last])


def _interpolate(series: list[Reading], times_s: Floats) -> Floats:
    """Return the CPU time at these times, in ns since the first of them."""
    used = np.interp(times_s, [one.wall_s for one in series], [float(one.cpu_ns) for one in series])
    since: Floats = used - used[0]
    return since
