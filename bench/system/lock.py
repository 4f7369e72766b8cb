"""One run at a time on a machine: two would measure each other.

The lock is a file that names its holder. The kernel frees it when the holder dies, but the name stays: a run that
was killed has to be cleaned up before the next one starts.
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from bench.errors import LockedError

PATH_VARIABLE: Final = "MESHBENCH_HOST_LOCK"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock, or held it when it died. `run` is the path of the run's folder, `run_id` the run's id, which
    lock files of older versions lack."""

    run: str
    pid: int
    since: float
    run_id: str = ""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.run_id or Path(self.run).name

    @property
    def age_s(self) -> float:
        return max(0.0, time.time() - self.since)


def lock_path() -> Path:
    """Return the machine's lock file for this user; not below TMPDIR, which may differ from shell to shell.

    Tests of meshbench itself name another one in `PATH_VARIABLE`, to run beside each other.
    """
    if chosen := os.environ.get(PATH_VARIABLE):
        return Path(chosen)
    return Path(f"/tmp/meshbench-{os.getuid()}.lock")  # noqa: S108  # opened without following links, owner checked


def read_holder() -> tuple[Holder | None, bool]:
    """The holder that the lock file names, and whether it is alive."""
    if not lock_path().exists():
        return None, False
    with _opened() as file:
        return _named(file), not _try_lock(file)


@contextmanager
def machine_lock(run: Path, run_id: str) -> Iterator[None]:
    """Holds the machine for a run. Raises LockedError where another run has it, or died with it."""
    with _opened() as file:
        if not _try_lock(file):
            holder = _named(file)
            told = f"{holder.run} (process {holder.pid}, for {holder.age_s:.0f} s)" if holder else "another run"
            raise LockedError(f"this machine is being measured by {told}; wait for it to end")
        dead = _named(file)
        if dead is not None:
            raise LockedError(
                f"the run {dead.run} (process {dead.pid}, begun {dead.age_s:.0f} s ago) was killed before it could "
                "clean up; run `meshbench cleanup` first, then `meshbench run --resume` or a new run"
            )
        _name(file, Holder(str(run.resolve()), os.getpid(), time.time(), run_id))
        try:
            yield
        finally:
            _clear(file)


def forget_holder(run_id: str) -> None:
    """Takes a dead run's name out of the lock file, after it has been cleaned up."""
    with _opened() as file:
        holder = _named(file)
        if holder is not None and holder.name == run_id and _try_lock(file):
            _clear(file)


def _opened() -> IO[str]:
    try:
        descriptor = os.open(lock_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockedError(f"{lock_path()} cannot be opened: {error.strerror}; remove it or ask its owner") from error
    facts = os.fstat(descriptor)
    if facts.st_uid != os.getuid() or not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise LockedError(f"{lock_path()} belongs to somebody else; remove it or ask its owner")
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(file: IO[str]) -> Holder | None:
    file.seek(0)
    text = file.read()
    try:
        return Holder(**json.loads(text)) if text else None
    except (ValueError, TypeError) as error:
        raise LockedError(f"{lock_path()} does not name a run; remove it, after a look whether one is there") from error


def _name(file: IO[str], holder: Holder) -> None:
    _clear(file)
    file.write(json.dumps(asdict(holder)))
    file.flush()
    os.fsync(file.fileno())


def _clear(file: IO[str]) -> None:
    file.seek(0)
    file.truncate()
    file.flush()
