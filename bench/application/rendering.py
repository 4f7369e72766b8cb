"""Render folders of Kustomize and Helm by the tool on PATH: without plugins and network, in bounded time and size.

A rendered folder has one file, which a run's folder keeps like any other manifest: a resumed run needs no tool.
"""

import atexit
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, Problem
from bench.files.folders import walk_files
from bench.files.yaml_source import KUBECTL, Document, read_documents
from bench.system.processes import run_limited
from bench.system.temporary import temporary_folder

RENDERED: Final = "rendered.yaml"
_TIMEOUT_S: Final = 60.0
_SHOWN_LINES: Final = 3
_SHOWN_CHARACTERS: Final = 400
_FOLDER: Final = "FOLDER"  # in the commands
_NAME: Final = "NAME"
_KUSTOMIZATIONS: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_CHART: Final = "Chart.yaml"
# Keys of a kustomization whose entries are files, folders or, unless refused, repositories.
_BASES: Final = ("resources", "bases", "components")
_PLUGINS: Final = ("generators", "transformers", "validators", "helmCharts", "helmChartInflationGenerator")
_FILES: Final = ("configurations", "crds", "env", "envs", "files", "path", "patchesStrategicMerge", "valuesFile")
_REMOTE: Final = re.compile(r"://|^git::|^git@|github\.com|\.git(?=$|[/?])|\?ref=")  # what kustomize would clone


@dataclass(frozen=True, slots=True)
class Rendered:
    """A folder with manifests. `label` is the command that rendered them; empty where the folder has them itself."""

    folder: Path
    label: str = ""


