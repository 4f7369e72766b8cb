"""Stored runs that were damaged, come from another machine, or have no variance: one complete run, and copies of it."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.measures]

# Every request takes the same time, so that repeats do not differ.
EVEN_USERS = """
@task
def turn(self) -> None:
    self.ask_slowly(0.15)
"""
# The wall clock of meshbench's own process is set forward by a second during each load; Locust's is not.
STEPPED_CLOCK = """
import time, types, bench.load.generator as generator
generator.time = types.SimpleNamespace(time=lambda: time.time() + 1, perf_counter_ns=time.perf_counter_ns)
"""
NO_MATPLOTLIB = "import sys; sys.modules['matplotlib'] = None"
WITHOUT_PLOTS = {"latency.csv", "contrasts.csv", "proxies.csv", "report.md", "tables.tex", "index.html"}


@dataclass(frozen=True)
class CompleteRun:
    """A complete run of two configurations and two repeats."""

    folder: Path
    finished: command.Finished
    began: datetime

    def copy(self, output: Path) -> Path:
        """Another copy of its folder, to be damaged."""
        return Path(shutil.copytree(self.folder, output / self.folder.name))


@pytest.fixture(scope="module")
def complete(shared_output: Path) -> CompleteRun:
    """Two configurations, two repeats, in another time zone and with a clock that is set forward."""
    scenario = command.write_scenario(
        shared_output.parent,
        [command.BASELINE, command.ISTIO],
        repeats=2,
        reference="baseline",
        load={"locustfile": command.write_locustfile(shared_output.parent, EVEN_USERS)},
    )
    began = datetime.now(UTC)
    zone = {"TZ": "America/New_York"}
    finished = command.run("run", "--scenario", scenario, output=shared_output, driver=STEPPED_CLOCK, env=zone)
    assert finished.code == 0, finished.output
    return CompleteRun(command.find_only_run(shared_output), finished, began)


def test_zero_variance_has_no_interval(complete: CompleteRun) -> None:
    """Case 38: zero variance gives no interval and the reason "resolution", with exit 0."""
    summary = json.loads((complete.folder / "summary.json").read_text("utf-8"))
    [contrast] = [found for found in summary["contrasts"] if found["confirmatory"]]
    assert contrast["ratio"] == 1
    assert contrast["ratio_low"] is None
    assert contrast["verdict"] == "inconclusive"
    assert "resolution" in [one["code"] for one in summary["issues"]]


def test_clock_step_is_recorded_and_run_stays_valid(complete: CompleteRun) -> None:
    """Case 47: meshbench's own wall clock names things, in UTC, and times no request; the skew is in the record, and
    the run is valid. A step of Locust's own clock, which starts come from, is tested in `test_timing`."""
    [*trials] = (complete.folder / "trials").glob("*/trial.json")
    clocks = [json.loads(path.read_text("utf-8"))["clock"] for path in trials]
    assert all(0.9 < clock["wall_s"] - clock["monotonic_s"] < 1.5 for clock in clocks)
    named = datetime.strptime(complete.folder.name[:16], "%Y%m%dT%H%M%S%z")
    assert complete.began - timedelta(seconds=1) < named < complete.began + timedelta(minutes=6)


def test_cleanup_after_complete_run_finds_nothing(complete: CompleteRun) -> None:
    """Case 59: no leftover objects of the run, and a second cleanup is no failure."""
    for _ in range(2):
        finished = command.clean_up(complete.folder.parent)
        assert finished.code == 0, finished.output
        assert finished.out.startswith("no leftover objects of ")


DAMAGE = {
    "truncated samples": ("samples.parquet", lambda content: content[:-100]),
    "bad JSON": ("trial.json", lambda content: content[:40]),
    "gone": ("samples.parquet", lambda _: None),
}


