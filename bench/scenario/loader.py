"""Load scenarios: find the file, apply the command line's overrides, validate, and find the files that it names."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bench.application.definition import find_definition_file, read_keys
from bench.application.rendering import render
from bench.application.secrets import withhold_secrets
from bench.errors import InputError, Problem
from bench.files.folders import find_shipped, list_manifest_files
from bench.files.locust_folder import LocustFolder, find_locust_folder, is_code, read_locust_folder
from bench.files.validation import InvalidField, format_value, list_invalid_fields
from bench.files.yaml_source import Document, Loc, format_path, format_suggestion, read_documents
from bench.scenario.design import SettledScenario, settle_design
from bench.scenario.model import STORED_APPLICATION, Scenario
from bench.scenario.overrides import Change, Overrides, apply_overrides, list_configurations
from bench.scenario.renames import find_new_key, find_renamed, rename_keys, rename_path, warn_deprecated
from bench.scenario.types import Source, find_locustfile, find_manifests, name_locustfile
from bench.system.private_files import Content, PrivateFolder, read_index, require_private
from bench.system.redaction import redact, register_secret

NO_OVERRIDES: Final = Overrides()


def list_shipped_scenarios() -> tuple[str, ...]:
    """Return the names of the shipped scenarios."""
    return tuple(sorted(path.stem for path in find_shipped("scenarios").glob("*.yaml")))


def find_scenario(name_or_path: str) -> Path:
    """Return the file of a shipped scenario (`smoke`), or the path as given (`./mine.yaml`, `mine.yaml`).

    Raises InputError for an unknown name.
    """
    path = Path(name_or_path)
    if "/" in name_or_path or path.suffix:
        return path
    names = list_shipped_scenarios()
    if name_or_path not in names:
        raise InputError(
            f"unknown scenario {format_value(name_or_path)}{format_suggestion(name_or_path, names)}"
            f" (shipped: {', '.join(names)}; give your own as a path, such as ./{path.name or 'mine'}.yaml)"
        )
    return find_shipped("scenarios") / f"{name_or_path}.yaml"


def load_scenario(name_or_path: str, overrides: Overrides = NO_OVERRIDES) -> Scenario:
    """Load a shipped scenario or a file with its design; see `settle_scenario`."""
    return settle_scenario(name_or_path, overrides).scenario


def settle_scenario(name_or_path: str, overrides: Overrides = NO_OVERRIDES) -> SettledScenario:
    """Load a shipped scenario or a file, and choose its design; overrides are applied before all checks.

    Raises InputError with every problem: of the file as `file:line: path`, of an override under its option.
    """
    path = find_scenario(name_or_path)
    document = include_application(_rename_old_keys(_read_document(path)), path.parent)
    changed = apply_overrides(overrides, document.value)
    names = (entry.get("name") for entry in list_configurations(changed.data))
    source = Source(path.parent, tuple(name for name in names if isinstance(name, str)))
    try:
        scenario = Scenario.model_validate(_name_locustfile(changed.data), context=source, by_alias=True, by_name=False)
    except ValidationError as error:
        invalid = tuple(_locate_problem(one, document, changed.changes) for one in list_invalid_fields(error, Scenario))
        raise InputError((*changed.problems, *invalid)) from None
    if changed.problems:
        raise InputError(changed.problems)
    register_secret_texts(scenario)
    return settle_design(scenario, {change.path for change in changed.changes})


def _read_document(path: Path) -> Document:
    documents = read_documents(path)
    if len(documents) != 1:
        count = f"{len(documents)} YAML documents" if documents else "nothing"
        raise InputError([Problem(str(path), 0, "", f"contains {count}; a scenario is one YAML document")])
    return documents[0]


def _rename_old_keys(document: Document) -> Document:
    """Rename old keys, with a warning each. Raises InputError for a key that has both names."""
    old = find_renamed(document.lines)
    both = [loc for loc in old if rename_path(loc) in document.lines]
    if both:
        message = "is the old name of {}, which is given, too; leave it out"
        raise InputError([document.problem(loc, message.format(find_new_key(loc))) for loc in both])
    for loc in old:
        warn_deprecated(f"{document.file}:{document.line_of(loc)}: {format_path(loc)}", format_path(rename_path(loc)))
    lines = {rename_path(loc): line for loc, line in document.lines.items()}
    for loc in old:  # a section that only the new name has
        lines.setdefault(rename_path(loc)[:-1], document.line_of(loc))
    return Document(document.file, rename_keys(document.value), lines)


def include_application(document: Document, folder: Path) -> Document:
    """Return the scenario with the keys of the `application.yaml` that it names, or that is beside it or in the folder
    of the application's name. Keys that the scenario gives win. Raises InputError with file and line."""
    given = document.value.get("application", {}) if isinstance(document.value, dict) else None
    try:
        file = find_definition_file(given, folder)
    except ValueError as error:
        raise InputError([document.problem(("application",), str(error))]) from None
    if file is None:
        return document
    keys = read_keys(file)
    manifests = _find_own_manifests(keys, file.parent, folder)
    own = given if isinstance(given, dict) else {}
    value = {**document.value, "application": {**keys, "manifests": manifests, **own}}
    return Document(document.file, value, document.lines)


