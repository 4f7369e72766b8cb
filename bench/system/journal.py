"""Write and read the journal of a run: one line before each step that creates something, one after it.

After a SIGKILL `cleanup` reads what to look for: a step without its `done` may have happened.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import IO, Any

from bench.errors import StoreError
from bench.system.redaction import redact, redact_values

NAME = "journal.jsonl"


class Journal:
    """Append steps to `journal.jsonl`, each on disk before the step happens. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = Lock()
        torn = _is_torn(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")  # else the next line would be lost with the torn one

    def write(self, step: str, **facts: Any) -> None:
        """Write one line: the time, the step, and the facts that a cleanup needs, redacted. Raises StoreError."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "step": step, **facts}
        try:
            with self._one_at_a_time:
                self._file.write(redact(json.dumps(redact_values(line))) + "\n")
                self._file.flush()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from error

    @contextmanager
    def step(self, step: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Write `step` before the block and `step-done` after it, with the facts put into the yielded dict."""
        self.write(step, **facts)
        outcome: dict[str, Any] = {}
        yield outcome
        self.write(f"{step}-done", **facts, **outcome)

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> tuple[dict[str, Any], ...]:
    """Read the lines of a journal, without an incomplete last one; empty without a journal."""
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
        return None  # incomplete: the run was killed while it was written
    return line if isinstance(line, dict) else None
