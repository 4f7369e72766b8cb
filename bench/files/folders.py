"""Find files: those that ship with meshbench, and those of a folder of manifests that are read or ignored."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

Kind = Literal["scenarios", "manifests", "locustfiles"]

_PACKAGE = Path(__file__).resolve().parents[1]


def find_shipped(kind: Kind) -> Path:
    """Return the folder of the shipped scenarios, manifests or locustfiles."""
    installed = _PACKAGE / "shipped_files" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


SUFFIXES: Final = (".yaml", ".yml", ".json")
DEFINITION: Final = "application.yaml"
_NAME: Final = re.compile(r"^[\"']?name[\"']?:", re.MULTILINE)  # a key that no object of Kubernetes has
# Files that a folder of manifests may contain in addition, and that are ignored.
_LICENCE: Final = r"licen[cs]e([-_](mit|apache|bsd|l?gpl|mpl|isc))?([-_]v?[0-9]+(\.[0-9]+)*)?"
_ABOUT: Final = re.compile(rf"(readme|copying|notice|{_LICENCE})(\.(md|txt|rst|adoc|html?))?", re.IGNORECASE)
_TEXT_SUFFIXES: Final = (".adoc", ".md", ".rst", ".txt")


def list_manifest_files(folder: Path) -> list[Path]:
    """List the manifests of a folder by path: files with one of `SUFFIXES`, in upper or lower case, at any depth."""
    return sorted(path for path in walk_files(folder) if _is_manifest(path))


def list_unread_files(folder: Path) -> list[Path]:
    """List the files that would not be applied, by path: neither manifests nor text about them."""
    return sorted(
        path for path in walk_files(folder) if not (_is_manifest(path) or is_definition(path) or _is_about(path))
    )


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, without hidden files and folders; nothing where it is not a folder.

    A link to a folder is not followed, since it could be a loop: it is yielded as a file, and so is a folder that may
    not be listed.
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
            yield from walk_files(path)
        else:
            yield path


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_definition(path)


def is_definition(path: Path) -> bool:
    """Check whether a file defines an application; then it is no manifest, and is never applied."""
    if path.name != DEFINITION:
        return False
    try:
        return _NAME.search(path.read_text("utf-8", errors="replace")) is not None
    except OSError:
        return False  # whoever reads it reports why it cannot be read


def _is_about(path: Path) -> bool:
    """Check whether a file is text about the manifests, and not one of them under another name (`deny.yaml.txt`)."""
    is_text = path.suffix.lower() in _TEXT_SUFFIXES and not any(one in path.stem.lower() for one in SUFFIXES)
    return is_text or _ABOUT.fullmatch(path.name) is not None
