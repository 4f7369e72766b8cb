"""The journal of a run: one line before each step that creates something, one after it.

After a SIGKILL it tells `cleanup` what to look for: an intent without its `done` may still have happened.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from bench.errors import StoreError
from bench.system.redaction import redact, redact_values

NAME = "journal.jsonl"


class Journal:
    """Appends steps to `journal.jsonl`, each on disk before the step happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        torn = _is_torn(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")  # else the next line would be lost with the torn one

    def write(self, step: str, **facts: Any) -> None:
        """One line: when, which step, and what it needs to be undone; without secrets."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "step": step, **facts}
        try:
            self._file.write(redact(json.dumps(redact_values(line))) + "\n")
            self._file.flush()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error

    @contextmanager
    def step(self, step: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """`step` before, `step-done` after; facts put into the yielded dict go into the second line."""
        self.write(step, **facts)
        outcome: dict[str, Any] = {}
        yield outcome
        self.write(f"{step}-done", **facts, **outcome)

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a journal; a torn last line is left out. Empty when there is none."""
    if not path.exists():
        return ()
    return tuple(line for text in path.read_text("utf-8").splitlines() if (line := _parse(text)) is not None)


def _is_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None  # the line that was being written when the machine or the run died
    return line if isinstance(line, dict) else None
