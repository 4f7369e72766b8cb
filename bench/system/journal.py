"""Write and read the journal of a run: one line before each step that creates something, one after it.

After a SIGKILL `cleanup` reads what to look for: a step without its `done` may have happened.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import IO, Any, Final

from bench.errors import StoreError
from bench.system.bounded import read_bounded
from bench.system.redaction import redact, redact_values

NAME = "journal.jsonl"

Line = dict[str, Any]
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "pid": (int,),
    "started_ns": (int,),
    "boot": (str,),
    "created": (int, float),
    "path": (str,),
    "context": (str,),
    "name": (str,),
}
"""The facts that a cleanup reads; lines of older versions lack some."""
_REQUIRED: Final[Mapping[str, str]] = {"make-folder": "path", "apply": "context", "cleaned": "context"}
_FIRST: Final = ("begin", "end", "cleaned")


class Journal:
    """Append steps to `journal.jsonl`, each on disk before the step happens. Safe to use from several threads. Raises
    StoreError where it cannot be opened, or is a symbolic link, which could lead to any file of the user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = Lock()
        torn = _is_torn(path)
        try:
            self._file: IO[str] = open(path, "a", encoding="utf-8", opener=_open_without_link)  # noqa: SIM115  # until `close`
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from error
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


def read_journal(path: Path) -> tuple[Line, ...]:
    """Read the valid lines of a journal; none without a journal. Raises StoreError where it cannot be read."""
    return examine_journal(path)[0]


def examine_journal(path: Path) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """Read the valid lines of a journal, and return a message for each damaged one: what it recorded is not known. A
    line that a kill cut is none, since its step had not begun, or has a line that says that it began. Raises StoreError
    where the journal cannot be read."""
    try:
        content = read_bounded(path)
    except FileNotFoundError:
        return (), ()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    texts = [(number, text) for number, text in enumerate(content.split(b"\n"), start=1) if text]
    parsed = [(number, _parse(text)) for number, text in texts]
    lines = tuple(line for _, line in parsed if line is not None)
    damaged = [one for (one, line), (_, then) in pairwise(parsed) if line is None and not _is_first(then)]
    return lines, tuple(f"{path}:{number}: this line is damaged" for number in damaged)


def _open_without_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _is_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _parse(text: bytes) -> Line | None:
    """Parse a line; None for one that no `Journal` has written as a whole."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(step := line.get("step"), str):
        return None
    is_complete = _REQUIRED.get(step, "step") in line
    return line if is_complete and all(_is_of_type(line[key], _TYPES[key]) for key in _TYPES if key in line) else None


def _is_of_type(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_first(line: Line | None) -> bool:
    """Return whether a line can be the first that is written after a kill: by a resumed run, or by a cleanup."""
    return line is not None and line["step"] in _FIRST
