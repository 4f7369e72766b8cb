"""Read YAML and JSON files with guards, and with the line of every field.

Files come from outside, so that each dialect has limits: of bytes, of values with those of every alias, of depth. They
are checked in the stream of events: a file that would grow in memory is rejected where it passes a limit. Files of
meshbench's own, such as scenarios, have no anchors, aliases, merge keys or tags at all.
"""

import codecs
import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from bench.errors import InputError, Problem
from bench.files.yaml_values import (
    Dialect,
    LineTree,
    Scalar,
    ValueBuilder,
    check_finite,
    read_as_kubectl,
    read_fraction,
    read_strictly,
)

SIZE_LIMIT = 256 * 1024
DEPTH_LIMIT = 32
NODE_LIMIT = 10_000

Loc = tuple[str | int, ...]

STRICT: Final = Dialect(SIZE_LIMIT, NODE_LIMIT, DEPTH_LIMIT, read_strictly)
"""Files that are written for meshbench."""
KUBECTL: Final = Dialect(5 * 1024 * 1024, 1_000_000, 100, read_as_kubectl, as_kubectl=True)
"""Manifests: what kubectl reads, at most 5 MiB of it."""

# libyaml where the wheel has it: ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = tuple(f"{_TAG}{name}" for name in ("int", "float", "bool", "null"))
_SCALAR_TAGS: Final = ("!", f"{_TAG}str", *_PLAIN_TAGS)
_COLLECTION_TAGS: Final = ("!", f"{_TAG}map", f"{_TAG}seq")
_MERGE: Final = "<<"
_JSON_PART: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]\n]|[^\s{}\[\],:"]+')
_JSON_WORDS: Final = {"true": True, "false": False, "null": None}
_SPACE: Final = re.compile(r"\s*")


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


def value_at(value: Any, loc: Loc) -> Any:
    """Return what a document has at a path of keys; None where it lacks one of them."""
    for key in loc:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def format_path(loc: Loc) -> str:
    """Format a path: `("rules", 0, "to")` is `rules[0].to`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def format_suggestion(word: str, known: Iterable[str]) -> str:
    """Format a suggestion, `; did you mean users?`, or the list of known words where none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}" if names else ""


def read_documents(path: Path, dialect: Dialect = STRICT) -> tuple[Document, ...]:
    """Read all documents of a YAML file, or of a JSON file (`*.json`); an empty file has none.

    Raises InputError with file and line: no such file, not UTF-8, too large, a syntax error, a duplicate key, too many
    values, too deep nesting, NaN or infinity; in a strict file also an anchor, alias, merge key or tag, a second JSON
    value, and a key that is not text.
    """
    text = _read_text(path, dialect)
    return parse_documents(text, file=str(path), dialect=dialect, is_json=path.suffix.lower() == ".json")


def parse_documents(text: str, *, file: str, dialect: Dialect = STRICT, is_json: bool = False) -> tuple[Document, ...]:
    """Parse all documents of a YAML or JSON text; `file` is its name in problems. Raises as `read_documents`."""
    builder = ValueBuilder(file, dialect)
    text = text.removeprefix("\ufeff")
    if dialect.as_kubectl:
        is_json = text.lstrip().startswith("{") and (is_json or _find_json_error(text, dialect) is None)
    if is_json:
        _build_from_json(text, file, builder, dialect)
    else:
        _build_from_yaml(text, file, builder, dialect)
    if builder.flaws:
        raise InputError([Problem(file, line, format_path(loc), reason) for line, loc, reason in builder.flaws])
    return tuple(Document(file, value, LineTree(value, lines)) for value, lines in builder.list_values())


def parse_generated(text: str) -> tuple[Any, ...]:
    """Parse the documents of a tool's output, without empty ones, limits and lines."""
    return tuple(value for value in yaml.load_all(text, _LOADER) if value is not None)  # a safe loader


