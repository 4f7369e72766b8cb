"""The report as one HTML page that needs nothing else: inline styles and pictures, no script."""

import json
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.report.answer_table import answer_table
from bench.report.answers import answers, further_answers, overview
from bench.report.content import Report
from bench.report.evidence import proofs
from bench.report.heading import heading
from bench.report.table import Cell, Table, columns_of
from bench.report.tables import tables
from bench.store import write_text
from bench.units import format_bytes, format_count, format_percent, format_time


def write_html(report: Report, folder: Path) -> tuple[Path, ...]:
    """`index.html`."""
    path = folder / "index.html"
    write_text(path, render_page(report))
    return (path,)


def render_page(report: Report) -> str:
    """The page as text; everything that comes from the run is escaped, the pictures alone are markup."""
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kept"] = _kept
    pictures = {picture.name: picture for picture in report.plots.pictures}
    return environment.get_template("report.html").render(
        heading=heading(report),
        answers=answers(report.summary),
        answer_table=answer_table(report.summary),
        overview=overview(report.summary),
        further=further_answers(report.summary),
        doubts=report.doubts,
        tables={table.name: table for table in tables(report)},
        pictures={name: (picture.drawing, Markup(picture.inline)) for name, picture in pictures.items()},  # noqa: S704  # our own drawing, its texts escaped by the SVG writer
        missing=report.plots.missing,
        proofs=proofs(report),
        environment=(_surroundings(report), _order(report)),
        scenario=json.dumps(
            report.record.scenario.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False
        ),
        record=report.record,
        reference=report.summary.reference,
        margin=format_percent(report.summary.margin),
    )


def _kept(text: str) -> str:
    """Numbers stay on one line with their unit."""
    return re.sub(r"(?<=\d) (?=%|ms\b|[KMG]iB)", "\N{NO-BREAK SPACE}", text)


def _surroundings(report: Report) -> Table:
    """Everything that a number depends on and that two runs must share to be compared."""
    known = report.record.environment
    values = {
        "meshbench": known.meshbench,
        "Python": known.python,
        "Locust": known.locust,
        "Envoy": known.envoy,
        "system": f"{known.os}, kernel {known.kernel}, {known.machine}",
        "processors": f"{format_count(known.cpus)} × {known.cpu_model}",
        "memory": format_bytes(known.memory_bytes),
        "machine (hash of its id)": known.address_host,
        "run": report.record.run_id,
        "status": f"{report.record.status} {report.record.reason}".strip(),
        "started": format_time(report.record.started_at),
        "ended": format_time(report.record.ended_at) if report.record.ended_at else "n/a",
        "scenario": report.record.scenario_source,
    }
    rows = tuple((Cell(name), Cell(value)) for name, value in values.items())
    return Table("environment", "Where it ran", "", columns_of("What | Value"), rows)


def _order(report: Report) -> Table:
    plan = report.record.plan
    rows = tuple((Cell(str(block)), Cell(" → ".join(names))) for block, names in enumerate(plan.order, start=1))
    return Table(
        "plan",
        "Order of the trials",
        f"Method: {plan.method}; seed {plan.seed}.",
        columns_of("Block | Order"),
        rows,
    )
