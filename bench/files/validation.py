"""Explain validation errors: a table from pydantic's error types to messages."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.files.yaml_source import Loc, format_suggestion

SHOWN_CHARACTERS: Final = 40
_KEY: Final = "[key]"  # pydantic's last part of the path of a key that is wrong itself


NAME_PATTERN = r"^[a-z0-9-]{1,40}$"
LINE_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"
TEXT_PATTERN = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f]*$"
# No part starts with a dot or a dash, so that there is no "..", no absolute path and no option.
PLACE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"

IMAGE_PATTERN = (
    r"^[a-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"
ENTRY_PATTERN = r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?:[0-9]{1,5}$"
MODULE_PATTERN = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$"
PATH_PATTERN = r"^/[^\s#]*$"
METHOD_PATTERN = r"^[A-Z]{1,20}$"
HEADER_PATTERN = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"
ENDPOINT_PATTERN = r"^[A-Z]{3,10} /[^\s#]*$"

OPTION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
TAG_PATTERN = r"^[^\s-]\S*$"
OBJECT_PATTERN = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"

PATTERN_MESSAGES: Final = {
    NAME_PATTERN: "is not a name: 1 to 40 of the characters a-z, 0-9 and -",
    LINE_PATTERN: "must be one line of text without control characters",
    IMAGE_PATTERN: "is not an image; write REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST",
    TEXT_PATTERN: "must be text without control characters",
    OPTION_PATTERN: "is not the name of an option; write it without its dashes",
    VARIABLE_PATTERN: "is not the name of a variable: letters, digits and _",
    TAG_PATTERN: "is not a tag: text without spaces that begins with no -",
    OBJECT_PATTERN: "is not a name of Kubernetes: a-z, 0-9, - and .",
    LABEL_PATTERN: "is not a name of Kubernetes: a-z, 0-9, - and .",
    LABEL_KEY_PATTERN: "is not the key of a label; write NAME or DOMAIN/NAME",
    LABEL_VALUE_PATTERN: "is not the value of a label: up to 63 of the characters A-Z, a-z, 0-9, -, _ and .",
    ENTRY_PATTERN: "is not SERVICE:PORT",
    MODULE_PATTERN: "is not the name of a module below bench.application",
    PATH_PATTERN: "is not a path; it starts with /",
    METHOD_PATTERN: "is not a method, such as GET",
    HEADER_PATTERN: "is not the name of a header",
    ENDPOINT_PATTERN: "is not a request; write METHOD /PATH",
    PLACE_PATTERN: "is not allowed; write a path without .., relative to the shipped files or to the scenario's folder",
}


def format_value(value: object) -> str:
    """Format a value as in a file, shortened to `SHOWN_CHARACTERS`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


@dataclass(frozen=True, slots=True)
class InvalidField:
    """An invalid field: `loc` is its path of keys and indices.

    A restriction is the model's own: the key or value may be valid elsewhere. Other fields are wrong everywhere, such
    as a value of the wrong type, or a near miss of a known key.
    """

    loc: Loc
    message: str
    is_restriction: bool = False


def list_invalid_fields(error: ValidationError, model: type[BaseModel]) -> tuple[InvalidField, ...]:
    """Return the invalid fields in `error`, which validating data for `model` raised."""
    return tuple(
        _make_invalid_field(details, model) for details in error.errors(include_url=False) if _is_cause(details)
    )


def _is_cause(details: ErrorDetails) -> bool:
    """Check that an error is not a consequence: a list counts as too short where its entries are invalid."""
    return details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]


def _make_invalid_field(details: ErrorDetails, model: type[BaseModel]) -> InvalidField:
    loc = tuple(part for part in details["loc"] if part != _KEY)
    if details["type"] == "extra_forbidden":
        return _explain_unknown_key(_find_section(model, loc[:-1]), loc)
    sentence = _SENTENCES.get(details["type"])
    context = details.get("ctx", {})
    message = sentence(details["input"], context) if sentence else details["msg"]
    if details["type"] == "literal_error" and _find_near_choice(details["input"], _list_choices(context["expected"])):
        return InvalidField(loc, message, is_restriction=details["input"] in _list_other_values(model, loc[:-1]))
    return InvalidField(loc, message, is_restriction=details["input"] is None or details["type"] not in _WRONG_TYPES)


