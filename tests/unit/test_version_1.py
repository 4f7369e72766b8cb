"""Runs of version 1 of the format: read, reported, compared and gated as before, and not resumed."""

import ast
import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.history import append_lines, read_history
from bench.analysis.night import make_lines
from bench.analysis.regression import decide
from bench.analysis.run_summary import summarise
from bench.analysis.validity import RULES, format_issue
from bench.errors import InputError, StoreError, exit_code_of
from bench.report import write_report
from bench.report.compare import compare_runs
from bench.report.gate import format_reason
from bench.results.issues import Issue, IssueCode
from bench.results.records import ProofRecord, RunRecord, TrialRecord
from bench.results.store import read_record, read_run
from bench.results.summary_records import SummaryRecord
from bench.run.session import read_resumable_run
from tests.bookinfo import ROOT
from tests.unit.test_history import line

EXAMPLE = ROOT / "tests" / "recorded" / "run_of_version_1"
SINCE_VERSION_2 = (
    "design",
    "noise",
    "no-overlap",
    "correlated",
    "other-machine",
    "many-names",
    "off-target",
    "user-errors",
    "unprobed",
    "image-changed",
)
OTHER_ADVICE = ("closed-loop",)  # today's is not what version 1 wrote
PLAIN = ("timeout", "killed", "interrupted", "failed", "internal-error")


def read_changed(tmp_path: Path, file: Path, model: Any, **changes: Any) -> Any:
    """The record of the example with other fields, as version 1 would have written it."""
    stored = json.loads(file.read_bytes())
    assert stored["schema_version"] == 1
    (path := tmp_path / file.name).write_text(json.dumps({**stored, **changes}), "utf-8")
    return read_record(path, model)


def read_trial(tmp_path: Path, **changes: Any) -> TrialRecord:
    record = read_changed(tmp_path, EXAMPLE / "trials" / "05-istio-2" / "trial.json", TrialRecord, **changes)
    assert isinstance(record, TrialRecord)
    return record


@pytest.mark.parametrize(
    "code", [code for code in IssueCode if RULES[code].advice and code not in (*SINCE_VERSION_2, *OTHER_ADVICE)]
)
def test_reads_issue_with_code_and_advice(tmp_path: Path, code: IssueCode) -> None:
    """The text of each code is divided at the advice, and printed as it was."""
    text = f"{code}: in 3 s: no request ended; and more; {RULES[code].advice}"
    (found,) = read_trial(tmp_path, reasons=[text]).issues
    assert found == Issue(code=code, severity="reason", detail="in 3 s: no request ended; and more")
    assert format_issue(found) == text


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("closed-loop: lost 3 %; requests were lost or users were blocked; read load.log", "closed-loop", "lost 3 %"),
        ("stall: in 3 s; something froze; look for what else the machine did, and run again", "stall", "in 3 s"),
        ("restart: it ended; look into its log below proxies/ or in the services' logs", "restart", "it ended"),
        ("proof: page: expected one, seen another", "proof", "page: expected one, seen another"),
    ],
)  # fmt: skip
def test_reads_older_words_of_advice(tmp_path: Path, text: str, code: str, detail: str) -> None:
    """Version 1 had several words for the same advice; what is printed has today's."""
    (found,) = read_trial(tmp_path, reasons=[text]).reasons
    assert (found.code, found.detail) == (code, detail)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("the state after the load could not be read: listing pods: no answer", "unread-state"),
        ("all 40 requests of 10 seconds failed; the load was ended early", "ended-early"),
        ("the API server was away during the load for 12 s; the load went on", "api-outage"),
        ("the load's node has its clock +2.0 s off this machine's; latencies do not depend on it", "clock-skew"),
        ("the kubelet of node n0 gave no CPU and memory 2 times: 403: forbidden", "no-resources"),
        ("resources are the kubelets' own figures: querying Prometheus: timed out", "no-prometheus"),
        ("<script>: whatever; it is", "other"),
    ],
)
def test_reads_warnings_without_a_code(tmp_path: Path, text: str, code: str) -> None:
    """Prose gets its code by how it begins, and is printed as it was."""
    (found,) = read_trial(tmp_path, warnings=[text]).issues
    assert (found.code, found.severity, format_issue(found)) == (code, "warning", text)


