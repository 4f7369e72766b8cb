"""Reports made from a run's folder: all formats of valid, unusual and damaged runs."""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import InputError, StoreError
from bench.report import FORMATS, write_report
from bench.results.samples import write_parquet
from bench.results.store import StoredRun, read_record, read_run
from bench.results.summary_records import SummaryRecord
from tests.factory import (
    ISTIO_AND_KUMA,
    ISTIO_POLICIES,
    MESH_PAIRS,
    USERS_SWEEP,
    ConfigSpec,
    RunSpec,
    make_run,
    make_scenario,
    simulate,
)
from tests.issues import issue

SHORT = RunSpec(warmup_s=2.0, duration_s=6.0)
HOSTILE = "<script>alert(1)</script>\"'|`x`\n=cmd() $\\input{x}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A valid run of three configurations, reported in every format."""
    made = make_run(tmp_path_factory.mktemp("good"), SHORT)
    write_report(made)
    return made


@pytest.fixture(scope="module")
def page(run: StoredRun) -> str:
    return (run.path / "report" / "index.html").read_text("utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run whose names, reasons and warnings try to break out of every format."""
    changes = {
        "status": "invalid",
        "issues": (issue("stall", HOSTILE), issue("other", "=1+1"), issue("api-outage", HOSTILE)),
    }
    folders = {f"{number:02}-{name}-1": changes for number in range(1, 10) for name in ("istio", "baseline")}
    made = replace(
        SHORT,
        title="<b>bold</b> & | `title`",
        trial_changes=folders,
        issues=(issue("failed", HOSTILE),),
        status="invalid",
    )
    run = make_run(tmp_path_factory.mktemp("hostile"), made)
    write_report(run)
    return run


class Tags(HTMLParser):
    """Collects a page's tags, ids and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.found if "id" in attributes]

    @property
    def addresses(self) -> Iterator[str]:
        for _, attributes in self.found:
            yield from (str(attributes[name]) for name in ("href", "src", "xlink:href", "action") if name in attributes)


def read(run: StoredRun, name: str) -> str:
    return (run.path / "report" / name).read_text("utf-8")


def test_all_formats_write_their_files(run: StoredRun) -> None:
    """All formats together write the files that the documentation names."""
    names = {path.name for path in (run.path / "report").iterdir()}
    figures = {"p95", "differences", "rps", "time", "quantiles", "cpu", "memory"}
    pictures = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    texts = {"index.html", "report.md", "latency.csv", "contrasts.csv", "proxies.csv", "tables.tex"}
    assert names == pictures | texts
    assert read_record(run.path / "summary.json", SummaryRecord).run_id == run.record.run_id


@pytest.mark.parametrize("name", FORMATS)
def test_single_format_writes_only_its_files(tmp_path: Path, name: str) -> None:
    """The returned paths are the written files."""
    made = make_run(tmp_path, replace(SHORT, configurations=ISTIO_POLICIES[:1], reference=None, repeats=2))
    written = write_report(made, formats=[name]).paths
    report = made.path / "report"
    assert written[0] == made.path / "summary.json"
    assert sorted(written[1:]) == sorted(report.iterdir())
    assert {path.suffix.lstrip(".") for path in written[1:]} == {{"latex": "tex"}.get(name, name)}


def test_refuses_unknown_format(tmp_path: Path) -> None:
    """The message lists the formats, and nothing is written."""
    made = make_run(tmp_path, replace(SHORT, configurations=ISTIO_POLICIES[:1], reference=None, repeats=1))
    with pytest.raises(InputError, match=r"unknown format 'pdf'; formats are html, md"):
        write_report(made, formats=["pdf"])
    assert not (made.path / "report").exists()


def test_unwritable_report_is_a_store_error(tmp_path: Path) -> None:
    """A file in place of the report's folder is an error with the path, not a traceback."""
    made = make_run(tmp_path, replace(SHORT, configurations=ISTIO_POLICIES[:1], reference=None, repeats=1))
    (made.path / "report").write_text("in the way")
    with pytest.raises(StoreError, match="report: cannot be written"):
        write_report(made, formats=["md"])


def test_same_run_gives_the_same_bytes(run: StoredRun) -> None:
    """Page, tables and figures depend on the run alone."""
    before = {path.name: path.read_bytes() for path in (run.path / "report").iterdir()}
    write_report(run)
    after = {path.name: path.read_bytes() for path in (run.path / "report").iterdir()}
    assert before == after


def test_page_is_self_contained(page: str) -> None:
    """No script, no external address, and a policy that forbids both."""
    tags = Tags(page)
    assert "default-src 'none'" in page
    assert not [tag for tag, _ in tags.found if tag in ("script", "iframe", "object", "embed", "img", "form")]
    assert all(address.startswith(("#", "data:")) for address in tags.addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]


def test_ids_are_unique_and_referenced(page: str) -> None:
    """Seven figures on one page do not share ids, and no reference leads to a missing one."""
    tags = Tags(page)
    assert len(tags.ids) == len(set(tags.ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', page)) | set(re.findall(r'aria-labelledby="([^"]+)"', page))
    assert used <= set(tags.ids)


def test_every_figure_has_a_title(page: str) -> None:
    """The title of each figure holds its numbers, for readers who cannot see it."""
    titles = re.findall(r'<svg role="img" aria-labelledby="[^"]+".*?<title id="[^"]+">(.*?)</title>', page, re.DOTALL)
    assert len(titles) == 7
    assert "istio-policies" in titles[0]
    assert re.search(r"baseline \d+\.\d+ ms", titles[0])


def test_answer_comes_first(page: str) -> None:
    """The answer is before every table, with the main number and the warnings next to it."""
    places = [
        page.index(f'id="{name}"') for name in ("answer", "warnings", "figure-p95", "results", "repeats", "contrasts")
    ]
    assert places == sorted(places)


def test_heading_has_target_and_caveats(page: str) -> None:
    """Both are in the heading."""
    head = page[: page.index("<main>")]
    assert "data plane emulated on one machine" in head
    assert "no control plane" in head
    assert "closed loop: 20 users" in head


def test_study_values_are_labelled(page: str) -> None:
    """A value of the 2022 study always has a label."""
    assert page.count("2022 study, another cluster") >= 2
    columns = re.findall(r"<th [^>]*>(2022 study: [^<]+)</th>", page)
    assert columns == ["2022 study: ms", "2022 study: ratio"]


def test_latency_csv_has_every_repeat(run: StoredRun) -> None:
    """The CSV rows are the summary's repeats, unrounded."""
    rows = list(csv.DictReader(read(run, "latency.csv").splitlines()))
    summary = read_record(run.path / "summary.json", SummaryRecord)
    repeats = {repeat.trial: repeat for c in summary.configurations.values() for repeat in c.repeats}
    assert {row["trial"]: float(row["p95_ms"]) for row in rows} == {name: r.p95_ms for name, r in repeats.items()}


def test_contrasts_csv_has_every_contrast(run: StoredRun) -> None:
    """The CSV rows are the summary's contrasts, empty where there is no number."""
    rows = list(csv.DictReader(read(run, "contrasts.csv").splitlines()))
    summary = read_record(run.path / "summary.json", SummaryRecord)
    assert [(r["configuration"], r["reference"], r["metric"]) for r in rows] == [
        (c.configuration, c.reference, c.metric) for c in summary.contrasts
    ]
    assert {row["delta_ms"] for row in rows if row["metric"] == "rps"} == {""}


def test_proxies_csv_has_every_cost(run: StoredRun) -> None:
    """The CSV rows are the summary's costs of a proxy, unrounded."""
    rows = list(csv.DictReader(read(run, "proxies.csv").splitlines()))
    costs = read_record(run.path / "summary.json", SummaryRecord).hop_costs
    assert [(row["configuration"], float(row["ms_per_proxy"])) for row in rows] == [
        (cost.configuration, cost.ms_per_proxy) for cost in costs
    ]


def test_named_pairs_have_both_names(tmp_path: Path) -> None:
    """Page, Markdown, LaTeX, CSV and figure name both sides of a pair that the scenario names, and label it planned."""
    five = replace(SHORT, configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, repeats=2)
    made = make_run(tmp_path, five)
    write_report(made, formats=["html", "md", "latex", "csv", "svg"])
    for name in ("index.html", "report.md"):
        text = read(made, name).replace("\\-", "-")
        assert "kuma-policies against istio-policies" in text
        assert "planned" in text
        assert "2022 study's ranking" in text.replace("&#39;", "'")
    for name, row in (
        ("report.md", r"| kuma-policies vs istio-policies |"),
        ("tables.tex", "kuma-policies vs istio-policies & "),
    ):
        assert row in read(made, name).replace("\\-", "-"), "many comparisons are a table in all formats"
    assert "kuma-policies & istio-policies & P95" in read(made, "tables.tex")
    assert "kuma-policies,istio-policies,p95_ms" in read(made, "contrasts.csv")
    assert ">kuma-policies / istio-policies<" in read(made, "differences.svg")


@pytest.mark.parametrize("kind", ["run", "hostile"])
def test_markdown_tables_are_rectangular(kind: str, request: pytest.FixtureRequest) -> None:
    """Every row of a Markdown table has as many cells as its heading, whatever the texts."""
    lines = read(request.getfixturevalue(kind), "report.md").splitlines()
    widths: list[set[int]] = [set()]
    for line in lines:
        if line.startswith("|"):
            widths[-1].add(len(re.findall(r"(?<!\\)\|", line)))
        elif widths[-1]:
            widths.append(set())
    assert len(widths) > 4
    assert all(len(width) <= 1 for width in widths)


def test_latex_tables_are_rectangular(hostile: StoredRun) -> None:
    """Every row of a LaTeX table has as many columns as its specification, whatever the texts."""
    text = read(hostile, "tables.tex")
    for spec, body in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(spec)}
    assert r"\input" not in text


