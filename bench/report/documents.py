"""The report as Markdown, CSV, LaTeX and picture files."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.records import Contrast, HopCost, NamedRepeat, RepeatSummary
from bench.report.answer_table import answer_table
from bench.report.answers import answers, further_answers, overview
from bench.report.content import Report
from bench.report.escape import csv_cell, latex_text, markdown_text
from bench.report.heading import heading
from bench.report.table import Table
from bench.report.tables import tables
from bench.store import write_text

_NESTED: Final = {"resources", "by_name"}
_ALWAYS: Final = {"latency", "contrasts"}


def write_markdown(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write `report.md`: heading, answer, doubts, tables."""
    top = heading(report)
    lines = [
        f"# {markdown_text(top.title)}",
        "",
        *(f"**{label.text}** {markdown_text(label.why)}\n" for label in top.labels),
    ]
    lines += [markdown_text(top.measured), "", *_markdown_list(top.caveats), "", "## Answer", ""]
    lines += [markdown_text(overview(report.summary)), ""] if overview(report.summary) else []
    many = answer_table(report.summary)
    lines += [*_markdown_table(many), "", markdown_text(many.note), ""] if many else []
    lines += _markdown_list([*(answer.text for answer in answers(report.summary)), *further_answers(report.summary)])
    lines += ["", "## Doubts", "", *(_markdown_list(report.doubts) or ["The checks found none."])]
    for table in tables(report):
        lines += [
            "",
            f"## {markdown_text(table.title)}",
            "",
            markdown_text(table.note),
            "",
            *_markdown_table(table),
        ]
    return (_written(folder / "report.md", "\n".join(lines) + "\n"),)


def write_csv(report: Report, folder: Path) -> tuple[Path, ...]:
    """`latency.csv`: a row per repeat; `contrasts.csv`: a row per comparison; where a run has them, `names.csv`: a row
    per repeat and request name, and `proxies.csv`: a row per cost of a proxy. Exact, units in the names."""
    repeats = [(name, c, r) for name, c in report.configurations.items() for r in c.repeats]
    kept = [name for name in RepeatSummary.model_fields if name not in _NESTED]
    files: dict[str, tuple[list[str], list[dict[str, object]]]] = {
        "latency": (
            ["configuration", "users", "mesh", *kept],
            [{"configuration": name, "users": c.users, "mesh": c.mesh, **r.model_dump()} for name, c, r in repeats],
        ),
        "contrasts": (list(Contrast.model_fields), [contrast.model_dump() for contrast in report.summary.contrasts]),
        "names": (
            ["configuration", "trial", "valid", *NamedRepeat.model_fields],
            [
                {"configuration": name, "trial": r.trial, "valid": r.valid, **named.model_dump()}
                for name, _, r in repeats
                for named in r.by_name
            ],
        ),
        "proxies": (list(HopCost.model_fields), [cost.model_dump() for cost in report.summary.hop_costs]),
    }
    return tuple(
        _written(folder / f"{name}.csv", _csv(columns, rows))
        for name, (columns, rows) in files.items()
        if rows or name in _ALWAYS
    )


def write_latex(report: Report, folder: Path) -> tuple[Path, ...]:
    """`tables.tex`: every table as a float of its own, to be read with \\input; it needs booktabs."""
    made = (*filter(None, [answer_table(report.summary)]), *tables(report))
    text = "% needs \\usepackage{booktabs}\n" + "\n".join(_latex_table(table) for table in made)
    return (_written(folder / "tables.tex", text),)


def write_png(report: Report, folder: Path) -> tuple[Path, ...]:
    """Every figure as `<name>.png`."""
    written = []
    for picture in report.plots.pictures:
        path = folder / f"{picture.name}.png"
        path.write_bytes(picture.png())
        written.append(path)
    return tuple(written)


def write_svg(report: Report, folder: Path) -> tuple[Path, ...]:
    """Every figure as `<name>.svg`."""
    return tuple(_written(folder / f"{picture.name}.svg", picture.svg) for picture in report.plots.pictures)


def _written(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _markdown_list(texts: Iterable[str]) -> list[str]:
    return [f"- {markdown_text(text)}" for text in texts]


def _markdown_table(table: Table) -> list[str]:
    rule = "|".join("---:" if column.number else "---" for column in table.columns)
    rows = ("|".join(f" {markdown_text(str(cell))} " for cell in row) for row in table.rows)
    return [
        "|".join(["", *(f" {column.title} " for column in table.columns), ""]),
        f"|{rule}|",
        *(f"|{row}|" for row in rows),
    ]


def _csv(names: list[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Lists become `a; b`, None an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = (row[name] for name in names)
        joined = (
            "; ".join("" if v is None else str(v) for v in value) if isinstance(value, tuple) else value
            for value in values
        )
        writer.writerow([csv_cell(value) for value in joined])
    return text.getvalue()


def _latex_table(table: Table) -> str:
    spec = "".join("r" if column.number else "l" for column in table.columns)
    rows = [" & ".join(latex_text(str(cell)) for cell in row) + r" \\" for row in table.rows]
    return "\n".join(
        (
            r"\begin{table}",
            rf"\caption{{{latex_text(table.title)}. {latex_text(table.note)}}}",
            rf"\label{{tab:meshbench-{table.name}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            " & ".join(latex_text(column.title) for column in table.columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        )
    )
