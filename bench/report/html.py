"""Write the report as one self-contained HTML page: inline styles and pictures, no script."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from bench.analysis.validity import format_issue
from bench.report.conclusions import format_exploratory, format_overview, make_answer_table, make_answers
from bench.report.heading import make_heading
from bench.report.model import Cell, Report, Table, make_table
from bench.report.page import render
from bench.report.tables import make_tables
from bench.results.store import write_text_inside
from bench.system.open_folder import OpenFolder
from bench.units import format_bytes, format_count, format_first, format_percent, format_time

_MOST_OBSERVATIONS = 2  # different observations of one fact that a cell holds


@dataclass(frozen=True, slots=True)
class ProofSummary:
    """The proofs of one configuration."""

    configuration: str
    trials: int
    facts: int
    failed: int
    table: Table


def summarise_proofs(report: Report) -> tuple[ProofSummary, ...]:
    """Return the proofs of each configuration that has stored trials."""
    evidence = report.run.evidence()
    return tuple(
        _summarise_proof(name, len(c.repeats), evidence[evidence["configuration"] == name])
        for name, c in report.configurations.items()
        if c.repeats
    )


def _summarise_proof(configuration: str, trials: int, facts: pd.DataFrame) -> ProofSummary:
    table = make_table(
        f"proof-{configuration}",
        f"Proof: {configuration}",
        "Checked before and after the window of every trial.",
        rows=facts.groupby(["name", "subject", "expected"], sort=False),
        columns={
            "Check": lambda group: group[0][0],
            "Subject": lambda group: group[0][1],
            "Expected": lambda group: group[0][2],
            "Observed": lambda group: _format_observations(group[1]),
            "Held*": lambda group: Cell(f"{group[1].ok.sum()} of {len(group[1])}", verdict=not group[1].ok.all()),
        },
    )
    return ProofSummary(configuration, trials, len(facts), int((~facts["ok"]).sum()), table)


def _format_observations(facts: pd.DataFrame) -> str:
    """Return the different observations of one fact, those of failures before those where it held."""
    seen = facts.sort_values("ok", kind="stable")["seen"].unique().tolist()
    return format_first(seen, _MOST_OBSERVATIONS, separator=" · ")


def write_html(report: Report, folder: OpenFolder) -> tuple[Path, ...]:
    """Write `index.html`."""
    return (write_text_inside(folder, "index.html", render_page(report)),)


def render_page(report: Report) -> str:
    """Return the page as text. Everything from the run is escaped; only the pictures are markup."""
    pictures = {picture.name: picture for picture in report.plots.pictures}
    return render(
        "report.html",
        heading=make_heading(report),
        answers=make_answers(report.summary),
        answer_table=make_answer_table(report.summary),
        overview=format_overview(report.summary),
        further=format_exploratory(report.summary),
        warnings=report.run.warnings,
        tables={table.name: table for table in make_tables(report)},
        pictures={name: (picture, Markup(picture.inline)) for name, picture in pictures.items()},  # noqa: S704  # drawn by meshbench, texts escaped by the SVG writer
        missing=report.plots.missing,
        proofs=summarise_proofs(report),
        environment=(_make_environment_table(report), _make_order_table(report)),
        scenario=json.dumps(
            report.record.scenario.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False
        ),
        record=report.record,
        reference=report.summary.reference,
        margin=format_percent(report.summary.margin),
    )


def _make_environment_table(report: Report) -> Table:
    """Return the environment record, in which two runs have to agree to be compared."""
    known = report.record.environment
    values = {
        "meshbench": known.meshbench,
        "Python": known.python,
        "Locust": known.locust,
        "Envoy": known.envoy,
        "system": f"{known.os}, kernel {known.kernel}, {known.machine}",
        "CPUs": f"{format_count(known.cpus)} × {known.cpu_model}",
        "memory": format_bytes(known.memory_bytes),
        "machine (hash of its id)": known.address_host,
        "run": report.record.run_id,
        "status": " ".join((report.record.status, *map(format_issue, report.record.issues))),
        "started": format_time(report.record.started_at),
        "ended": format_time(report.record.ended_at) if report.record.ended_at else "n/a",
        "scenario": report.record.scenario_source,
    }
    return make_table(
        "environment",
        "Environment",
        rows=values.items(),
        columns={"Property": lambda r: r[0], "Value": lambda r: r[1]},
    )


def _make_order_table(report: Report) -> Table:
    plan = report.record.plan
    return make_table(
        "plan",
        "Order of the trials",
        f"Method: {plan.method}; seed {plan.seed}.",
        rows=enumerate(plan.order, start=1),
        columns={"Block": lambda r: str(r[0]), "Order": lambda r: " → ".join(r[1])},
    )
