"""Read and merge the recorders' files in a folder: of a single Locust, or of each of its workers.

Every worker counts from its own zero on the same clock. Here all times count from the earliest zero, which is
that of `started.json`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bench.errors import StoreError
from bench.load.recorded import (
    Account,
    Start,
    find_valid_rows,
    find_valid_tasks,
    parse_account,
    parse_names,
    parse_start,
    salvage_names,
)
from bench.results.base import LONGEST_NS
from bench.results.samples import RAW_ROW, TASK_ROW, Samples, make_samples

ACCOUNT = "generator.json"
LOG = "load.log"  # of Locust: private, since it has what the Locust file prints
HOLD = "hold"  # makes users wait, where a load was started with it; its content is the number of the hold
_HELD = "held"  # a recorder's answer once all its users wait: the same number
_TIMES = ("intended_ns", "started_ns")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One recorder's rows as in its file, with its names; `shift_ns`: its zero less the earliest zero."""

    file: str
    rows: npt.NDArray[Any]
    names: tuple[str, ...]
    shift_ns: int


def read_start(folder: Path) -> Start | None:
    """Return when the load in the folder began, or None while it has not. Raises StoreError for an invalid start."""
    return _find_earliest(start for path in folder.glob("started*.json") if (start := _read_start(path)) is not None)


def read_account(folder: Path) -> Account | None:
    """Return what Locust itself counted, or None while its file is missing or incomplete. Raises StoreError for an
    invalid one."""
    return _parse_file(folder / ACCOUNT, parse_account)


def list_held_files(workers: int) -> tuple[str, ...]:
    """Return the names of the files by which the recorders report that all their users wait."""
    return tuple(f"{_HELD}-{number}" for number in range(workers)) if workers > 1 else (_HELD,)


def write_hold(folder: Path, number: int) -> None:
    """Write the file that makes all users wait. An answer to another number is not one to this hold."""
    draft = folder / f"{HOLD}.draft"
    draft.write_text(f"{number}", "utf-8")
    draft.replace(folder / HOLD)


def is_held(folder: Path, number: int, *, workers: int) -> bool:
    """Return whether every recorder has answered the hold of this number."""
    files = [folder / name for name in list_held_files(workers)]
    return all(file.is_file() and file.read_text("utf-8") == f"{number}" for file in files)


def read_samples(folder: Path) -> Samples:
    """Return all rows recorded so far, without an incomplete last one. Raises StoreError where starts or names are
    invalid."""
    invalid: list[str] = []
    parts = list(_read_parts(folder, invalid))
    if invalid:
        raise StoreError("; ".join(invalid))
    return _join(parts)


def read_valid_samples(folder: Path) -> tuple[Samples, str]:
    """Return the valid samples, and a description of the invalid ones; empty where all are valid."""
    invalid: list[str] = []
    return _join([_drop_invalid(part, invalid) for part in _read_parts(folder, invalid)]), "; ".join(
        dict.fromkeys(invalid)
    )


def read_valid_tasks(folder: Path) -> tuple[npt.NDArray[Any], str]:
    """Return the valid rows of all users' tasks, and a description of the invalid ones; empty where all are valid."""
    invalid: list[str] = []
    parts = []
    for path, _, shift_ns in _list_parts(folder, "tasks", invalid):
        rows = _read_rows(path, TASK_ROW, None)
        mask = find_valid_tasks(rows)
        if not mask.all():
            invalid.append(_describe_invalid(path.name, mask))
        valid = rows[mask]
        for time in TASK_ROW.names or ():
            valid[time] += shift_ns
        parts.append(valid)
    return np.concatenate(parts) if parts else np.empty(0, TASK_ROW), "; ".join(dict.fromkeys(invalid))


def read_valid_account(folder: Path) -> tuple[Account | None, str]:
    """Return Locust's account, None where there is no valid one; and why it is invalid, empty where it is not."""
    try:
        return read_account(folder), ""
    except StoreError as error:
        return None, str(error)


def read_recent_rows(folder: Path, *, most: int) -> npt.NDArray[Any]:
    """Return the last valid rows, in order of completion: at most `most` of each recorder, read from the ends of the
    files."""
    parts = [_drop_invalid(part, []) for part in _read_parts(folder, [], most=most)]
    rows = _concatenate([_shift(part, part.names) for part in parts])
    return rows if len(parts) < 2 else rows[np.argsort(rows["started_ns"] + rows["latency_ns"], kind="stable")]


