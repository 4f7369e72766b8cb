"""Latency by request name, where a run's requests have more than one: in a repeat, and over repeats."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from bench import latency
from bench.latency import Ns
from bench.records import NamedLatency, NamedRepeat, RepeatSummary
from bench.samples import Samples
from bench.stats import Mean, geometric_mean
from bench.units import NS_PER_MS

_NOTHING: Final = Mean(0.0, None, None, "no good request of this name")


def named_repeats(counted: Samples, response_ns: Ns) -> tuple[NamedRepeat, ...]:
    """The requests of a window by name, in the order of the names; nothing where all have the same."""
    used = np.unique(counted.name).tolist()
    if len(used) < 2:
        return ()
    found = (_named_repeat(counted, response_ns, index) for index in used)
    return tuple(sorted(found, key=lambda named: named.name))


def named_latencies(repeats: Sequence[RepeatSummary]) -> tuple[NamedLatency, ...]:
    """Each name over the valid repeats that have it."""
    found: dict[str, list[NamedRepeat]] = {}
    for repeat in repeats:
        for named in repeat.by_name if repeat.valid else ():
            found.setdefault(named.name, []).append(named)
    return tuple(_over_repeats(name, found[name]) for name in sorted(found))


def _named_repeat(counted: Samples, response_ns: Ns, index: int) -> NamedRepeat:
    mine: npt.NDArray[np.bool_] = counted.name == index
    good_ns = response_ns[mine & counted.ok]
    p50_ns, p95_ns = latency.percentiles_ns(good_ns, (0.5, 0.95)) if len(good_ns) else (None, None)
    return NamedRepeat(
        name=counted.names[index],
        requests=int(mine.sum()),
        errors=int(mine.sum()) - len(good_ns),
        p50_ms=None if p50_ns is None else p50_ns / NS_PER_MS,
        p95_ms=None if p95_ns is None else p95_ns / NS_PER_MS,
    )


def _over_repeats(name: str, repeats: Sequence[NamedRepeat]) -> NamedLatency:
    p50, p95 = _mean(repeats, "p50_ms"), _mean(repeats, "p95_ms")
    known = p95 is not _NOTHING
    return NamedLatency(
        name=name,
        n=sum(bool(repeat.p95_ms) for repeat in repeats),
        requests=sum(repeat.requests for repeat in repeats),
        errors=sum(repeat.errors for repeat in repeats),
        p50_ms=p50.value if known else None,
        p50_low_ms=p50.interval[0] if p50.interval else None,
        p50_high_ms=p50.interval[1] if p50.interval else None,
        p95_ms=p95.value if known else None,
        p95_low_ms=p95.interval[0] if p95.interval else None,
        p95_high_ms=p95.interval[1] if p95.interval else None,
        no_interval=p95.reason,
    )


def _mean(repeats: Sequence[NamedRepeat], percentile: Literal["p50_ms", "p95_ms"]) -> Mean:
    values = [value for repeat in repeats if (value := getattr(repeat, percentile))]
    return geometric_mean(values) if values else _NOTHING
