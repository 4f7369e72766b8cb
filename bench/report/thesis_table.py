"""This run beside the reference study: in columns of their own, with what makes the two unlike."""

from bench.records import ConfigurationSummary
from bench.report.content import Report
from bench.report.table import Cell, Table, columns_of, quotient
from bench.report.thesis import P95_MS, SOURCE, SWEEP, thesis_level, thesis_ratio
from bench.units import format_count, format_ms, format_percent, format_ratio, format_rps


def thesis(report: Report) -> Table:
    """Our figures in the reference study's own statistic, beside the study's."""
    return _thesis_sweep(report) if report.is_sweep else _thesis_conditions(report)


def _thesis_conditions(report: Report) -> Table:
    reference = report.summary.reference
    base = report.configurations.get(reference or "")
    known = [name for name in report.configurations if name in P95_MS]
    return Table(
        name="thesis",
        title="Beside the 2022 thesis",
        note="The thesis ran on another cluster, with other versions, at its saturation point: compare "
        "ratios, never milliseconds. Its P95 is another statistic: Locust's sliding, rounded P95, averaged "
        "over the first 120 s (warm-up included), then over the repeats. “Here, thesis's way” is that same "
        f"statistic from this run (thesis_p95_ms); it is used nowhere else. Source: {SOURCE}.",
        columns=columns_of(
            "Configuration | Here: P95 ms* | Here: ratio* | Here, thesis's way: ms* | "
            "Here, thesis's way: ratio* | 2022 thesis: ms* | 2022 thesis: ratio*"
        ),
        rows=tuple(_thesis_row(name, report.configurations[name], reference, base) for name in known),
    )


def _thesis_row(
    name: str, configuration: ConfigurationSummary, reference: str | None, base: ConfigurationSummary | None
) -> tuple[Cell, ...]:
    ours = (configuration.p95_ms, base.p95_ms if base else None)
    thesis_way = (configuration.thesis_p95_ms, base.thesis_p95_ms if base else None)
    ratio = thesis_ratio(name, reference) or (1.0 if name == reference else None)
    return (
        Cell(name),
        *(Cell(text) for pair in (ours, thesis_way) for text in (format_ms(pair[0]), format_ratio(quotient(*pair)))),
        Cell(format_ms(P95_MS.get(name))),
        Cell(format_ratio(ratio)),
    )


def _thesis_sweep(report: Report) -> Table:
    best = max((c.rps for c in report.configurations.values() if c.rps), default=None)
    thesis_best = max(level.rps for level in SWEEP)
    rows = []
    for name, c in report.configurations.items():
        level = thesis_level(c.users) if c.mesh == "none" else None
        theirs = (level.rps, level.rps / thesis_best, level.p95_ms) if level else (None, None, None)
        rows.append(
            (
                Cell(name),
                Cell(format_count(c.users)),
                *_level(c.rps, quotient(c.rps, best), c.p95_ms),
                *_level(*theirs),
            )
        )
    return Table(
        name="thesis",
        title="Beside the 2022 thesis: more users",
        note="The thesis ran on another cluster that saturated at about 50 requests/s: compare the shape "
        "(share of the best throughput, growth of the P95), never the values. Its P95 is another statistic "
        f"than ours. Source: {SOURCE}.",
        columns=columns_of(
            "Configuration | Users* | Here: RPS* | Here: share of best* | Here: P95 ms* | "
            "2022 thesis: RPS* | 2022 thesis: share of best* | 2022 thesis: P95 ms*"
        ),
        rows=tuple(rows),
    )


def _level(rps: float | None, share: float | None, p95_ms: float | None) -> tuple[Cell, Cell, Cell]:
    return Cell(format_rps(rps)), Cell(format_percent(share)), Cell(format_ms(p95_ms))
