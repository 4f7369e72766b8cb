"""Build plain values, each with its line, from the parts of a YAML or JSON text, with bounds on their depth and number.

Two dialects differ in what a plain scalar means. A scenario is strict: what YAML 1.1 would read with another value than
was meant is refused. A manifest has the values that kubectl reads: `0644` is 420, `1e3` is 1000, a key may be a number.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, NamedTuple, NoReturn

import yaml
from yaml.constructor import SafeConstructor

from bench.errors import InputError, Problem

_Loc = tuple[str | int, ...]
Lines = Any
"""The line of a scalar, or a list of the line of a collection and the `Lines` of its values."""

_MERGE: Final = "<<"
_SHOWN_DIGITS: Final = 20
_CACHED_SCALARS: Final = 16_384


class Scalar(NamedTuple):
    """The value of a scalar; `flaw` is why it has none."""

    value: Any
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a file may contain: its most bytes, values and depth, and what a plain scalar is.

    `as_kubectl`: anchors, aliases, merge keys, standard tags, keys that are numbers, and several JSON values are read.
    """

    size: int
    values: int
    depth: int
    read_plain: Callable[[str], Scalar]
    as_kubectl: bool = False


class LineTree(Mapping[_Loc, int]):
    """The line of every field of a value by its path, computed when the first one is asked for."""

    def __init__(self, value: Any, lines: Lines) -> None:
        self._value, self._lines = value, lines

    @cached_property
    def _table(self) -> dict[_Loc, int]:
        return dict(_list_lines(self._value, self._lines, ()))

    def __getitem__(self, loc: _Loc) -> int:
        return self._table[loc]

    def __iter__(self) -> Iterator[_Loc]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def list_entries(self, key: str) -> "tuple[LineTree, ...]":
        """Return the lines of each entry of the list that this mapping has under a key."""
        entries = self._lines[1 + list(self._value).index(key)]
        return tuple(LineTree(*one) for one in zip(self._value[key], entries[1:], strict=True))


def _list_lines(value: Any, lines: Lines, loc: _Loc) -> Iterator[tuple[_Loc, int]]:
    if isinstance(lines, int):
        yield loc, lines
        return
    yield loc, lines[0]
    children: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for (key, child), under in zip(children, lines[1:], strict=True):
        yield from _list_lines(child, under, (*loc, key))


class _Collection:
    """A mapping or list that is not complete. In a mapping, `key` is that of the next value, None before it."""

    __slots__ = ("anchor", "before", "is_mapping", "key", "key_line", "key_lines", "lines", "merged", "use", "value")

    def __init__(self, value: Any, line: int, anchor: str | None = None, before: int = 0) -> None:
        self.value, self.is_mapping, self.anchor, self.before = value, isinstance(value, dict), anchor, before
        self.lines: list[Any] = [line]
        self.key: str | None = None
        self.key_line = 0
        self.key_lines: dict[str, int] = {}
        self.use: Literal["keep", "skip", "merge"] = "keep"
        self.merged: list[tuple[Any, Lines]] = []

    @property
    def awaits_key(self) -> bool:
        return self.is_mapping and self.key is None


