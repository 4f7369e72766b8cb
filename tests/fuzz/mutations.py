"""Mutations of recorded inputs, the same for every edge, and the limits that each case has: memory and CPU time."""

import json
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from hypothesis import strategies as st

MOST_BYTES: Final = 3 * 1024**3  # of address space, in addition to that of the tests themselves
MOST_CPU_S: Final = 60.0  # of the process, which a busy machine does not use up
_MOST_CHANGES: Final = 3
_DEEP: Final = 300

Path = tuple[str | int, ...]

_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63 - 1, 2**63, -(2**63),
    10**18, 10**30, "", " ", "0", "-1", "NaN", "1e999", "null", "a", "../../etc/passwd", "/etc/passwd", "a/b", "a\0b",
    "\x1b[2J\n", "\ud800", "\u202e", "9" * 5000, "x" * 5000, "2026-11-23T03:15:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "not a time", [], {}, [None], [[]], {"": None}, {"a": {}}, [0], ["a"],
)  # fmt: skip
_PAGE: Final = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Welcome to the hotel</body></html>"
_WHOLE: Final = (
    b"", b"\n", b"\0", b"\xff\xfe\x00", b"null", b"[]", b"{}", b"true", b'"a"', b"0", b"NaN", b"[" * 100_000,
    b'{"a":' * 100_000, b"9" * 5000, b"{" * 10, b"\xef\xbb\xbf{}", _PAGE, b"a: &a [*a]", b"%PDF-1.7", b"\x1f\x8b\x08\0",
    b"PAR1" + b"\0" * 20 + b"PAR1",
)  # fmt: skip


def mutate(value: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values like this one of JSON, with one to three changes: parts that are missing, moved,
    repeated, nested, or of another type or size."""
    paths = list(_list_paths(value))
    return st.lists(_changes(value, paths), min_size=1, max_size=_MOST_CHANGES).map(lambda many: _apply(value, many))


def mutate_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of contents like this one: cut, with bytes that were changed, repeated or inserted, or with
    other content."""
    at = st.integers(0, len(content))
    return st.one_of(
        at.map(lambda end: content[:end]),
        st.tuples(at, st.binary(min_size=1, max_size=8)).map(lambda x: content[: x[0]] + x[1] + content[x[0] :]),
        st.tuples(at, st.binary(min_size=1, max_size=8)).map(
            lambda x: content[: x[0]] + x[1] + content[x[0] + len(x[1]) :]
        ),
        st.tuples(at, at).map(lambda x: content[: min(x)] + content[max(x) :]),
        st.tuples(at, at).map(lambda x: content[: max(x)] + content[min(x) :]),
        st.sampled_from(_WHOLE),
        st.binary(max_size=64),
    )


def mutate_json(value: Any) -> st.SearchStrategy[bytes]:
    """Return a strategy of JSON texts like that of this value: mostly valid JSON, now and then not."""
    valid = mutate(value).map(lambda one: json.dumps(one).encode())
    return st.one_of(valid, valid, valid, mutate_bytes(json.dumps(value).encode()))


def mutate_lines(lines: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Return a strategy of files with a JSON value in each line."""
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    changed = mutate(list(lines)).map(
        lambda many: b"".join(json.dumps(one).encode() + b"\n" for one in (many if isinstance(many, list) else [many]))
    )
    return st.one_of(changed, changed, changed, mutate_bytes(content))


def _list_paths(value: Any, at: Path = ()) -> Iterator[Path]:
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in entries:
        yield from _list_paths(part, (*at, key))


def _changes(value: Any, paths: Sequence[Path]) -> st.SearchStrategy[tuple[str, Path, Any]]:
    where, odd = st.sampled_from(paths), st.sampled_from(_ODD)
    elsewhere = where.map(lambda path: _find(value, path))
    return st.one_of(
        st.tuples(st.just("put"), where, odd),
        st.tuples(st.just("put"), where, elsewhere),
        st.tuples(st.just("scale"), where, st.sampled_from((-1, 0, 0.001, 1000, 10**6, 10**9, 10**12))),
        st.tuples(st.sampled_from(("drop", "double", "wrap", "name", "bury", "swap")), where, odd),
    )


def _find(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _apply(value: Any, changes: Sequence[tuple[str, Path, Any]]) -> Any:
    for change, path, other in changes:
        value = _change(value, path, change, other)
    return value


def _change(value: Any, path: Path, change: str, other: Any) -> Any:
    """Return the value with a change at a path; the same where an earlier change removed the path."""
    if not path:
        return _change_whole(value, change, other)
    key, *rest = path
    if isinstance(value, dict):
        if key not in value:
            return value
        if not rest and change == "drop":
            return {one: part for one, part in value.items() if one != key}
        if not rest and change == "name":
            return {str(other) if one == key else one: part for one, part in value.items()}
        return {**value, key: _change(value[key], tuple(rest), change, other)}
    if isinstance(value, list | tuple) and isinstance(key, int) and key < len(value):
        before, part, after = list(value[:key]), value[key], list(value[key + 1 :])
        if not rest and change == "drop":
            return [*before, *after]
        if not rest and change == "double":
            return [*before, part, part, *after]
        if not rest and change == "swap":
            return [*after, part, *before]
        return [*before, _change(part, tuple(rest), change, other), *after]
    return value


def _change_whole(value: Any, change: str, other: Any) -> Any:
    match change:
        case "put" | "drop":
            return other
        case "scale" if isinstance(value, int | float) and not isinstance(value, bool):
            return type(value)(value * other) if abs(value) < 1e100 else value  # stays finite
        case "wrap":
            return [value]
        case "bury":
            for _ in range(_DEEP if other is None else 1):
                value = {"a": value}
            return value
        case _:
            return value


class SlowError(Exception):
    """A case used more CPU time than it may."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise MemoryError or SlowError where a block needs more memory or CPU time than an input of its size may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_read_size() + MOST_BYTES, hard))
    handler = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read_size() -> int:
    """Return the size of this process's address space in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # between two cases: as cheap as can be
        return int(file.read().split()[0]) * resource.getpagesize()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SlowError(f"more than {MOST_CPU_S:g} s of CPU time")
