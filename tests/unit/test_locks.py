"""The lock that lets one run at a time measure this machine."""

import json
import os
from pathlib import Path

import pytest

from bench.errors import LockedError
from bench.system.lock import PATH_VARIABLE, forget_holder, lock_path, machine_lock, read_holder


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return path


def _die(path: Path, run: Path) -> None:
    """Leaves what a killed run leaves: its name, without a lock."""
    path.write_text(json.dumps({"run": str(run.resolve()), "pid": 1, "since": 0.0}), "utf-8")


def test_a_free_machine_has_no_holder() -> None:
    """Before the first run, and after one that ended."""
    assert read_holder() == (None, False)
    with machine_lock(Path("results/one"), "one"):
        pass
    assert read_holder() == (None, False)


def test_a_running_run_is_named_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative results folder is found from every other folder, too."""
    monkeypatch.chdir(tmp_path)
    with machine_lock(Path("results/one"), "one"):
        holder, alive = read_holder()
    assert alive
    assert holder is not None
    assert (holder.run, holder.pid) == (str(tmp_path / "results" / "one"), os.getpid())


def test_a_second_run_is_refused_while_the_first_is_alive(tmp_path: Path) -> None:
    """It is told who has the machine."""
    told = pytest.raises(LockedError, match=f"measured by {tmp_path}/one .process ")
    with machine_lock(tmp_path / "one", "one"), told, machine_lock(tmp_path / "two", "two"):
        pytest.fail("two runs at once")


def test_a_run_after_a_killed_one_has_to_clean_up_first(path: Path, tmp_path: Path) -> None:
    """No silent take-over: the dead run is named, and the commands that help."""
    _die(path, tmp_path / "dead")
    told = pytest.raises(LockedError, match=r"dead .* was killed .*`meshbench cleanup`.*--resume")
    with told, machine_lock(tmp_path / "two", "two"):
        pytest.fail("took over")


def test_forgetting_a_dead_run_frees_the_machine(path: Path, tmp_path: Path) -> None:
    """Under whatever name its folder has now; forgetting it twice is no mistake."""
    _die(path, tmp_path / "dead")
    forget_holder("dead")
    forget_holder("dead")
    with machine_lock(tmp_path / "two", "two"):
        pass


def test_forgetting_spares_other_runs_and_living_ones(path: Path, tmp_path: Path) -> None:
    """Only the name of the run that was cleaned up is taken out."""
    _die(path, tmp_path / "dead")
    forget_holder("other")
    assert read_holder()[0] is not None
    path.write_text("", "utf-8")
    with machine_lock(tmp_path / "alive", "alive"):
        forget_holder("alive")
        assert read_holder()[1]
        assert read_holder()[0] is not None


def test_the_lock_is_given_back_when_a_run_fails(tmp_path: Path) -> None:
    """Whatever the run died of, as long as it could say so."""
    with pytest.raises(ValueError, match="failed"), machine_lock(tmp_path / "one", "one"):
        raise ValueError("failed")
    assert read_holder() == (None, False)


@pytest.mark.parametrize("content", ["no json", "{}", "[1]", '"text"'])
def test_a_lock_file_that_names_nobody_is_told(path: Path, content: str) -> None:
    """It is never taken for free."""
    path.write_text(content, "utf-8")
    with pytest.raises(LockedError, match="does not name a run"), machine_lock(Path("one"), "one"):
        pytest.fail("took it")


def test_a_lock_file_is_never_opened_through_a_link(path: Path, tmp_path: Path) -> None:
    """Somebody else's link would let us write into somebody else's file."""
    (tmp_path / "precious").write_text("precious", "utf-8")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(LockedError, match="cannot be opened"), machine_lock(Path("one"), "one"):
        pytest.fail("followed it")
    assert (tmp_path / "precious").read_text("utf-8") == "precious"


def test_two_runs_of_a_user_have_one_lock_whatever_their_temporary_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the variable for tests chooses another file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lock_path() == tmp_path / "machine.lock"
    monkeypatch.delenv(PATH_VARIABLE)
    assert lock_path() == Path(f"/tmp/meshbench-{os.getuid()}.lock")  # noqa: S108  # looked at, not opened
