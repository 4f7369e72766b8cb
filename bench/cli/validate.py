"""Check scenario files, or manifests without an application: `meshbench validate`."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bench.cli.options import GivenPath
from bench.errors import InputError, Problem

if TYPE_CHECKING:
    from bench.application.manifests import Manifests
    from bench.files.objects import ManifestReader
    from bench.files.yaml_source import Document
    from bench.meshes.resolved import ResolvedScenario

Obstacles = Mapping[str, tuple[Problem, ...]]

_TARGETS: Final = ("local", "cluster")
_ANY: Final = "any"
_SHOWN: Final = 5  # obstacles of a target that another one does not have


@click.command()
@click.argument("files", nargs=-1, required=True, type=GivenPath())
@click.option(
    "--target",
    type=click.Choice([*_TARGETS, _ANY]),
    default=_ANY,
    show_default=True,
    help="Where a run has to be possible: on this machine, on a cluster, or on one of them.",
)
@click.option("--mesh", metavar="MESH", help="FILES are manifests of this mesh, without a scenario.")
def validate(*, files: tuple[Path, ...], target: str, mesh: str | None) -> None:
    """Check scenario files and their manifests; print every error as file:line: path: message.

    For a valid file, print which target takes it, and why the other one does not; what of the manifests is not applied;
    what single configurations replace of the application; and what belongs to the Locust file, which Locust loads once
    without any load. With --mesh, check files or folders of manifests.
    """
    if mesh is not None:
        _validate_manifests(files, mesh, target)
        return
    from bench.cli.options import check_load
    from bench.cli.plan_text import format_locust
    from bench.meshes.resolved import name_source, try_resolve

    tried = [(file, *try_resolve(file)) for file in files]
    problems = [problem for _, _, found in tried for problem in found]
    judged = [(file, one, find_obstacles(one)) for file, one, _ in tried if one is not None]
    problems += [problem for _, _, obstacles in judged for problem in list_refusals(obstacles, target)]
    inspected = {}
    for file, one, _ in judged:
        try:
            inspected[file] = check_load(one, name_source(file))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    for file, one, obstacles in judged:
        click.echo("\n".join((*_format_scenario(file, one, obstacles), *format_locust(one, inspected[file]))))


def find_obstacles(resolved: "ResolvedScenario") -> Obstacles:
    """Return by target why it does not take a scenario; a target without an obstacle does."""
    return {"local": resolved.list_local_obstacles(), "cluster": resolved.list_cluster_obstacles()}


def list_refusals(obstacles: Obstacles, target: str) -> tuple[Problem, ...]:
    """Return why the required target does not take a scenario; for `any` all obstacles, where no target takes it."""
    if target != _ANY:
        return obstacles[target]
    return tuple(dict.fromkeys(chain(*obstacles.values()))) if all(obstacles.values()) else ()


def _format_scenario(file: Path, resolved: "ResolvedScenario", obstacles: Obstacles) -> Iterator[str]:
    from bench.cli.plan_text import format_own_parts, list_remarks

    yield f"{file}: valid"
    for target, problems in obstacles.items():
        yield f"  {target:<8} {'no' if problems else 'yes'}"
        yield from _format_problems(problems)
    yield from (f"warning: {text}" for text in list_remarks(resolved))
    yield from format_own_parts(resolved)


def _format_problems(problems: Sequence[Problem]) -> Iterator[str]:
    yield from (f"    {problem}" for problem in problems[:_SHOWN])
    if len(problems) > _SHOWN:
        yield f"    and {len(problems) - _SHOWN} more; --target local lists all"


def _validate_manifests(paths: Sequence[Path], mesh: str, target: str) -> None:
    from bench.application.manifests import KINDS, sort_documents
    from bench.files.objects import ManifestReader
    from bench.files.validation import explain_choice
    from bench.meshes import MESHES

    if mesh not in MESHES:
        raise InputError(f"--mesh: {explain_choice(mesh, tuple(MESHES))}")
    policies = MESHES[mesh].policies
    problems: list[Problem] = []
    lines: list[str] = []
    for path in paths:
        reader, unread = ManifestReader(), _list_unread(path)
        documents: list[Document] = []
        for file in _list_files(path, reader):
            try:
                documents += map(policies.convert, reader.read(file))
            except InputError as error:
                problems += error.problems
        manifests, wrong = sort_documents(documents, {**policies.KINDS, **KINDS})
        problems += wrong
        if target == "local":
            problems += [problem for one in manifests.untranslated for problem in one.problems]
        lines += _format_manifests(path, manifests, reader, unread)
    if problems:
        raise InputError(problems)
    click.echo("\n".join(lines))


def _list_files(path: Path, reader: "ManifestReader") -> list[Path]:
    """Return the manifests of a folder, rendered where it is for a tool, or the file itself. Raises InputError."""
    from bench.application.rendering import render
    from bench.files.folders import list_manifest_files

    if path.is_file():
        return [path]
    rendered = render(path)
    if rendered.label:
        reader.label(rendered.folder, f"{path} ({rendered.label})")
    files = list_manifest_files(rendered.folder)
    if not files:
        raise InputError(f"{path}: {'has no manifests' if path.is_dir() else 'no such file or folder'}")
    return files


def _list_unread(path: Path) -> list[Path]:
    from bench.application.rendering import find_renderer
    from bench.files.folders import list_unread_files

    return [] if path.is_file() or find_renderer(path) else list_unread_files(path)


def _format_manifests(
    path: Path, manifests: "Manifests", reader: "ManifestReader", unread: Sequence[Path]
) -> Iterator[str]:
    """Yield what the models understand, what needs a cluster and why, and what is not applied."""
    from bench.units import format_counted

    every = len(manifests.sources) + len(manifests.untranslated)
    need = len(manifests.untranslated)
    yield f"{path}: valid, {format_counted(every, 'object')}"
    yield f"  local    {len(manifests.sources)}{f', {need} more on a cluster only' * bool(need)}"
    yield from _format_problems([problem for one in manifests.untranslated for problem in one.problems])
    yield f"  cluster  {every}"
    yield from (f"warning: {one}" for one in reader.omissions)
    yield from (f"warning: {one} would not be applied" for one in unread)
