"""Keep what a run's folder must not show in a private folder beside it: `results/.private/RUN`.

A run's folder can be published as it is. It has an index of its private files, `private.json`: their names, sizes,
modes and hashes. The hash is slow to compute, so that a short password cannot be guessed from it. A resumed run needs
the files, a report does not.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import InputError, StoreError
from bench.system.bounded import read_bounded
from bench.system.open_folder import open_folder
from bench.units import format_first

PRIVATE: Final = ".private"
INDEX: Final = "private.json"
_MOST_INDEX_BYTES: Final = 4 * 1024 * 1024
_MOST_NAMED: Final = 5
_IGNORE: Final = ".gitignore"
_IGNORED: Final = "# Private files of runs: never add them to a repository, nor publish them.\n*\n"
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,254}")


class Content(NamedTuple):
    """A file to keep: its path relative to the run's folder or to the trial's, its content, and its permissions."""

    name: str
    data: bytes
    mode: int = _FILE_MODE


def _check_name(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or PurePosixPath(*parts).as_posix() != name:
        raise ValueError("is no path inside of the folder")
    return name


class PrivateFile(BaseModel):
    """A file in an index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scrypt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]
    mode: Annotated[int, Field(ge=0, le=0o777)] = _FILE_MODE


class PrivateIndex(BaseModel):
    """`private.json`: the private files of a run's folder, or of a trial's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: Annotated[str, Field(pattern=f"^{_RUN_ID.pattern}$")]
    files: dict[Annotated[str, AfterValidator(_check_name)], PrivateFile] = {}

    def select(self, folder: str) -> dict[str, PrivateFile]:
        """Return the files below a folder, by their names relative to it."""
        start = f"{folder}/"
        return {name.removeprefix(start): one for name, one in self.files.items() if name.startswith(start)}


@dataclass(frozen=True, slots=True)
class PrivateFolder:
    """The private folder of a run, or the part of it for a trial; `public` has the index of its files."""

    public: Path
    root: Path
    run_id: str
    part: str = ""

    @classmethod
    def of_run(cls, run: Path, run_id: str) -> "PrivateFolder":
        """Return the private folder of the run with this folder and this id."""
        return cls(run, find_private_root(run) / run_id, run_id)

    @classmethod
    def of_trial(cls, draft: Path, run_id: str) -> "PrivateFolder":
        """Return the part for a trial of the run with this id."""
        run = draft.parents[1]
        return cls.of_run(run, run_id).inside(draft.relative_to(run).as_posix())

    @property
    def path(self) -> Path:
        return self.root / self.part

    def inside(self, part: str) -> "PrivateFolder":
        """Return the part for a folder of the run: that of a trial."""
        return PrivateFolder(self.public / part, self.root, self.run_id, part)

    def create(self, name: str) -> Path:
        """Create an empty file that a process writes; `keep` adds it to the index when it is complete."""
        return _write_file(self.root, (PurePosixPath(self.part) / _check_name(name)).parts, b"")

    def keep(self, files: Iterable[Content]) -> None:
        """Write files for this user alone, and add them to the index. Nothing is made where there is none.

        Raises OSError, and StoreError where another user, or a link, has the place of a folder.
        """
        kept = {}
        for one in files:
            _write_file(self.root, (PurePosixPath(self.part) / _check_name(one.name)).parts, one.data)
            kept[one.name] = PrivateFile(scrypt=hash_slowly(one.data), size_bytes=len(one.data), mode=one.mode)
        if kept:
            self._add_to_index(kept)

    def _add_to_index(self, kept: Mapping[str, PrivateFile]) -> None:
        known = read_index(self.public)
        index = PrivateIndex(run_id=self.run_id, files={**(known.files if known else {}), **kept})
        text = json.dumps(index.model_dump(mode="json"), indent=2, sort_keys=True)
        _replace_file(self.public / INDEX, f"{text}\n".encode(), mode=0o644)

    def rename(self, part: str, new: str) -> None:
        """Rename the part for a folder, as the folder itself is renamed; without such a part nothing happens."""
        if (self.root / part).is_dir():
            (self.root / part).rename(self.root / new)


def find_private_root(run: Path) -> Path:
    """Return the folder of all private folders beside a run's folder, or beside what a link to it leads to."""
    return Path(os.path.realpath(run)).parent / PRIVATE


