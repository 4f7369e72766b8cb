"""Find files: those that ship with meshbench, and those of a folder of manifests that are read or left out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

Kind = Literal["scenarios", "manifests", "locustfiles"]

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(kind: Kind) -> Path:
    """The folder of the shipped scenarios, manifests or locustfiles."""
    installed = _PACKAGE / "shipped_files" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


SUFFIXES: Final = (".yaml", ".yml", ".json")
# What may lie beside manifests without being one.
_LICENCE: Final = r"licen[cs]e([-_](mit|apache|bsd|l?gpl|mpl|isc))?([-_]v?[0-9]+(\.[0-9]+)*)?"
_ABOUT: Final = re.compile(rf"(readme|copying|notice|{_LICENCE})(\.(md|txt|rst|adoc|html?))?", re.IGNORECASE)


def manifest_files(folder: Path) -> list[Path]:
    """List the files that are read: those with one of `SUFFIXES` in any case of letters, at any depth, by path."""
    return sorted(path for path in files_below(folder) if _is_manifest(path))


def unread_files(folder: Path) -> list[Path]:
    """List the files that nothing would be made of, by path: neither manifests nor about them (README, licences)."""
    return sorted(path for path in files_below(folder) if not _is_manifest(path) and not _is_about(path))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, without hidden files and folders; nothing where it is no folder.

    A link to a folder is not followed, since it could lead back: it is yielded as if it were a file, and so is a folder
    that may not be listed.
    """
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except PermissionError:
        yield folder
        return
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from files_below(path)
        else:
            yield path


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _is_about(path: Path) -> bool:
    return _ABOUT.fullmatch(path.name) is not None