def _name_locustfile(data: Any) -> Any:
    """Return the data of a scenario with the Locust file of its application, if it names none: that of its name."""
    load, application = (data.get(key, {}) if isinstance(data, dict) else None for key in ("load", "application"))
    if not isinstance(load, dict) or not isinstance(application, dict) or "locustfile" in load:
        return data
    name = application.get("name")
    return {**data, "load": {**load, "locustfile": name}} if isinstance(name, str) else data


def _find_own_manifests(keys: Mapping[str, Any], beside: Path, folder: Path) -> str:
    """Return the folder of manifests of an application.yaml in the folder `beside`, relative to that of the scenario:
    the given one, that of its name, or else the file's own."""
    near = beside / str(keys.get("manifests", keys.get("name")))
    found = near if "manifests" in keys or near.is_dir() or beside == folder else beside
    return found.relative_to(folder).as_posix()


def _locate_problem(error: InvalidField, document: Document, changes: tuple[Change, ...]) -> Problem:
    """Locate an invalid field where the user wrote it: in the last override that gave it, else in the file."""
    path = tuple(map(str, error.loc))
    for change in reversed(changes):
        is_given = path[: len(change.path)] == change.path
        is_parent = path and change.path[: len(path)] == path and error.loc not in document.lines
        if is_given or is_parent:
            return change.problem(error.message)
    return document.problem(error.loc, error.message)


def list_secret_texts(scenario: Scenario) -> tuple[str, ...]:
    """Return each text of a scenario that a record has redacted, since it looks like a secret."""
    texts = _list_texts(scenario.model_dump(mode="json", by_alias=True))
    return tuple(text for key, text in texts if _is_redacted(text) or _is_redacted(json.dumps({key: text}, indent=2)))


def register_secret_texts(scenario: Scenario) -> None:
    """Register what only its key shows to be a secret: elsewhere the text alone would not be recognised."""
    for text in list_secret_texts(scenario):
        if not _is_redacted(text):
            register_secret(text)


def _is_redacted(text: str) -> bool:
    return redact(text) != text


