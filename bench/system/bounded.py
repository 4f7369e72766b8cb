"""Read files of runs whose content is not known: regular files alone, which no reader waits for, and no more than a
limit."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a record or a journal: that of a run with ten thousand trials has a fifth of it."""


def read_bounded(path: Path, *, most_bytes: int = MOST_BYTES, follow: bool = True) -> bytes:
    """Return the content of a regular file. Raises OSError, also for a pipe, a device and a file that is larger, and
    for a symbolic link unless it may `follow` it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    with open(descriptor, "rb") as file:  # noqa: PTH123  # of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes // 1024**2} MiB", str(path))
    return content
