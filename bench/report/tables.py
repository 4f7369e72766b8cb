"""Make the tables of a run's numbers, the most important first."""

from collections.abc import Iterable
from itertools import groupby
from typing import Final, get_args

from bench.report.conclusions import sort_contrasts
from bench.report.data_path_table import compare_data_paths
from bench.report.model import Cell, Report, Table, compute_mean, divide, format_detail, group_uses, make_columns
from bench.report.study_2022 import compare_with_study
from bench.results.summary_records import ConfigurationSummary, Contrast, HopCost, NamedLatency, RepeatSummary
from bench.system.processes import Role
from bench.units import (
    format_bytes,
    format_count,
    format_counted,
    format_delta,
    format_effect,
    format_interval,
    format_ms,
    format_percent,
    format_ratio,
    format_rps,
)

_LONGEST_CODE: Final = 20


def make_name_table(report: Report) -> Table:
    """Return P50 and P95 of each request name, where there is more than one."""
    level = format_percent(report.summary.confidence)
    return Table(
        name="names",
        title="Response time by request",
        note="Requests of a run may have names, such as pages of different users. P50 and P95 are those of the "
        "successful requests of one name in one repeat; geometric mean over the valid repeats that have it (n), in "
        f"brackets the {level} interval. Exploratory.",
        columns=make_columns("Request | Configuration | P50 ms* | P95 ms* | n* | Errors* | Warnings"),
        rows=tuple(
            _make_name_row(named, configuration)
            for request in sorted({named.name for c in report.configurations.values() for named in c.by_name})
            for configuration, c in report.configurations.items()
            for named in c.by_name
            if named.name == request
        ),
    )


def make_hop_table(report: Report) -> Table:
    """Return what one proxy adds to a page."""
    level = format_percent(report.summary.confidence)
    return Table(
        name="hops",
        title="Cost per proxy",
        note="The difference to the reference, divided by the proxies on the path of a page that the reference does "
        "not have. Hops: sequential calls of a page. By the mean, since means add up over hops, and by P50, which "
        f"slow requests do not affect. In brackets the {level} interval. All proxies are assumed to cost the same; "
        "waiting for busy CPUs is included, so that another load gives another cost.",
        columns=make_columns("Configuration | Against | Hops* | Proxies* | By mean: ms* | By P50: ms* | n* | Warnings"),
        rows=tuple(
            _make_cost_row({cost.statistic: cost for cost in costs})
            for _, costs in groupby(report.summary.hop_costs, key=lambda cost: cost.configuration)
        ),
    )


def _make_name_row(named: NamedLatency, configuration: str) -> tuple[Cell, ...]:
    return (
        Cell(named.name),
        Cell(configuration),
        Cell(format_ms(named.p50_ms), format_detail(format_interval(named.p50_low_ms, named.p50_high_ms))),
        Cell(format_ms(named.p95_ms), format_detail(format_interval(named.p95_low_ms, named.p95_high_ms))),
        Cell(str(named.n)),
        Cell(
            format_percent(named.errors / named.requests if named.requests else None),
            f"of {format_count(named.requests)}",
        ),
        Cell(named.no_interval or "none"),
    )


def _make_cost_row(costs: dict[str, HopCost]) -> tuple[Cell, ...]:
    mean, median = costs["mean_ms"], costs["p50_ms"]
    return (
        Cell(mean.configuration),
        Cell(mean.reference),
        Cell(str(mean.hops)),
        Cell(str(mean.proxies)),
        _make_cost_cell(mean),
        _make_cost_cell(median),
        Cell(f"{mean.n[0]} + {mean.n[1]}"),
        Cell("; ".join(dict.fromkeys((*mean.doubts, *median.doubts))) or "none"),
    )


def _make_cost_cell(cost: HopCost) -> Cell:
    interval = format_interval(cost.low_ms_per_proxy, cost.high_ms_per_proxy, format_delta)
    return Cell(format_delta(cost.ms_per_proxy), format_detail(interval))


def make_tables(report: Report) -> tuple[Table, ...]:
    """Return all tables of numbers, the most important first."""
    made = (
        make_result_table(report),
        make_name_table(report),
        make_hop_table(report),
        compare_data_paths(report),
        compare_with_study(report),
        make_contrast_table(report),
        make_repeat_table(report),
        make_check_table(report),
        make_resource_table(report),
    )
    return tuple(table for table in made if table.rows)


