"""How far recorded starts and latencies are from a server's own times, for each kind of client in both loops."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.units import NS_PER_MS
from tests.benchmarks.figure import Figure
from tests.stamping import Compared, compare, compare_own, load, run_stamping_server

_CLASSES = ("Http", "Fast", "Custom")
_LOADS = {"closed": 0.0, "open": 20.0}
_PROCESSING_S = 0.006  # about what Bookinfo's page takes without a mesh
_USERS = 5
_SECONDS = 15
_START_AIM_MS = 0.3


def figures() -> Iterator[Figure]:
    """Yield a separate load for each class and kind, as many requests as in a short window."""
    for kind, rate in _LOADS.items():
        for name in _CLASSES:
            with tempfile.TemporaryDirectory() as folder, run_stamping_server(_PROCESSING_S) as stamps:
                load(Path(folder), stamps, name, users=_USERS, seconds=_SECONDS, rate=rate)
                yield from _of(f"{name}, {kind}", compare(Path(folder), stamps)[name])
                yield from _own(f"{name}, {kind}", *compare_own(Path(folder))[name])


def _of(what: str, found: Compared) -> Iterator[Figure]:
    latency = found.ended - found.started
    yield _figure(f"{what}: latency", latency)
    yield _figure(f"{what}: the server's own time", found.sent - found.received)
    yield _figure(f"{what}: latency less the server's", latency - (found.sent - found.received))
    yield _figure(f"{what}: receipt after the start", found.received - found.started)
    yield _figure(f"{what}: end after the answer", found.ended - found.sent)
    yield _figure(f"{what}: start after it was due", found.started - found.intended)


def _own(what: str, starts_ns: "npt.NDArray[np.int64]", added_ns: "npt.NDArray[np.int64]") -> Iterator[Figure]:
    """Yield what recording adds to the client's own times."""
    start_ms, added = float(np.median(np.abs(starts_ns))) / NS_PER_MS, int(np.abs(added_ns).max())
    yield Figure(
        what=f"{what}: recorded start against the client's",
        value=f"{start_ms:.3f} ms",
        aim="< 0.3 ms",
        met=start_ms < _START_AIM_MS,
    )
    yield Figure(what=f"{what}: most added to response_time", value=f"{added} ns", aim="0 ns", met=added == 0)


def _figure(what: str, times_ns: "npt.NDArray[np.int64]") -> Figure:
    p50, p95 = np.quantile(times_ns, [0.5, 0.95]) / NS_PER_MS
    return Figure(what=what, value=f"{p50:.3f} ms", spread=f"P95 {p95:.3f} ms; {len(times_ns)} requests")