@dataclass(frozen=True, slots=True)
class Renderer:
    """A tool that renders folders: the files by one of which they are known, its commands, the preferred one first, and
    a check of the folder before it is started."""

    title: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    check: Callable[[Path], Iterator[Problem]]

    def find_command(self, folder: Path) -> tuple[str, ...]:
        """Return the first command whose program is on PATH, as a person would type it. Raises InputError without
        any."""
        known = next((one for one in self.commands if shutil.which(one[0])), None)
        command = self.write_command(known or self.commands[0], folder)
        if known is None:
            programs = " or ".join(one[0] for one in self.commands)
            hint = f"hint: run '{shlex.join(command)} > NEW/{RENDERED}' where it is, and name the folder NEW"
            raise InputError(
                [Problem(str(folder), 0, "", f"is for {self.title}, but no {programs} is on PATH; {hint}")]
            )
        return command

    def write_command(self, command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        """Return a command for a folder."""
        values = {_FOLDER: str(folder), _NAME: _make_release_name(folder)}
        return tuple(values.get(part, part) for part in command)


def _make_release_name(folder: Path) -> str:
    name = "".join(one if one.isascii() and one.isalnum() else "-" for one in folder.resolve().name.lower())
    return name.strip("-")[:53] or "release"


def find_renderer(folder: Path) -> Renderer | None:
    """Return the tool that a folder is for; None where its manifests are applied as they are."""
    return next((one for one in _RENDERERS if any((folder / name).is_file() for name in one.files)), None)


def find_inner(folder: Path) -> Path | None:
    """Return a folder inside of this one that is for a tool; None where there is none."""
    names = {name for one in _RENDERERS for name in one.files}
    return next((path.parent for path in walk_files(folder) if path.name in names and path.parent != folder), None)


@cache
def render(folder: Path) -> Rendered:
    """Render a folder that is for a tool, once in a process; return any other folder as it is.

    Raises InputError where the tool is not on PATH, would use the network or a plugin, fails, does not end within
    60 s, or prints more than 5 MiB.
    """
    renderer = find_renderer(folder)
    if renderer is None:
        return Rendered(folder)
    if problems := list(renderer.check(folder)):
        raise InputError(problems)
    command = renderer.find_command(folder)
    shown = shlex.join(command)
    try:
        text = _run(command)
    except OSError as error:
        raise InputError([Problem(str(folder), 0, "", f"cannot be rendered: {error}; hint: run '{shown}'")]) from None
    if not text.strip():
        raise InputError([Problem(str(folder), 0, "", f"renders to nothing; hint: run '{shown}'")])
    target = _make_folder()
    (target / RENDERED).write_text(text, "utf-8")
    return Rendered(target, " ".join(command[:2]))


def _run(command: tuple[str, ...]) -> str:
    """Return what a tool prints. It has an empty home folder, so neither plugins nor settings. Raises OSError."""
    program = shutil.which(command[0]) or command[0]
    with temporary_folder("home") as folder:
        home = str(folder)
        env = {"HOME": home, "LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath), "TMPDIR": home}
        ran = run_limited([program, *command[1:]], env=env, timeout_s=_TIMEOUT_S, most_bytes=KUBECTL.size)
    if ran.returncode:
        lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
        detail = "; ".join(lines[-_SHOWN_LINES:])[-_SHOWN_CHARACTERS:]
        raise OSError(f"{' '.join(command[:2])} exits with {ran.returncode}: {detail}")
    return ran.stdout


_kept: Final = ExitStack()  # the folders of this process
atexit.register(_kept.close)


def _make_folder() -> Path:
    folder = _kept.enter_context(temporary_folder("rendered")) / "manifests"
    folder.mkdir()
    return folder


def _check_kustomization(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Problem]:
    """Yield what a kustomization, and each that it includes, would fetch or start."""
    file = next((folder / name for name in _KUSTOMIZATIONS if (folder / name).is_file()), None)
    if file is None or folder.resolve() in seen:
        return
    for document in read_documents(file, KUBECTL):
        value = document.value if isinstance(document.value, dict) else {}
        yield from (
            document.problem((key,), "is a plugin of kustomize, which meshbench does not start")
            for key in _PLUGINS
            if value.get(key)
        )
        yield from _find_remote_files(document, value)
        for key in _BASES:
            entries = value.get(key)
            for place, entry in enumerate(entries if isinstance(entries, list) else ()):
                base = folder / str(entry)
                if _is_remote(entry) or not os.path.exists(base):  # noqa: PTH110  # Path.exists raises for long names
                    message = f"{entry} is no file or folder here; what is remote is not fetched"
                    yield document.problem((key, place), message)
                elif base.is_dir():
                    yield from _check_kustomization(base, seen | {folder.resolve()})


def _find_remote_files(document: Document, value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Yield each file of a kustomization, at any depth, that is an address."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        place = (*loc, key)
        names_file = any(part in _FILES for part in place if isinstance(part, str))
        if isinstance(child, str) and names_file and "\n" not in child and "://" in child:
            yield document.problem(place, f"{child} is not fetched; hint: put the file here")
        yield from _find_remote_files(document, child, place)


def _is_remote(entry: object) -> bool:
    return _REMOTE.search(str(entry)) is not None


def _check_chart(folder: Path) -> Iterator[Problem]:
    """Yield each dependency of a chart that is not there: Helm would have to fetch it before."""
    for document in read_documents(folder / _CHART, KUBECTL):
        value = document.value if isinstance(document.value, dict) else {}
        entries = value.get("dependencies")
        for place, entry in enumerate(entries if isinstance(entries, list) else ()):
            name = entry.get("name") if isinstance(entry, dict) else None
            if name and not (folder / "charts" / str(name)).is_dir() and not _has_archive(folder / "charts", str(name)):
                hint = f"hint: run '{shlex.join(('helm', 'dependency', 'build', str(folder)))}'"
                yield document.problem(("dependencies", place), f"{name} is not in charts/; {hint}")


def _has_archive(charts: Path, name: str) -> bool:
    return charts.is_dir() and any(one.name.startswith(f"{name}-") for one in charts.glob("*.tgz"))


_LOCAL: Final = ("--load-restrictor", "LoadRestrictionsRootOnly")
_RENDERERS: Final = (
    Renderer(
        "Kustomize",
        _KUSTOMIZATIONS,
        (("kustomize", "build", *_LOCAL, _FOLDER), ("kubectl", "kustomize", *_LOCAL, _FOLDER)),
        _check_kustomization,
    ),
    Renderer("Helm", (_CHART,), (("helm", "template", _NAME, _FOLDER, "--include-crds"),), _check_chart),
)