class ValueBuilder:
    """Build the values of a text from its parts, in their order. Refuse at once what may exhaust memory; collect all
    other flaws."""

    def __init__(self, file: str, dialect: Dialect) -> None:
        self.flaws: list[tuple[int, _Loc, str]] = []
        self._file, self._dialect = file, dialect
        self._root = _Collection([], 0)
        self._open = [self._root]
        self._anchors: dict[str, tuple[Any, Lines, int]] = {}
        self._count = 0

    def list_values(self) -> Iterator[tuple[Any, Lines]]:
        """Yield the value of each document, with its lines."""
        return zip(self._root.value, self._root.lines[1:], strict=True)

    def begin_document(self) -> None:
        """Forget the anchors of the document before."""
        self._anchors.clear()

    def begin(self, value: dict[str, Any] | list[Any], line: int, anchor: str | None = None) -> None:
        """Begin a collection, which is empty."""
        parent = self._open[-1]
        if parent.awaits_key:
            self.refuse(line, "a key must be text; put it in quotes")
        if len(self._open) > self._dialect.depth:
            self.refuse(line, f"is nested more than {self._dialect.depth} deep")
        self._add_to_count(1, line)
        self._open.append(_Collection(value, parent.key_line or line, anchor, self._count - 1))

    def end(self) -> None:
        """End the collection that was begun last."""
        ended = self._open.pop()
        for value, lines in ended.merged:
            for key, under in zip(value, lines[1:], strict=True):
                if key not in ended.value:
                    ended.value[key] = value[key]
                    ended.lines.append(under)
        if ended.anchor is not None:
            self._anchors[ended.anchor] = ended.value, ended.lines, self._count - ended.before
        self._add(ended.value, ended.lines)

    def add_scalar(self, scalar: Scalar, line: int, anchor: str | None = None, *, is_merge: bool = False) -> None:
        """Add a key or a value. `is_merge`: it is a plain `<<`, which merges mappings where it is a key."""
        self._add_to_count(1, line)
        if anchor is not None:
            self._anchors[anchor] = scalar.value, line, 1
        parent = self._open[-1]
        if parent.awaits_key:
            self._begin_entry(parent, scalar, line, is_merge=is_merge)
            return
        if scalar.flaw:
            self._note(line, scalar.flaw)
        self._add(scalar.value, parent.key_line or line)

    def add_alias(self, name: str, line: int) -> None:
        """Add a copy of what has the anchor of this name; it counts with all its values."""
        if name not in self._anchors:
            self.refuse(line, f"the alias *{name} has no anchor that ends before it")
        value, lines, count = self._anchors[name]
        if self._open[-1].awaits_key:
            if isinstance(value, dict | list):
                self.refuse(line, "a key must be text; put it in quotes")
            self.add_scalar(Scalar(value), line)
            return
        self._add_to_count(count, line)
        place = self._open[-1].key_line or line
        self._add(_copy(value), place if isinstance(lines, int) else [place, *lines[1:]])

    def refuse(self, line: int, reason: str) -> NoReturn:
        """Raise InputError with the line."""
        raise InputError([Problem(self._file, line, "", reason)])

    def _add_to_count(self, count: int, line: int) -> None:
        self._count += count
        if self._count > self._dialect.values:
            self.refuse(line, f"more than {self._dialect.values} values in one file")

    def _begin_entry(self, parent: _Collection, scalar: Scalar, line: int, *, is_merge: bool) -> None:
        key = _format_key(scalar.value, self._dialect)
        parent.key_line, parent.use = line, "keep"
        if is_merge and self._dialect.as_kubectl:
            parent.use = "merge"
        elif is_merge:
            self._skip(parent, line, "the merge key << is not allowed here; write the fields out")
        elif not isinstance(key, str):
            self._skip(parent, line, "a key must be text; put it in quotes")
        elif key in parent.key_lines:
            parent.key = key
            self._skip(parent, line, f"duplicate key, first on line {parent.key_lines[key]}")
        else:
            parent.key_lines[key] = line
        parent.key = str(key)

    def _skip(self, parent: _Collection, line: int, reason: str) -> None:
        self._note(line, reason)
        parent.use = "skip"

    def _note(self, line: int, reason: str) -> None:
        parts = (one.key if one.is_mapping else len(one.value) for one in self._open[1:])
        self.flaws.append((line, tuple(part for part in parts if part is not None), reason))

    def _add(self, value: Any, lines: Lines) -> None:
        parent = self._open[-1]
        if not parent.is_mapping:
            parent.value.append(value)
            parent.lines.append(lines)
            return
        if parent.use == "keep":
            parent.value[parent.key] = value
            parent.lines.append(lines)
        elif parent.use == "merge":
            self._merge(parent, value, lines)
        parent.key, parent.key_line = None, 0

    def _merge(self, parent: _Collection, value: Any, lines: Lines) -> None:
        merged = zip(value, lines[1:], strict=True) if isinstance(value, list) else [(value, lines)]
        for one, under in merged:
            if isinstance(one, dict):
                parent.merged.append((one, under))
            else:
                self._note(parent.key_line, "only mappings can be merged")


