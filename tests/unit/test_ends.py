"""How a run ends that cannot remove everything: its exit code, what it says, and what its folder says later."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.errors import DeployError, InvalidMeasurementError, LeftoversError, RunTimeoutError, note_leftovers
from bench.results.records import RunRecord
from bench.results.store import RunFolder, read_record, write_record
from bench.run.session import _ending
from bench.system.cancellation import Watch
from bench.targets.cluster.target import ClusterTarget, open_target
from tests.factory import Made, Simulated, make_run
from tests.fake_cluster import FakeCluster, thing
from tests.shown_cluster import options

RUN = "20261123T031500Z-mine-7f3a"
LEFT = LeftoversError("the run is still on context fake")


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster with something of the run, on which nobody waits."""
    cluster = FakeCluster()
    cluster.add([thing("v1", "Namespace", "bookinfo-7f3a", run=RUN, component="namespace")])
    return cluster


def _opened(fake: FakeCluster) -> Any:
    """The target of a run that installs nothing by itself."""
    run = cast("RunRecord", SimpleNamespace(run_id=RUN, scenario=SimpleNamespace(isolation="full")))
    unused = cast("Any", None)
    return open_target(
        fake.cluster, options(), run=run, inputs=unused, journal=unused, watch=Watch(), load_place=unused
    )


def test_a_good_run_that_cannot_be_removed_ends_with_leftovers(fake: FakeCluster) -> None:
    """Its credentials are not accepted any more: exit code 7, and not that of a cluster that failed."""
    with pytest.raises(LeftoversError, match=f"cleanup --context fake --run-id {RUN}$") as raised, _opened(fake):
        fake.denied = 401
    assert (raised.value.exit_code, raised.value.clean) == (7, False)


def test_a_failure_keeps_its_exit_code_and_is_told_what_stays(fake: FakeCluster) -> None:
    """A removal that cannot go on never takes its place."""

    def run() -> None:
        with _opened(fake):
            fake.denied = 403
            raise DeployError("details did not become ready")

    with pytest.raises(DeployError, match="details") as raised:
        run()
    assert not raised.value.clean
    (note,) = raised.value.__notes__
    assert f"cleanup --context fake --run-id {RUN}" in note


def test_a_trials_mesh_that_cannot_be_removed_ends_the_run_with_leftovers(fake: FakeCluster) -> None:
    """The next trial would not be alone; the run's end tries once more, and tells what it saw then."""

    def run() -> None:
        with _opened(fake) as target:
            assert isinstance(target, ClusterTarget)
            with target.installed([]):
                fake.denied = 401

    with pytest.raises(LeftoversError, match="says 401") as raised:
        run()
    assert len(raised.value.__notes__) == 1


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a run that is being measured."""
    path = make_run(tmp_path, Made(configurations=(Simulated("baseline"),), repeats=1, warmup_s=1, duration_s=2)).path
    return RunFolder.reopen(path, status="running", exit_code=None, cleanup_ok=None)


def _ended(folder: RunFolder, error: BaseException) -> RunRecord:
    with _ending(folder):
        raise error
    return read_record(folder.path / "run.json", RunRecord)


def test_a_run_that_left_something_says_so_in_its_folder(folder: RunFolder) -> None:
    """With the exit code that the command had."""
    with pytest.raises(LeftoversError):
        _ended(folder, LEFT)
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.status, record.exit_code, record.cleanup_ok) == ("failed", 7, False)


def test_of_invalid_trials_and_leftovers_the_trials_decide(folder: RunFolder) -> None:
    """Whoever acts on the numbers has to know that there are none; what is left is told with it."""
    [trial] = folder.trial_records()
    name = folder.path / "trials" / trial.trial / "trial.json"
    write_record(name, trial.model_copy(update={"status": "invalid", "reasons": ("stall: in 3 s nothing came",)}))
    with pytest.raises(InvalidMeasurementError, match="not every trial is valid") as raised:
        _ended(folder, LEFT)
    assert raised.value.__notes__[0] == f"not everything could be removed: {LEFT}"
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.exit_code, record.cleanup_ok) == (5, False)


def test_a_run_whose_time_was_up_says_what_it_left(folder: RunFolder) -> None:
    """Its report is made, and nothing else is told than the reason that stands in the folder."""
    error = RunTimeoutError("the run took longer than --timeout")
    note_leftovers(error, LEFT)
    record = _ended(folder, error)
    assert (record.exit_code, record.cleanup_ok) == (10, False)
    assert "still on context fake" in record.reason


def test_a_bug_that_left_something_says_so_in_the_folder(folder: RunFolder) -> None:
    """A removal that failed after it is as true as after any other failure."""
    error = KeyError("nobody expected this")
    note_leftovers(error, LEFT)
    with pytest.raises(KeyError):
        _ended(folder, error)
    record = read_record(folder.path / "run.json", RunRecord)
    assert (record.exit_code, record.cleanup_ok) == (1, False)