def test_reads_trial_with_its_other_fields(tmp_path: Path) -> None:
    """Restarts and the generator's problem are in the reasons already."""
    stored = json.loads((EXAMPLE / "trials" / "05-istio-2" / "trial.json").read_bytes())
    generator = {**stored["generator"], "problem": "the disk is full"}
    reasons = ["generator-ended: the disk is full; read load.log, and run again", "restart: a ended during the trial"]
    found = read_trial(tmp_path, reasons=reasons, restarts=["a ended"], generator=generator, warnings=["x"])
    assert [issue.code for issue in found.issues] == ["generator-ended", "restart", "other"]
    assert found.generator is not None
    assert (found.schema_version, found.generator.recorded) == (2, 3125)


@pytest.mark.parametrize(
    ("status", "exit_code", "code"),
    [
        ("interrupted", 130, "interrupted"),
        ("interrupted", 10, "timeout"),
        ("interrupted", 137, "killed"),
        ("failed", 4, "failed"),
        ("failed", 1, "internal-error"),
    ],
)
def test_reads_why_a_run_ended(tmp_path: Path, status: str, exit_code: int, code: str) -> None:
    """Status and exit code tell what kind of end it was; its words stay."""
    changes = {"status": status, "exit_code": exit_code, "reason": "as\nit was: so; or so"}
    record = read_changed(tmp_path, EXAMPLE / "run.json", RunRecord, **changes)
    (found,) = record.issues
    assert (found.code, found.severity, format_issue(found)) == (code, "reason", changes["reason"])
    assert record.converted_from == 1


def test_reads_what_evidence_is_about(tmp_path: Path) -> None:
    """Four kinds of evidence were about responses to users."""
    names = ("page", "pages", "through sidecars", "route", "mutual TLS", "no route")
    facts = [{"name": name, "subject": "x", "ok": True, "expected": "y", "seen": "y"} for name in names]
    file = EXAMPLE / "trials" / "05-istio-2" / "proof.json"
    record = read_changed(tmp_path, file, ProofRecord, before=facts)
    assert [fact.about for fact in record.before] == ["responses"] * 4 + ["configuration"] * 2


def test_reads_history_beside_new_lines(tmp_path: Path) -> None:
    """Old lines are judged with new ones, keep their words, and are not appended a second time."""
    path = tmp_path / "history.jsonl"
    new = [line(number) for number in range(3)]
    old = [{**json.loads(one.model_dump_json(exclude={"issues"})), "schema_version": 1, "reason": ""} for one in new]
    old[1] |= {"valid": False, "reason": "istio has no valid repeat ended by SIGINT"}
    path.write_text("".join(json.dumps(one) + "\n" for one in old), "utf-8")
    known = append_lines(path, [*new, line(3)])
    assert (len(known.lines), known.problems) == (4, ())
    assert len(path.read_bytes().splitlines()) == 4
    assert known.lines[0] == new[0]
    assert read_history(path) == known
    decisions = decide(known.lines)
    assert [decision.outcome for decision in decisions] == ["no baseline", "invalid", "pass", "pass"]
    assert format_reason(decisions[1]) == "istio has no valid repeat ended by SIGINT"