def test_names_and_reasons_are_escaped(hostile: StoredRun) -> None:
    """Script, formula and markup in a run's texts are shown, not run."""
    page = read(hostile, "index.html")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>bold</b>" not in page
    assert "<script" not in read(hostile, "report.md").replace("\\<script", "")
    cells = [cell for row in csv.reader(read(hostile, "latency.csv").splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@"))]
    for figure in (hostile.path / "report").glob("*.svg"):
        assert "<script" not in figure.read_text("utf-8")


def test_marks_invalid_run_and_its_trials(hostile: StoredRun) -> None:
    """An invalid run has its label before any number, and each invalid trial is in the list of warnings."""
    page = read(hostile, "index.html")
    assert page.index("<b>INVALID</b>") < page.index('id="answer"')
    assert re.search(r"\d\d-istio-1 is not valid", page)


def test_quick_runs_are_labelled(tmp_path: Path) -> None:
    """The heading of every text format says that the run is quick."""
    made = make_run(tmp_path, replace(SHORT, quick=True, configurations=ISTIO_POLICIES[:1], reference=None, repeats=1))
    write_report(made, formats=["html", "md"])
    assert "<b>QUICK</b>" in read(made, "index.html")
    assert "**QUICK**" in read(made, "report.md")


FAILING = tuple(replace(c, error_share=1.0) for c in (*ISTIO_POLICIES, *USERS_SWEEP[:2]))
MESHED = tuple(ConfigSpec(f"istio-{users}", "istio", users=users) for users in (10, 20))
LONG = tuple(ConfigSpec("x" * 38 + str(number), median_ms=5.0 + number) for number in range(7))
ODD: dict[str, RunSpec] = {
    "one configuration": replace(SHORT, configurations=ISTIO_POLICIES[:1], reference=None),
    "no reference": replace(SHORT, reference=None),
    "one repeat": replace(SHORT, repeats=1),
    "long names": replace(SHORT, configurations=LONG, reference=LONG[0].name, repeats=1),
    "only errors": replace(SHORT, configurations=FAILING[:3], repeats=2),
    "sweep": replace(SHORT, configurations=USERS_SWEEP[:3], reference=None, repeats=2),
    "sweep of errors": replace(SHORT, configurations=FAILING[3:], reference=None),
    "sweep with a mesh": replace(SHORT, configurations=(*USERS_SWEEP[:2], *MESHED), reference="users-10", repeats=1),
}


@pytest.mark.parametrize("made", ODD.values(), ids=list(ODD))
def test_reports_unusual_runs(tmp_path: Path, made: RunSpec) -> None:
    """Few, failed or unusual trials make a complete report: every figure, n/a where there is no number, no nan."""
    run = make_run(tmp_path, made)
    written = write_report(run, formats=["html", "md", "csv", "latex", "svg"]).paths
    names = {path.name for path in written}
    assert {"index.html", "report.md", "latency.csv", "tables.tex", "time.svg", "quantiles.svg"} <= names
    texts = [path.read_text("utf-8") for path in written if path.suffix in (".html", ".md", ".csv", ".tex")]
    assert not [text for text in texts if re.search(r"\b(nan|inf|None)\b", text)]


def test_no_valid_trial_gives_na_and_empty_plots(tmp_path: Path) -> None:
    """Where no trial carries a result the tables have n/a and the figures say that there is no data."""
    everything = {
        f"{number:02}-{c.name}-{block}": {"status": "invalid", "issues": (issue("stall"),)}
        for number in range(1, 10)
        for c in ISTIO_POLICIES
        for block in (1, 2, 3)
    }
    run = make_run(tmp_path, replace(SHORT, trial_changes=everything, status="invalid"))
    write_report(run)
    assert "n/a" in read(run, "index.html")
    assert "no valid value" in read(run, "quantiles.svg")
    assert "no result" in read(run, "report.md")


def test_reports_and_skips_damaged_trial(tmp_path: Path) -> None:
    """A trial whose files changed is left out of the tables and in the list of warnings."""
    made = make_run(tmp_path, SHORT)
    broken = made.trials[0]
    write_parquet(simulate(ISTIO_POLICIES[0], 20, SHORT, rng=np.random.default_rng(1)), broken.path / "samples.parquet")
    again = read_run(made.path)
    write_report(again, formats=["html", "csv"])
    page = read(again, "index.html")
    assert f"trial {broken.record.trial} is left out" in page[page.index('id="warnings"') : page.index('id="results"')]
    assert broken.record.trial not in read(again, "latency.csv")


def test_tables_need_no_matplotlib(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plotting library every table is there, and the page says which plots are missing, and why."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or "report.figures" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_report(run).paths
    assert not [path for path in written if path.suffix in (".png", ".svg")]
    page = read(run, "index.html")
    assert "The plots are missing: ModuleNotFoundError" in page
    assert 'id="results"' in page


def test_tables_need_no_fonts(run: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A font that cannot be opened removes the plots, not the report."""

    def no_fonts(report: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "DejaVuSans.ttf")

    monkeypatch.setattr("bench.report.figures.draw_figures", no_fonts)
    write_report(run, formats=["html", "png"])
    assert "The plots are missing: FileNotFoundError" in read(run, "index.html")


def test_sweeps_have_users_and_the_studys_levels(tmp_path: Path) -> None:
    """A sweep has its own figure and the 2022 study's sweep in columns of its own."""
    made = make_run(tmp_path, ODD["sweep"])
    write_report(made, formats=["html", "svg"])
    names = {path.name for path in (made.path / "report").glob("*.svg")}
    assert "sweep.svg" in names
    assert not {"p95.svg", "rps.svg"} & names
    assert "2022 study: share of best" in read(made, "index.html")


def test_failed_proofs_are_open_and_counted(run: StoredRun) -> None:
    """Evidence that did not hold is shown without a click, with the actual answer."""
    from bench.frames.run import Run
    from bench.report.html import render_page, summarise_proofs
    from bench.report.model import Report

    first = run.trials[0]
    assert first.proof is not None
    failed = first.proof.before[0].model_copy(update={"ok": False, "seen": "a sidecar too many"})
    proof = first.proof.model_copy(update={"before": (failed,)})
    other = replace(run, trials=(replace(first, proof=proof), *run.trials[1:]))
    report = Report(Run(other))
    named = {proven.configuration: proven.failed for proven in summarise_proofs(report)}
    assert named[first.record.configuration] == 1
    page = render_page(report)
    assert re.search(r"<details open><summary>" + first.record.configuration, page)
    assert "a sidecar too many" in page


def test_factory_scenario_is_readable(run: StoredRun) -> None:
    """The simulated run's scenario is the one that is read from the folder."""
    assert run.record.scenario == make_scenario(SHORT)


def test_noise_is_in_repeats_where_it_is_known(tmp_path: Path, page: str) -> None:
    """Counters of the machine are no process, so that no table lists them and no sum includes them."""
    made = make_run(tmp_path, replace(SHORT, repeats=1, configurations=ISTIO_POLICIES[:1], reference=None, noise={}))
    write_report(made, formats=("md", "csv"))
    text = (made.path / "report" / "report.md").read_text("utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| Trial | Valid |"))
    assert [name for name in ("Others", "Steal", "Waiting", "Throttled") if f"| {name} |" in header] == [
        "Others",
        "Steal",
    ]
    assert "| noise |" not in text
    assert "capacity" not in text
    (row,) = csv.DictReader((made.path / "report" / "latency.csv").read_text("utf-8").splitlines())
    assert float(row["steal"]) == pytest.approx(0.03, rel=0.01)
    assert float(row["used_cpu"]) == pytest.approx(0.4, rel=0.01)
    assert (row["pressure"], row["throttled"]) == ("", "")
    assert ">Others<" not in page
