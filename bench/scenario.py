"""Scenarios: find the file, read it with the command line's overrides, and say all that is wrong at once."""

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from bench.errors import InputError, Problem
from bench.fields import Source, find_locustfile, find_manifests, shown
from bench.mistakes import Mistake, mistakes
from bench.overrides import Change, Overrides, apply, entries
from bench.renames import new_key, rename_keys, rename_path, renamed_in, warn_deprecated
from bench.settings import Application, Configuration, Load, LoadOverride, Pair, Scenario
from bench.shipped import shipped
from bench.yamlfile import Document, did_you_mean, dotted, read_documents

__all__ = [
    "NO_OVERRIDES",
    "Application",
    "Configuration",
    "Load",
    "LoadOverride",
    "Overrides",
    "Pair",
    "Scenario",
    "find_locustfile",
    "find_manifests",
    "load_scenario",
    "scenario_path",
    "shipped_scenarios",
    "validate_file",
]

NO_OVERRIDES: Final = Overrides()


def shipped_scenarios() -> tuple[str, ...]:
    """The names of the scenarios that ship."""
    return tuple(sorted(path.stem for path in shipped("scenarios").glob("*.yaml")))


def scenario_path(name_or_path: str) -> Path:
    """The file of a shipped scenario (`istio-policies`), or the path as given (`./mine.yaml`, `mine.yaml`).

    Raises InputError where there is no such scenario or file.
    """
    path = Path(name_or_path)
    if "/" in name_or_path or path.suffix:
        return path
    names = shipped_scenarios()
    if name_or_path not in names:
        raise InputError(
            f"no shipped scenario is called {shown(name_or_path)}{did_you_mean(name_or_path, names)}"
            f" (shipped: {', '.join(names)}; give your own as a path, such as ./{path.name or 'mine'}.yaml)"
        )
    return shipped("scenarios") / f"{name_or_path}.yaml"


def load_scenario(name_or_path: str, overrides: Overrides = NO_OVERRIDES) -> Scenario:
    """A shipped scenario or a file, with the overrides applied before all checks.

    Raises InputError with every problem: of the file as `file:line: path`, of an override under its flag.
    """
    return _read(scenario_path(name_or_path), overrides)


def validate_file(path: Path) -> tuple[Problem, ...]:
    """All that is wrong with one scenario file; nothing, where it is right."""
    try:
        _read(path, NO_OVERRIDES)
    except InputError as error:
        return error.problems
    return ()


def _read(path: Path, overrides: Overrides) -> Scenario:
    document = _rename_keys(_only_document(path))
    changed = apply(overrides, document.value)
    names = (entry.get("name") for entry in entries(changed.data))
    source = Source(path.parent, tuple(name for name in names if isinstance(name, str)))
    try:
        scenario = Scenario.model_validate(changed.data, context=source, by_alias=True, by_name=False)
    except ValidationError as error:
        wrong = tuple(_problem(mistake, document, changed.changes) for mistake in mistakes(error, Scenario))
        raise InputError((*changed.problems, *wrong)) from None
    if changed.problems:
        raise InputError(changed.problems)
    return scenario.shortened() if scenario.quick else scenario


def _only_document(path: Path) -> Document:
    documents = read_documents(path)
    if len(documents) != 1:
        count = f"{len(documents)} YAML documents" if documents else "nothing"
        raise InputError([Problem(str(path), 0, "", f"holds {count}; a scenario is one YAML document")])
    return documents[0]


def _rename_keys(document: Document) -> Document:
    """Give renamed keys their new names, with a warning each. Raises InputError for a key that has both names."""
    old = renamed_in(document.lines)
    both = [loc for loc in old if rename_path(loc) in document.lines]
    if both:
        message = "is the old name of {}, which is there, too; leave it out"
        raise InputError([document.problem(loc, message.format(new_key(loc))) for loc in both])
    for loc in old:
        warn_deprecated(f"{document.file}:{document.line_of(loc)}: {dotted(loc)}", dotted(rename_path(loc)))
    lines = {rename_path(loc): line for loc, line in document.lines.items()}
    return Document(document.file, rename_keys(document.value), lines)


def _problem(mistake: Mistake, document: Document, changes: tuple[Change, ...]) -> Problem:
    """The mistake where the user made it: in the last override that gave the field, else in the file."""
    place = tuple(map(str, mistake.loc))
    for change in reversed(changes):
        given = place[: len(change.place)] == change.place
        made_on_its_way = place and change.place[: len(place)] == place and mistake.loc not in document.lines
        if given or made_on_its_way:
            return change.problem(mistake.message)
    return document.problem(mistake.loc, mistake.message)
