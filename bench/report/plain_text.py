"""The answers as plain text, for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.records import SummaryRecord
from bench.report.answer_table import answer_table
from bench.report.answers import answers, further_answers, overview
from bench.report.table import Cell, Column, Table

WIDTH: Final = 100  # of a line, where no terminal has another
_GAP: Final = "  "


def plain_answers(summary: SummaryRecord, width: int = WIDTH) -> str:
    """Format answers and doubts as lines: many comparisons as a table of this width, then each in a paragraph."""
    return "\n".join(_lines(summary, width)).strip("\n")


def _lines(summary: SummaryRecord, width: int) -> Iterator[str]:
    if not summary.valid:
        yield "INVALID: not every configuration has all its repeats valid."
    if sentence := overview(summary):
        yield sentence
    table = answer_table(summary)
    if table:
        yield from ("", f"{table.title}:", "", format_table(table, width), "", table.note, "")
    yield from (answer.text for answer in answers(summary))
    yield from (f"Exploratory: {sentence}" for sentence in further_answers(summary))
    if summary.doubts:
        yield from ("", "Doubts:", *(f"- {doubt}" for doubt in summary.doubts))


def format_table(table: Table, width: int = WIDTH) -> str:
    """Lay a table out as plain text: a line per row, or two where the details would make it wider than `width`."""
    columns = list(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    lines = _lay_out([(column, _join_details(column, cells)) for column, cells in columns])
    if max(map(len, lines)) > width:
        lines = _lay_out(columns)
    return "\n".join(lines)


def _join_details(column: Column, cells: Sequence[Cell]) -> list[Cell]:
    """Put each detail beside its text, the details of all rows below each other."""
    side = ">" if column.number else "<"
    text_size, detail_size = (max(map(len, parts)) for parts in zip(*(cell[:2] for cell in cells), strict=True))
    joined = (f"{cell.text:{side}{text_size}} {cell.detail:{side}{detail_size}}" for cell in cells)
    return [Cell(text if detail_size else text.rstrip()) for text in joined]


def _lay_out(columns: Sequence[tuple[Column, Sequence[Cell]]]) -> list[str]:
    """Make the lines of a table: titles, a rule, the rows with their details below them."""
    laid = []
    for column, cells in columns:
        lines = [part for cell in cells for part in cell[:2]]
        size = max(map(len, (column.title, *lines)))
        side = ">" if column.number else "<"
        laid.append([f"{line:{side}{size}}" for line in (column.title, "─" * size, *lines)])
    rows = (_GAP.join(parts).rstrip() for parts in zip(*laid, strict=True))
    return [row for row in rows if row]
