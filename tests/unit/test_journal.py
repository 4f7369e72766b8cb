"""The journal of a run's steps."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.system.journal import Journal, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_a_step_is_on_disk_before_it_happens_and_again_when_it_is_done(path: Path) -> None:
    """What is read inside a step is its intent; after it also its outcome."""
    journal = Journal(path)
    with journal.step("start-process", name="details") as outcome:
        [intent] = read_journal(path)
        outcome["pid"] = 7
    journal.close()
    done = read_journal(path)[1]
    assert (intent["step"], intent["name"]) == ("start-process", "details")
    assert (done["step"], done["name"], done["pid"]) == ("start-process-done", "details", 7)


def test_a_step_that_fails_is_never_done(path: Path) -> None:
    """Its intent stays alone: it may have happened half."""
    journal = Journal(path)
    with pytest.raises(ValueError, match="half-way"), journal.step("make-folder"):
        raise ValueError("half-way")
    journal.close()
    assert [line["step"] for line in read_journal(path)] == ["make-folder"]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_line_costs_nothing_but_itself(path: Path, cut: int) -> None:
    """Wherever a kill tore the last line, the lines before it are read, and so is what is written afterwards."""
    journal = Journal(path)
    journal.write("begin")
    journal.write("make-folder", path="meshbench-0123")
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    later = Journal(path)
    later.write("end")
    later.close()
    assert [line["step"] for line in read_journal(path)] in (["begin", "end"], ["begin", "make-folder", "end"])


def test_a_journal_that_is_not_there_is_empty(path: Path) -> None:
    """No journal, no steps."""
    assert read_journal(path) == ()


def test_lines_that_are_no_steps_are_left_out(path: Path) -> None:
    """Whatever else stands in the file is not taken for a step."""
    path.write_text('[1]\nnull\n{"step": "begin"}\n', "utf-8")
    assert [line["step"] for line in read_journal(path)] == ["begin"]


def test_a_journal_that_cannot_be_written_is_an_error_of_the_store() -> None:
    """A full disk is told with the file's name."""
    journal = Journal(Path("/dev/full"))
    with pytest.raises(StoreError, match="/dev/full: cannot be written: No space left"):
        journal.write("begin")
    with suppress(OSError):  # there is still no room for the line
        journal.close()


def test_every_line_has_its_time_in_utc(path: Path) -> None:
    """So that a journal can be laid beside other logs."""
    journal = Journal(path)
    journal.write("begin")
    journal.close()
    assert json.loads(path.read_text("utf-8"))["at"].endswith("+00:00")
