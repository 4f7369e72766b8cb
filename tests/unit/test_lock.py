"""The lock that lets one run at a time measure this machine."""

import json
import os
from pathlib import Path

import pytest

from bench.errors import LockedError
from bench.system.lock import PATH_VARIABLE, find_lock_file, forget_holder, hold_host_lock, read_holder


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file of the test's own."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    return path


def _die(path: Path, run: Path) -> None:
    """Leave what a killed run leaves: its name, without a lock."""
    path.write_text(json.dumps({"run": str(run.resolve()), "pid": 1, "since": 0.0}), "utf-8")


def test_free_host_has_no_holder() -> None:
    """Before the first run, and after one that ended."""
    assert read_holder() == (None, False)
    with hold_host_lock(Path("results/one"), "one"):
        pass
    assert read_holder() == (None, False)


def test_holder_has_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative results folder is found from every other folder, too."""
    monkeypatch.chdir(tmp_path)
    with hold_host_lock(Path("results/one"), "one"):
        holder, alive = read_holder()
    assert alive
    assert holder is not None
    assert (holder.run, holder.pid) == (str(tmp_path / "results" / "one"), os.getpid())


def test_refuses_second_run(tmp_path: Path) -> None:
    """The error names the holder."""
    refusal = pytest.raises(LockedError, match=f"in use by {tmp_path}/one .process ")
    with hold_host_lock(tmp_path / "one", "one"), refusal, hold_host_lock(tmp_path / "two", "two"):
        pytest.fail("two runs at once")


def test_refuses_until_killed_run_is_cleaned_up(path: Path, tmp_path: Path) -> None:
    """The error names the dead run and the cleanup command; the lock is not taken over."""
    _die(path, tmp_path / "dead")
    refusal = pytest.raises(LockedError, match=r"dead .* was killed .*'meshbench cleanup'.*--resume")
    with refusal, hold_host_lock(tmp_path / "two", "two"):
        pytest.fail("took over")


def test_forgetting_killed_run_frees_the_lock(path: Path, tmp_path: Path) -> None:
    """Under any name of its folder; forgetting it twice is no error."""
    _die(path, tmp_path / "dead")
    forget_holder("dead")
    forget_holder("dead")
    with hold_host_lock(tmp_path / "two", "two"):
        pass


def test_forgetting_spares_other_and_running_runs(path: Path, tmp_path: Path) -> None:
    """Only the name of the cleaned-up run is removed."""
    _die(path, tmp_path / "dead")
    forget_holder("other")
    assert read_holder()[0] is not None
    path.write_text("", "utf-8")
    with hold_host_lock(tmp_path / "alive", "alive"):
        forget_holder("alive")
        assert read_holder()[1]
        assert read_holder()[0] is not None


def test_failed_run_releases_the_lock(tmp_path: Path) -> None:
    """Whatever the run's exception."""
    with pytest.raises(ValueError, match="failed"), hold_host_lock(tmp_path / "one", "one"):
        raise ValueError("failed")
    assert read_holder() == (None, False)


@pytest.mark.parametrize("content", ["no json", "{}", "[1]", '"text"'])
def test_reports_unreadable_lock_file(path: Path, content: str) -> None:
    """It is never taken for free."""
    path.write_text(content, "utf-8")
    with pytest.raises(LockedError, match="does not name a run"), hold_host_lock(Path("one"), "one"):
        pytest.fail("took it")


def test_does_not_follow_a_link(path: Path, tmp_path: Path) -> None:
    """Another user's link could lead to another user's file."""
    (tmp_path / "precious").write_text("precious", "utf-8")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(LockedError, match="cannot be opened"), hold_host_lock(Path("one"), "one"):
        pytest.fail("followed it")
    assert (tmp_path / "precious").read_text("utf-8") == "precious"


def test_lock_does_not_depend_on_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variable for tests selects another file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert find_lock_file() == tmp_path / "machine.lock"
    monkeypatch.delenv(PATH_VARIABLE)
    assert find_lock_file() == Path(f"/tmp/meshbench-{os.getuid()}.lock")  # noqa: S108  # looked at, not opened