def make_result_table(report: Report) -> Table:
    """Return the main results per configuration, with intervals and the number of issues."""
    reference = report.summary.reference
    against = {c.configuration: c for c in sort_contrasts(report.summary, "p95_ms") if c.reference == reference}
    level = format_percent(report.summary.confidence)
    return Table(
        name="results",
        title="Response time and throughput",
        note="P95: 95 % of the successful requests were answered within this time; geometric mean over valid "
        f"repeats. In brackets the {level} interval. Difference and ratio: against "
        f"{reference or 'no reference'}. n: valid repeats of all. Proxies: CPU time of all sidecars for one request, "
        "mean over valid repeats. Errors: requests without a valid response, of all in the valid windows.",
        columns=make_columns(
            "Configuration | P95 ms* | Difference ms* | Ratio* | Verdict | n* | RPS* | Proxies: CPU ms* | Errors* | "
            "Issues"
        ),
        rows=tuple(
            _make_result_row(name, c, against.get(name), is_reference=name == reference)
            for name, c in report.configurations.items()
        ),
    )


def make_contrast_table(report: Report) -> Table:
    """Return every comparison on every metric."""
    methods = dict.fromkeys(contrast.method for contrast in report.summary.contrasts)
    return Table(
        name="contrasts",
        title="All comparisons",
        note="The comparison of P95 with the reference is confirmatory; planned is that of a pair that the scenario "
        "names; all others are exploratory: with many of them some differ by chance. MDE: minimum detectable effect, "
        "the smallest difference that these repeats could find (80 % power). Per block: the ratio inside each block; "
        "in brackets its 95 % interval without the variation between blocks, if all have the same variance. "
        f"Method: {'; '.join(methods) or 'n/a'}.",
        columns=make_columns(
            "Configuration | Reference | Metric | Ratio* | Difference* | Verdict | n* | MDE* | "
            "Per block* | Standing | Reason"
        ),
        rows=tuple(_make_contrast_row(contrast) for contrast in report.summary.contrasts),
    )  # fmt: skip


def make_repeat_table(report: Report) -> Table:
    """Return every repeat with all its numbers, valid or invalid."""
    return Table(
        name="repeats",
        title="Every repeat",
        note="Latencies in ms, nearest rank over the successful requests of the window. Corrected: P95 counted "
        "from the intended start. Study's statistic: that of the 2022 study, see its table. Stalls: whole "
        "seconds without a response. Generator: cores used by the load generator. Lateness: P95 of the time by "
        "which a request started later than intended, ms.",
        columns=make_columns(
            "Trial | Valid | P50* | P75* | P90* | P95* | P99* | P99.9* | Max* | Mean* | Corrected* | "
            "Study's statistic* | Requests* | Errors* | RPS* | Stalls s* | Generator* | Lateness* | "
            "Issues"
        ),
        rows=tuple(_make_repeat_row(r) for c in report.configurations.values() for r in c.repeats),
    )  # fmt: skip


def make_check_table(report: Report) -> Table:
    """Return every issue of every repeat, in full."""
    return Table(
        name="reasons",
        title="Check results",
        note="A reason makes a repeat invalid: it is shown, and excluded from every mean. A warning does not.",
        columns=make_columns("Trial | Kind | Issue and advice"),
        rows=tuple(
            (Cell(repeat.trial), Cell(kind, verdict=kind == "invalid"), Cell(text))
            for configuration in report.configurations.values()
            for repeat in configuration.repeats
            for kind, texts in (("invalid", repeat.reasons), ("warning", repeat.warnings))
            for text in texts
        ),
    )


def make_resource_table(report: Report) -> Table:
    """Return CPU and memory of every process, over the valid repeats; sums of a role are not included."""
    return Table(
        name="resources",
        title="CPU and memory of every process",
        note="Means over the valid repeats, in brackets the smallest and largest. Memory: largest resident size, on a "
        "cluster the largest working set. A node's row includes everything that runs there.",
        columns=make_columns("Configuration | Process | Kind | CPU ms per request* | CPU cores* | Memory* | n*"),
        rows=tuple(
            row
            for name, configuration in report.configurations.items()
            for role in get_args(Role)
            for row in _make_resource_rows(name, configuration, role)
        ),
    )


def _make_result_row(
    name: str, c: ConfigurationSummary, contrast: Contrast | None, *, is_reference: bool
) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(format_ms(c.p95_ms), format_detail(format_interval(c.p95_low_ms, c.p95_high_ms))),
        *(
            _make_difference_cells(contrast)
            if contrast
            else (Cell("–"), Cell("–"), Cell("reference" if is_reference else "–"))
        ),
        Cell(f"{c.n} of {len(c.repeats)}"),
        Cell(format_rps(c.rps), format_detail(format_interval(c.rps_low, c.rps_high))),
        _make_cpu_cell(c),
        Cell(format_percent(c.errors / c.requests if c.requests else None), f"of {format_count(c.requests)}"),
        Cell(_count_issues(c)),
    )