def _list_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield all texts in nested mappings and lists with their last keys."""
    if isinstance(value, str):
        yield key, value
    for name, part in value.items() if isinstance(value, dict) else ():
        yield from _list_texts(part, str(name))
    for part in value if isinstance(value, list) else ():
        yield from _list_texts(part, key)


def locate_keys(found: Iterable[tuple[Loc, str]], source: str | None) -> tuple[Problem, ...]:
    """Return messages about keys of a scenario as problems; `source` is its name or path, None for that of a run."""
    if source is None:
        return tuple(Problem("", 0, format_path(loc), message) for loc, message in found)
    document = _read_document(find_scenario(source))
    return tuple(document.problem(loc, message) for loc, message in found)


def locate_in_scenario(problems: Iterable[Problem], source: str) -> tuple[Problem, ...]:
    """Give problems that have only a key of a scenario the line of it; `source` is the scenario's name or path."""
    document = _read_document(find_scenario(source))
    return tuple(
        document.problem(tuple(one.path.split(".")), one.message) if one.path and not one.file else one
        for one in problems
    )


_MANIFESTS = "manifests"
_LOCUST = "locust"
_LOCUSTFILE = "locustfile.py"  # of runs whose Locust file was a single file


@dataclass(frozen=True, slots=True)
class Inputs:
    """Manifest folders by their names in the scenario, and the Locust file with what travels with it. `application` is
    the folder of the application's own manifests; None for one that ships. `labels` say of folders that a tool has
    rendered where they come from."""

    manifests: Mapping[str, Path]
    locust: LocustFolder
    application: Path | None = None
    labels: Mapping[Path, str] = field(default_factory=dict)

    @property
    def locustfile(self) -> Path:
        return self.locust.locustfile

    def copy_to(self, run: Path) -> None:
        """Copy the manifests, and no other files, into `manifests/` and `application/` of a run's folder, and what
        Locust needs into `locust/`, with its modes.

        The run's folder can be published: a folder with Secrets, with data beside the Locust file, or with what looks
        like a secret is kept complete in the private one, and here without these.
        """
        run.mkdir(parents=True, exist_ok=True)
        private = PrivateFolder.of_run(run, run.name)
        for name, source in self._list_folders().items():
            files = {file.relative_to(source).as_posix(): file for file in list_manifest_files(source)}
            published = {one: withhold_secrets(file) for one, file in files.items()}
            if any(content is not None for content in published.values()):
                private.keep(Content(_escape(f"{name}/{one}"), file.read_bytes()) for one, file in files.items())
            for one, file in files.items():
                _publish(run / name / one, file, published[one])
        self._copy_locust(run, private)

    def _list_folders(self) -> dict[str, Path]:
        """Return the folders of manifests by their paths in a run's folder."""
        folders = {f"{_MANIFESTS}/{_flatten_name(name)}": source for name, source in self.manifests.items()}
        own = {} if self.application is None else {STORED_APPLICATION: self.application}
        return {**folders, **own}

    def _copy_locust(self, run: Path, private: PrivateFolder) -> None:
        files = [Content(name, file.read_bytes(), self.locust.mode_of(name)) for name, file in self.locust.files]
        code = {one.name: _redact_code(one.data) for one in files if is_code(one.name)}
        if any(code.get(one.name) != one.data for one in files):
            private.keep(one._replace(name=f"{_LOCUST}/{one.name}") for one in files)
        for one in files:
            if one.name in code:
                copy = run / _LOCUST / one.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(code[one.name])
                copy.chmod(one.mode)


def _escape(name: str) -> str:
    """Escape the bytes of a name that are not UTF-8, which an index cannot have."""
    return name.encode("utf-8", "backslashreplace").decode()


