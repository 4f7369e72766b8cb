"""Read YAML and JSON files with guards, and with the line of every field.

Scenarios and manifests come from outside, so that the loader is strict: one file of at most 256 KiB, no anchors,
aliases, merge keys or tags, no duplicate keys, a limited depth, no NaN. The guards check the stream of events, before
any node is built: a file that would grow in memory is rejected at its first anchor.
"""

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import SafeConstructor

from bench.errors import InputError, Problem

SIZE_LIMIT = 256 * 1024
DEPTH_LIMIT = 32
NODE_LIMIT = 10_000

Loc = tuple[str | int, ...]

# libyaml where the wheel has it: ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_INTEGER = "tag:yaml.org,2002:int"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
# Where JSON differs from YAML 1.1: texts (`\/`, long keys), fractions (`1e5`), tabs between values.
_JSON_WORD = re.compile(r'"(?:\\.|[^"\\])*"(?P<key>(?=\s*:))?|-?[0-9][-+.0-9eE]*|\t')
_KEPT_AS_TEXT = {_TEXT, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document as plain Python data, with the line of every field.

    `value` is made of dict, list, str, int, float, bool and None only (a date stays text).
    """

    file: str
    value: Any
    lines: Mapping[Loc, int]

    def line_of(self, loc: Loc) -> int:
        """Return the line, from 1, of the deepest field on `loc` that exists: that of its key or list item.

        `loc` is a path as pydantic gives it (`("load", "users")`); parts that are not a field, such as the tag of a
        union, are skipped. A missing field has the line of the mapping that lacks it.
        """
        here: Loc = ()
        for part in loc:
            here = (*here, part) if (*here, part) in self.lines else here
        return self.lines[here]

    def problem(self, loc: Loc, message: str) -> Problem:
        """Return `message` as a problem of the field at `loc`."""
        return Problem(self.file, self.line_of(loc), format_path(loc), message)


def format_path(loc: Loc) -> str:
    """Format a path: `("rules", 0, "to")` is `rules[0].to`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def format_suggestion(word: str, known: Iterable[str]) -> str:
    """Format a suggestion, `; did you mean users?`, or the list of known words where none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}" if names else ""


def read_documents(path: Path) -> tuple[Document, ...]:
    """Read all documents of a YAML file, or the one of a JSON file (`*.json`); an empty file has none.

    Raises InputError with file and line: no such file, not UTF-8, more than 256 KiB, a syntax error, an anchor, alias,
    merge key or tag, a key that is not text or a duplicate, too deep nesting, NaN or infinity.
    """
    text = _read_text(path)
    is_json = path.suffix.lower() == ".json"
    return parse_documents(_as_yaml(text, str(path)) if is_json else text, file=str(path))


def parse_documents(text: str, *, file: str) -> tuple[Document, ...]:
    """Parse all documents of a YAML text; `file` is its name in problems. Raises as `read_documents`."""
    try:
        _check_events(text, file)
        nodes = tuple(yaml.compose_all(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        raise InputError([_make_syntax_problem(error, file)]) from None
    except yaml.YAMLError as error:
        raise InputError([Problem(file, 0, "", f"not YAML: {error}")]) from None
    return tuple(_build_document(node, file) for node in nodes)


def parse_generated(text: str) -> tuple[Any, ...]:
    """Parse the documents of a tool's output, without empty ones, limits and lines."""
    return tuple(value for value in yaml.load_all(text, _LOADER) if value is not None)  # a safe loader


def _read_text(path: Path) -> str:
    file = str(path)
    if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        raise InputError([Problem(file, 0, "", "is a directory" if os.path.isdir(path) else "no such file")])  # noqa: PTH112
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError([Problem(file, 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > SIZE_LIMIT:
        raise InputError([Problem(file, 0, "", f"is larger than {SIZE_LIMIT // 1024} KiB")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError([Problem(file, line, "", "is not UTF-8 text")]) from None


def _as_yaml(text: str, file: str) -> str:
    """Rewrite JSON so that a YAML loader reads the same values, each on its line. Raises InputError."""
    content = text.removeprefix("\ufeff")
    if not content.strip():
        return ""
    try:
        json.loads(content, parse_int=float, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        problem = Problem(file, error.lineno, "", f"not JSON, at column {error.colno}: {error.msg}")
        raise InputError([problem]) from None
    except RecursionError:
        raise InputError([Problem(file, 0, "", f"is nested more than {DEPTH_LIMIT} deep")]) from None
    except ValueError as error:
        raise InputError([Problem(file, 0, "", f"not JSON: {error}")]) from None
    return _JSON_WORD.sub(_rewrite_word, content)


def _rewrite_word(found: re.Match[str]) -> str:
    """Rewrite a text, a number or a tab of valid JSON for YAML 1.1."""
    word = found[0]
    if word == "\t":
        return " "
    if word.startswith('"'):
        sign = "" if found["key"] is None else "? "  # else a key has at most 1024 characters
        return "".join([sign, '"', *map(_escape_character, json.loads(word)), '"'])
    return word if _DECIMAL.fullmatch(word) else _format_fraction(float(word))


def _format_fraction(value: float) -> str:
    return f"{value:.17e}" if math.isfinite(value) else f"{value}".replace("inf", ".inf")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _escape_character(character: str) -> str:
    if " " <= character <= "~":
        return f"\\{character}" if character in '"\\' else character
    return f"\\U{ord(character):08X}"


def _make_syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return Problem(file, 0, "", f"not YAML: {reason}")
    return Problem(file, mark.line + 1, "", f"not YAML, at column {mark.column + 1}: {reason}")


def _check_events(text: str, file: str) -> None:
    """Reject what may exhaust memory or run code, before any node is built."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_LOADER):
        reason = _find_refusal(event)
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > NODE_LIMIT:
            reason = f"more than {NODE_LIMIT} values in one file"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            reason = f"is nested more than {DEPTH_LIMIT} deep"
        if reason:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise InputError([Problem(file, line, "", reason)])


def _find_refusal(event: yaml.Event) -> str:
    if isinstance(event, yaml.AliasEvent):
        return f"the alias *{event.anchor} is not allowed here; write the value out"
    if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
        return ""
    if event.anchor is not None:
        return f"the anchor &{event.anchor} is not allowed here; write the value out each time"
    if event.tag is not None:
        return f"the tag {event.tag} is not allowed here; write plain YAML"
    return ""


def _build_document(node: yaml.Node, file: str) -> Document:
    reading = _NodeReader(file)
    value = reading.value(node, ())
    if reading.problems:
        raise InputError(reading.problems)
    reading.lines[()] = node.start_mark.line + 1
    return Document(file, value, reading.lines)


@dataclass(slots=True)
class _NodeReader:
    """Turn nodes into data, and collect lines and problems."""

    file: str
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return {key: self.value(child, (*loc, key)) for key, child in self._entries(node, loc)}
            case yaml.SequenceNode():
                return [self.value(child, (*loc, index)) for index, child in enumerate(node.value)]
            case _:
                return self._scalar(node, loc)

    def _entries(self, node: yaml.MappingNode, loc: Loc) -> Iterator[tuple[str, yaml.Node]]:
        first_lines: dict[str, int] = {}
        for key_node, child in node.value:
            key, line = self._key(key_node, loc), key_node.start_mark.line + 1
            if key is None:
                continue
            if key in first_lines:
                self._refuse(line, (*loc, key), f"duplicate key, first on line {first_lines[key]}")
                continue
            first_lines[key] = self.lines[*loc, key] = line
            yield key, child

    def _key(self, node: yaml.Node, loc: Loc) -> str | None:
        line = node.start_mark.line + 1
        if node.tag == _MERGE:
            self._refuse(line, loc, "the merge key << is not allowed here; write the fields out")
        elif node.tag == _TEXT or (node.tag == _INTEGER and _DECIMAL.fullmatch(node.value)):
            return str(node.value)  # as Kubernetes reads the key 9080
        else:
            self._refuse(line, loc, "a key must be text; put it in quotes")
        return None

    def _scalar(self, node: yaml.Node, loc: Loc) -> Any:
        if node.tag in _KEPT_AS_TEXT:
            return node.value
        if node.tag == _INTEGER and not _DECIMAL.fullmatch(node.value):
            # YAML 1.1 reads 30:00 as 1800 and 010 as 8, which is never meant
            message = f"{node.value} is not a plain decimal number; put it in quotes if it is text"
            self._refuse(node.start_mark.line + 1, loc, message)
            return None
        try:
            value = SafeConstructor().construct_object(node)
        except ValueError:
            self._refuse(node.start_mark.line + 1, loc, f"{node.value[:20]} is not a valid number")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(node.start_mark.line + 1, loc, f"{node.value} is not a finite number")
        return value

    def _refuse(self, line: int, loc: Loc, message: str) -> None:
        self.problems.append(Problem(self.file, line, format_path(loc), message))
