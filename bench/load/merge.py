"""What the recorder left in a folder, made into one: of a single Locust, or of each of its workers.

Every worker counts from a zero of its own, on the same clock. Here all times count from the earliest zero, which is
that of `started.json`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.samples import RAW_ROW, Samples, samples_of

_TIMES = ("intended_ns", "started_ns")


@dataclass(frozen=True, slots=True)
class Start:
    """When the load began: Locust's monotonic clock, and its wall clock in seconds since the epoch."""

    zero_ns: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Part:
    """One recorder's files; `shift_ns` is how much later than the earliest its clock began."""

    rows: Path
    names: tuple[str, ...]
    shift_ns: int


def read_start(folder: Path) -> Start | None:
    """When the load in the folder began, or None while it has not."""
    found = [start for path in folder.glob("started*.json") if (start := _start(path)) is not None]
    return min(found, key=lambda start: start.zero_ns) if found else None


def read_samples(folder: Path) -> Samples:
    """All that has been recorded so far; a torn last row is left out."""
    parts = tuple(_parts(folder))
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return samples_of(_joined([_shifted(part, names) for part in parts]), names)


def recent_rows(folder: Path, *, most: int) -> npt.NDArray[Any]:
    """The last rows, in order of completion: at most `most` of each recorder, read from the ends of the files."""
    parts = tuple(_parts(folder))
    rows = _joined([_shifted(part, part.names, most=most) for part in parts])
    return rows if len(parts) < 2 else rows[np.argsort(rows["started_ns"] + rows["latency_ns"], kind="stable")]


def raw_files(folder: Path) -> tuple[Path, ...]:
    """Everything that the recorders wrote."""
    patterns = ("samples*.bin", "names*.txt", "started*.json", "generator.json")
    return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))


def _parts(folder: Path) -> Iterator[Part]:
    """The recorders in the folder. One whose start is not known has not begun, and has no row yet."""
    start = read_start(folder)
    for rows in sorted(folder.glob("samples*.bin")):
        part = rows.stem.removeprefix("samples")
        own = _start(folder / f"started{part}.json")
        if start is not None and own is not None:
            yield Part(rows, _names(folder / f"names{part}.txt"), own.zero_ns - start.zero_ns)


def _shifted(part: Part, names: tuple[str, ...], *, most: int | None = None) -> npt.NDArray[Any]:
    """A part's rows on the common clock, with its names as they are numbered in `names`."""
    whole = _whole_rows(part.rows)
    count = whole if most is None else min(whole, most)
    rows = np.fromfile(part.rows, RAW_ROW, count=count, offset=(whole - count) * RAW_ROW.itemsize)
    for time in _TIMES:
        rows[time] += part.shift_ns
    if part.names != names:
        rows["name"] = np.array([names.index(name) for name in part.names], np.uint16)[rows["name"]]
    return rows


def _joined(rows: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(rows) if rows else np.empty(0, RAW_ROW)


def _whole_rows(path: Path) -> int:
    return path.stat().st_size // RAW_ROW.itemsize


def _names(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text("utf-8").splitlines()) if path.exists() else ()


def _start(path: Path) -> Start | None:
    """A start, or None while its file is not there or not whole."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Start(zero_ns=found["zero_ns"], wall_s=found["wall_s"])