def hash_slowly(data: bytes) -> str:
    """Hash a file's content with scrypt, in hexadecimal digits; it takes some 50 ms whatever the size."""
    digest = hashlib.sha256(data).digest()
    return hashlib.scrypt(digest, salt=b"meshbench private file", n=2**14, r=8, p=1, dklen=32).hex()


def read_index(public: Path) -> PrivateIndex | None:
    """Read the index of a run's folder or of a trial's; None without one. Raises StoreError where it is damaged."""
    file = public / INDEX
    try:
        data = read_bounded(file, most_bytes=_MOST_INDEX_BYTES, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        return PrivateIndex.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{file}: is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def require_private(run: Path) -> tuple[Path, PrivateIndex] | None:
    """Return the private folder of a run with its index, after a check of every file; None where the run has no private
    files. Raises InputError with all files that are missing or changed."""
    index = read_index(run)
    if index is None or not index.files:
        return None
    folder = PrivateFolder.of_run(run, index.run_id).path
    if missing := [name for name, one in index.files.items() if _read_unchanged(folder / name, one) is None]:
        raise _make_missing_error(run, folder, missing)
    return folder, index


def read_private(run: Path, name: str) -> bytes | None:
    """Return the content of a private file of a run; None where the run has none of this name. Raises InputError where
    it is missing or changed."""
    index = read_index(run)
    if index is None or name not in index.files:
        return None
    folder = PrivateFolder.of_run(run, index.run_id).path
    if (data := _read_unchanged(folder / name, index.files[name])) is None:
        raise _make_missing_error(run, folder, [name])
    return data


def _make_missing_error(run: Path, folder: Path, missing: Sequence[str]) -> InputError:
    return InputError(
        f"{run}: cannot be resumed: private files that it needs are missing or changed in {folder}:"
        f" {format_first(missing, _MOST_NAMED)};"
        " hint: copy that folder from where the run was started, or start a new run"
    )


def list_private_runs(output: Path) -> tuple[Path, ...]:
    """Return the private folders of this user's runs whose folders are, or were, below `output`."""
    root = output / PRIVATE
    if not _is_own_folder(root):
        return ()
    return tuple(sorted(path for path in root.iterdir() if _is_own_folder(path)))


def remove_private(folder: Path) -> None:
    """Remove a private folder, and the one above it where it was the last run's. Raises OSError."""
    shutil.rmtree(folder)
    above = folder.parent
    if above.name == PRIVATE and {path.name for path in above.iterdir()} <= {_IGNORE}:
        shutil.rmtree(above)


def _is_own_folder(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _read_unchanged(file: Path, known: PrivateFile) -> bytes | None:
    """Return the content of a file; None where it is missing, or is not what the index has."""
    try:
        data = read_bounded(file, most_bytes=known.size_bytes, follow=False)
    except OSError:
        return None
    return data if len(data) == known.size_bytes and hash_slowly(data) == known.scrypt else None


def _write_file(root: Path, parts: tuple[str, ...], data: bytes) -> Path:
    """Write a private file below `root`, and return its path; folders are made where they are missing."""
    for folder in (root.parent, *(root.joinpath(*parts[:depth]) for depth in range(len(parts)))):
        _make_own_folder(folder)
    if not (ignore := root.parent / _IGNORE).exists():
        _replace_file(ignore, _IGNORED.encode(), mode=_FILE_MODE)
    file = root.joinpath(*parts)
    _replace_file(file, data, mode=_FILE_MODE)
    return file


def _make_own_folder(folder: Path) -> None:
    """Make a folder that only this user can enter. Raises StoreError where it is a link, or another user's."""
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    if not _is_own_folder(folder):
        raise StoreError(f"{folder}: is no folder of this user; hint: remove it, or choose another --output")
    if stat.S_IMODE(folder.lstat().st_mode) != _FOLDER_MODE:
        folder.chmod(_FOLDER_MODE)


def _replace_file(file: Path, data: bytes, *, mode: int) -> None:
    with open_folder(file.parent) as folder:
        folder.write(file.name, data, mode=mode)
