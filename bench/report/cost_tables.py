"""Tables that only some runs have: latency by request name, and what one proxy costs."""

from itertools import groupby

from bench.records import HopCost, NamedLatency
from bench.report.content import Report
from bench.report.table import Cell, Table, bracketed, columns_of
from bench.units import format_count, format_delta, format_interval, format_ms, format_percent


def names(report: Report) -> Table:
    """P50 and P95 of each request name, where there is more than one."""
    level = format_percent(report.summary.confidence)
    return Table(
        name="names",
        title="Response time by request",
        note="Requests of a run may have names, such as pages of different users. P50 and P95 are taken from the good "
        "requests of one name in one repeat; geometric mean over the valid repeats that have it (n), in brackets the "
        f"{level} interval. Exploratory.",
        columns=columns_of("Request | Configuration | P50 ms* | P95 ms* | n* | Errors* | Remark"),
        rows=tuple(
            _named(named, configuration)
            for request in sorted({named.name for c in report.configurations.values() for named in c.by_name})
            for configuration, c in report.configurations.items()
            for named in c.by_name
            if named.name == request
        ),
    )


def hops(report: Report) -> Table:
    """What one proxy adds to a page."""
    level = format_percent(report.summary.confidence)
    return Table(
        name="hops",
        title="Cost per proxy",
        note="The difference to the reference, divided by the proxies that a page crosses on its way and does not "
        "cross there. Hops: calls that make a page, one after the other. By the mean, since means add up over hops, "
        f"and by P50, which slow requests do not move. In brackets the {level} interval. All proxies are taken for "
        "alike; what requests wait for busy processors is counted in, so that another load gives another cost.",
        columns=columns_of("Configuration | Against | Hops* | Proxies* | By mean: ms* | By P50: ms* | n* | Doubts"),
        rows=tuple(
            _cost({cost.statistic: cost for cost in costs})
            for _, costs in groupby(report.summary.hop_costs, key=lambda cost: cost.configuration)
        ),
    )


def _named(named: NamedLatency, configuration: str) -> tuple[Cell, ...]:
    return (
        Cell(named.name),
        Cell(configuration),
        Cell(format_ms(named.p50_ms), bracketed(format_interval(named.p50_low_ms, named.p50_high_ms))),
        Cell(format_ms(named.p95_ms), bracketed(format_interval(named.p95_low_ms, named.p95_high_ms))),
        Cell(str(named.n)),
        Cell(
            format_percent(named.errors / named.requests if named.requests else None),
            f"of {format_count(named.requests)}",
        ),
        Cell(named.no_interval or "none"),
    )


def _cost(costs: dict[str, HopCost]) -> tuple[Cell, ...]:
    mean, median = costs["mean_ms"], costs["p50_ms"]
    return (
        Cell(mean.configuration),
        Cell(mean.reference),
        Cell(str(mean.hops)),
        Cell(str(mean.proxies)),
        _per_proxy(mean),
        _per_proxy(median),
        Cell(f"{mean.n[0]} + {mean.n[1]}"),
        Cell("; ".join(dict.fromkeys((*mean.doubts, *median.doubts))) or "none"),
    )


def _per_proxy(cost: HopCost) -> Cell:
    interval = format_interval(cost.low_ms_per_proxy, cost.high_ms_per_proxy, format_delta)
    return Cell(format_delta(cost.ms_per_proxy), bracketed(interval))
