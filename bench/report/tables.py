"""Make the tables of a run's numbers, the most important first."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

from bench.analysis.validity import format_issue, format_issues
from bench.report.data_path_table import compare_data_paths
from bench.report.design_table import make_design_table
from bench.report.model import Cell, Report, Table, make_interval_cell, make_table
from bench.report.study_2022 import compare_with_study
from bench.results.store import list_digests
from bench.results.summary_records import Contrast, HopCost
from bench.units import (
    format_bytes,
    format_count,
    format_counted,
    format_delta,
    format_effect,
    format_ms,
    format_percent,
    format_ratio,
    format_rps,
)

_MOST_BLOCKS = 6  # whose ratios are printed one by one


def make_tables(report: Report) -> tuple[Table, ...]:
    """Return all tables of numbers, the most important first."""
    made = (
        make_result_table(report),
        make_name_table(report),
        make_hop_table(report),
        compare_data_paths(report),
        make_design_table(report),
        *([compare_with_study(report)] if not report.summary.is_paired else []),
        make_contrast_table(report),
        make_repeat_table(report),
        make_check_table(report),
        make_resource_table(report),
        make_image_table(report),
    )
    return tuple(table for table in made if table.rows)


def make_result_table(report: Report) -> Table:
    """Return the main results per configuration, with intervals and the number of issues."""
    reference = report.summary.reference
    contrasts = report.run.contrasts()
    against = contrasts[(contrasts["metric"] == "p95_ms") & (contrasts["reference"] == reference)]
    results = report.run.configurations().merge(against.drop(columns="n"), how="left", on="configuration")
    return make_table(
        "results",
        "Response time and throughput",
        "P95: 95 % of the successful requests were answered within this time; geometric mean over valid repeats. In "
        f"brackets the {format_percent(report.summary.confidence)} interval. Difference and ratio: against "
        f"{reference or 'no reference'}. n: valid repeats of all. Proxies: CPU time of all sidecars for one request, "
        "mean over valid repeats. Errors: requests without a valid response, of all in the valid windows.",
        rows=results.itertuples(),
        columns={
            "Configuration": lambda r: r.configuration,
            "P95 ms*": lambda r: make_interval_cell(r.p95_ms, r.p95_low_ms, r.p95_high_ms),
            "Difference ms*": lambda r: _make_delta_cell(r) if r.metric == "p95_ms" else "–",
            "Ratio*": lambda r: _make_ratio_cell(r) if r.metric == "p95_ms" else "–",
            "Verdict": lambda r: (
                Cell(r.verdict, verdict=True)
                if r.metric == "p95_ms"
                else "reference"
                if r.configuration == reference
                else "–"
            ),
            "n*": lambda r: f"{r.n} of {r.measured}",
            "RPS*": lambda r: make_interval_cell(r.rps, r.rps_low, r.rps_high, format_rps),
            "Proxies: CPU ms*": lambda r: (
                "–"
                if r.mesh == "none"
                else make_interval_cell(
                    r.sidecar_cpu_ms_per_request, r.sidecar_cpu_low_ms_per_request, r.sidecar_cpu_high_ms_per_request
                )
            ),
            "Errors*": _make_error_cell,
            "Issues": _count_issues,
        },
    )


def make_name_table(report: Report) -> Table:
    """Return P50 and P95 of each request name, where there is more than one."""
    named = [(name, one) for name, c in report.configurations.items() for one in c.by_name]
    return make_table(
        "names",
        "Response time by request",
        "Requests of a run may have names, such as pages of different users. P50 and P95 are those of the "
        "successful requests of one name in one repeat; geometric mean over the valid repeats that have it (n), in "
        f"brackets the {format_percent(report.summary.confidence)} interval. Exploratory.",
        rows=sorted(named, key=lambda pair: pair[1].name),
        columns={
            "Request": lambda r: r[1].name,
            "Configuration": lambda r: r[0],
            "P50 ms*": lambda r: make_interval_cell(r[1].p50_ms, r[1].p50_low_ms, r[1].p50_high_ms),
            "P95 ms*": lambda r: make_interval_cell(r[1].p95_ms, r[1].p95_low_ms, r[1].p95_high_ms),
            "n*": lambda r: str(r[1].n),
            "Errors*": lambda r: _make_error_cell(r[1]),
            "Warnings": lambda r: r[1].no_interval or "none",
        },
    )


def make_hop_table(report: Report) -> Table:
    """Return what one proxy adds to a page."""
    by_configuration = groupby(report.summary.hop_costs, key=lambda cost: cost.configuration)
    return make_table(
        "hops",
        "Cost per proxy",
        "The difference to the reference, divided by the proxies on the path of a page that the reference does "
        "not have. Hops: sequential calls of a page. By the mean, since means add up over hops, and by P50, which "
        f"slow requests do not affect. In brackets the {format_percent(report.summary.confidence)} interval. All "
        "proxies are assumed to cost the same; waiting for busy CPUs is included, so that another load gives another "
        "cost.",
        rows=[{cost.statistic: cost for cost in costs} for _, costs in by_configuration],
        columns={
            "Configuration": lambda r: r["mean_ms"].configuration,
            "Against": lambda r: r["mean_ms"].reference,
            "Hops*": lambda r: str(r["mean_ms"].hops),
            "Proxies*": lambda r: str(r["mean_ms"].proxies),
            "By mean: ms*": lambda r: _make_cost_cell(r["mean_ms"]),
            "By P50: ms*": lambda r: _make_cost_cell(r["p50_ms"]),
            "n*": lambda r: "{} + {}".format(*r["mean_ms"].n),
            "Warnings": lambda r: format_issues(dict.fromkeys((*r["mean_ms"].issues, *r["p50_ms"].issues))) or "none",
        },
    )


def make_contrast_table(report: Report) -> Table:
    """Return every comparison on every metric; what only blocks that were paired have, where some contrast has it."""
    contrasts = report.summary.contrasts
    is_paired = report.summary.is_paired
    within = (
        ""
        if is_paired
        else " in brackets its 95 % interval without the variation between blocks, if all have the same variance."
    )
    medians = any(contrast.median_ratio is not None for contrast in contrasts)
    lags = any(contrast.lag_1 is not None for contrast in contrasts)
    return make_table(
        "contrasts",
        "All comparisons",
        "The comparison of P95 with the reference is confirmatory; planned is that of a pair that the scenario "
        "names; all others are exploratory: with many of them some differ by chance. MDE: minimum detectable effect, "
        f"the smallest difference that these {'blocks' if is_paired else 'repeats'} could find (80 % power). Per "
        f"block: the ratio inside each block{';' + within if within else '.'} "
        + ("Median: of the blocks' ratios, with its exact interval; a check of the ratio. " if medians else "")
        + ("Lag 1: correlation of neighbouring blocks; above 0.3 they count as fewer. " if lags else "")
        + f"Method: {'; '.join(dict.fromkeys(contrast.method for contrast in contrasts)) or 'n/a'}.",
        rows=contrasts,
        columns={
            "Configuration": lambda c: c.configuration,
            "Reference": lambda c: c.reference,
            "Metric": lambda c: c.metric.removesuffix("_ms").upper(),
            "Ratio*": _make_ratio_cell,
            **({"Median*": _make_median_cell} if medians else {}),
            "Difference*": _make_delta_cell_with_unit,
            "Verdict": lambda c: Cell(c.verdict, verdict=True),
            **({"Blocks*": lambda c: str(c.n[0])} if is_paired else {"n*": lambda c: f"{c.n[0]} + {c.n[1]}"}),
            "MDE*": lambda c: format_effect(c.mde),
            "Per block*": _make_block_cell,
            **({"Lag 1*": _make_lag_cell} if lags else {}),
            "Standing": lambda c: c.standing,
            "Reason": lambda c: format_issues(c.issues),
        },
    )


_NOISE = {
    "Others*": ("other_cpu", "Others: share of all CPUs that processes outside the run used."),
    "Steal*": ("steal", "Steal: share of all CPUs that the hypervisor gave to others."),
    "Waiting*": (
        "pressure",
        "Waiting: share of the time in which a process waited for a CPU, the run's own included.",
    ),
    "Throttled*": ("throttled", "Throttled: share of the time in which a limit stopped processes."),
}


def make_repeat_table(report: Report) -> Table:
    """Return every repeat with all its numbers, valid or invalid; noise only where it is known."""
    repeats = report.run.repeats()
    noise = {title: found for title, found in _NOISE.items() if repeats[found[0]].notna().any()}
    return make_table(
        "repeats",
        "Every repeat",
        "Latencies in ms, nearest rank over the successful requests of the window. Corrected: P95 counted "
        "from the intended start. Study's statistic: that of the 2022 study, see its table. Stalls: whole "
        "seconds without a response. Generator: cores used by the load generator. Lateness: P95 of the time by "
        "which a request started later than intended, ms." + "".join(f" {meaning}" for _, meaning in noise.values()),
        rows=repeats.itertuples(),
        columns={
            "Trial": lambda r: r.trial,
            "Valid": lambda r: Cell("valid" if r.valid else "invalid", verdict=not r.valid),
            "P50*": lambda r: format_ms(r.p50_ms),
            "P75*": lambda r: format_ms(r.p75_ms),
            "P90*": lambda r: format_ms(r.p90_ms),
            "P95*": lambda r: format_ms(r.p95_ms),
            "P99*": lambda r: format_ms(r.p99_ms),
            "P99.9*": lambda r: format_ms(r.p999_ms),
            "Max*": lambda r: format_ms(r.max_ms),
            "Mean*": lambda r: format_ms(r.mean_ms),
            "Corrected*": lambda r: format_ms(r.corrected_p95_ms),
            "Study's statistic*": lambda r: format_ms(r.thesis_p95_ms),
            "Requests*": lambda r: format_count(r.requests),
            "Errors*": lambda r: format_count(r.errors),
            "RPS*": lambda r: format_rps(r.rps),
            "Stalls s*": lambda r: format_count(r.stall_s),
            "Generator*": lambda r: format_ms(r.generator_cpu),
            "Lateness*": lambda r: format_ms(r.lateness_p95_ms),
            **{title: partial(_format_share, column) for title, (column, _) in noise.items()},
            "Issues": lambda r: r.issues,
        },
    )


def make_check_table(report: Report) -> Table:
    """Return every issue of every repeat, in full."""
    return make_table(
        "reasons",
        "Check results",
        "A reason makes a repeat invalid: it is shown, and excluded from every mean. A warning does not.",
        rows=[
            (repeat.trial, kind, format_issue(issue))
            for configuration in report.configurations.values()
            for repeat in configuration.repeats
            for kind, issues in (("invalid", repeat.reasons), ("warning", repeat.warnings))
            for issue in issues
        ],
        columns={
            "Trial": lambda r: r[0],
            "Kind": lambda r: Cell(r[1], verdict=r[1] == "invalid"),
            "Issue and advice": lambda r: r[2],
        },
    )


def make_resource_table(report: Report) -> Table:
    """Return CPU and memory of every process, over the valid repeats; sums of a role are not included."""
    uses = report.run.processes().query("valid").groupby(["configuration", "role", "process"], observed=True)
    means = uses.agg(
        cpu=("cpu_ms_per_request", "mean"),
        low=("cpu_ms_per_request", "min"),
        high=("cpu_ms_per_request", "max"),
        counted=("cpu_ms_per_request", "count"),
        cores=("cpu_cores", "mean"),
        rss=("rss_max_bytes", "mean"),
        n=("trial", "size"),
    )
    return make_table(
        "resources",
        "CPU and memory of every process",
        "Means over the valid repeats, in brackets the smallest and largest. Memory: largest resident size, on a "
        "cluster the largest working set. A node's row includes everything that runs there.",
        rows=means.reset_index().itertuples(),
        columns={
            "Configuration": lambda r: r.configuration,
            "Process": lambda r: r.process,
            "Kind": lambda r: r.role,
            "CPU ms per request*": lambda r: (
                make_interval_cell(r.cpu, r.low, r.high) if r.counted > 1 else format_ms(r.cpu)
            ),
            "CPU cores*": lambda r: format_ms(r.cores),
            "Memory*": lambda r: format_bytes(r.rss),
            "n*": lambda r: str(r.n),
        },
    )


def make_image_table(report: Report) -> Table:
    """Return the images that differ between configurations, as they ran."""
    configurations = report.record.scenario.configurations
    ran = {one.name: list_digests(report.run.stored, one.name) for one in configurations}
    containers = sorted({container for images in ran.values() for container in images})
    differing = [one for one in containers if len({images[one] for images in ran.values() if one in images}) > 1]
    named = [f"{one.name}: {name} is {image}" for one in configurations for name, image in one.images.items()]
    return make_table(
        "images",
        "Images that differ",
        f"What ran in each container whose image is not the same in all configurations.{_list_named(named)}",
        rows=[(name, one, images[one]) for one in differing for name, images in ran.items() if one in images],
        columns={
            "Container": lambda r: r[1],
            "Configuration": lambda r: r[0],
            "Image": lambda r: ", ".join(sorted(r[2])),
        },
    )


def _list_named(images: Sequence[str]) -> str:
    return f" Named by the scenario: {'; '.join(images)}." if images else ""


def _format_share(column: str, row: Any) -> str:
    return format_percent(getattr(row, column))


def _make_error_cell(row: Any) -> Cell:
    share = row.errors / row.requests if row.requests else None
    return Cell(format_percent(share), f"of {format_count(row.requests)}")


def _make_delta_cell(contrast: Any) -> Cell:
    """Return the difference in the unit of the contrast's metric."""
    c = contrast
    if c.metric == "rps":
        return make_interval_cell(c.delta_rps, c.delta_low_rps, c.delta_high_rps, format_delta)
    return make_interval_cell(c.delta_ms, c.delta_low_ms, c.delta_high_ms, format_delta)


