"""Make temporary folders for this user alone, and find those of commands that were killed.

Each has a locked file from its first moment on. The kernel releases the lock with its process, so that a later command
can tell an abandoned folder from one that is in use. A folder is known by the content of that file, not by its name.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

PREFIX: Final = "meshbench-"
_HELD: Final = "held"
_MARK: Final = "meshbench: a temporary folder\n"
_NAME: Final = re.compile(rf"{PREFIX}(?:[a-z]+-)?[a-z0-9_]{{8}}")
_OLDER: Final = re.compile(rf"{PREFIX}rendered-[a-z0-9_]{{8}}")  # had no locked file in older versions


@contextmanager
def temporary_folder(kind: str = "") -> Iterator[Path]:
    """Make a temporary folder for this user alone, removed when the block is left; `kind` is a word in its name."""
    # Under its own name only with its lock: else another command could take it for abandoned.
    draft = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{kind and f'{kind}-'}"))
    with (draft / _HELD).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_MARK)
        file.flush()
        folder = draft.rename(draft.with_name(draft.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def find_abandoned() -> tuple[Path, ...]:
    """Return the temporary folders of this user's commands that were killed."""
    here = Path(tempfile.gettempdir())
    with suppress(OSError):
        return tuple(sorted(path for path in here.iterdir() if _NAME.fullmatch(path.name) and _is_abandoned(path)))
    return ()


def remove_abandoned() -> tuple[Path, ...]:
    """Remove them; return those that were removed."""
    found = find_abandoned()
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folder for folder in found if not folder.exists())


def _is_abandoned(folder: Path) -> bool:
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
            return False
        with _open_held(folder) as file:
            if file.read(len(_MARK) + 1) not in (_MARK, ""):  # older versions wrote nothing
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return _OLDER.fullmatch(folder.name) is not None and folder.exists()
    except (OSError, UnicodeDecodeError):  # in use, or not ours
        return False
    return True


def _open_held(folder: Path) -> IO[str]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(folder / _HELD, flags), encoding="utf-8")