def test_reports_the_example_as_before(tmp_path: Path) -> None:
    """Every number of the stored summary, and the texts of its report below its first sentence, which is new; the files
    themselves stay as they are."""
    before = {path: path.read_bytes() for path in EXAMPLE.rglob("*") if path.is_file()}
    shutil.copytree(EXAMPLE, tmp_path / "run")
    write_report(read_run(tmp_path / "run"), formats=["md", "csv"])
    stored, made = (json.loads((run / "summary.json").read_bytes()) for run in (EXAMPLE, tmp_path / "run"))
    assert_same_numbers(stored, made)
    assert (made["schema_version"], [one["code"] for one in made["issues"]]) == (
        2,
        ["quick", "few-cpus", "resolution", "resolution"],
    )
    text = (tmp_path / "run" / "report" / "report.md").read_text("utf-8")
    assert text.count("\n- ") >= 8
    for expected in WARNINGS.splitlines():
        assert f"- {expected}" in text
    assert ANSWER.strip() in text
    assert text.splitlines()[4] == HEADLINE.strip().replace("\n", " ")
    with (tmp_path / "run" / "report" / "latency.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]][:8] == ["configuration", "users", "mesh", "trial", "block", "valid", "reasons", "warnings"]
    assert {row["valid"] for row in rows} == {"True"}
    assert {path: path.read_bytes() for path in EXAMPLE.rglob("*") if path.is_file()} == before


WARNINGS = """\
quick: windows are short; for trying out, not for results: run without --quick
few-cpus: the machine has 2 CPUs; services, sidecars and load share them: not comparable with other machines
resolution: istio against baseline: 3 repeats of this spread find 111 % in 4 of 5 runs (MDE), 10 % would take
resolution: istio-policies against baseline: 3 repeats of this spread find 110 % in 4 of 5 runs (MDE), 10 % would
"""
HEADLINE = """
**Istio's sidecars add 24 ms (+99 %, between +21 and +228 %) to the P95 of Bookinfo; whether its policies
raise or lower that is not known (−2 %, between −34 and +47 %).**
"""
ANSWER = """\
istio adds +23.9 ms (+99 %, 95 % interval +21 % to +228 %) to the P95 of baseline: slower
"""


def assert_same_numbers(stored: Any, made: Any, place: str = "") -> None:
    """Compare every value of the stored summary that is no text of an issue; the new one may have more."""
    if isinstance(stored, Mapping):
        for key in stored.keys() - {"schema_version", "reasons", "warnings", "doubts", "reason"}:
            assert_same_numbers(stored[key], made[key], f"{place}.{key}")
    elif isinstance(stored, list):
        for number, (one, other) in enumerate(zip(stored, made, strict=True)):
            assert_same_numbers(one, other, f"{place}[{number}]")
    else:
        assert made == (pytest.approx(stored) if isinstance(stored, float) else stored), place


def test_reads_the_stored_summary() -> None:
    """Its warnings are issues, with the words of its time where they are unknown today."""
    found = read_record(EXAMPLE / "summary.json", SummaryRecord)
    assert [issue.code for issue in found.issues] == ["quick", "few-cpus", "resolution", "resolution"]
    assert found.issues[2].detail.endswith("10 % would take 80 repeats")
    assert found.configurations["istio"].repeats[0].issues == ()


def test_compares_and_gates_the_example_as_before() -> None:
    """The conditions of its nights are those of lines that are in histories already."""
    run = read_run(EXAMPLE)
    text = compare_runs(run, run, force=False)
    assert "istio: 48.0 ms -> 48.0 ms, +0.0 % [−33 %, +50 %]: inconclusive" in text
    first, _ = make_lines(run)
    assert (first.fingerprint, first.valid, first.issues) == ("9e2410829b7dd430", True, ())
    assert first.ln_ratio == pytest.approx(0.687061521618745)
    assert summarise(run)[0].valid


def test_is_not_resumed(tmp_path: Path) -> None:
    """Trials of two versions in one run would not be comparable: exit code 2, with what to do."""
    shutil.copytree(EXAMPLE, tmp_path / "run")
    stored = json.loads((EXAMPLE / "run.json").read_bytes())
    cut = {**stored, "status": "interrupted", "trials": stored["trials"][:3]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(cut), "utf-8")
    with pytest.raises(InputError, match=r"version 1 of the format, .* hint: start a new run$") as caught:
        read_resumable_run(tmp_path / "run", on_cluster=False)
    assert exit_code_of(caught.value) == 2


def test_malformed_record_is_one_message(tmp_path: Path) -> None:
    """The message names the field that is wrong, not the version."""
    (path := tmp_path / "proof.json").write_text('{"schema_version": 1, "trial": "x", "before": 3}', "utf-8")
    with pytest.raises(StoreError, match=r"proof\.json: (before|after): "):
        read_record(path, ProofRecord)


SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in (ROOT / "bench").rglob("*.py")
}


def test_only_the_edge_makes_text_of_issues() -> None:
    """What formats issues is called by the command line, by reports and by DataFrames."""
    users = {
        path
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and {"format_issue", "format_issues"} & {one.name for one in node.names}
    }
    assert users
    assert {path for path in users if not path.startswith(("bench/cli/", "bench/frames/", "bench/report/"))} == set()


def test_no_code_reads_details() -> None:
    """A detail is for people: no module compares, divides or searches one."""
    methods = ("startswith", "endswith", "partition", "split")
    found = []
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Attribute) and node.attr in methods:
                parts = [node.value]
            elif isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
            found += [(path, one.lineno) for one in parts if isinstance(one, ast.Attribute) and one.attr == "detail"]
    assert found == []
