"""Read a pod's clock: how far its node's monotonic clock is from ours, and how well that is known."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.errors import BadAnswerError, ClusterError, ErrorKind
from bench.k8s.client import Cluster
from bench.targets.cluster.load.pod import KEEPER, NAME
from bench.units import NANOSECONDS

_READINGS: Final = 4
_NOTABLE_SKEW_S: Final = 1.0
_READING: Final = re.compile(rb"\s*([0-9]{1,18}) ([0-9]{1,10}(?:\.[0-9]{1,20})?)\s*")
_READ: Final = "import time; print(time.perf_counter_ns(), time.time())"


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: our monotonic clock before and after it, our wall clock before it, and both of the node."""

    before_ns: int
    after_ns: int
    wall_s: float
    node_ns: int
    node_wall_s: float


@dataclass(frozen=True, slots=True)
class Offset:
    """Our monotonic clock minus the node's, give or take `uncertainty_ns`; `skew_s` is how far the node's wall clock
    is ahead of ours."""

    offset_ns: int
    uncertainty_ns: int
    skew_s: float

    def format_summary(self) -> str:
        """Format the offset for the log of a load."""
        known_ms = self.uncertainty_ns / 1e6
        return f"clocks: the window's edges are known to {known_ms:.0f} ms; the node's time is {self.skew_s:+.3f} s off"

    def format_warning(self) -> str:
        """Return a warning for the result; empty where the clocks agree."""
        if abs(self.skew_s) < _NOTABLE_SKEW_S:
            return ""
        return f"the load's node has its clock {self.skew_s:+.1f} s off this machine's; latencies do not depend on it"


def read_offset(cluster: Cluster, namespace: str) -> Offset:
    """Read the load pod's clocks some times. Raises ClusterError."""
    return offset_of([_read_clocks(cluster, namespace) for _ in range(_READINGS)])


def offset_of(readings: Sequence[Reading]) -> Offset:
    """Return the offset: each node time lies between our times before and after, so the true offset is where all these
    spans overlap."""
    low = max(one.before_ns - one.node_ns for one in readings)
    high = min(one.after_ns - one.node_ns for one in readings)
    best = min(readings, key=lambda one: one.after_ns - one.before_ns)
    half_s = (best.after_ns - best.before_ns) / 2 / NANOSECONDS
    return Offset((low + high) // 2, abs(high - low) // 2, best.node_wall_s - best.wall_s - half_s)


def _read_clocks(cluster: Cluster, namespace: str) -> Reading:
    before_ns, wall_s = time.perf_counter_ns(), time.time()
    ran = cluster.exec(NAME, ["python", "-I", "-S", "-c", _READ], namespace=namespace, container=KEEPER, timeout_s=10)
    after_ns = time.perf_counter_ns()
    if ran.exit_code != 0:
        text = f"reading the load pod's clock: {ran.stderr.strip()[-300:] or 'no answer'}"
        raise ClusterError(text, kind=ErrorKind.UNAVAILABLE)
    node_ns, node_wall_s = parse_clocks(ran.stdout)
    return Reading(before_ns, after_ns, wall_s, node_ns, node_wall_s)


def parse_clocks(output: bytes) -> tuple[int, float]:
    """Parse a node's monotonic clock in nanoseconds, and its wall clock in seconds. Raises BadAnswerError."""
    match = _READING.fullmatch(output)
    if match is None:
        raise BadAnswerError(f"reading the load pod's clock: {output[:80]!r} is not the time of two clocks")
    return int(match[1]), float(match[2])