def _copy(value: Any) -> Any:
    """Copy plain data, so that no two places of a document are the same object."""
    if isinstance(value, dict):
        return {key: _copy(child) for key, child in value.items()}
    return [_copy(child) for child in value] if isinstance(value, list) else value


def _format_key(value: object, dialect: Dialect) -> object:
    """Format a key as kubectl does: `9080` is text, and `true` where the dialect has it; others are returned as they
    are."""
    if isinstance(value, str) or type(value) is int:
        return str(value)
    if not dialect.as_kubectl:
        return value
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value


_TEXT: Final = "tag:yaml.org,2002:str"
_INTEGER: Final = "tag:yaml.org,2002:int"
_KEPT_AS_TEXT: Final = {_TEXT, *(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge"))}
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_RESOLVER: Final[Any] = yaml.resolver.Resolver()


@lru_cache(_CACHED_SCALARS)
def read_strictly(text: str) -> Scalar:
    """Read a plain scalar as YAML 1.1 does where nothing else could be meant: a date stays text, `010` is refused."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag in _KEPT_AS_TEXT:
        return Scalar(text)
    if tag == _INTEGER and not _DECIMAL.fullmatch(text):
        # YAML 1.1 reads 30:00 as 1800 and 010 as 8, which is never meant
        return Scalar(None, f"{text} is not a plain decimal number; put it in quotes if it is text")
    try:
        value = SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except ValueError:
        return _explain_number(text)
    return check_finite(value, text)


def check_finite(value: Any, text: str) -> Scalar:
    """Return a value that is no infinite number and not NaN; `text` is how it is written."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return Scalar(value) if is_finite else Scalar(None, f"{text} is not a finite number")


def _explain_number(text: str) -> Scalar:
    return Scalar(None, f"{text[:_SHOWN_DIGITS]} is not a valid number")


# The words and numbers of the YAML library that kubectl is built with.
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NUMBER_BEGINS: Final = frozenset("+-.0123456789")
_MOST_DIGITS: Final = 100  # of a number of 64 bits, with its sign and prefix, and some zeros
_BASES: Final = {"x": 16, "b": 2, "o": 8}
_WHOLE: Final = re.compile(r"([-+]?)(?:0([xX][0-9a-fA-F]+|[bB][01]+|[oO][0-7]+)|0([0-7]+)|(0|[1-9][0-9]*))")
_FRACTION: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@lru_cache(_CACHED_SCALARS)
def read_as_kubectl(text: str) -> Scalar:
    """Read a plain scalar as kubectl does: `0644` is 420, `1e3` is 1000, `y` is true, `30:00` is text."""
    if text in _WORDS:
        return Scalar(_WORDS[text])
    if text[0] not in _NUMBER_BEGINS:
        return Scalar(text)
    if _NOT_FINITE.fullmatch(text):
        return Scalar(None, f"{text} is not a finite number")
    plain = text if text.startswith(".") else text.replace("_", "")
    whole = _read_whole(plain)
    if whole is not None:
        return Scalar(whole)
    return Scalar(read_fraction(plain) if _FRACTION.fullmatch(plain) else text)


def _read_whole(text: str) -> int | None:
    """Read a whole number of 64 bits; None for anything else."""
    found = _WHOLE.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if found is None:
        return None
    sign, based, octal, decimal = found.groups()
    value = int(based[1:], _BASES[based[0].lower()]) if based else int(octal, 8) if octal else int(decimal)
    value = -value if sign == "-" else value
    return value if -(2**63) <= value < 2**64 else None


def read_fraction(text: str) -> Any:
    """Read a fraction as kubectl does: `1.0` is the whole number 1, and what is too large stays text."""
    value = float(text)
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**63 else value
