"""Every `cleanup` finds the private copies of this machine: private files of runs, and temporary folders."""

import os
import tempfile
from pathlib import Path

import pytest

from bench.cli.main import cli
from bench.results.records import RunRecord
from bench.results.store import read_record, write_record
from bench.run import cleanup
from bench.run.cleanup import NamedRun
from bench.run.private_copies import find_private_copies
from bench.system.journal import Journal
from bench.system.lock import PATH_VARIABLE
from bench.system.private_files import Content, PrivateFolder
from bench.system.processes import identify_process
from bench.system.temporary import find_abandoned, remove_abandoned, temporary_folder
from tests.factory import ConfigSpec, RunSpec, make_run

SMALL = RunSpec(configurations=(ConfigSpec("baseline"),), repeats=1, warmup_s=1, duration_s=2)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file and a folder for temporary files of the test's own, and no process that could be found."""
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "machine.lock"))
    monkeypatch.setattr(cleanup, "find_marked_processes", dict)
    monkeypatch.setattr(cleanup, "end_strays", lambda _run, _recorded: ())
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def make(output: Path, status: str = "complete") -> tuple[Path, Path]:
    """The folders of a run that ended so, and of its private files."""
    run = make_run(output, SMALL).path
    private = PrivateFolder.of_run(run, run.name)
    private.keep([Content("values/istio-1-mine.yaml", b"password: s3cret")])
    record = read_record(run / "run.json", RunRecord)
    write_record(run / "run.json", record.model_copy(update={"status": status}))
    return run, private.path


def clean(*arguments: str | Path) -> None:
    cli.main(["cleanup", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize("status", ["complete", "invalid"])
def test_removes_private_files_that_no_resume_needs(
    tmp_path: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--list` shows them and removes nothing; the run's own folder stays."""
    run, private = make(tmp_path / "results", status)
    clean("--output", run.parent, "--list")
    assert f"{private}: private files of {run}" in capsys.readouterr().out
    assert private.exists()
    clean("--output", run.parent)
    assert f"{private}: private files of {run}: removed" in capsys.readouterr().out
    assert not private.parent.exists()
    assert (run / "private.json").exists()


def test_keeps_private_files_of_run_that_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cleanup` comes before `--resume` after a kill; the output names the option that removes them, too."""
    run, private = make(tmp_path / "results", "interrupted")
    clean("--output", run.parent)
    assert f"kept for --resume; to remove them: meshbench cleanup --run {run} --no-resume" in capsys.readouterr().out
    assert private.exists()
    clean("--run", run, "--no-resume")
    assert not private.parent.exists()


def test_removes_private_files_without_run(tmp_path: Path) -> None:
    """The folder of a run was deleted by hand; that of a renamed run is known by its id."""
    renamed, private = make(tmp_path / "renamed", "failed")
    renamed.rename(renamed.with_name("mine"))
    orphan = PrivateFolder.of_run(renamed.with_name("20261123T031500Z-gone-7f3a"), "20261123T031500Z-gone-7f3a")
    (orphan.public).mkdir()
    orphan.keep([Content("load.log", b"x")])
    (orphan.public / "private.json").unlink()
    orphan.public.rmdir()
    clean("--output", renamed.parent)
    assert not orphan.path.exists()
    assert private.exists()


def test_names_one_run_only(tmp_path: Path) -> None:
    """With `--run` the private files of other runs stay."""
    run, private = make(tmp_path / "results")
    other = PrivateFolder.of_run(run, "20261123T031500Z-other-7f3a")
    other.keep([Content("load.log", b"x")])
    clean("--run", run)
    assert not private.exists()
    assert other.path.exists()


def test_spares_run_that_is_measured_now(tmp_path: Path) -> None:
    """Its journal names a process that runs."""
    run, private = make(tmp_path / "results", "running")
    journal = Journal(run / "journal.jsonl")
    journal.write("begin", **identify_process(os.getpid()))
    journal.close()
    assert find_private_copies(run.parent, [NamedRun(run, run.name)]) == ()
    assert private.exists()


def test_removes_temporary_folders_of_killed_commands(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever they hold: a command's lock is released with its process. Others' folders with such names stay."""
    killed = temporary / "meshbench-rendered-abcd1234"
    with temporary_folder("rendered") as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        assert find_abandoned() == ()
        killed.mkdir(mode=0o700)
        (killed / "held").write_text((folder / "held").read_text("utf-8"), "utf-8")
    older = temporary / "meshbench-rendered-wxyz1234"
    older.mkdir(mode=0o700)
    for name in ("meshbench-notes", "meshbench-notes123", "meshbench-abcdefg1"):
        (temporary / name).mkdir(mode=0o700)
        (temporary / name / "held").write_text("mine", "utf-8")
    (temporary / "meshbench-link1234").symlink_to(killed)
    os.mkfifo(temporary / "meshbench-pipe1234")
    clean("--output", temporary, "--list")
    assert f"{killed}: temporary folder of a command that was killed" in capsys.readouterr().out
    assert find_abandoned() == (killed, older)
    clean("--output", temporary)
    assert remove_abandoned() == ()
    assert not killed.exists()
    assert not older.exists()
    assert len(list(temporary.iterdir())) == 5
