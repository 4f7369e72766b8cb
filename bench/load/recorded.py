"""Parse a recorder's files: the one place where bytes from Locust, which may run in a pod, become values. Pure.

Every function raises ValueError for invalid content. Incomplete content is no error: the caller waits for the rest.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.results.base import LONGEST_NS

MOST_NAMES: Final = 1 << 20  # a recorder folds those that exceed its own limit, in bytes
LONGEST_NAME: Final = 8192
_LONGEST_PROBLEM: Final = 2000
_MOST_TEXTS: Final = 100
_LATEST_S: Final = 1e11
_LARGEST: Final = 1 << 62
_CONTROL: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # as Unicode classes them
_LINE_END: Final = "\n"
_CONTROL_IN_NAMES: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # the same, in a file of lines


@dataclass(frozen=True, slots=True)
class Start:
    """When the load began: Locust's monotonic clock, and its wall clock in seconds since the epoch."""

    zero_ns: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Account:
    """Locust's own statistics; None where they lack one. `options` are the offered options that the locustfile has,
    `unusual` the names of requests that are not the application's page, `user_errors` exceptions of tasks, `off_target`
    the refused connections by address."""

    locust_requests: int = 0
    locust_failures: int = 0
    locust_p95_ms: float | None = None
    recorded: int | None = None
    derived_starts: int = 0
    clock_step_ms: float = 0.0
    problem: str = ""
    options: tuple[str, ...] | None = None
    unusual: tuple[str, ...] = ()
    user_errors: int = 0
    first_error: str = ""
    off_target: Mapping[str, int] = field(default_factory=dict)


def parse_start(content: bytes) -> Start | None:
    """Parse `started.json`; None while it is incomplete."""
    found = _parse_object(content)
    if found is None:
        return None
    return Start(
        zero_ns=_read_count(found, "zero_ns"), wall_s=_read_number(found, "wall_s", lowest=0, highest=_LATEST_S)
    )


def parse_account(content: bytes) -> Account | None:
    """Parse `generator.json`; None where it is incomplete. Missing keys get their defaults."""
    found = _parse_object(content)
    if found is None:
        return None
    problem, p95_ms = _read_text(found, "problem"), found.get("locust_p95_ms")
    first_error = _read_text(found, "first_error")
    return Account(
        locust_requests=_read_count(found, "locust_requests", default=0),
        locust_failures=_read_count(found, "locust_failures", default=0),
        # A locustfile may report times below zero: that is for the trial's checks to judge.
        locust_p95_ms=_read_number(found, "locust_p95_ms", lowest=-_LARGEST, highest=_LARGEST)
        if p95_ms is not None
        else None,
        recorded=_read_count(found, "recorded") if "recorded" in found else None,
        derived_starts=_read_count(found, "derived_starts", default=0),
        clock_step_ms=_read_number({"clock_step_ms": 0.0, **found}, "clock_step_ms", lowest=0, highest=_LARGEST),
        problem=clean_text(problem, _LONGEST_PROBLEM),
        options=_read_texts(found, "options") if "options" in found else None,
        unusual=_read_texts(found, "unusual") if "unusual" in found else (),
        user_errors=_read_count(found, "user_errors", default=0),
        first_error=clean_text(first_error, _LONGEST_PROBLEM),
        off_target=_read_counts(found, "off_target"),
    )


def parse_names(content: bytes) -> tuple[str, ...]:
    """Parse `names.txt`: the requests' names, one per line."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    names = tuple(text.removesuffix("\n").split("\n")) if content else ()
    if len(names) > MOST_NAMES:
        raise ValueError(f"it has {len(names)} names, more than {MOST_NAMES}")
    if odd := _CONTROL_IN_NAMES.search(text):  # in one search: the file is read again at each look at the load
        raise ValueError(f"line {text.count(_LINE_END, 0, odd.start()) + 1}: a name with control characters")
    for number, name in enumerate(names, start=1):
        if len(name) > LONGEST_NAME:
            raise ValueError(f"line {number}: a name of {len(name)} characters, more than {LONGEST_NAME}")
    return names


def salvage_names(content: bytes) -> tuple[str, ...]:
    """Return the readable names of a file that `parse_names` rejects, in their positions."""
    lines = content.decode("utf-8", "replace").removesuffix("\n").split("\n", MOST_NAMES)
    return tuple(clean_text(line, LONGEST_NAME) for line in lines[:MOST_NAMES])


def find_valid_rows(rows: npt.NDArray[Any], names: int) -> npt.NDArray[np.bool_]:
    """Return the mask of valid rows, with this number of names. Times below zero are left to the trial's checks, which
    have a reason for them (`impossible-samples`); beyond `LONGEST_NS` their sums would overflow."""
    times = [rows["intended_ns"], rows["started_ns"], rows["latency_ns"]]
    mask = (rows["ok"] <= 1) & (rows["bytes"] >= 0) & (rows["name"] < names)
    mask &= rows["status"] >= 0
    for column in times:
        mask &= (column > -LONGEST_NS) & (column < LONGEST_NS)
    return np.asarray(mask, np.bool_)


def find_valid_tasks(rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the mask of valid rows of tasks: their times are in order, and none is beyond `LONGEST_NS`."""
    mask = (rows["previous_ns"] <= rows["waited_ns"]) & (rows["waited_ns"] <= rows["began_ns"])
    for column in rows.dtype.names or ():
        mask &= (rows[column] > -LONGEST_NS) & (rows[column] < LONGEST_NS)
    return np.asarray(mask, np.bool_)


def clean_text(text: str, most: int) -> str:
    """Return text on one line without control characters, cut to `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return "".join("?" if _is_control(letter) else letter for letter in line)[:most]


def _is_control(letter: str) -> bool:
    return letter != "\t" and unicodedata.category(letter) in _CONTROL


def _parse_object(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None where the text is incomplete."""
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        return None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a valid number")


def _read_count(found: dict[str, Any], key: str, *, default: int | None = None) -> int:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ValueError(f"{key} is not a whole number of at least 0")
    return value


def _read_text(found: dict[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    return value


def _read_counts(found: dict[str, Any], key: str) -> dict[str, int]:
    counts = found.get(key, {})
    if not isinstance(counts, dict) or len(counts) > _MOST_TEXTS:
        raise ValueError(f"{key} is not an object of up to {_MOST_TEXTS} numbers")
    return {clean_text(name, _LONGEST_PROBLEM): _read_count(counts, name) for name in counts}


def _read_texts(found: dict[str, Any], key: str) -> tuple[str, ...]:
    values = found[key]
    if not isinstance(values, list) or len(values) > _MOST_TEXTS or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{key} is not a list of up to {_MOST_TEXTS} strings")
    return tuple(clean_text(one, _LONGEST_PROBLEM) for one in values)


def _read_number(found: dict[str, Any], key: str, *, lowest: float, highest: float) -> float:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ValueError(f"{key} is not a number from {lowest:g} to {highest:g}")
    return float(value)