@pytest.mark.parametrize(("name", "harm"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_trial_is_skipped_with_a_warning(complete: CompleteRun, output: Path, name: str, harm: Any) -> None:
    """Case 56: `report` skips the trial, names it in a warning, and exits with 0; with --strict it exits with 9."""
    run = complete.copy(output)
    [victim] = run.glob(f"trials/01-*/{name}")
    content = harm(victim.read_bytes())
    victim.unlink() if content is None else victim.write_bytes(content)
    finished = command.call("report", run, "--format", "md", output=output)
    assert finished.code == 0, finished.output
    assert f"warning: trial {victim.parent.name} is left out: {name}" in finished.err
    strict = command.call("report", run, "--format", "md", "--strict", output=output)
    assert strict.code == 9, strict.output
    assert victim.parent.name in strict.err
    assert "Traceback" not in strict.err


def test_run_of_damaged_trials_still_has_a_report(complete: CompleteRun, output: Path) -> None:
    """Case 56: with every trial damaged the tables have n/a, and the exit code is 0."""
    run = complete.copy(output)
    for samples in run.glob("trials/*/samples.parquet"):
        samples.write_bytes(b"")
    finished = command.call("report", run, output=output)
    assert finished.code == 0, finished.output
    assert finished.err.count("warning: trial ") == 4


BROKEN_RECORDS = {
    "other version": (
        lambda text: text.replace('"schema_version": 2', '"schema_version": 3', 1),
        "has format version 3; ",
    ),
    "truncated": (lambda text: text[: len(text) // 2], "run.json: "),
    "empty": (lambda _: "", "run.json: "),
}


@pytest.mark.parametrize(("harm", "message"), BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
@pytest.mark.parametrize("arguments", [["report"], ["run", "--resume"]], ids=["report", "resume"])
def test_unreadable_run_is_refused(
    complete: CompleteRun, output: Path, harm: Any, message: str, arguments: list[str]
) -> None:
    """Cases 55 and 56: a run.json of another version or a broken one ends with exit 9 and the file's name; nothing is
    overwritten."""
    run = complete.copy(output)
    text = harm((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(text, "utf-8")
    finished = command.call(*arguments, run, output=output)
    assert finished.code == 9, finished.output
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert (run / "run.json").read_text("utf-8") == text


def test_existing_run_folder_is_not_overwritten(complete: CompleteRun, output: Path) -> None:
    """Case 55: a run whose folder already exists exits with 9, and leaves that folder unchanged."""
    run = complete.copy(output)
    before = (run / "run.json").read_bytes()
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    driver = f"import bench.run.session; bench.run.session.make_run_id = lambda *_: {run.name!r}"
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver)
    assert finished.code == 9, finished.output
    assert "File exists" in finished.err
    assert (run / "run.json").read_bytes() == before


def test_complete_run_cannot_be_resumed(complete: CompleteRun, output: Path) -> None:
    """A run without missing trials cannot be resumed: exit 2."""
    finished = command.call("run", "--resume", complete.folder, output=output)
    assert finished.code == 2, finished.output
    assert "cannot be resumed" in finished.err


def test_runs_of_different_machines_compare_only_with_force(complete: CompleteRun, output: Path) -> None:
    """Case 57: exit 2 with the differences; --force compares them under a banner that names them."""
    other = complete.copy(output)
    record = command.read_record(other)
    record["environment"]["cpu_model"] = "Another CPU"
    (other / "run.json").write_text(json.dumps(record), "utf-8")
    refused = command.call("compare", complete.folder, other, output=output)
    assert refused.code == 2, refused.output
    assert "Another CPU" in refused.err
    assert refused.out == ""
    forced = command.call("compare", complete.folder, other, "--force", output=output)
    assert forced.code == 0, forced.output
    assert forced.out.startswith("DIFFERENT CONDITIONS: cpu_model")


def test_report_without_matplotlib_has_tables(complete: CompleteRun, output: Path) -> None:
    """Case 68: the page has a note instead of plots; the tables are written; exit 0."""
    run = complete.copy(output)
    shutil.rmtree(run / "report")
    finished = command.call("report", run, output=output, driver=NO_MATPLOTLIB)
    assert finished.code == 0, finished.output
    assert {path.name for path in (run / "report").iterdir()} == WITHOUT_PLOTS
    assert "matplotlib" in (run / "report" / "index.html").read_text("utf-8")
