"""The journal of a run's steps."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.system.journal import Journal, examine_journal, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_writes_intent_before_and_result_after(path: Path) -> None:
    """During a step the journal has its intent; after it also its result."""
    journal = Journal(path)
    with journal.step("start-process", name="details") as outcome:
        [intent] = read_journal(path)
        outcome["pid"] = 7
    journal.close()
    done = read_journal(path)[1]
    assert (intent["step"], intent["name"]) == ("start-process", "details")
    assert (done["step"], done["name"], done["pid"]) == ("start-process-done", "details", 7)


def test_failed_step_has_no_result(path: Path) -> None:
    """Only its intent is written: it may be partly done."""
    journal = Journal(path)
    with pytest.raises(ValueError, match="half-way"), journal.step("make-folder", path="meshbench-0123"):
        raise ValueError("half-way")
    journal.close()
    assert [line["step"] for line in read_journal(path)] == ["make-folder"]


@pytest.mark.parametrize("cut", range(1, 60))
def test_torn_line_loses_nothing_else(path: Path, cut: int) -> None:
    """Wherever a kill cut the last line, the lines before it are read, and so are those written afterwards."""
    journal = Journal(path)
    journal.write("begin")
    journal.write("make-folder", path="meshbench-0123")
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    later = Journal(path)
    later.write("end")
    later.close()
    assert [line["step"] for line in read_journal(path)] in (["begin", "end"], ["begin", "make-folder", "end"])


def test_missing_journal_is_empty(path: Path) -> None:
    """No journal, no steps."""
    assert read_journal(path) == ()


def test_ignores_lines_that_are_no_steps(path: Path) -> None:
    """Other content of the file is not read as a step."""
    path.write_text('[1]\nnull\n{"step": "begin"}\n', "utf-8")
    assert [line["step"] for line in read_journal(path)] == ["begin"]


def test_names_damaged_line(path: Path) -> None:
    """A line that a kill cut is followed by one of a resumed run or a cleanup; before any other line it is damage."""
    path.write_text(
        '{"step": "begin"}\n{"step": "ap\n{"step": "begin"}\n{"st\n{"step": "apply", "context": "a"}\n{"s', "utf-8"
    )
    lines, damage = examine_journal(path)
    assert [line["step"] for line in lines] == ["begin", "begin", "apply"]
    assert damage == (f"{path}:4: this line is damaged",)


def test_unwritable_journal_is_a_store_error() -> None:
    """A full disk is reported with the file's name."""
    journal = Journal(Path("/dev/full"))
    with pytest.raises(StoreError, match="/dev/full: cannot be written: No space left"):
        journal.write("begin")
    with suppress(OSError):  # there is still no room for the line
        journal.close()


def test_every_line_has_its_utc_time(path: Path) -> None:
    """A journal can be compared with other logs."""
    journal = Journal(path)
    journal.write("begin")
    journal.close()
    assert json.loads(path.read_text("utf-8"))["at"].endswith("+00:00")
