"""What is written into a run's folder stays in it, whatever links the folder has."""

from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.report import write_report
from bench.results.store import RunFolder, StoredRun, read_run
from bench.system.open_folder import open_folder
from tests.factory import ConfigSpec, RunSpec, make_run

SMALL = RunSpec(configurations=(ConfigSpec("baseline"),), repeats=2, warmup_s=1, duration_s=2)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of the user's, with a file."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "authorized_keys").write_text("mine", "utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    """A run from elsewhere, without a report."""
    return make_run(tmp_path / "results", SMALL)


def read_all(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_report_does_not_follow_a_link_to_a_folder(run: StoredRun, elsewhere: Path) -> None:
    """A run's folder may come from elsewhere: its `report` may lead to a folder of the user's."""
    (run.path / "report").symlink_to(elsewhere)
    with pytest.raises(StoreError, match=r"report: cannot be written: is no folder, or a symbolic link"):
        write_report(run, formats=("md",))
    assert read_all(elsewhere) == {"authorized_keys": "mine"}
    assert not (run.path / "summary.json").exists()


def test_report_replaces_links_to_files(run: StoredRun, elsewhere: Path) -> None:
    """What a link leads to stays as it was, also under the names of temporary files."""
    key = elsewhere / "authorized_keys"
    (run.path / "report").mkdir()
    for name in (
        "summary.json",
        ".summary.json.tmp",
        "report/report.md",
        "report/.report.md.tmp",
        "report/latency.csv",
    ):
        (run.path / name).symlink_to(key)
    write_report(run, formats=("md", "csv"))
    assert read_all(elsewhere) == {"authorized_keys": "mine"}
    written = ("summary.json", "report/report.md", "report/latency.csv")
    assert not any((run.path / name).is_symlink() for name in written)


def test_report_of_a_link_to_a_run_is_written_into_the_run(run: StoredRun, tmp_path: Path) -> None:
    """The user's own link, such as `latest`, leads to the run."""
    (tmp_path / "latest").symlink_to(run.path)
    paths = write_report(read_run(tmp_path / "latest"), formats=("md",)).paths
    assert paths[1] == tmp_path / "latest" / "report" / "report.md"
    assert (run.path / "report" / "report.md").is_file()


def test_resume_does_not_follow_links(run: StoredRun, elsewhere: Path) -> None:
    """A run that is continued writes no trial, and no reserve, where a link leads to."""
    (run.path / ".reserve").symlink_to(elsewhere / "authorized_keys")
    RunFolder.reopen(run.path).journal.close()
    assert read_all(elsewhere) == {"authorized_keys": "mine"}
    (run.path / "trials").rename(run.path / "other")
    (run.path / "trials").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="is no folder, or a symbolic link"):
        RunFolder.reopen(run.path)


def test_journal_does_not_follow_a_link(run: StoredRun, elsewhere: Path) -> None:
    """A cleanup, too, appends to the journal of a run's folder."""
    (run.path / "journal.jsonl").unlink()
    (run.path / "journal.jsonl").symlink_to(elsewhere / "authorized_keys")
    with pytest.raises(StoreError, match=r"journal\.jsonl: cannot be written"):
        RunFolder(run.path, run.record)
    assert read_all(elsewhere) == {"authorized_keys": "mine"}


def test_folder_that_is_replaced_meanwhile_is_the_one_that_was_opened(tmp_path: Path, elsewhere: Path) -> None:
    """A link that takes the folder's place changes nothing, and a write that fails leaves nothing."""
    (tmp_path / "run").mkdir()
    with open_folder(tmp_path / "run") as run, run.enter("report") as report:
        (tmp_path / "run" / "report").rename(tmp_path / "run" / "moved")
        (tmp_path / "run" / "report").symlink_to(elsewhere)
        report.write("a.png", b"x")
        (tmp_path / "run" / "moved" / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            report.write("folder", b"x")
    assert read_all(elsewhere) == {"authorized_keys": "mine"}
    assert sorted(path.name for path in (tmp_path / "run" / "moved").iterdir()) == ["a.png", "folder"]
