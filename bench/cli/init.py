"""Write a first scenario for a folder of manifests: `meshbench init`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import GivenPath
from bench.errors import InputError, Problem, StoreError

if TYPE_CHECKING:
    from bench.files.objects import ManifestReader
    from bench.files.yaml_source import Document


@click.command()
@click.argument("folder", type=GivenPath())
@click.option("--mesh", help="The mesh to compare with none. Default: the first that meshbench knows.")
@click.option("--locustfile", type=GivenPath(), help="Your Locust file, in or below the same folder.")
def init(folder: Path, mesh: str | None, locustfile: Path | None) -> None:
    """Write a scenario and an application.yaml for the manifests in FOLDER.

    They are written beside FOLDER, with comments on what was found and what is to be decided. No file is overwritten.
    """
    from bench.application.rendering import find_renderer, render
    from bench.files.folders import DEFINITION
    from bench.files.objects import ManifestReader
    from bench.files.validation import explain_choice
    from bench.meshes import MESHES
    from bench.scenario.starter import (
        GATEWAY_API,
        describe_found,
        format_application,
        format_locustfile,
        format_scenario,
        inspect_objects,
        make_name,
    )

    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; hint: give the folder of the application's manifests")
    mesh = mesh or next(iter(MESHES))
    if mesh not in MESHES:
        raise InputError(f"--mesh: {explain_choice(mesh, tuple(MESHES))}")
    beside = folder.resolve().parent
    name = make_name(folder.resolve().name)
    rendered = render(folder)
    reader = ManifestReader({rendered.folder: f"{folder} ({rendered.label})"} if rendered.label else None)
    objects = _read_objects(rendered.folder, reader)
    found = inspect_objects(objects, [GATEWAY_API, *(one.domain for one in MESHES.values())])
    load = _locate_locustfile(locustfile, beside, name)
    scenario = beside / f"{name}.yaml"
    application = (beside if find_renderer(folder) else folder.resolve()) / DEFINITION
    own = folder.resolve().name if application.parent == beside else ""
    texts = {
        application: format_application(name, found, manifests=own),
        scenario: format_scenario(
            name,
            application.relative_to(beside).as_posix(),
            load.relative_to(beside).as_posix(),
            mesh,
            folder=str(folder),
        ),
    }
    if locustfile is None and not load.exists():
        texts[load] = format_locustfile(name, found.ready_path)
    _write_new(texts)
    click.echo("\n".join([*describe_found(found), *map(str, reader.omissions)]))
    click.echo("\n".join(f"wrote {path}" for path in texts))
    click.echo(f"next: {shlex.join(('meshbench', 'validate', str(scenario), '--target', 'cluster'))}")


def _write_new(texts: Mapping[Path, str]) -> None:
    """Write files that do not exist. Raises InputError, before anything is written, for those that do."""
    if there := [str(path) for path in texts if path.exists()]:
        raise InputError(f"{' and '.join(there)}: exists already, and is not overwritten; hint: move it away")
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _read_objects(folder: Path, reader: "ManifestReader") -> "tuple[Document, ...]":
    from bench.files.folders import list_manifest_files

    problems: list[Problem] = []
    objects: list[Document] = []
    for file in list_manifest_files(folder):
        try:
            objects += reader.read(file)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not objects:
        raise InputError(f"{folder}: has no manifests")
    return tuple(objects)


def _locate_locustfile(given: Path | None, beside: Path, name: str) -> Path:
    """Return the given Locust file, which the scenario can name only where it is beside or below it; else where one is
    written."""
    if given is None:
        return beside / "load" / f"{name}.py"
    path = given.resolve()
    if not path.is_file():
        raise InputError(f"{given}: no such file")
    if not path.is_relative_to(beside):
        raise InputError(f"{given}: is not beside or below the scenario in {beside}; hint: copy it there")
    return path