def _redact_code(data: bytes) -> bytes:
    return redact(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _publish(copy: Path, file: Path, content: bytes | None) -> None:
    """Write a file into a run's folder: as it is, or with another content."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(file.read_bytes() if content is None else content)


def find_inputs(scenario: Scenario, source: str) -> Inputs:
    """Find the files that a scenario names, in the folder of its file or among the shipped. `source` is its name or
    path. Folders for a tool such as Kustomize are rendered. Raises InputError where what belongs to the Locust file
    cannot travel with it, and as `render`."""
    file = find_scenario(source)
    manifests = {name: find_manifests(name, file.parent) for name in sorted(_list_manifests(scenario))}
    application = file.parent / own if (own := scenario.application.manifests) is not None else None
    others = (file, *manifests.values(), *scenario.list_secret_files(), *([application] if application else []))
    try:
        locust = find_locust_folder(find_locustfile(scenario.load.locustfile, file.parent), others)
    except ValueError as error:
        raise InputError([_read_document(file).problem(("load", "locustfile"), str(error))]) from None
    rendered = {name: render(found) for name, found in manifests.items()}
    own_rendered = render(application) if application else None
    every = {**rendered, **({str(scenario.application.manifests): own_rendered} if own_rendered else {})}
    return Inputs(
        manifests={name: one.folder for name, one in rendered.items()},
        locust=locust,
        application=own_rendered.folder if own_rendered else None,
        labels={one.folder: f"{name} ({one.label})" for name, one in every.items() if one.label},
    )


def find_stored_inputs(scenario: Scenario, run: Path) -> Inputs:
    """Find the same files in a run's folder, or complete in its private one. Raises InputError where private files are
    missing or changed."""
    folder, index = require_private(run) or (run, None)

    def find(name: str, stored: Path) -> Path:
        return folder / name if index and index.select(name) else stored

    own = None if scenario.application.manifests is None else find(STORED_APPLICATION, run / STORED_APPLICATION)
    manifests = {
        name: find(f"{_MANIFESTS}/{_flatten_name(name)}", _find_stored_folder(name, run))
        for name in sorted(_list_manifests(scenario))
    }
    modes = {name: one.mode for name, one in index.select(_LOCUST).items()} if index else {}
    return Inputs(manifests, _find_stored_locust(scenario, folder if modes else run, modes), own)


def _list_manifests(scenario: Scenario) -> set[str]:
    return {name for configuration in scenario.configurations for name in configuration.manifests}


def read_stored_checksums(scenario: Scenario, run: Path) -> Iterator[tuple[str, str]]:
    """Yield name and checksum of each stored manifest, of the Locust file, whatever its name, and of what travels with
    it. Private files have the hash of the index, so that they may be missing."""
    index = read_index(run)
    private = {name: one.scrypt for name, one in index.files.items()} if index else {}

    def checksum(file: Path) -> str:
        name = file.relative_to(run).as_posix()
        return private.get(name) or hashlib.sha256(file.read_bytes()).hexdigest()

    for name in sorted(_list_manifests(scenario)):
        folder = _find_stored_folder(name, run)
        for file in list_manifest_files(folder):
            yield f"{_MANIFESTS}/{name}/{file.relative_to(folder).as_posix()}", checksum(file)
    locust = _find_stored_locust(scenario, run)
    if locust.locustfile.is_file():
        yield _LOCUSTFILE, checksum(locust.locustfile)
    names = {f"{_LOCUST}/{name}": checksum(file) for name, file in locust.files[1:]}
    data = {name: digest for name, digest in private.items() if name.startswith(f"{_LOCUST}/") and not is_code(name)}
    yield from {**names, **data}.items()


def _find_stored_locust(scenario: Scenario, run: Path, modes: Mapping[str, int] | None = None) -> LocustFolder:
    """Find the Locust file in a run's folder: runs of older versions have it alone."""
    stored = run / _LOCUST / name_locustfile(scenario.load.locustfile)
    return read_locust_folder(stored, modes) if stored.is_file() else LocustFolder(run / _LOCUSTFILE)


def _find_stored_folder(name: str, run: Path) -> Path:
    """Find a folder of manifests in a run's folder: runs of older versions have `a/b` as a folder in a folder."""
    flat = run / _MANIFESTS / _flatten_name(name)
    return flat if flat.is_dir() else run / _MANIFESTS / name


def _flatten_name(name: str) -> str:
    """Name a folder so that none is inside another, whose files would count as its own: `mesh+policies`."""
    return name.replace("/", "+")  # which no name contains