def _list_other_values(model: type[BaseModel], loc: Loc) -> Collection[str]:
    """Return the values of the section at `loc` that exist, and that meshbench does not translate."""
    return getattr(_find_section(model, loc), "other_values", frozenset[str]())


def _explain_unknown_key(section: type[BaseModel], loc: Loc) -> InvalidField:
    """Explain a key that is not the section's. It may have a list of those that exist, and that meshbench does not
    translate."""
    key, others = str(loc[-1]), getattr(section, "untranslated", frozenset[str]())
    if key in others:
        return InvalidField(loc, "is not translated for this machine", is_restriction=True)
    known = _index_by_key(section)
    near = difflib.get_close_matches(key, [*known, *others], n=1)
    suggestion = format_suggestion(key, [*near] or known)
    return InvalidField(loc, f"unknown key {format_value(key)}{suggestion}", is_restriction=not near)


def _find_section(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """Return the model of the section at `loc`, through lists, mappings and optional sections."""
    is_named = False  # the part is a name in a mapping, not a key of a model
    for part in loc:
        if isinstance(part, str) and not is_named:
            annotation = _index_by_key(model)[part]
            model = next(_list_sections(annotation))
            is_named = any(get_origin(one) is dict for one in (annotation, *get_args(annotation)))
        elif isinstance(part, str):
            is_named = False
    return model


def _index_by_key(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _list_sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation: `LoadOverride` in `LoadOverride | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _list_sections(part)


def _explain_text(value: object, _: Mapping[str, Any]) -> str:
    if isinstance(value, bool | int | float):
        return f"must be text, but YAML reads {format_value(value)} here; put it in quotes"
    return f"must be text, not {format_value(value)}"


def explain_choice(value: object, choices: Sequence[str]) -> str:
    """Return why a value that is none of the choices is wrong, with the one that was probably meant."""
    near = _find_near_choice(value, choices)
    hint = f"; did you mean {near}?" if near else ""
    return f"{format_value(value)} is not supported (supported: {', '.join(choices)}){hint}"


def _find_near_choice(value: object, choices: Sequence[str]) -> str:
    """Return the choice that was probably meant; empty where none is similar."""
    known = {one.lower(): one for one in choices}
    near = difflib.get_close_matches(str(value).lower(), known, n=1)
    return known[near[0]] if near else ""


def _explain_pattern(value: object, context: Mapping[str, Any]) -> str:
    pattern = context["pattern"]
    return f"{format_value(value)} {PATTERN_MESSAGES.get(pattern, f'does not match {pattern}')}"


def _list_choices(expected: str) -> list[str]:
    """Return the values in pydantic's list of them: `'ALLOW' or 'DENY'`; it has only text in quotes."""
    return re.findall(r"'([^']*)'", expected) or expected.split(" or ")


def _use_template(template: str) -> Callable[[object, Mapping[str, Any]], str]:
    return lambda value, context: template.format(value=format_value(value), **context)


# Errors of a value that no other reader of the same file takes either.
_WRONG_TYPES: Final = frozenset(
    {"bool_type", "float_type", "string_type", "string_unicode", "model_type", "dict_type", "tuple_type"}
)

_WHOLE = _use_template("must be a whole number, not {value}")
_SECTION = _use_template("must be a mapping of keys to values, not {value}")

_SENTENCES: dict[str, Callable[[object, Mapping[str, Any]], str]] = {
    "missing": _use_template("is missing"),
    "value_error": _use_template("{error}"),
    "int_type": _WHOLE,
    "float_type": _use_template("must be a number, not {value}"),
    "bool_type": _use_template("must be true or false, not {value}"),
    "string_type": _explain_text,
    "string_unicode": _use_template("must be text that can be encoded"),
    "string_too_short": _use_template("must not be empty"),
    "string_too_long": _use_template("must have at most {max_length} characters"),
    "string_pattern_mismatch": _explain_pattern,
    "greater_than_equal": _use_template("must be at least {ge}, not {value}"),
    "less_than_equal": _use_template("must be at most {le}, not {value}"),
    "literal_error": lambda value, context: explain_choice(value, _list_choices(context["expected"])),
    "model_type": _SECTION,
    "dict_type": _SECTION,
    "tuple_type": _use_template("must be a list, not {value}"),
    "too_short": _use_template("must have at least {min_length} entry"),
    "too_long": _use_template("must have at most {max_length} entries, not {actual_length}"),
}
