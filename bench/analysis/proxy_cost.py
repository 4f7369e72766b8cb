"""Estimate what one proxy costs: the difference that a mesh makes to a page, divided by the proxies on its path.

Means add up over sequential calls, percentiles do not. P50 is divided nevertheless, since the slowest requests
affect a mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import numpy as np

from bench.analysis.stats import CONFIDENCE, explain_no_interval, t_quantile, welch
from bench.analysis.validity import make_issue
from bench.application.model import CLIENT, GATEWAY, Application
from bench.meshes.resolved import ResolvedScenario
from bench.results.issues import Issue, IssueCode
from bench.results.records import PathLength
from bench.results.summary_records import ConfigurationSummary, HopCost, RepeatSummary
from bench.units import format_percent

Statistic = Literal["mean_ms", "p50_ms"]

STATISTICS: Final[tuple[Statistic, ...]] = ("mean_ms", "p50_ms")
BUSY: Final = 0.5  # of the CPUs: from about here on a page waits for them as long as it uses them


def estimate_hop_costs(
    configurations: Mapping[str, ConfigurationSummary], reference: str, *, paths: Mapping[str, PathLength], cpus: int
) -> Iterator[HopCost]:
    """Yield the cost for each configuration with the reference's users whose pages cross more proxies."""
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
                )


def _estimate_cost(
    sides: Mapping[str, Sequence[RepeatSummary]], statistic: Statistic, *, path: PathLength, cpus: int
) -> HopCost:
    (name, repeats), (reference, references) = sides.items()
    values, base = _read_values(repeats, statistic), _read_values(references, statistic)
    delta, half = _compute_difference(values, base)
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
        issues=tuple(_find_warnings(values, base, low=low, busy=_measure_busy_share(repeats, cpus))),
    )


def _compute_difference(values: Sequence[float], base: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the difference of the means in ms, and half its Welch interval; None for what cannot be computed."""
    if not values or not base:
        return None, None
    delta = float(np.mean(values) - np.mean(base))
    if explain_no_interval(values) or explain_no_interval(base):
        return delta, None
    error, df = welch(np.asarray(values, np.float64), np.asarray(base, np.float64))
    return delta, error * t_quantile(CONFIDENCE, df)


def _find_warnings(
    values: Sequence[float], base: Sequence[float], *, low: float | None, busy: float | None
) -> Iterator[Issue]:
    if not values or not base:
        yield make_issue(IssueCode.NO_VALID_REPEAT, "no valid repeat on one side")
        return
    if reason := explain_no_interval(values) or explain_no_interval(base):
        yield make_issue(IssueCode.NO_INTERVAL, reason)
    if low is not None and low <= 0:
        yield make_issue(IssueCode.MAYBE_ZERO, "may be zero: the interval includes 0")
    if busy is not None and busy >= BUSY:
        detail = f"CPUs were at least {format_percent(busy)} busy: waiting for them is included"
        yield make_issue(IssueCode.BUSY_CPUS, detail)


def _measure_busy_share(repeats: Sequence[RepeatSummary], cpus: int) -> float | None:
    """Return the largest share of the CPUs in use during a valid repeat, as far as processes were observed."""
    shares = [share for repeat in repeats if repeat.valid and (share := _measure_share(repeat, cpus)) is not None]
    return max(shares, default=None)


def _measure_share(repeat: RepeatSummary, cpus: int) -> float | None:
    """Return the share of the CPUs in use: by whole nodes, or at least by all processes where no node was observed."""
    nodes = [use for use in repeat.resources if use.role == "node"]
    cores = [use.cpu_s / use.seen_s for use in nodes or repeat.resources if use.cpu_s is not None and use.seen_s]
    return sum(cores) / cpus if cores else None


def _read_values(repeats: Sequence[RepeatSummary], statistic: Statistic) -> list[float]:
    found = [getattr(repeat, statistic) for repeat in repeats if repeat.valid]
    return [value for value in found if value is not None]


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
