"""What the recorder left in a folder, made into one: of a single Locust, or of each of its workers.

Every worker counts from a zero of its own, on the same clock. Here all times count from the earliest zero, which is
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
    LONGEST_NS,
    Account,
    Start,
    parse_account,
    parse_names,
    parse_start,
    salvage_names,
    sensible,
)
from bench.results.samples import RAW_ROW, Samples, samples_of

ACCOUNT = "generator.json"
_TIMES = ("intended_ns", "started_ns")

# A row with room for the names of all workers: each has up to 65,536 of its own.
_WIDE_ROW = np.dtype([(name, "<i4" if name == "name" else RAW_ROW[name]) for name in RAW_ROW.names or ()])

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One recorder's rows as they are in its file, with its names; `shift_ns` is how much later than the earliest its
    clock began."""

    file: str
    rows: npt.NDArray[Any]
    names: tuple[str, ...]
    shift_ns: int


def read_start(folder: Path) -> Start | None:
    """When the load in the folder began, or None while it has not. Raises StoreError for a start that makes no
    sense."""
    return _earliest(start for path in folder.glob("started*.json") if (start := _start(path)) is not None)


def read_account(folder: Path) -> Account | None:
    """What Locust itself counted, or None where it has not written it, or not all of it. Raises StoreError for an
    account that makes no sense."""
    return _parsed(folder / ACCOUNT, parse_account)


def read_samples(folder: Path) -> Samples:
    """All that has been recorded so far, as it is; a torn last row is left out. Raises StoreError where starts or names
    make no sense."""
    odd: list[str] = []
    parts = list(_parts(folder, odd))
    if odd:
        raise StoreError("; ".join(odd))
    return _joined(parts)


def sensible_samples(folder: Path) -> tuple[Samples, str]:
    """The samples that make sense, and what makes none, in words; empty where all do."""
    odd: list[str] = []
    return _joined([_sensible(part, odd) for part in _parts(folder, odd)]), "; ".join(dict.fromkeys(odd))


def sensible_account(folder: Path) -> tuple[Account | None, str]:
    """Locust's account, None where there is none that makes sense; and what makes none, empty where all does."""
    try:
        return read_account(folder), ""
    except StoreError as error:
        return None, str(error)


def recent_rows(folder: Path, *, most: int) -> npt.NDArray[Any]:
    """The last rows that make sense, in order of completion: at most `most` of each recorder, read from the ends of
    the files."""
    parts = [_sensible(part, []) for part in _parts(folder, [], most=most)]
    rows = _concatenated([_shifted(part, part.names) for part in parts])
    return rows if len(parts) < 2 else rows[np.argsort(rows["started_ns"] + rows["latency_ns"], kind="stable")]


def raw_files(folder: Path) -> tuple[Path, ...]:
    """Everything that the recorders wrote."""
    patterns = ("samples*.bin", "names*.txt", "started*.json", ACCOUNT)
    return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))


def _parts(folder: Path, odd: list[str], *, most: int | None = None) -> Iterator[Part]:
    """The recorders in the folder. One whose start is not known has not begun, and has no row yet. What makes no sense
    is appended to `odd`."""
    starts = {path.name: start for path in folder.glob("started*.json") if (start := _noted(_start, path, odd))}
    earliest = _earliest(starts.values())
    for path in sorted(folder.glob("samples*.bin")):
        suffix = path.stem.removeprefix("samples")
        own = starts.get(f"started{suffix}.json")
        if earliest is None or own is None:
            continue
        shift_ns = own.zero_ns - earliest.zero_ns
        if shift_ns >= LONGEST_NS:
            odd.append(f"started{suffix}.json: it began {shift_ns} ns after the first")
            continue
        rows = _rows(path, most)
        yield Part(path.name, rows, _names(folder / f"names{suffix}.txt", odd), shift_ns)  # each row has its name first


def _sensible(part: Part, odd: list[str]) -> Part:
    """A part without the rows that make no sense."""
    mask = sensible(part.rows, len(part.names))
    if mask.all():
        return part
    first = int(np.flatnonzero(~mask)[0])
    odd.append(f"{part.file}: {int((~mask).sum())} of {len(mask)} rows make no sense, the first is row {first + 1}")
    return Part(part.file, part.rows[mask], part.names, part.shift_ns)


def _joined(parts: list[Part]) -> Samples:
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return samples_of(_concatenated([_shifted(part, names) for part in parts]), names)


def _shifted(part: Part, names: tuple[str, ...]) -> npt.NDArray[Any]:
    """A part's rows on the common clock, with its names as they are numbered in `names`."""
    rows = part.rows.astype(_WIDE_ROW)
    for time in _TIMES:
        rows[time] += part.shift_ns
    if part.names and part.names != names:
        numbers = {name: number for number, name in enumerate(names)}
        rows["name"] = np.take(np.array([numbers[name] for name in part.names], np.int32), rows["name"], mode="clip")
    return rows


def _concatenated(rows: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(rows) if rows else np.empty(0, _WIDE_ROW)


def _rows(path: Path, most: int | None) -> npt.NDArray[Any]:
    """The whole rows of a file, or the last `most` of them."""
    whole = path.stat().st_size // RAW_ROW.itemsize
    count = whole if most is None else min(whole, most)
    return np.fromfile(path, RAW_ROW, count=count, offset=(whole - count) * RAW_ROW.itemsize)


def _names(path: Path, odd: list[str]) -> tuple[str, ...]:
    if not path.exists():
        return ()
    content = path.read_bytes()
    try:
        return parse_names(content)
    except ValueError as error:
        odd.append(f"{path.name}: {error}")
        return salvage_names(content)


def _start(path: Path) -> Start | None:
    """A start, or None while its file is not there or not whole."""
    return _parsed(path, parse_start)


def _earliest(starts: Iterable[Start]) -> Start | None:
    return min(starts, key=lambda start: start.zero_ns, default=None)


def _parsed(path: Path, parse: Callable[[bytes], T | None]) -> T | None:
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{path.name} makes no sense: {error}") from error


def _noted(read: Callable[[Path], T | None], path: Path, odd: list[str]) -> T | None:
    try:
        return read(path)
    except StoreError as error:
        odd.append(str(error))
        return None
