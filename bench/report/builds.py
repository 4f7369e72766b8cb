"""Format how a contrast changed between two builds: a line in plain words, and Markdown and JUnit for CI."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.analysis.builds import FEWEST_RUNS, BuildChange, BuildComparison, BuildSide
from bench.analysis.validity import format_issues
from bench.errors import InvalidMeasurementError, MeshbenchError, RegressionError, exit_code_of
from bench.report import ci_formats
from bench.report.ci_formats import Case, Tag, format_markdown_table
from bench.report.text_formats import escape_markdown
from bench.units import (
    format_between,
    format_change,
    format_counted,
    format_interval,
    format_ms,
    format_percent,
    format_ratio,
)

_FAILED: Final = "failed"
_TAGS: Final[dict[str, Tag]] = {_FAILED: "failure", "invalid": "error", "inconclusive": "skipped"}


def format_lines(found: BuildComparison) -> str:
    """Format the comparison: what was compared, one line per contrast, and what limits the numbers."""
    return "\n".join(_format_lines(found))


def format_markdown(found: BuildComparison) -> str:
    """Format the comparison as one table for the summary page of a CI job."""
    header = ("contrast", "base", "head", "change", "95 % interval", "verdict")
    table = format_markdown_table(header, [_format_row(change) for change in found.changes])
    notes = [f"- {escape_markdown(note)}" for note in _format_notes(found)]
    reasons = [
        f"- {escape_markdown(one.pair)}: {escape_markdown(format_issues(one.issues))}"
        for one in found.changes
        if one.issues
    ]
    return "\n".join([f"## {escape_markdown(found.scenario)}: head against base", "", *table, "", *reasons, *notes])


def write_junit(found: BuildComparison, path: Path) -> None:
    """Write a test case per contrast: a change that `--fail-on` names fails, an invalid one is an error."""
    cases = [
        Case(one.pair, _FAILED if one.fails else one.verdict, describe(one, found.margin)) for one in found.changes
    ]
    ci_formats.write_junit(path, suite=f"meshbench.{found.scenario}", cases=cases, tags=_TAGS)


def make_error(found: BuildComparison) -> MeshbenchError | None:
    """Return the error that the comparison ends with; None where it passes."""
    errors = (RegressionError, InvalidMeasurementError)
    error = next((one for one in errors if exit_code_of(one) == found.exit_code), None)
    if error is None:
        return None
    named = [one for one in found.changes if (one.fails if error is RegressionError else one.verdict == "invalid")]
    return error("\n".join(f"{one.pair}: {describe(one, found.margin)}" for one in named))


def describe(change: BuildChange, margin: float) -> str:
    """Return in plain words how a contrast changed, with its interval and its verdict."""
    if change.verdict == "invalid":
        return f"invalid: {format_issues(change.issues)}"
    size, limit = format_change(change.change), f"the margin of {format_percent(margin)}"
    if change.change_low is None or change.change_high is None:
        reason = f" ({format_issues(change.issues)})" if change.issues else ""
        return f"inconclusive: the change is {size}, without an interval{reason}"
    seen = f"{size}, {format_between(change.change_low, change.change_high)}"
    match change.verdict:
        case "slower" | "faster":
            return f"{change.verdict}: {seen}, which is beyond {limit}"
        case "equivalent":
            return f"equivalent: {seen}, which is within {limit}"
        case "different":
            return f"different: {seen}; whether that is beyond {limit} is not known"
    return f"inconclusive: {seen}; both no change and one beyond {limit} are possible"


def _format_lines(found: BuildComparison) -> Iterator[str]:
    if found.conditions:
        yield f"DIFFERENT CONDITIONS: {'; '.join(found.conditions)}"
    yield f"{', '.join(found.base)} -> {', '.join(found.head)}, P95, {found.design}"
    for one in found.changes:
        values = f"{_format_value(one, one.base)} -> {_format_value(one, one.head)}"
        yield f"{one.pair}: {values}; {describe(one, found.margin)}"
    yield from (f"note: {note}" for note in _format_notes(found))


def _format_notes(found: BuildComparison) -> Iterator[str]:
    """Yield what limits the numbers: what the builds are, what the ratio hides, and what the interval leaves out."""
    yield f"builds: {'; '.join(found.builds)}" if found.builds else "no difference between the builds is recorded"
    references = {one.reference: one.hidden for one in found.changes if one.hidden}
    for reference, hidden in references.items():
        yield (
            f"the builds differ in the reference {reference}, too ({'; '.join(hidden)}): what they change there as well"
            " is not in the ratio"
        )
    count = len(found.base) + len(found.head)
    if any(one.unit == "blocks" for one in found.changes):
        yield (
            f"the intervals come from the repeats of {format_counted(count, 'run')}, and leave out what varies from run"
            f" to run; {FEWEST_RUNS} runs or more would include it"
        )
    else:
        yield f"the intervals come from the spread between {format_counted(count, 'run')}"


def _format_value(change: BuildChange, side: BuildSide) -> str:
    if change.reference is None:
        return f"{format_ms(side.value)} ms"
    return format_ratio(side.value)


def _format_row(change: BuildChange) -> tuple[str, ...]:
    verdict = f"**{change.verdict}**{' (fails)' if change.fails else ''}"
    values = (_format_value(change, change.base), _format_value(change, change.head), format_change(change.change))
    return (
        escape_markdown(change.pair),
        *values,
        format_interval(change.change_low, change.change_high, format_change),
        verdict,
    )
