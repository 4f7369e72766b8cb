"""Write files into a folder whose content came from elsewhere: no symbolic link in it is followed.

The folder is held open, so that what takes its place meanwhile does not matter.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_FOLDER: int = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: int = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """A folder that is held open; `path` is its name for people."""

    path: Path
    descriptor: int

    @contextmanager
    def enter(self, name: str) -> Iterator["OpenFolder"]:
        """Open a folder inside of it, which is made where it is missing. Raises OSError, also for a link."""
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.descriptor)
        path = self.path / name
        try:
            descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, "is no folder, or a symbolic link", str(path)) from None
        with _closing(path, descriptor) as folder:
            yield folder

    def write(self, name: str, data: bytes, *, mode: int = 0o666) -> Path:
        """Write a file atomically: under another name, synced, then renamed. A link of its name is replaced, and what
        it leads to stays. Raises OSError."""
        draft = f".{name}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, _NEW_FILE, mode, dir_fd=self.descriptor)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  # of a descriptor
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(draft, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError:
            os.unlink(draft, dir_fd=self.descriptor)
            raise
        return self.path / name


@contextmanager
def open_folder(path: Path) -> Iterator[OpenFolder]:
    """Open a folder that the user chose, by links where its path has some. Raises OSError."""
    with _closing(path, os.open(path, _FOLDER)) as folder:
        yield folder


@contextmanager
def _closing(path: Path, descriptor: int) -> Iterator[OpenFolder]:
    try:
        yield OpenFolder(path, descriptor)
    finally:
        os.close(descriptor)
