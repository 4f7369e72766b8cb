"""Check scenario files, or manifests without an application: `meshbench validate`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bench.errors import InputError, Problem

if TYPE_CHECKING:
    from bench.application.manifests import Manifests
    from bench.files.objects import ManifestReader
    from bench.files.yaml_source import Document
    from bench.meshes.resolved import ResolvedScenario

_TARGETS: Final = ("local", "cluster")
_ANY: Final = "any"
_SHOWN: Final = 5  # obstacles of a target that another one does not have


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a target takes a scenario: it does where there is no obstacle."""

    target: str
    obstacles: tuple[Problem, ...]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
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
    and what single configurations replace of the application. With --mesh, check files or folders of manifests.
    """
    if mesh is not None:
        _validate_manifests(files, mesh, target)
        return
    from bench.meshes.resolved import try_resolve

    tried = [(file, *try_resolve(file)) for file in files]
    problems = [problem for _, _, found in tried for problem in found]
    judged = [(file, one, judge(one)) for file, one, _ in tried if one is not None]
    problems += [problem for _, _, verdicts in judged for problem in list_refusals(verdicts, target)]
    if problems:
        raise InputError(problems)
    for file, one, verdicts in judged:
        click.echo("\n".join(_format_scenario(file, one, verdicts)))


def judge(resolved: "ResolvedScenario") -> tuple[Verdict, ...]:
    """Judge for each target whether it takes a scenario."""
    return (
        Verdict("local", resolved.list_local_obstacles()),
        Verdict("cluster", resolved.list_cluster_obstacles()),
    )


def list_refusals(verdicts: Sequence[Verdict], target: str) -> tuple[Problem, ...]:
    """Return why the required target does not take a scenario; for `any` all obstacles, where none does."""
    if target == _ANY and not all(one.obstacles for one in verdicts):
        return ()
    required = (one for one in verdicts if target in (_ANY, one.target))
    return tuple(dict.fromkeys(problem for one in required for problem in one.obstacles))


def _format_scenario(file: Path, resolved: "ResolvedScenario", verdicts: Iterable[Verdict]) -> Iterator[str]:
    from bench.cli.plan_text import format_own_parts, list_remarks

    yield f"{file}: valid"
    for one in verdicts:
        yield f"  {one.target:<8} {'no' if one.obstacles else 'yes'}"
        yield from _format_problems(one.obstacles)
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
    for path in paths:
        reader = ManifestReader()
        problems: list[Problem] = []
        documents: list[Document] = []
        unread = _list_unread(path)
        for file in _list_files(path, reader):
            try:
                documents += reader.read(file)
            except InputError as error:
                problems += error.problems
        manifests, wrong = sort_documents(documents, {**MESHES[mesh].policies.KINDS, **KINDS})
        problems += wrong
        if target == "local":
            problems += [problem for one in manifests.untranslated for problem in one.problems]
        if problems:
            raise InputError(problems)
        click.echo("\n".join(_format_manifests(path, manifests, reader, unread)))


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