def _read_text(path: Path, dialect: Dialect) -> str:
    file = str(path)
    if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        raise InputError([Problem(file, 0, "", "is a directory" if os.path.isdir(path) else "no such file")])  # noqa: PTH112
    try:
        with path.open("rb") as stream:
            raw = stream.read(dialect.size + 1)
    except OSError as error:
        raise InputError([Problem(file, 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > dialect.size:
        raise InputError([Problem(file, 0, "", f"is larger than {dialect.size // 1024} KiB")])
    is_utf_16 = dialect.as_kubectl and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if is_utf_16 else "utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError([Problem(file, line, "", "is not UTF-8 text")]) from None


def _build_from_yaml(text: str, file: str, builder: ValueBuilder, dialect: Dialect) -> None:
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if add := _EVENTS.get(type(event)):
                add(event, event.start_mark.line + 1 if event.start_mark else 0, builder, dialect)
    except yaml.MarkedYAMLError as error:
        raise InputError([_make_syntax_problem(error, file)]) from None
    except yaml.YAMLError as error:
        raise InputError([Problem(file, 0, "", f"not YAML: {error}")]) from None


def _add_scalar(event: Any, line: int, builder: ValueBuilder, dialect: Dialect) -> None:
    _check_node(event, line, builder, dialect, _SCALAR_TAGS)
    is_plain = event.implicit[0] if event.tag is None else event.tag in _PLAIN_TAGS
    scalar = dialect.read_plain(event.value) if is_plain else Scalar(event.value)
    builder.add_scalar(scalar, line, event.anchor, is_merge=is_plain and event.value == _MERGE)


def _begin_mapping(event: Any, line: int, builder: ValueBuilder, dialect: Dialect) -> None:
    _check_node(event, line, builder, dialect, _COLLECTION_TAGS)
    builder.begin({}, line, event.anchor)


def _begin_list(event: Any, line: int, builder: ValueBuilder, dialect: Dialect) -> None:
    _check_node(event, line, builder, dialect, _COLLECTION_TAGS)
    builder.begin([], line, event.anchor)


def _check_node(event: Any, line: int, builder: ValueBuilder, dialect: Dialect, tags: Collection[str]) -> None:
    """Refuse anchors and tags that the dialect does not have."""
    if event.anchor is not None and not dialect.as_kubectl:
        builder.refuse(line, f"the anchor &{event.anchor} is not allowed here; write the value out each time")
    if event.tag is not None and not (dialect.as_kubectl and event.tag in tags):
        builder.refuse(line, f"the tag {event.tag} is not allowed here; write plain YAML")


def _add_alias(event: Any, line: int, builder: ValueBuilder, dialect: Dialect) -> None:
    if not dialect.as_kubectl:
        builder.refuse(line, f"the alias *{event.anchor} is not allowed here; write the value out")
    builder.add_alias(event.anchor, line)


_EVENTS: Final[Mapping[type, Callable[[Any, int, ValueBuilder, Dialect], None]]] = {
    yaml.ScalarEvent: _add_scalar,
    yaml.MappingStartEvent: _begin_mapping,
    yaml.SequenceStartEvent: _begin_list,
    yaml.MappingEndEvent: lambda _event, _line, builder, _dialect: builder.end(),
    yaml.SequenceEndEvent: lambda _event, _line, builder, _dialect: builder.end(),
    yaml.AliasEvent: _add_alias,
    yaml.DocumentStartEvent: lambda _event, _line, builder, _dialect: builder.begin_document(),
}


def _make_syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return Problem(file, 0, "", f"not YAML: {reason}")
    return Problem(file, mark.line + 1, "", f"not YAML, at column {mark.column + 1}: {reason}")


def _build_from_json(text: str, file: str, builder: ValueBuilder, dialect: Dialect) -> None:
    if error := _find_json_error(text, dialect):
        raise InputError([Problem(file, *error)])
    line = 1
    for part in _JSON_PART.findall(text):
        match part[0]:
            case "\n":
                line += 1
            case "{":
                builder.begin({}, line)
            case "[":
                builder.begin([], line)
            case "}" | "]":
                builder.end()
            case '"':
                builder.add_scalar(Scalar(json.loads(part) if "\\" in part else part[1:-1]), line)
            case _:
                builder.add_scalar(_read_json_word(part, dialect), line)


def _find_json_error(text: str, dialect: Dialect) -> tuple[int, str, str] | None:
    """Return line, path and reason of the first error in JSON; None where it is valid."""
    decoder = json.JSONDecoder(parse_int=float, parse_constant=_reject_constant)
    end = _skip_space(text, 0)
    try:
        while end < len(text):
            end = _skip_space(text, decoder.raw_decode(text, end)[1])
            if end < len(text) and not dialect.as_kubectl:
                raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as error:
        return error.lineno, "", f"not JSON, at column {error.colno}: {error.msg}"
    except RecursionError:
        return 0, "", f"is nested more than {dialect.depth} deep"
    except ValueError as error:
        return 0, "", f"not JSON: {error}"
    return None


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _read_json_word(word: str, dialect: Dialect) -> Scalar:
    """Read a word or a number of valid JSON."""
    if word in _JSON_WORDS:
        return Scalar(_JSON_WORDS[word])
    if word.lstrip("-").isdigit():
        return dialect.read_plain(word)
    return Scalar(read_fraction(word)) if dialect.as_kubectl else check_finite(float(word), word)
