"""Write the report as terminal text, Markdown, CSV, LaTeX and picture files; text of the run is escaped for each.

HTML is escaped by Jinja2's autoescape, which is on for every template.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from bench.analysis.validity import format_issue
from bench.report.conclusions import format_exploratory, format_overview, make_answer_table, make_answers
from bench.report.heading import make_heading
from bench.report.model import Cell, Column, Report, Table
from bench.report.tables import make_tables
from bench.results.store import write_bytes_inside, write_text_inside
from bench.results.summary_records import SummaryRecord
from bench.system.open_folder import OpenFolder
from bench.system.output import show_controls

WIDTH: Final = 100  # of a line, where the output is no terminal
_GAP: Final = "  "
_ALWAYS_WRITTEN: Final = {"latency", "contrasts"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|#~$])")
_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after the end of a row a bracket would be taken for its optional length
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{NO-BREAK SPACE}": "~",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
}


def escape_csv_cell(value: object) -> object:
    """Return a value for a CSV file: text that a spreadsheet would read as a formula gets a quote; None is empty."""
    if isinstance(value, tuple):
        value = "; ".join("" if one is None else str(one) for one in value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def escape_markdown(text: str) -> str:
    """Escape text for a Markdown cell or sentence: no markup, no HTML, one line."""
    return _MARKDOWN.sub(r"\\\1", show_controls(" ".join(text.splitlines())))


def escape_latex(text: str) -> str:
    """Escape text for LaTeX: no command, no comment, one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.splitlines()))


def format_answers(summary: SummaryRecord, width: int = WIDTH, *, top: Sequence[str] = ()) -> str:
    """Format the paragraphs of `top`, then answers and warnings as lines: many comparisons as a table of this width,
    then each in a paragraph."""
    text = "\n".join(_format_lines(summary, width, top)).strip("\n")
    return re.sub(r"\n{3,}", "\n\n", text)


def _format_lines(summary: SummaryRecord, width: int, top: Sequence[str]) -> Iterator[str]:
    if not summary.valid:
        yield "INVALID: at least one configuration has too few valid repeats."
    for paragraph in filter(None, top):
        yield from (paragraph, "")
    if sentence := format_overview(summary):
        yield sentence
    table = make_answer_table(summary)
    if table:
        yield from ("", f"{table.title}:", "", format_table(table, width), "", table.note, "")
    yield from (answer.text for answer in make_answers(summary))
    yield from (f"Exploratory: {sentence}" for sentence in format_exploratory(summary))
    if summary.issues:
        yield from ("", "Warnings:", *(f"- {format_issue(issue)}" for issue in summary.issues))


