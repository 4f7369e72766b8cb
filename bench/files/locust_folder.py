"""Find what travels with a Locust file: the files of its folder that it may import or read."""

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.files.folders import SUFFIXES, is_definition
from bench.units import format_bytes, format_counted

MOST_FILES: Final = 200
MOST_BYTES: Final = 10 * 1024 * 1024
_LARGEST_NAMED: Final = 5
_HEAD_BYTES: Final = 64 * 1024

# Locust would read its own settings from these files of its working directory.
_SETTINGS: Final = ("locust.conf", "pyproject.toml")
_COMPILED: Final = (".pyc", ".pyo")
_RECORD: Final = "run.json"  # in the folder of each run
_SCENARIO: Final = re.compile(rb"^configurations:", re.MULTILINE), re.compile(rb"^title:", re.MULTILINE)
_NIGHT: Final = b'"ln_reference_p95_ms"'  # in each line of a gate's history


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder beside a Locust file that does not travel, by its relative path, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class LocustFolder:
    """A Locust file and what travels with it. `helpers` are the other files, as sorted paths relative to its folder;
    `left_out` is what the folder has in addition. `modes` are the permissions of files that are kept with others."""

    locustfile: Path
    helpers: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    modes: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """Every file that travels: its path relative to the folder, and where it is now. The Locust file is first."""
        folder = self.locustfile.parent
        return ((self.locustfile.name, self.locustfile), *((name, folder / name) for name in self.helpers))

    def mode_of(self, name: str) -> int:
        """Return the permissions that a file travels with."""
        known = self.modes.get(name)
        return stat.S_IMODE(dict(self.files)[name].stat().st_mode) if known is None else known

    def copy_to(self, folder: Path) -> Path:
        """Copy every file with its mode into a folder, which is created; return the copy of the Locust file."""
        for name, source in self.files:
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(self.mode_of(name))
        return folder / self.locustfile.name


def find_locust_folder(locustfile: Path, excluded: Collection[Path] = ()) -> LocustFolder:
    """Find what travels with a Locust file. `excluded` are files and folders that have another purpose.

    Raises ValueError for a symbolic link that leaves the folder, for a file that cannot be read or whose name is not
    printable, and for too many or too large files.
    """
    root = locustfile.parent
    others = frozenset(Path(os.path.realpath(path)) for path in excluded)
    found = [one for one in _walk(root, root, others) if one != locustfile.name]
    helpers = tuple(one for one in found if isinstance(one, str))
    left_out = tuple(one for one in found if isinstance(one, LeftOut))
    folder = LocustFolder(locustfile, helpers, left_out)
    _check_size(folder)
    return folder


def read_locust_folder(locustfile: Path, modes: Mapping[str, int] | None = None) -> LocustFolder:
    """Return a Locust file and every other file of its folder, which has nothing else: the one of a run."""
    root = locustfile.parent
    helpers = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path != locustfile)
    return LocustFolder(locustfile, tuple(sorted(helpers)), modes=modes or {})


def is_code(name: str) -> bool:
    """Check whether a file beside a Locust file is code; any other is data, which may be private."""
    return name.endswith(".py")


def _walk(folder: Path, root: Path, others: Collection[Path]) -> Iterator[str | LeftOut]:
    """Yield the relative path of each file that travels, and what is left out, in sorted order."""
    try:
        paths = sorted(folder.iterdir())
    except PermissionError:
        raise ValueError(f"{_escape(folder.name)}, beside the Locust file, cannot be listed; change its mode") from None
    for path in paths:
        name = path.relative_to(root).as_posix()
        if why := _explain_exclusion(path, others):
            yield LeftOut(_escape(name), why)
        elif path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            raise ValueError(f"{_escape(name)} leads out of the Locust file's folder through a symbolic link; copy it")
        elif path.is_dir() and path.is_symlink():
            yield LeftOut(_escape(name), "links to folders are not followed")
        elif path.is_dir():
            yield from _walk(path, root, others)
        elif not path.is_file():
            yield LeftOut(_escape(name), "no regular file")
        else:
            yield _check_file(name, path)


def _check_file(name: str, path: Path) -> str:
    if not name.isprintable():
        raise ValueError(f"the name {_escape(name)} of a file beside the Locust file is not printable; rename it")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{name}, beside the Locust file, cannot be read; change its mode, or move it elsewhere")
    return name


def _explain_exclusion(path: Path, others: Collection[Path]) -> str:
    """Return why a file or folder does not belong to the Locust file; empty where it may."""
    if path.name.startswith("."):
        return "hidden"
    if path.name == "__pycache__" or path.suffix in _COMPILED:
        return "compiled"
    why = _explain_folder(path) if path.is_dir() else _explain_file(path) if path.is_file() else ""
    return why or ("named elsewhere in the scenario" if Path(os.path.realpath(path)) in others else "")


def _explain_folder(path: Path) -> str:
    if (path / "pyvenv.cfg").exists():
        return "virtual environment"
    if (path / _RECORD).exists() or next(path.glob(f"*/{_RECORD}"), None) is not None:
        return "results of runs"
    return ""


def _explain_file(path: Path) -> str:
    """Return what a file is for that Locust, or meshbench, reads for itself: it changes without the load."""
    if path.name in _SETTINGS:
        return "settings of Locust, which the scenario has"
    if is_definition(path):
        return "application"
    if path.suffix.lower() in SUFFIXES and all(key.search(_read_head(path)) for key in _SCENARIO):
        return "scenario"
    if path.suffix == ".jsonl" and _NIGHT in _read_head(path):
        return "history of a gate"
    return ""


def _read_head(path: Path) -> bytes:
    """Return the first bytes of a file; empty where it cannot be read, which is reported later."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _check_size(folder: LocustFolder) -> None:
    """Raise ValueError where the files are too many or too large together."""
    sizes = sorted(((path.stat().st_size, name) for name, path in folder.files), reverse=True)
    total = sum(size for size, _ in sizes)
    if len(sizes) <= MOST_FILES and total <= MOST_BYTES:
        return
    largest = ", ".join(f"{name} ({format_bytes(size)})" for size, name in sizes[:_LARGEST_NAMED])
    raise ValueError(
        f"the folder of the Locust file travels with it, and has {format_counted(len(sizes), 'file')} of"
        f" {format_bytes(total)} (at most {MOST_FILES} files of {format_bytes(MOST_BYTES)}); the largest: {largest};"
        " hint: give the Locust file a folder of its own, with the files that it needs"
    )


def _escape(name: str) -> str:
    """Escape a file name for terminals: control characters, and bytes that are not UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)
