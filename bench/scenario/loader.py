"""Load scenarios: find the file, read it with the command line's overrides, find the files that it names."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from bench.errors import InputError, Problem
from bench.files.folders import manifest_files, shipped
from bench.files.validation import Mistake, mistakes, shown
from bench.files.yaml_source import Document, did_you_mean, dotted, read_documents
from bench.scenario.model import Scenario
from bench.scenario.overrides import Change, Overrides, apply, entries
from bench.scenario.renames import new_key, rename_keys, rename_path, renamed_in, warn_deprecated
from bench.scenario.types import Source, find_locustfile, find_manifests

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


_MANIFESTS = "manifests"
_LOCUSTFILE = "locustfile.py"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Manifest folders by the names that the scenario uses, and the locustfile (a single file, as for a pod)."""

    manifests: Mapping[str, Path]
    locustfile: Path

    def copy_to(self, run: Path) -> None:
        """Copy what is read, and nothing beside it, into `manifests/` and `locustfile.py` of a run's folder."""
        for place, source in self.manifests.items():
            for file in manifest_files(source):
                kept = run / _MANIFESTS / _flat(place) / file.relative_to(source)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, kept)
        shutil.copyfile(self.locustfile, run / _LOCUSTFILE)


def inputs_of(scenario: Scenario, source: str) -> Inputs:
    """What a scenario names, found beside its file or among the shipped. `source` is its name or path."""
    folder = scenario_path(source).parent
    places = {place for configuration in scenario.configurations for place in configuration.manifests}
    return Inputs(
        manifests={place: find_manifests(place, folder) for place in sorted(places)},
        locustfile=find_locustfile(scenario.load.locustfile, folder),
    )


def stored_inputs(scenario: Scenario, run: Path) -> Inputs:
    """The same, from a run's folder."""
    places = {place for configuration in scenario.configurations for place in configuration.manifests}
    return Inputs({place: _stored(place, run) for place in sorted(places)}, run / _LOCUSTFILE)


def lie_apart(inputs: Inputs) -> bool:
    """Whether no folder of manifests lies in another, as it could in the folders of runs of older versions, which read
    a folder without what lies below it."""
    return not any(one.is_relative_to(other) for one, other in permutations(inputs.manifests.values(), 2))


def _stored(place: str, run: Path) -> Path:
    """Find a folder of manifests in a run's folder: runs of older versions have `a/b` as a folder in a folder."""
    flat = run / _MANIFESTS / _flat(place)
    return flat if flat.is_dir() else run / _MANIFESTS / place


def _flat(place: str) -> str:
    """Name a folder so that none lies in another, whose files would count as its own: `istio+policies`."""
    return place.replace("/", "+")  # which no place has in its name
