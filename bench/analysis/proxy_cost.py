"""Estimate what one proxy costs: the difference that a mesh makes to a page, divided by the proxies on its path.

Means add up over sequential calls, percentiles do not. P50 is divided nevertheless, since the slowest requests
affect a mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from bench.analysis.contrast import find_correlation
from bench.analysis.stats import CONFIDENCE, BlockMean, average_blocks, explain_no_interval, t_quantile, welch
from bench.analysis.validity import make_issue
from bench.application.model import CLIENT, GATEWAY, Application
from bench.meshes.resolved import ResolvedScenario
from bench.results.issues import Issue, IssueCode
from bench.results.records import PathLength
from bench.results.summary_records import ConfigurationSummary, HopCost, RepeatSummary
from bench.scenario.types import Design
from bench.units import format_percent

Statistic = Literal["mean_ms", "p50_ms"]

STATISTICS: Final[tuple[Statistic, ...]] = ("mean_ms", "p50_ms")
BUSY: Final = 0.5  # of the CPUs: from about here on a page waits for them as long as it uses them


class _Difference(NamedTuple):
    """A difference in ms and half its interval; None, with the reason, for what cannot be computed. `blocks` is how it
    was computed in a paired design."""

    delta: float | None
    half_width: float | None
    reason: str = ""
    blocks: BlockMean | None = None


def estimate_hop_costs(
    configurations: Mapping[str, ConfigurationSummary],
    reference: str,
    *,
    paths: Mapping[str, PathLength],
    cpus: int,
    design: Design = "sequential",
) -> Iterator[HopCost]:
    """Yield the cost for each configuration with the reference's users whose pages cross more proxies.

    In a paired design it is the mean of the blocks' differences, over blocks in which both sides are valid.
    """
    base = configurations[reference]
    for name, configuration in configurations.items():
        more = paths[name].proxies - paths[reference].proxies if name in paths and reference in paths else 0
        if more > 0 and configuration.users == base.users:
            for statistic in STATISTICS:
                yield _estimate_cost(
                    {name: configuration.repeats, reference: base.repeats},
                    statistic,
                    path=PathLength(hops=paths[name].hops, proxies=more),
                    cpus=cpus,
                    design=design,
                )


def _estimate_cost(
    sides: Mapping[str, Sequence[RepeatSummary]], statistic: Statistic, *, path: PathLength, cpus: int, design: Design
) -> HopCost:
    (name, repeats), (reference, references) = sides.items()
    values, base = _read_values(repeats, statistic), _read_values(references, statistic)
    if design == "sequential":
        found = _compute_difference(list(values.values()), list(base.values()))
    else:
        values, base = ({block: side[block] for block in values if block in base} for side in (values, base))
        found = _compute_paired_difference(values, base)
    delta, half = found.delta, found.half_width
    low, high = (None, None) if delta is None or half is None else (delta - half, delta + half)
    return HopCost(
        configuration=name,
        reference=reference,
        statistic=statistic,
        n=(len(values), len(base)),
        hops=path.hops,
        proxies=path.proxies,
        ms_per_proxy=_divide(delta, path),
        low_ms_per_proxy=_divide(low, path),
        high_ms_per_proxy=_divide(high, path),
        issues=tuple(_find_warnings(found, low=low, busy=_measure_busy_share(repeats, cpus, design))),
    )


def _compute_difference(values: Sequence[float], base: Sequence[float]) -> _Difference:
    """Return the difference of the means in ms with half its Welch interval."""
    if not values or not base:
        return _Difference(None, None, "no valid repeat on one side")
    delta = float(np.mean(values) - np.mean(base))
    if reason := explain_no_interval(values) or explain_no_interval(base):
        return _Difference(delta, None, reason)
    error, df = welch(np.asarray(values, np.float64), np.asarray(base, np.float64))
    return _Difference(delta, error * t_quantile(CONFIDENCE, df))


def _compute_paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> _Difference:
    """Return the mean of the blocks' differences in ms with half its paired interval."""
    if not values:
        return _Difference(None, None, "there is no block in which both are valid")
    found = average_blocks([values[block] - base[block] for block in sorted(values)])
    return _Difference(found.value, found.half_width(), found.reason, found)


def _find_warnings(found: _Difference, *, low: float | None, busy: float | None) -> Iterator[Issue]:
    if found.delta is None:
        yield make_issue(IssueCode.NO_VALID_REPEAT, found.reason)
        return
    if found.reason:
        yield make_issue(IssueCode.NO_INTERVAL, found.reason)
    yield from find_correlation(found.blocks)
    if low is not None and low <= 0:
        yield make_issue(IssueCode.MAYBE_ZERO, "may be zero: the interval includes 0")
    if busy is not None and busy >= BUSY:
        detail = f"CPUs were at least {format_percent(busy)} busy: waiting for them is included"
        yield make_issue(IssueCode.BUSY_CPUS, detail)


def _measure_busy_share(repeats: Sequence[RepeatSummary], cpus: int, design: Design) -> float | None:
    """Return the largest share of the CPUs in use during a valid repeat, as far as processes were observed. In a duet
    all configurations of the block use them."""
    measured = [
        repeat.used_cpu if design == "duet" and repeat.used_cpu is not None else _measure_share(repeat, cpus)
        for repeat in repeats
        if repeat.valid
    ]
    return max((share for share in measured if share is not None), default=None)


def _measure_share(repeat: RepeatSummary, cpus: int) -> float | None:
    """Return the share of the CPUs in use: by whole nodes, or at least by all processes where no node was observed."""
    nodes = [use for use in repeat.resources if use.role == "node"]
    cores = [use.cpu_s / use.seen_s for use in nodes or repeat.resources if use.cpu_s is not None and use.seen_s]
    return sum(cores) / cpus if cores else None


def _read_values(repeats: Sequence[RepeatSummary], statistic: Statistic) -> dict[int, float]:
    """Return the statistic of each valid repeat that has it, by block."""
    found = {repeat.block: getattr(repeat, statistic) for repeat in repeats if repeat.valid}
    return {block: value for block, value in found.items() if value is not None}


def _divide(value: float | None, path: PathLength) -> float | None:
    return None if value is None else value / path.proxies


def measure_paths(resolved: ResolvedScenario) -> dict[str, PathLength]:
    """Return the path of each configuration whose pages all take the same one."""
    paths = {one.name: measure_path(one.application, one.settings.mesh) for one in resolved.configurations}
    return {name: path for name, path in paths.items() if path is not None}


def measure_path(application: Application, mesh: str) -> PathLength | None:
    """Return the sequential calls of one page (a service calls others one after another) and the proxies that they
    cross. None where that is not known, or where pages take different paths, since a service has several versions."""
    called = [application.workload(name).app for _, name in application.calls]
    if len(set(called)) < len(called) or not application.knows_calls:
        return None
    proxies = sum(_has_caller_proxy(application, caller) + 1 for caller, _ in application.calls)
    return PathLength(hops=len(application.calls), proxies=0 if mesh == "none" else proxies)


def _has_caller_proxy(application: Application, caller: str) -> bool:
    """Return whether the caller has a sidecar. With a gateway the client is outside of the mesh and has none. A gateway
    is itself the proxy that was called, unless it is not part of the mesh and has a sidecar."""
    gateway = application.gateway
    if gateway is None:
        return True
    return gateway.proxy is not None if caller == GATEWAY else caller != CLIENT
