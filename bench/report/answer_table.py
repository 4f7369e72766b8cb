"""The answers of a run with many comparisons as one table: a line for each, with what a decision needs."""

from typing import Final

from bench.records import Contrast, SummaryRecord
from bench.report.answers import asked_contrasts, verdict_of
from bench.report.table import Cell, Table, columns_of
from bench.units import (
    format_change,
    format_change_interval,
    format_counted,
    format_delta,
    format_effect,
    format_percent,
)

MOST_IN_PROSE: Final = 3


def answer_table(summary: SummaryRecord) -> Table | None:
    """Make the table of the comparisons that the scenario asks for; None where they are few enough for prose."""
    contrasts = asked_contrasts(summary)
    if len(contrasts) <= MOST_IN_PROSE:
        return None
    return Table(
        name="answer",
        title=f"{format_counted(len(contrasts), 'comparison')} of P95",
        note=f"Difference of P95 with its {format_percent(summary.confidence)} interval; verdict against a margin "
        f"of {format_percent(summary.margin)}. MDE: minimum detectable effect, the smallest difference found with "
        "80 % power. n: valid repeats of both sides.",
        columns=columns_of("Comparison | P95 difference* | Verdict | MDE* | n*"),
        rows=tuple(_row(contrast) for contrast in contrasts),
    )


def _row(contrast: Contrast) -> tuple[Cell, ...]:
    known = contrast.ratio is not None and contrast.verdict != "invalid"
    interval = format_change_interval(contrast.ratio_low, contrast.ratio_high)
    return (
        Cell(contrast.configuration, f"vs {contrast.reference}"),
        Cell(f"{format_delta(contrast.delta_ms)} ms ({format_change(contrast.ratio)})", _bracketed(interval))
        if known
        else Cell("no result"),
        Cell(verdict_of(contrast), verdict=True),
        Cell(format_effect(contrast.mde).replace("a factor of ", "×") if known else "n/a"),
        Cell(f"{contrast.n[0]} + {contrast.n[1]}"),
    )


def _bracketed(interval: str) -> str:
    return "[no interval]" if interval == "n/a" else f"[{interval}]"