def format_table(table: Table, width: int = WIDTH) -> str:
    """Format a table as text: a line per row, or two where the details would make it wider than `width`."""
    columns = list(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    lines = _format_rows([(column, _join_details(column, cells)) for column, cells in columns])
    if max(map(len, lines)) > width:
        lines = _format_rows(columns)
    return "\n".join(lines)


def _join_details(column: Column, cells: Sequence[Cell]) -> list[Cell]:
    """Append each detail to its text, aligned over all rows."""
    side = ">" if column.number else "<"
    text_size, detail_size = (max(map(len, parts)) for parts in zip(*(cell[:2] for cell in cells), strict=True))
    joined = (f"{cell.text:{side}{text_size}} {cell.detail:{side}{detail_size}}" for cell in cells)
    return [Cell(text if detail_size else text.rstrip()) for text in joined]


def _format_rows(columns: Sequence[tuple[Column, Sequence[Cell]]]) -> list[str]:
    """Return the lines of a table: titles, a rule, the rows with their details below them."""
    padded = []
    for column, cells in columns:
        lines = [part for cell in cells for part in cell[:2]]
        size = max(map(len, (column.title, *lines)))
        side = ">" if column.number else "<"
        padded.append([f"{line:{side}{size}}" for line in (column.title, "─" * size, *lines)])
    rows = (_GAP.join(parts).rstrip() for parts in zip(*padded, strict=True))
    return [row for row in rows if row]


def write_markdown(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write `report.md`: heading, answer, warnings, tables."""
    top = make_heading(report)
    lines = [
        f"# {escape_markdown(top.title)}",
        "",
        *(f"**{label.text}** {escape_markdown(label.why)}\n" for label in top.labels),
        *(f"**{escape_markdown(sentence)}**\n" for sentence in top.answer),
    ]
    lines += [escape_markdown(top.measured), "", *_format_markdown_list(top.limits), "", "## Answer", ""]
    lines += [escape_markdown(format_overview(report.summary)), ""] if format_overview(report.summary) else []
    many = make_answer_table(report.summary)
    lines += [*_format_markdown_table(many), "", escape_markdown(many.note), ""] if many else []
    lines += _format_markdown_list(
        [*(answer.text for answer in make_answers(report.summary)), *format_exploratory(report.summary)]
    )
    lines += ["", "## Warnings", "", *(_format_markdown_list(report.run.warnings) or ["The checks found none."])]
    for table in make_tables(report):
        lines += [
            "",
            f"## {escape_markdown(table.title)}",
            "",
            escape_markdown(table.note),
            "",
            *_format_markdown_table(table),
        ]
    return (write_text_inside(folder, "report.md", "\n".join(lines) + "\n"),)


def write_csv(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write `latency.csv` (a row per repeat) and `contrasts.csv` (a row per comparison); where a run has them,
    `names.csv` (a row per repeat and request name) and `proxies.csv` (a row per cost of a proxy). Values are exact,
    column names include the units; issues are texts, not codes."""
    files = {
        "latency": report.run.repeats(),
        "contrasts": _join_counts(report.run.contrasts().drop(columns="standing")),
        "names": report.run.request_names(),
        "proxies": _join_counts(report.run.proxy_costs()),
    }
    return tuple(
        write_text_inside(folder, f"{name}.csv", _format_csv(frame.drop(columns="issues")))
        for name, frame in files.items()
        if len(frame) or name in _ALWAYS_WRITTEN
    )


def write_latex(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write `tables.tex`: every table as a float of its own, to be read with \\input; it needs booktabs."""
    all_tables = (*filter(None, [make_answer_table(report.summary)]), *make_tables(report))
    text = "% needs \\usepackage{booktabs}\n" + "\n".join(_format_latex_table(table) for table in all_tables)
    return (write_text_inside(folder, "tables.tex", text),)


def write_png(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write every figure as `<name>.png`."""
    pictures = report.plots.pictures
    return tuple(write_bytes_inside(folder, f"{picture.name}.png", picture.png()) for picture in pictures)


def write_svg(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write every figure as `<name>.svg`."""
    return tuple(write_text_inside(folder, f"{picture.name}.svg", picture.svg) for picture in report.plots.pictures)


def _format_markdown_list(texts: Iterable[str]) -> list[str]:
    return [f"- {escape_markdown(text)}" for text in texts]


def _format_markdown_table(table: Table) -> list[str]:
    cells = table.to_frame(escape_markdown)
    rule = "|".join("---:" if column.number else "---" for column in table.columns)
    titles, *rows = (f"| {' | '.join(row)} |" for row in (list(cells.columns), *cells.to_numpy().tolist()))
    return [titles, f"|{rule}|", *rows]


def _join_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the counts of both sides in one column: `3; 3`."""
    both = [f"{n}; {n_reference}" for n, n_reference in zip(frame["n"], frame["n_reference"], strict=True)]
    return frame.assign(n=both).drop(columns="n_reference")


def _format_csv(frame: pd.DataFrame) -> str:
    """Format a frame as CSV: numbers are exact, tuples become `a; b`, missing values an empty cell."""
    return frame.astype(object).map(escape_csv_cell).to_csv(index=False, lineterminator="\n")


def _format_latex_table(table: Table) -> str:
    spec = "".join("r" if column.number else "l" for column in table.columns)
    return "\n".join(
        (
            r"\begin{table}",
            rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}",
            rf"\label{{tab:meshbench-{table.name}}}",
            r"\footnotesize",
            table.to_frame(escape_latex).to_latex(index=False, column_format=spec, escape=False) + r"\end{table}",
            "",
        )
    )
