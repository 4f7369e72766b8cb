"""Hold the host lock: one run at a time on a machine, since two would measure each other.

The lock is a file that names its holder. The kernel releases it when the holder is killed, but the name stays: a killed
run has to be cleaned up before the next one starts.
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
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the host lock, or held it when it was killed. `run` is the path of the run's folder;
    `run_id` is empty in lock files of older versions."""

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


def find_lock_file() -> Path:
    """Return this user's lock file; it is not in TMPDIR, which may differ between shells.

    Tests of meshbench name another one in `PATH_VARIABLE`, to run in parallel.
    """
    if chosen := os.environ.get(PATH_VARIABLE):
        return Path(chosen)
    return Path(f"/tmp/meshbench-{os.getuid()}.lock")  # noqa: S108  # opened without following links, owner checked


def read_holder() -> tuple[Holder | None, bool]:
    """Read the holder in the lock file, and whether it is alive."""
    if not find_lock_file().exists():
        return None, False
    with _open_file() as file:
        return _parse_holder(file), not _try_lock(file)


@contextmanager
def hold_host_lock(run: Path, run_id: str) -> Iterator[None]:
    """Hold the host lock for a run. Raises LockedError where another run holds it, or was killed with it."""
    with _open_file() as file:
        if not _try_lock(file):
            holder = _parse_holder(file)
            other = f"{holder.run} (process {holder.pid}, for {holder.age_s:.0f} s)" if holder else "another run"
            raise LockedError(f"this machine is in use by {other}; wait for it to end")
        dead = _parse_holder(file)
        if dead is not None:
            raise LockedError(
                f"the run {dead.run} (process {dead.pid}, started {dead.age_s:.0f} s ago) was killed before it could "
                "clean up; hint: run 'meshbench cleanup', then 'meshbench run --resume' or a new run"
            )
        _write_holder(file, Holder(str(run.resolve()), os.getpid(), time.time(), run_id))
        try:
            yield
        finally:
            _clear_file(file)


def forget_holder(run_id: str) -> None:
    """Remove a killed run's name from the lock file, after its cleanup."""
    with _open_file() as file:
        holder = _parse_holder(file)
        if holder is not None and holder.name == run_id and _try_lock(file):
            _clear_file(file)


def _open_file() -> IO[str]:
    try:
        descriptor = os.open(find_lock_file(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockedError(
            f"{find_lock_file()} cannot be opened: {error.strerror}; remove it or ask its owner"
        ) from error
    facts = os.fstat(descriptor)
    if facts.st_uid != os.getuid() or not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise LockedError(f"{find_lock_file()} belongs to another user; remove it or ask its owner")
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse_holder(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        text = file.read(_LONGEST)
        return _make_holder(**json.loads(text)) if text else None
    except (ValueError, TypeError, RecursionError) as error:
        raise LockedError(
            f"{find_lock_file()} does not name a run; check that none is running, and remove it"
        ) from error


def _make_holder(*, run: object, pid: object, since: object, run_id: object = "") -> Holder:
    """Return the holder of these fields. Raises TypeError where one has another type."""
    if isinstance(run, str) and type(pid) is int and isinstance(since, int | float) and isinstance(run_id, str):
        return Holder(run, pid, since, run_id)
    raise TypeError("a field of the holder has another type")


def _write_holder(file: IO[str], holder: Holder) -> None:
    _clear_file(file)
    file.write(json.dumps(asdict(holder)))
    file.flush()
    os.fsync(file.fileno())


def _clear_file(file: IO[str]) -> None:
    file.seek(0)
    file.truncate()
    file.flush()