def _make_cpu_cell(c: ConfigurationSummary) -> Cell:
    if c.mesh == "none":
        return Cell("–")
    interval = format_interval(c.sidecar_cpu_low_ms_per_request, c.sidecar_cpu_high_ms_per_request)
    return Cell(format_ms(c.sidecar_cpu_ms_per_request), format_detail(interval))


def _make_difference_cells(contrast: Contrast) -> tuple[Cell, Cell, Cell]:
    c = contrast
    if c.metric == "rps":
        difference = (c.delta_rps, c.delta_low_rps, c.delta_high_rps)
    else:
        difference = (c.delta_ms, c.delta_low_ms, c.delta_high_ms)
    delta, low, high = difference
    return (
        Cell(format_delta(delta), format_detail(format_interval(low, high, format_delta))),
        Cell(format_ratio(c.ratio), format_detail(format_interval(c.ratio_low, c.ratio_high, format_ratio))),
        Cell(c.verdict, verdict=True),
    )


def _count_issues(configuration: ConfigurationSummary) -> str:
    """Return the number of issues in few words: the check results have them in full."""
    invalid = len(configuration.repeats) - configuration.n
    warnings = sum(len(repeat.warnings) for repeat in configuration.repeats)
    parts = (
        "" if configuration.valid or invalid else "fewer repeats than planned",
        format_counted(invalid, "invalid repeat") if invalid else "",
        format_counted(warnings, "warning") if warnings else "",
        configuration.no_interval,
    )
    return "; ".join(part for part in parts if part) or "none"


def _make_contrast_row(contrast: Contrast) -> tuple[Cell, ...]:
    delta, ratio, verdict = _make_difference_cells(contrast)
    unit = "1/s" if contrast.metric == "rps" else "ms"
    return (
        Cell(contrast.configuration),
        Cell(contrast.reference),
        Cell("RPS" if contrast.metric == "rps" else contrast.metric.removesuffix("_ms").upper()),
        ratio,
        delta if delta.text == "n/a" else delta._replace(text=f"{delta.text} {unit}"),
        verdict,
        Cell(f"{contrast.n[0]} + {contrast.n[1]}"),
        Cell(format_effect(contrast.mde)),
        Cell(
            ", ".join(format_ratio(ratio) for ratio in contrast.block_ratios) or "n/a",
            format_detail(format_interval(contrast.within_low, contrast.within_high, format_ratio)),
        ),
        Cell(contrast.standing),
        Cell(contrast.reason),
    )


def _make_repeat_row(repeat: RepeatSummary) -> tuple[Cell, ...]:
    r = repeat
    latencies = (
        r.p50_ms, r.p75_ms, r.p90_ms, r.p95_ms, r.p99_ms, r.p999_ms, r.max_ms, r.mean_ms, r.corrected_p95_ms,
        r.thesis_p95_ms,
    )  # fmt: skip
    return (
        Cell(r.trial),
        Cell("valid" if r.valid else "invalid", verdict=not r.valid),
        *(Cell(format_ms(latency)) for latency in latencies),
        Cell(format_count(r.requests)),
        Cell(format_count(r.errors)),
        Cell(format_rps(r.rps)),
        Cell(format_count(r.stall_s)),
        Cell(format_ms(r.generator_cpu)),
        Cell(format_ms(r.lateness_p95_ms)),
        Cell(_format_codes(r)),
    )


def _format_codes(repeat: RepeatSummary) -> str:
    """Return the codes of the issues, each once: `stall, unsteady`; the check results have the texts."""
    codes = (text.partition(":")[0] for text in (*repeat.reasons, *repeat.warnings))
    return ", ".join(dict.fromkeys(code if len(code) <= _LONGEST_CODE else "see below" for code in codes))


def _make_resource_rows(name: str, configuration: ConfigurationSummary, role: str) -> Iterable[tuple[Cell, ...]]:
    for process, found in sorted(group_uses(configuration, role).items()):
        cpu = [use.cpu_ms_per_request for use in found if use.cpu_ms_per_request is not None]
        yield (
            Cell(name),
            Cell(process),
            Cell(role),
            Cell(
                format_ms(compute_mean(cpu)), format_detail(format_interval(min(cpu), max(cpu))) if len(cpu) > 1 else ""
            ),
            Cell(
                format_ms(
                    compute_mean([cores for use in found if (cores := divide(use.cpu_s, use.seen_s)) is not None])
                )
            ),
            Cell(format_bytes(compute_mean([use.rss_max_bytes for use in found if use.rss_max_bytes is not None]))),
            Cell(str(len(found))),
        )
