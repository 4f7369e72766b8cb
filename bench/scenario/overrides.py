"""Apply the command line's changes to the data of a scenario file, before anything is checked.

So an override passes the same checks as the file, and its problems are reported under its option.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import InputError, Problem
from bench.files.validation import format_value
from bench.files.yaml_source import parse_documents
from bench.scenario.renames import rename_path, warn_deprecated

# A whole window as the 2022 study had it, for its own statistic.
_STUDY: Final = {"design": "sequential", "load.duration": "120s"}
_FLAGS: Final = {
    "users": "load.users",
    "duration": "load.duration",
    "warmup": "load.warmup",
    "rate": "load.rate",
    "repeats": "repeats",
    "design": "design",
    "seed": "seed",
    "quick": "quick",
}


@dataclass(frozen=True, slots=True)
class Overrides:
    """`--set PATH=VALUE`, any number of times, and the options of frequently changed fields.

    Values are what the user typed (`50`, `60s`, `50/s`). An option overrides a `--set` of the same field.
    """

    sets: tuple[str, ...] = ()
    users: str | int | None = None
    repeats: str | int | None = None
    duration: str | None = None
    warmup: str | None = None
    rate: str | None = None
    seed: str | int | None = None
    quick: bool = False
    design: str | None = None
    study: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One override: its option as typed, the field's path, and its value."""

    flag: str
    path: tuple[str, ...]
    value: Any

    def problem(self, message: str) -> Problem:
        """Return `message` as a problem of this override."""
        return Problem(self.flag, 0, "", message)


@dataclass(frozen=True, slots=True)
class ChangedData:
    """A scenario's data with the overrides applied, and the problems of those that could not be."""

    data: Any
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()


def apply_overrides(overrides: Overrides, data: Any) -> ChangedData:
    """Apply all overrides to a copy of a scenario file's data."""
    changes: list[Change] = []
    problems: list[Problem] = []
    for flag, path, text in _list_overrides(overrides):
        try:
            old = tuple(path.split("."))
            change = Change(flag, tuple(map(str, rename_path(old))), _parse_value(text))
            if change.path != old:
                warn_deprecated(flag, ".".join(change.path))
            data = _replace_value(data, change.path, change.value, above="the scenario")
            changes.append(change)
        except ValueError as error:
            problems.append(Problem(flag, 0, "", str(error)))
    problems += [*_find_ineffective(data, changes), *_find_contradictions(overrides)]
    return ChangedData(data, tuple(changes), tuple(problems))


def _list_overrides(overrides: Overrides) -> Iterator[tuple[str, str, str]]:
    """Yield option, path and value of each override, in the order of their application."""
    for text in overrides.sets:
        path, equals, value = text.partition("=")
        yield f"--set {path}", path, value if equals else ""
    for path, value in _STUDY.items() if overrides.study else ():
        yield "--study", path, value
    for name, path in _FLAGS.items():
        value = getattr(overrides, name)
        if value is not None and value is not False:
            yield f"--{name}", path, str(value)


def _parse_value(text: str) -> Any:
    """Parse a YAML scalar, or a list of scalars. Raises ValueError for anything else."""
    try:
        documents = parse_documents(text, file="value")
    except InputError as error:
        raise ValueError("; ".join(problem.message for problem in error.problems)) from None
    if not documents:
        raise ValueError("has no value; write PATH=VALUE, such as load.users=50")
    if len(documents) > 1 or not _is_plain(documents[0].value):
        raise ValueError(f"must be one value or a list of values, not {format_value(text)}")
    return documents[0].value


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return not any(isinstance(part, dict | list) for part in parts)


def _replace_value(data: Any, path: tuple[str, ...], value: Any, *, above: str) -> Any:
    """Copy `data` with another value at `path`; `above` is the name of `data` for messages."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, list):
        indices = {str(index): index for index in range(len(data))}
        if head not in indices:
            raise ValueError(f"{above} has {len(data)} entries, counted from 0, and no {format_value(head)}")
        below = _replace_value(data[indices[head]], rest, value, above=head)
        return [*data[: indices[head]], below, *data[indices[head] + 1 :]]
    if not isinstance(data, dict | None):
        raise ValueError(f"{above} is {format_value(data)}, which has no keys")
    known = data or {}
    return {**known, head: _replace_value(known.get(head), rest, value, above=head)}


def _find_contradictions(overrides: Overrides) -> Iterator[Problem]:
    """Yield a problem for each option that `--study` excludes."""
    given = {"--quick": overrides.quick, "--design": overrides.design, "--duration": overrides.duration}
    for flag in (flag for flag, value in given.items() if value and overrides.study):
        yield Problem(flag, 0, "", "cannot be given with --study, which is sequential with windows of 120s")


def _find_ineffective(data: Any, changes: list[Change]) -> Iterator[Problem]:
    """Yield a problem for each option without effect on configurations that have their own value of the key."""
    for change in changes:
        key = change.path[-1]
        own = tuple(_list_names_with_own(data, key)) if change.flag in {"--users", "--rate"} else ()
        if own:
            yield change.problem(
                f"has no effect on {', '.join(own)}, which have their own {key}; leave {change.flag} out,"
                f" or use --set configurations.N.load.{key}={change.value} (N counts from 0)"
            )


def _list_names_with_own(data: Any, key: str) -> Iterator[str]:
    for entry in list_configurations(data):
        if isinstance(entry.get("load"), dict) and key in entry["load"]:
            yield str(entry.get("name"))


def list_configurations(data: Any) -> tuple[dict[str, Any], ...]:
    """Return the configurations in a scenario's unchecked data, none where it has no list of them."""
    found = data.get("configurations") if isinstance(data, dict) else None
    return tuple(entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
