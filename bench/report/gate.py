"""Write the decisions of the nightly gate for people and for CI: Markdown, JUnit's XML, a history night by night."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench.analysis.history import History, HistoryLine, keep_printable
from bench.analysis.regression import Decision, GateRecord, decide
from bench.analysis.validity import format_issues
from bench.errors import InvalidMeasurementError, MeshbenchError, ProofError, RegressionError, StoreError, exit_code_of
from bench.report import ci_formats
from bench.report.ci_formats import Case, Tag, format_markdown_table
from bench.report.text_formats import escape_markdown
from bench.units import format_ratio, format_time

_TAGS: Final[dict[str, Tag]] = {
    "regression": "failure",
    "invalid": "error",
    "inconclusive": "skipped",
    "no baseline": "skipped",
}


def make_error(found: GateRecord) -> MeshbenchError | None:
    """Return the error that the gate ends with; None where it passes."""
    errors = (ProofError, InvalidMeasurementError, RegressionError)
    error = next((one for one in errors if exit_code_of(one) == found.exit_code), None)
    if error is None:
        return None
    cause = "regression" if error is RegressionError else "invalid"
    named = [f"{d.pair}: {d.outcome}: {format_reason(d)}" for d in found.decisions if d.outcome == cause]
    return error("\n".join(named))


def format_markdown(found: GateRecord) -> str:
    """Format the decisions as one table for the summary page of a CI job."""
    header = ("contrast", "P95 ratio", "usual", "95 % limit", "99 % limit", "outcome")
    table = format_markdown_table(header, [_format_row(decision) for decision in found.decisions])
    reasons = [
        f"- {escape_markdown(d.pair)}: {escape_markdown(format_reason(d))}" for d in found.decisions if format_reason(d)
    ]
    return "\n".join([f"## {escape_markdown(f'{found.scenario}: {found.run_id}')}", "", *table, "", *reasons])


def append_markdown(found: GateRecord, path: Path) -> None:
    """Append the Markdown to a file, such as the summary page of a CI job. Raises StoreError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{format_markdown(found)}\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_junit(found: GateRecord, path: Path) -> None:
    """Write a test case per contrast: a regression fails, an invalid one is an error, an undecided one is skipped."""
    cases = [Case(decision.pair, decision.outcome, format_reason(decision)) for decision in found.decisions]
    ci_formats.write_junit(path, suite=f"meshbench.{found.scenario}", cases=cases, tags=_TAGS)


def format_history(history: History) -> str:
    """Format every contrast of a history, night by night, with a mark where the conditions changed."""
    return "\n\n".join("\n".join(_format_nights(series)) for series in history.all_series())


def format_reason(decision: Decision) -> str:
    """Format why the gate decided so, on one line: its own reason, then the issues of the night."""
    return keep_printable("; ".join(filter(None, (decision.reason, format_issues(decision.issues)))))


def _format_nights(series: Sequence[HistoryLine]) -> Iterator[str]:
    yield f"{series[0].scenario}: {series[0].configuration} against {series[0].reference}, P95"
    epochs = [True, *(one.kind != other.kind for one, other in pairwise(series))]
    for line, decision, new in zip(series, decide(series), epochs, strict=True):
        if new:
            yield f"-- conditions {line.kind}"
        reason = format_reason(decision)
        seen = f"{format_time(decision.at)}  {decision.run_id}  {format_ratio(decision.ratio)}  {decision.outcome}"
        yield f"{seen}: {reason}" if reason else seen


def _format_row(decision: Decision) -> tuple[str, ...]:
    ratios = (decision.ratio, decision.usual, decision.limit_95, decision.limit_99)
    return escape_markdown(decision.pair), *map(format_ratio, ratios), f"**{decision.outcome}**"
