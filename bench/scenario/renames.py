"""Translate old names of scenario keys and command-line options, with a warning that has the new name.

A rename is a line in one of the tables. A stored run keeps the old key and is read without a warning.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

SCENARIO_KEYS: Final[dict[str, str]] = {"again": "rerun_invalid"}
"""Path of the old key in a scenario (`load.pause`, `configurations.*.tier`) -> new name of its last part, or a path of
two names. A key that is a condition of the gate's history keeps its old name in the hash
(`bench.analysis.night.read_conditions`). A service's version was a key of `application` by the service's name."""
OPTIONS: Final[dict[str, str]] = {}
"""Old option -> new one, of every command: `--old` -> `--new`."""

_Loc = tuple[str | int, ...]


def find_new_key(loc: _Loc) -> str | None:
    """Look up the new name of the key at `loc`, a path of old or new names; None where it was not renamed."""
    from bench.scenario.versions import list_versioned_services

    path = ".".join("*" if isinstance(part, int) or part.isdigit() else part for part in loc)
    section, _, key = path.partition(".")
    if section == "application" and key in list_versioned_services():
        return f"versions.{key}"
    return SCENARIO_KEYS.get(path)


def rename_path(loc: _Loc) -> _Loc:
    """Translate every renamed key on a path."""
    renamed = ((find_new_key(loc[: place + 1]), part) for place, part in enumerate(loc))
    return tuple(part for new, old in renamed for part in (new.split(".") if new else (old,)))


def rename_keys(data: Any, loc: _Loc = ()) -> Any:
    """Copy a scenario's data with new names for old keys; a key that has both keeps the value of the new one."""
    if isinstance(data, list | tuple):
        return type(data)(rename_keys(value, (*loc, place)) for place, value in enumerate(data))
    if not isinstance(data, dict):
        return data
    made: dict[Any, Any] = {}
    for key, value in data.items():
        new = find_new_key((*loc, key)) if isinstance(key, str) else None
        section, _, name = (new or "").rpartition(".")
        if section:
            kept = data.get(section, {})
            made[section] = {**made.get(section, {}), name: value, **kept} if isinstance(kept, dict) else kept
        elif new is None or new not in data:
            made.setdefault(new or key, rename_keys(value, (*loc, key)))
    return made


def find_renamed(locs: Iterable[_Loc]) -> tuple[_Loc, ...]:
    """Filter the paths whose last key has an old name."""
    return tuple(loc for loc in locs if loc and find_new_key(loc))


def rename_options(arguments: Sequence[str]) -> list[str]:
    """Translate the old options of a command line, each with a warning; what follows `--` stays as it is."""
    made: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*made, *arguments[place:]]
        name, equals, value = argument.partition("=")
        new = OPTIONS.get(name)
        if new is not None:
            warn_deprecated(name, new)
        made.append(f"{new or name}{equals}{value}")
    return made


@cache
def warn_deprecated(what: str, new: str) -> None:
    """Print one warning to standard error, once in a process."""
    sys.stderr.write(f"warning: {what}: deprecated, use {new}\n")
