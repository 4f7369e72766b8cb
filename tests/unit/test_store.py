"""A run's folder: written trial by trial, never overwritten, and read back without damaged trials."""

import errno
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.errors import StoreError, exit_code_of
from bench.results.records import RunRecord, TrialRecord
from bench.results.store import RunFolder, make_run_id, read_record, read_run, write_text
from bench.system.journal import read_journal
from bench.system.redaction import register_secret
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.issues import issue

SMALL = RunSpec(
    configurations=(ConfigSpec("baseline"), ConfigSpec("istio", "istio")), repeats=2, warmup_s=1, duration_s=2
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a complete run of two blocks."""
    return make_run(tmp_path, SMALL).path


def make_second_run(run: Path, name: str = "20261123T031500Z-again-0000") -> RunFolder:
    """A new run of the same plan, in a folder next to it."""
    record = read_record(run / "run.json", RunRecord)
    fresh = record.model_copy(update={"run_id": name, "trials": (), "status": "running", "exit_code": None})
    return RunFolder.create(run.parent, fresh)


def test_run_id_has_time_and_scenario() -> None:
    """UTC time, scenario and four random characters."""
    at = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
    first, second = make_run_id("istio", at), make_run_id("istio", at)
    assert first[:-4] == second[:-4] == "20261123T031500Z-istio-"
    assert len(first) == len("20261123T031500Z-istio-7f3a")


def test_run_round_trip(run: Path) -> None:
    """All trials, in the planned order, with samples, resources and proof."""
    stored = read_run(run)
    assert [trial.record.trial for trial in stored.trials] == [trial.folder for trial in stored.record.plan.trials]
    assert all(len(trial.samples()) and len(trial.resources().at_ns) and trial.proof for trial in stored.trials)
    assert stored.problems == ()


def test_refuses_existing_folder(run: Path) -> None:
    """A second run of the same name is refused, and changes nothing."""
    before = (run / "run.json").read_bytes()
    with pytest.raises(StoreError, match="File exists"):
        make_second_run(run, run.name)
    assert (run / "run.json").read_bytes() == before


def test_incomplete_folder_is_removed(run: Path) -> None:
    """A failure while its folder is filled leaves nothing that looks like a run."""
    record = read_record(run / "run.json", RunRecord).model_copy(update={"run_id": "unfilled"})

    def fill(folder: Path) -> None:
        assert not (folder / "run.json").exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="the disk is full"):
        RunFolder.create(run.parent, record, fill=fill)
    assert not (run.parent / "unfilled" / "run.json").exists()
    assert not (run.parent / "unfilled" / "journal.jsonl").exists()


def _fail_in(draft: Path) -> None:
    (draft / "load.log").write_text("first", "utf-8")
    raise ValueError("failed")


def test_failed_trial_stays_partial(run: Path) -> None:
    """It keeps its files under a partial name, is not entered, and the next try gets a folder of its own."""
    folder = make_second_run(run)
    trial = folder.record.plan.trials[0]
    with pytest.raises(ValueError, match="failed"), folder.draft(trial) as draft:
        _fail_in(draft)
    with folder.draft(trial) as second:
        assert list(second.iterdir()) == []
    folder.finish(status="failed", exit_code=1)
    kept = [path for path in (folder.path / "trials").iterdir() if (path / "load.log").exists()]
    assert [path.name.startswith(f"{trial.folder}.partial-") for path in kept] == [True]
    assert read_run(folder.path).trials == ()


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "the disk is full; complete trials are kept"), (errno.EROFS, "choose another --output")],
    ids=["full", "read-only"],
)
def test_disk_error_in_a_trial_is_a_store_error(run: Path, code: int, message: str) -> None:
    """One message with the folder, and exit code 9."""
    folder = make_second_run(run)
    with pytest.raises(StoreError, match=message) as caught, folder.draft(folder.record.plan.trials[0]):
        raise OSError(code, "as the system says it")
    folder.finish(status="failed", exit_code=9)
    assert exit_code_of(caught.value) == 9


def test_releases_reserve_at_the_end(run: Path) -> None:
    """Space is reserved for the last record, and released after it."""
    folder = make_second_run(run)
    assert (folder.path / ".reserve").stat().st_size >= 100_000
    folder.finish(status="failed", exit_code=9)
    assert not (folder.path / ".reserve").exists()


def _interrupted(run: Path, *, entered: int) -> RunFolder:
    """The run with its first trials only."""
    record = read_record(run / "run.json", RunRecord)
    folder = RunFolder.reopen(run, status="interrupted", trials=record.trials[:entered])
    folder.journal.close()
    return folder


def test_resume_reruns_incomplete_block(run: Path) -> None:
    """The first block stays; the trial of the second, which lacks the other one, is set aside under its name."""
    folder = _interrupted(run, entered=3)
    first, second, third, fourth = [trial.folder for trial in folder.record.plan.trials]
    folder.set_aside_broken_blocks()
    assert [entry.folder for entry in folder.record.trials] == [first, second]
    names = [path.name for path in sorted((run / "trials").iterdir())]
    assert names[:2] == sorted([first, second])
    assert [name.partition(".superseded-")[0] for name in names[2:]] == [third, fourth]


def test_setting_aside_is_idempotent(run: Path) -> None:
    """A folder that was renamed but is still entered, as after a kill, is no error."""
    folder = _interrupted(run, entered=3)
    third = run / "trials" / folder.record.plan.trials[2].folder
    third.rename(third.with_name(f"{third.name}.superseded-0000"))
    folder.set_aside_broken_blocks()
    assert len(folder.record.trials) == 2


HARM: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
@pytest.mark.parametrize("name", ["samples.parquet", "trial.json", "proof.json", "resources.parquet"])
def test_reports_and_skips_damaged_trial(run: Path, name: str, harm: Callable[[Path], object]) -> None:
    """Whichever of its files is damaged, and however; in strict mode it is an error."""
    victim = read_run(run).trials[1].path
    harm(victim / name)
    stored = read_run(run)
    assert len(stored.trials) == 3
    assert stored.problems == (f"trial {victim.name} is left out: {name}: missing, or changed since the run",)
    with pytest.raises(StoreError, match=victim.name):
        read_run(run, strict=True)


def test_refuses_record_of_another_version(run: Path) -> None:
    """The version is checked before other differences."""
    record = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "schema_version": 3, "new": 1}), "utf-8")
    with pytest.raises(StoreError, match=r"run\.json: has format version 3; this meshbench reads versions 1 and 2"):
        read_run(run)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"trial": NaN}', "\xff"])
def test_unreadable_record_is_an_error_with_its_file(tmp_path: Path, content: str) -> None:
    """Never a traceback."""
    (tmp_path / "trial.json").write_text(content, "latin-1")
    with pytest.raises(StoreError, match=str(tmp_path / "trial.json")):
        read_record(tmp_path / "trial.json", TrialRecord)


def test_missing_run_is_an_error_with_its_path(tmp_path: Path) -> None:
    """So is a folder that is no run."""
    with pytest.raises(StoreError, match="not a run's folder"):
        read_run(tmp_path / "none")


def test_writes_text_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The previous text stays until the new one is on disk."""
    path = tmp_path / "run.json"
    write_text(path, "before")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        write_text(path, "after")
    assert path.read_text("utf-8") == "before"


def test_stored_run_has_no_secret(run: Path) -> None:
    """Records and journal are redacted, can be read again, and say that text was removed."""
    register_secret('st0red-"secret"')
    folder = make_second_run(run)
    folder.journal.write("step", path="/tmp", message='st0red-"secret"; Bearer abcdef123456')  # noqa: S108
    folder.finish(
        status="failed", exit_code=4, issues=(issue("failed", 'no: st0red-"secret" at http://me:hidden@proxy.example'),)
    )
    written = "".join(path.read_text("utf-8") for path in folder.path.glob("*.json*"))
    assert "st0red" not in written
    assert "hidden" not in written
    (ended,) = read_record(folder.path / "run.json", RunRecord).issues
    assert ended.detail == "no: REDACTED at http://me:REDACTED@proxy.example"
    assert read_journal(folder.path / "journal.jsonl")[-2]["message"] == "REDACTED; Bearer REDACTED"
