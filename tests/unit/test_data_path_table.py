"""The report's table of the differences between the data paths of meshes."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.frames.run import Run
from bench.report import write_report
from bench.report.data_path_table import compare_data_paths
from bench.report.model import Report, Table
from bench.results.records import DataPath
from bench.results.store import StoredRun
from tests.data_paths import make_data_path
from tests.factory import ConfigSpec, RunSpec, make_run

BOTH = (ConfigSpec("baseline"), ConfigSpec("istio", "istio"), ConfigSpec("kuma", "kuma"))
ISTIO = make_data_path(tls="TLSv1.3", retries=2)
KUMA = make_data_path(tls="TLSv1.2", retries=2, http="HTTP/2", workers=4)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run of both meshes, whose trials have no data path."""
    made = RunSpec(configurations=BOTH, repeats=2, warmup_s=1.0, duration_s=4.0)
    return make_run(tmp_path_factory.mktemp("both"), made)


def with_paths(run: StoredRun, paths: dict[str, DataPath]) -> StoredRun:
    """The same run, as if its trials had recorded these paths."""
    trials = (
        replace(
            trial,
            proof=trial.proof and trial.proof.model_copy(update={"data_path": paths.get(trial.record.configuration)}),
        )
        for trial in run.trials
    )
    return replace(run, trials=tuple(trials))


def table_of(run: StoredRun) -> Table:
    return compare_data_paths(Report(Run(run)))


def row_of(table: Table, title: str) -> tuple[str, ...]:
    return next(tuple(cell.text for cell in row[1:]) for row in table.rows if row[0].text == title)


def test_each_mesh_has_a_column(measured: StoredRun) -> None:
    """Differences are marked, and equal values are labelled; the baseline has no data path."""
    table = table_of(with_paths(measured, {"istio": ISTIO, "kuma": KUMA}))
    assert [column.title for column in table.columns] == ["Property", "Result", "istio", "kuma"]
    assert row_of(table, "protocol between sidecars") == ("different", "HTTP/1.1", "HTTP/2")
    assert row_of(table, "TLS version") == ("different", "TLSv1.3", "TLSv1.2")
    assert row_of(table, "workers of a sidecar") == ("different", "2", "4")
    assert row_of(table, "policies for HTTP") == ("equal", "1 in 1 sidecars", "1 in 1 sidecars")
    assert row_of(table, "load balancing") == ("equal", "round robin", "round robin")
    tried = "2 on 5xx; 25ms to 250ms between, 16s for each"
    assert row_of(table, "retries between sidecars") == ("equal", tried, tried)
    assert {row[0].text for row in table.rows if row[1].verdict} == {
        "protocol between sidecars", "TLS version", "TLS cipher", "TLS curve", "workers of a sidecar",
    }  # fmt: skip


def test_sentence_names_the_differences(measured: StoredRun) -> None:
    """In addition to the mesh; equalised settings are named, too."""
    table = table_of(
        with_paths(measured, {"istio": ISTIO, "kuma": make_data_path(tls="TLSv1.3", retries=2, workers=4)})
    )
    assert table.note.startswith("In addition to the mesh, these differ: workers of a sidecar. Read from")
    equal = with_paths(measured, {"istio": ISTIO, "kuma": ISTIO})
    scenario = equal.record.scenario.model_copy(update={"equalise": ("tls", "workers")})
    equal = replace(equal, record=equal.record.model_copy(update={"scenario": scenario}))
    assert table_of(equal).note.startswith(
        "All properties are equal. Set to equal values by the scenario (equalise): TLS 1.3 only, 2 workers in each "
        "sidecar. Read"
    )


def test_shows_differences_between_repeats(measured: StoredRun) -> None:
    """A configuration that was not the same in all its trials has both values in its cell."""
    run = with_paths(measured, {"istio": ISTIO, "kuma": KUMA})
    first = next(trial for trial in run.trials if trial.record.configuration == "kuma")
    odd = replace(first, proof=first.proof and first.proof.model_copy(update={"data_path": ISTIO}))
    run = replace(run, trials=tuple(odd if trial is first else trial for trial in run.trials))
    assert set(row_of(table_of(run), "TLS version")[2].split(" · ")) == {"TLSv1.3", "TLSv1.2"}


@pytest.mark.parametrize("paths", [{}, {"istio": ISTIO}])
def test_single_mesh_or_older_run_has_no_table(measured: StoredRun, paths: dict[str, DataPath]) -> None:
    """There is nothing to compare."""
    assert table_of(with_paths(measured, paths)).rows == ()


def test_table_is_in_every_format(tmp_path: Path) -> None:
    """HTML, Markdown and LaTeX have it, and the label that names the equalised settings."""
    run = make_run(tmp_path, RunSpec(configurations=BOTH, repeats=1, warmup_s=1.0, duration_s=4.0))
    run = with_paths(run, {"istio": ISTIO, "kuma": KUMA})
    scenario = run.record.scenario.model_copy(update={"equalise": ("retries",)})
    run = replace(run, record=run.record.model_copy(update={"scenario": scenario}))
    write_report(run, formats=("html", "md", "latex"))
    html, markdown, latex = (
        (run.path / "report" / name).read_text("utf-8") for name in ("index.html", "report.md", "tables.tex")
    )
    assert '<section id="data-path">' in html
    assert '<span class="verdict different">different</span>' in html
    assert "## Data path comparison" in markdown
    assert r"\label{tab:meshbench-data-path}" in latex
    for text in (html, markdown):
        assert "Set to the same value in all meshes, in place of their own: no retries between sidecars." in text
