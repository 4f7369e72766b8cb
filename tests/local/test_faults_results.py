"""Stored runs that were damaged, come from elsewhere, or have nothing to vary: one good run, and copies of it."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.measures, pytest.mark.timeout(600)]

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
class Good:
    """A complete run of two configurations and two repeats."""

    folder: Path
    finished: command.Finished
    began: datetime

    def copy(self, output: Path) -> Path:
        """Another copy of its folder, for harm."""
        return Path(shutil.copytree(self.folder, output / self.folder.name))


@pytest.fixture(scope="module")
def good(shared_output: Path) -> Good:
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
    assert finished.code == 0, finished.told
    return Good(command.only_run(shared_output), finished, began)


def test_repeats_without_a_spread_have_no_interval(good: Good) -> None:
    """Case 38: zero variance says nothing of chance: no interval, "resolution" as the doubt, exit 0."""
    summary = json.loads((good.folder / "summary.json").read_text("utf-8"))
    [contrast] = [found for found in summary["contrasts"] if found["confirmatory"]]
    assert contrast["ratio"] == 1
    assert contrast["ratio_low"] is None
    assert contrast["verdict"] == "inconclusive"
    assert any(doubt.startswith("resolution: ") for doubt in summary["doubts"])


def test_a_clock_that_is_set_during_the_load_is_recorded_and_harmless(good: Good) -> None:
    """Case 47: meshbench's own wall clock names things, in UTC, and places no request; the skew stands in the record,
    and the run is valid. A step of Locust's own clock, which starts come from, is another matter: see `test_timing`."""
    [*trials] = (good.folder / "trials").glob("*/trial.json")
    clocks = [json.loads(path.read_text("utf-8"))["clock"] for path in trials]
    assert all(0.9 < clock["wall_s"] - clock["monotonic_s"] < 1.5 for clock in clocks)
    named = datetime.strptime(good.folder.name[:16], "%Y%m%dT%H%M%S%z")
    assert good.began - timedelta(seconds=1) < named < good.began + timedelta(minutes=6)


def test_cleaning_up_after_a_run_that_ended_finds_nothing(good: Good) -> None:
    """Case 59: nothing is left of it, and to be told so twice is no failure."""
    for _ in range(2):
        finished = command.clean_up(good.folder.parent)
        assert finished.code == 0, finished.told
        assert finished.out.startswith("nothing is left of ")


DAMAGE = {
    "truncated samples": ("samples.parquet", lambda content: content[:-100]),
    "bad JSON": ("trial.json", lambda content: content[:40]),
    "gone": ("samples.parquet", lambda _: None),
}


@pytest.mark.parametrize(("name", "harm"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_trial_is_left_out_by_name(good: Good, output: Path, name: str, harm: Any) -> None:
    """Case 56: `report` works without it, warns and names it, and exits 0; with --strict it exits 9."""
    run = good.copy(output)
    [victim] = run.glob(f"trials/01-*/{name}")
    content = harm(victim.read_bytes())
    victim.unlink() if content is None else victim.write_bytes(content)
    finished = command.call("report", run, "--format", "md", output=output)
    assert finished.code == 0, finished.told
    assert f"warning: trial {victim.parent.name} is left out: {name}" in finished.err
    strict = command.call("report", run, "--format", "md", "--strict", output=output)
    assert strict.code == 9, strict.told
    assert victim.parent.name in strict.err
    assert "Traceback" not in strict.err


def test_a_run_of_damaged_trials_alone_still_has_a_report(good: Good, output: Path) -> None:
    """Case 56: with every trial damaged the tables say n/a, and the exit code is 0."""
    run = good.copy(output)
    for samples in run.glob("trials/*/samples.parquet"):
        samples.write_bytes(b"")
    finished = command.call("report", run, output=output)
    assert finished.code == 0, finished.told
    assert finished.err.count("warning: trial ") == 4


BROKEN_RECORDS = {
    "other version": (lambda text: text.replace('"schema_version": 1', '"schema_version": 2', 1), "in format 2; "),
    "truncated": (lambda text: text[: len(text) // 2], "run.json: "),
    "empty": (lambda _: "", "run.json: "),
}


@pytest.mark.parametrize(("harm", "said"), BROKEN_RECORDS.values(), ids=BROKEN_RECORDS)
@pytest.mark.parametrize("arguments", [["report"], ["run", "--resume"]], ids=["report", "resume"])
def test_a_run_that_cannot_be_read_is_refused(
    good: Good, output: Path, harm: Any, said: str, arguments: list[str]
) -> None:
    """Cases 55 and 56: a run.json of another version, or a broken one: exit 9, the file named, nothing overwritten."""
    run = good.copy(output)
    text = harm((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(text, "utf-8")
    finished = command.call(*arguments, run, output=output)
    assert finished.code == 9, finished.told
    assert said in finished.err
    assert "Traceback" not in finished.err
    assert (run / "run.json").read_text("utf-8") == text


def test_a_run_is_never_written_over_another(good: Good, output: Path) -> None:
    """Case 55: a run whose folder is there already ends with exit 9, and leaves that folder as it was."""
    run = good.copy(output)
    before = (run / "run.json").read_bytes()
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    driver = f"import bench.run.session; bench.run.session.new_run_id = lambda *_: {run.name!r}"
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver)
    assert finished.code == 9, finished.told
    assert "File exists" in finished.err
    assert (run / "run.json").read_bytes() == before


def test_a_complete_run_cannot_be_resumed(good: Good, output: Path) -> None:
    """There is nothing to go on with: exit 2."""
    finished = command.call("run", "--resume", good.folder, output=output)
    assert finished.code == 2, finished.told
    assert "nothing to resume" in finished.err


def test_runs_from_different_machines_are_compared_only_by_force(good: Good, output: Path) -> None:
    """Case 57: exit 2 with the differences; --force compares them under a banner that names them."""
    other = good.copy(output)
    record = command.record(other)
    record["environment"]["cpu_model"] = "Another CPU"
    (other / "run.json").write_text(json.dumps(record), "utf-8")
    refused = command.call("compare", good.folder, other, output=output)
    assert refused.code == 2, refused.told
    assert "Another CPU" in refused.err
    assert refused.out == ""
    forced = command.call("compare", good.folder, other, "--force", output=output)
    assert forced.code == 0, forced.told
    assert forced.out.startswith("NOT MEASURED ALIKE: cpu_model")


def test_a_report_without_matplotlib_has_its_tables(good: Good, output: Path) -> None:
    """Case 68: plots are left out and the page says so; the tables are written; exit 0."""
    run = good.copy(output)
    shutil.rmtree(run / "report")
    finished = command.call("report", run, output=output, driver=NO_MATPLOTLIB)
    assert finished.code == 0, finished.told
    assert {path.name for path in (run / "report").iterdir()} == WITHOUT_PLOTS
    assert "matplotlib" in (run / "report" / "index.html").read_text("utf-8")