def _make_delta_cell_with_unit(contrast: Any) -> Cell:
    cell = _make_delta_cell(contrast)
    unit = "1/s" if contrast.metric == "rps" else "ms"
    return cell if cell.text == "n/a" else cell._replace(text=f"{cell.text} {unit}")


def _make_ratio_cell(contrast: Any) -> Cell:
    return make_interval_cell(contrast.ratio, contrast.ratio_low, contrast.ratio_high, format_ratio)


def _make_median_cell(contrast: Contrast) -> Cell:
    return make_interval_cell(contrast.median_ratio, contrast.median_low, contrast.median_high, format_ratio)


def _make_lag_cell(contrast: Contrast) -> Cell:
    if contrast.lag_1 is None:
        return Cell("n/a")
    fewer = contrast.effective_n is not None and contrast.effective_n < contrast.n[0]
    counted = f"counts as {contrast.effective_n:.1f} blocks" if fewer else ""
    return Cell(format_ratio(contrast.lag_1).replace("-", "\N{MINUS SIGN}"), counted)


def _make_block_cell(contrast: Contrast) -> Cell:
    """Return the ratio of each block; of many blocks the smallest and the largest, and each where the page folds it."""
    known = [ratio for ratio in contrast.block_ratios if ratio is not None]
    every = ", ".join(map(format_ratio, contrast.block_ratios)) if known else "n/a"
    if len(contrast.block_ratios) > _MOST_BLOCKS and known:
        return Cell(f"{format_ratio(min(known))} to {format_ratio(max(known))}", folded=every)
    return make_interval_cell(None, contrast.within_low, contrast.within_high, format_ratio)._replace(text=every)


def _make_cost_cell(cost: HopCost) -> Cell:
    return make_interval_cell(cost.ms_per_proxy, cost.low_ms_per_proxy, cost.high_ms_per_proxy, format_delta)


def _count_issues(row: Any) -> str:
    """Return the number of issues in few words: the check results have them in full."""
    invalid = row.measured - row.n
    parts = (
        "" if row.valid or invalid else "fewer repeats than planned",
        format_counted(invalid, "invalid repeat") if invalid else "",
        format_counted(row.warnings, "warning") if row.warnings else "",
        row.no_interval,
    )
    return "; ".join(part for part in parts if part) or "none"
