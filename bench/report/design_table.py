"""Make the table of designs: what each would have cost in minutes, and what it would have known."""

import math
from collections.abc import Mapping
from functools import partial

from bench.analysis.design_costs import DesignEstimate, estimate_designs
from bench.report.conclusions import format_title, select_contrasts
from bench.report.model import Cell, Report, Table, make_table
from bench.results.summary_records import SummaryRecord
from bench.scenario.types import Design
from bench.units import format_count, format_effect, format_percent, format_tick

_MOST_CONTRASTS = 3
_FEWEST_BLOCKS = 5


def find_sequential_minutes(summary: SummaryRecord) -> float | None:
    """Return the minutes in which a sequential run would know every answer as well; None where one is unknown, and for
    few blocks, of which one interval is always narrow by chance."""
    contrasts = [c for c in select_contrasts(summary) if c.ratio_low is not None]
    if any(c.n[0] < _FEWEST_BLOCKS for c in contrasts):
        return None
    minutes = [c.sequential_minutes for c in contrasts]
    known = [value for value in minutes if value is not None]
    return max(known) if known and len(known) == len(minutes) else None


def make_design_table(report: Report) -> Table:
    """Return a row per design, for the first comparisons; no row for a run that was not paired."""
    summary, record = report.summary, report.record
    shown = [c for c in select_contrasts(summary) if c.ratio_low is not None][:_MOST_CONTRASTS]
    found = [{e.design: e for e in estimate_designs(record, c, summary.configurations)} for c in shown]
    rows = found[0].values() if found and summary.is_paired else ()
    return make_table(
        "designs",
        "What each design would have cost",
        f"Minutes: warm-ups, windows and deployments of {format_count(record.plan.blocks)} blocks, estimated. For each "
        f"comparison: half of the {format_percent(summary.confidence)} interval of the ratio of P95; that of a "
        "sequential run follows from the spread of these blocks without pairing. The last column is the time that a "
        f"design needs to know every ratio as well as this run, from {_FEWEST_BLOCKS} blocks on.",
        rows=rows,
        columns={
            "Design": lambda e: Cell(e.design, "(this run)" if e.measured else ""),
            "Minutes*": lambda e: _format_minutes(e.minutes),
            **{
                f"{format_title(c, summary.reference)}*": partial(_format_half_width, estimates)
                for c, estimates in zip(shown, found, strict=True)
            },
            "Minutes for the same*": lambda e: _format_minutes(
                e.minutes if e.measured else _find_same(summary, e.design)
            ),
        },
    )


def _find_same(summary: SummaryRecord, design: Design) -> float | None:
    return find_sequential_minutes(summary) if design == "sequential" else None


def _format_half_width(estimates: Mapping[Design, DesignEstimate], row: DesignEstimate) -> str:
    half_width = estimates[row.design].half_width
    return "not known" if half_width is None else f"±{format_effect(math.expm1(half_width))}"


def _format_minutes(minutes: float | None) -> str:
    if minutes is None:
        return "not known"
    return format_tick(round(minutes, 1 if minutes < 10 else 0))
