"""The folder in which credentials lie while a command uses them; also the one of a command that was killed goes.

Whose owner lives, its lock on a file in the folder tells, which the kernel takes back with the process.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "meshbench-"
_HELD: Final = "held"


@contextmanager
def credentials_folder() -> Iterator[Path]:
    """A temporary folder for us alone, which goes when the block is left. Those of dead commands go first."""
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / f"{_HELD}.new").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / f"{_HELD}.new").rename(folder / _HELD)  # under that name only with its lock
            yield folder


def _remove_abandoned() -> None:
    for held in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_HELD}"):
        with suppress(FileNotFoundError):  # its owner, or another command, was quicker
            if held.parent.lstat().st_uid == os.getuid():
                _remove_if_abandoned(held)


def _remove_if_abandoned(held: Path) -> None:
    with held.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(held.parent, ignore_errors=True)
