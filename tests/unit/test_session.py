"""A run with leftovers: its exit code, its message, and its record."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.analysis.run_summary import summarise
from bench.errors import (
    DeployError,
    InvalidMeasurementError,
    LeftoversError,
    RunTimeoutError,
    exit_code_of,
    note_leftovers,
)
from bench.meshes.resolved import ResolvedScenario, resolve_stored
from bench.results.records import RunRecord
from bench.results.store import RunFolder, read_record, read_run, write_record
from bench.run.session import _record_end, interleave
from bench.scenario.plan import make_plan
from bench.system.cancellation import CancelToken
from bench.targets.cluster.target import ClusterTarget, open_target
from tests.factory import ConfigSpec, RunSpec, make_run, make_scenario
from tests.fake_cluster import FakeCluster, make_object
from tests.issues import issue
from tests.shown_cluster import options

RUN = "20261123T031500Z-mine-7f3a"
LEFT = LeftoversError("the run is still on context fake")


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster with objects of the run, and short waits."""
    cluster = FakeCluster()
    cluster.add([make_object("v1", "Namespace", "bookinfo-7f3a", run=RUN, component="namespace")])
    return cluster


def _opened(fake: FakeCluster) -> Any:
    """The target of a run that installs nothing by itself."""
    run = cast("RunRecord", SimpleNamespace(run_id=RUN, scenario=SimpleNamespace(isolation="full")))
    unused, resolved = cast("Any", None), cast("ResolvedScenario", SimpleNamespace(configurations=()))
    return open_target(
        fake.cluster, options(), run=run, resolved=resolved, journal=unused, watch=CancelToken(), load_place=unused
    )


def test_valid_run_with_leftovers_exits_7(fake: FakeCluster) -> None:
    """A removal with expired credentials is not the exit code of a cluster that failed."""
    with pytest.raises(LeftoversError, match=f"cleanup --context fake --run-id {RUN}$") as raised, _opened(fake):
        fake.denied = 401
    assert (exit_code_of(raised.value), raised.value.clean) == (7, False)


def test_failure_keeps_exit_code_and_reports_leftovers(fake: FakeCluster) -> None:
    """A removal that fails never replaces the first failure."""

    def run() -> None:
        with _opened(fake):
            fake.denied = 403
            raise DeployError("details did not become ready")

    with pytest.raises(DeployError, match="details") as raised:
        run()
    assert not raised.value.clean
    (note,) = raised.value.__notes__
    assert f"cleanup --context fake --run-id {RUN}" in note


def test_remaining_mesh_of_a_trial_ends_the_run(fake: FakeCluster) -> None:
    """The next trial would not be isolated; the end of the run retries the removal and reports the rest."""

    def run() -> None:
        with _opened(fake) as target:
            assert isinstance(target, ClusterTarget)
            with target.installed([]):
                fake.denied = 401

    with pytest.raises(LeftoversError, match="answered 401") as raised:
        run()
    assert len(raised.value.__notes__) == 1


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a run that is being measured."""
    path = make_run(
        tmp_path, RunSpec(configurations=(ConfigSpec("baseline"),), repeats=1, warmup_s=1, duration_s=2)
    ).path
    return RunFolder.reopen(path, status="running", exit_code=None, cleanup_ok=None)


def _ended(folder: RunFolder, error: BaseException) -> RunRecord:
    with _record_end(folder):
        raise error
    return read_record(folder.path / "run.json", RunRecord)


def test_run_record_has_leftovers(folder: RunFolder) -> None:
    """The record of the run has the exit code of the command."""
    with pytest.raises(LeftoversError):
        _ended(folder, LEFT)
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.status, record.exit_code, record.cleanup_ok) == ("failed", 7, False)


def test_invalid_trials_decide_the_exit_code(folder: RunFolder) -> None:
    """Invalid trials come before leftovers in the exit code; the message has both."""
    [trial] = folder.trial_records()
    name = folder.path / "trials" / trial.trial / "trial.json"
    write_record(name, trial.model_copy(update={"status": "invalid", "issues": (issue("stall"),)}))
    with pytest.raises(InvalidMeasurementError, match="not every trial is valid") as raised:
        _ended(folder, LEFT)
    assert raised.value.__notes__[0] == f"not everything could be removed: {LEFT}"
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.exit_code, record.cleanup_ok) == (5, False)


@pytest.mark.parametrize(("repeats", "invalid", "status"), [(8, 2, "complete"), (8, 3, "invalid"), (7, 1, "invalid")])
def test_run_in_blocks_spares_some_of_many(tmp_path: Path, repeats: int, invalid: int, status: str) -> None:
    """Of eight blocks or more that are shared three in four have to be valid, of fewer all."""
    blocks = RunSpec(repeats=repeats, design="duet", warmup_s=1, duration_s=10)
    changes = {
        trial.folder: {"status": "invalid", "issues": (issue("restart"),)}
        for trial in make_plan(make_scenario(blocks), blocks.seed).trials
        if trial.block <= invalid and trial.configuration == "istio"
    }
    path = make_run(tmp_path, replace(blocks, trial_changes=changes)).path
    folder = RunFolder.reopen(path, status="running", exit_code=None, cleanup_ok=None)
    with _record_end(folder):
        pass
    assert folder.record.status == status
    summary, _ = summarise(read_run(path))
    assert summary.valid is (status == "complete")


def test_timed_out_run_reports_leftovers(folder: RunFolder) -> None:
    """The report is made, and the printed reason is the one in the run's record."""
    error = RunTimeoutError("the run took longer than --timeout")
    note_leftovers(error, LEFT)
    record = _ended(folder, error)
    assert (record.exit_code, record.cleanup_ok) == (10, False)
    assert "still on context fake" in record.issues[0].detail


def test_internal_error_reports_leftovers(folder: RunFolder) -> None:
    """A failed removal after an internal error is recorded as after any other failure."""
    error = KeyError("unexpected")
    note_leftovers(error, LEFT)
    with pytest.raises(KeyError):
        _ended(folder, error)
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.exit_code, record.cleanup_ok) == (1, False)


def test_busy_duet_becomes_interleaved(tmp_path: Path) -> None:
    """Scenario, plan and a remark of the record change before the first window; the remark has the users that a duet
    would take, by the use that was measured."""
    path = make_run(tmp_path, RunSpec(design="duet", repeats=4, users=24, warmup_s=5, duration_s=15)).path
    folder = RunFolder.reopen(path, trials=())
    resolved = resolve_stored(folder.record.scenario, path)
    settled = interleave(folder, resolved, 0.9)
    folder.journal.close()
    record = read_record(path / "run.json", RunRecord)
    assert (record.scenario.design, record.plan.design, record.plan.rounds) == ("interleaved", "interleaved", 2)
    assert (record.plan.seed, record.plan.blocks) == (resolved.scenario.seed or 7, 4)
    assert [one.load.users for one in settled.configurations] == [24, 24, 24]
    (remark,) = record.remarks
    assert remark.code == "design"
    assert remark.detail.startswith(
        "interleaved in place of duet: the duet used 90 % of the CPUs in its warm-up, and may"
    )
    assert remark.detail.endswith("use 75 %, as with 20 users in all")