def list_raw_files(folder: Path) -> tuple[Path, ...]:
    """Return the paths of all files that the recorders wrote."""
    patterns = ("samples*.bin", "names*.txt", "tasks*.bin", "started*.json", ACCOUNT, HOLD, f"{_HELD}*")
    return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))


def _read_parts(folder: Path, invalid: list[str], *, most: int | None = None) -> Iterator[Part]:
    """Yield the recorders' parts. Invalid content is appended to `invalid`."""
    for path, suffix, shift_ns in _list_parts(folder, "samples", invalid):
        rows = _read_rows(path, RAW_ROW, most)
        yield Part(
            path.name, rows, _read_names(folder / f"names{suffix}.txt", invalid), shift_ns
        )  # a name is written before its row


def _list_parts(folder: Path, kind: str, invalid: list[str]) -> Iterator[tuple[Path, str, int]]:
    """Yield the recorders' files of rows of a kind, each with its suffix and its zero less the earliest one. A recorder
    without a start has no row yet. Invalid content is appended to `invalid`."""
    starts = {
        path.name: start for path in folder.glob("started*.json") if (start := _try_read(_read_start, path, invalid))
    }
    earliest = _find_earliest(starts.values())
    for path in sorted(folder.glob(f"{kind}*.bin")):
        suffix = path.stem.removeprefix(kind)
        own = starts.get(f"started{suffix}.json")
        if earliest is None or own is None:
            continue
        shift_ns = own.zero_ns - earliest.zero_ns
        if shift_ns >= LONGEST_NS:
            invalid.append(f"started{suffix}.json: it began {shift_ns} ns after the first")
            continue
        yield path, suffix, shift_ns


def _drop_invalid(part: Part, invalid: list[str]) -> Part:
    """Return a part without its invalid rows."""
    mask = find_valid_rows(part.rows, len(part.names))
    if mask.all():
        return part
    invalid.append(_describe_invalid(part.file, mask))
    return Part(part.file, part.rows[mask], part.names, part.shift_ns)


def _describe_invalid(file: str, mask: npt.NDArray[np.bool_]) -> str:
    first = int(np.flatnonzero(~mask)[0])
    return f"{file}: {int((~mask).sum())} of {len(mask)} rows are invalid, the first is row {first + 1}"


def _join(parts: list[Part]) -> Samples:
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return make_samples(_concatenate([_shift(part, names) for part in parts]), names)


def _shift(part: Part, names: tuple[str, ...]) -> npt.NDArray[Any]:
    """Return a part's rows on the common clock, with its names as they are numbered in `names`."""
    rows = part.rows.copy()
    for time in _TIMES:
        rows[time] += part.shift_ns
    if part.names and part.names != names:
        numbers = {name: number for number, name in enumerate(names)}
        rows["name"] = np.take(np.array([numbers[name] for name in part.names], np.uint32), rows["name"], mode="clip")
    return rows


def _concatenate(rows: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(rows) if rows else np.empty(0, RAW_ROW)


def _read_rows(path: Path, row: np.dtype[Any], most: int | None) -> npt.NDArray[Any]:
    """Return the complete rows of a file, or the last `most` of them."""
    complete = path.stat().st_size // row.itemsize
    count = complete if most is None else min(complete, most)
    return np.fromfile(path, row, count=count, offset=(complete - count) * row.itemsize)


def _read_names(path: Path, invalid: list[str]) -> tuple[str, ...]:
    if not path.exists():
        return ()
    content = path.read_bytes()
    try:
        return parse_names(content)
    except ValueError as error:
        invalid.append(f"{path.name}: {error}")
        return salvage_names(content)


def _read_start(path: Path) -> Start | None:
    """Return a start, or None while its file is missing or incomplete."""
    return _parse_file(path, parse_start)


def _find_earliest(starts: Iterable[Start]) -> Start | None:
    return min(starts, key=lambda start: start.zero_ns, default=None)


def _parse_file(path: Path, parse: Callable[[bytes], T | None]) -> T | None:
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{path.name} is invalid: {error}") from error


def _try_read(read: Callable[[Path], T | None], path: Path, invalid: list[str]) -> T | None:
    try:
        return read(path)
    except StoreError as error:
        invalid.append(str(error))
        return None
