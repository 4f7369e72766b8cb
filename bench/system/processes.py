"""Start and end processes: the only module that does.

Every process is written into the journal before it is started, carries the run's id in its environment, leads a
session of its own (so that Ctrl-C reaches it in our order) and dies with us (Linux's parent-death signal).
"""

import ctypes
import os
import resource
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bench.errors import DeployError, LeftoversError, MeshbenchError, note_leftovers
from bench.system.cancellation import POLL_S, Watch
from bench.system.journal import Journal

Role = Literal["service", "sidecar", "generator", "control-plane", "node"]


RUN_ID_VARIABLE = "MESHBENCH_RUN_ID"
MARK = "meshbench-run-id"  # the file in a working folder that says whose it is
STOP_TIMEOUT_S = 10.0
_SAME_START_S = 0.02
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """A process of ours. `log` holds its standard output and error."""

    name: str
    role: Role
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def log_tail(self, *, lines: int = 12) -> str:
        """The last lines of its log, for error messages."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def ended(self) -> str:
        """How it ended, in words: `exit code 1` or `SIGKILL`."""
        code = self.popen.poll()
        if code is None:
            return "still running"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def last_words(self) -> str:
        """How it ended and what it said last, on one line: `exit code 1, saying: ...`."""
        said = self.log_tail(lines=3).strip().replace("\n", " / ")
        return f"{self.ended()}, saying: {said}" if said else f"{self.ended()}, without a word"

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S, watch: Watch | None = None) -> int:
        """SIGTERM, then SIGKILL when it takes longer than `timeout_s`, or as soon as `watch` is impatient; then SIGKILL
        to what it leaves of its session. Returns the exit code."""
        self.popen.terminate()
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline and not (watch and watch.impatient):
            time.sleep(POLL_S)
        if self.running:
            self.popen.kill()
        exit_code = self.popen.wait()
        _end_session(self.pid)
        return exit_code


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts processes for one run."""

    run_id: str
    journal: Journal
    watch: Watch

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        role: Role,
        log: Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Starts `argv` with its output in `log`; raises DeployError where the program cannot be run.

        `env` changes the environment that the process inherits; None takes a variable out. `cwd` is where it works.
        """
        changed = {**os.environ, **(env or {}), RUN_ID_VARIABLE: self.run_id}
        with self.journal.step("start-process", name=name, role=role) as outcome, log.open("ab") as output:
            try:
                popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={variable: value for variable, value in changed.items() if value is not None},
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509  # one prctl call; this program has one thread
                )
            except OSError as error:
                raise DeployError(f"{name}: cannot start {argv[0]}: {error.strerror}") from error
            outcome.update(pid=popen.pid, created=_created(popen.pid))
        return Process(name, role, popen, log)

    @contextmanager
    def group(self) -> Iterator[list[Process]]:
        """A list of processes that are ended, last started first, when the block is left."""
        processes: list[Process] = []
        try:
            yield processes
        finally:
            self.stop(processes)

    def stop(self, processes: Sequence[Process]) -> None:
        """Ends all of them at once, and waits for every one; only then for the journal, which may fail."""
        for process in reversed(processes):
            if process.running:
                process.popen.terminate()
        codes = [(process, process.stop(watch=self.watch)) for process in reversed(processes)]
        for process, code in codes:
            self.journal.write("ended-process", name=process.name, pid=process.pid, exit_code=code)

    @contextmanager
    def no_strays(self) -> Iterator[None]:
        """Leave no process of the run, however the block is left. Raises LeftoversError, or adds it to the failure."""
        try:
            yield
        except BaseException as error:
            try:
                self.end_strays()
            except MeshbenchError as left:
                note_leftovers(error, left)
            raise
        else:
            self.end_strays()

    def end_strays(self) -> None:
        """End what carries the run's id although nothing of the run is up. Raises LeftoversError for what stays."""
        ended = end_strays(self.run_id, {})
        if left := find_strays(self.run_id, {}):
            raise LeftoversError(f"processes {', '.join(map(str, left))} of the run {self.run_id} cannot be ended")
        if ended:
            self.journal.write("ended-strays", pids=ended)

    @contextmanager
    def working_folder(self) -> Iterator[Path]:
        """A private folder, removed at the end. Below the system's folder for temporary files, since Unix sockets
        need short paths; never in the results, since it holds keys."""
        path = Path(tempfile.gettempdir()) / f"meshbench-{secrets.token_hex(4)}"
        self.journal.write("make-folder", path=str(path))
        path.mkdir(mode=0o700)
        try:
            (path / MARK).write_text(self.run_id, "utf-8")
            yield path
        finally:
            _remove(path)
            self.journal.write("removed-folder", path=str(path))


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LeftoversError(
            f"{folder} holds keys and cannot be removed: {error.strerror}; remove it by hand"
        ) from error


def raise_file_limit(needed: int) -> None:
    """Lets this process and its children have `needed` open files, as far as the hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))


def run_tool(argv: Sequence[str], *, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
    """Runs a short tool to its end and returns its output; never raises for its exit code.

    Raises OSError when it cannot be started, or does not end in time.
    """
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error


def this_process() -> dict[str, float]:
    """What tells this process from every other one, also from a later one with its number."""
    return {"pid": os.getpid(), "created": _created(os.getpid())}


def is_running(pid: int, created: float) -> bool:
    """Whether the process that `this_process` described is still there."""
    try:
        process = psutil.Process(pid)
        return _is_alive(process) and abs(process.create_time() - created) < _SAME_START_S
    except psutil.Error:
        return False


def _end_session(leader: int) -> None:
    """Kill what an ended process leaves of its session: forks of Locust go on without it, beside the next load."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (members := _session(leader)) and time.monotonic() < deadline:
        for member in members:
            with suppress(psutil.Error):  # it ended, or has become another user's
                member.kill()
        time.sleep(POLL_S)


def _session(leader: int) -> list[psutil.Process]:
    """List the processes of the session that a process led which has ended.

    The kernel gives the leader's number to no other process as long as the session has a member; where there is one of
    that number, it is a later one, and so is its session.
    """
    if psutil.pid_exists(leader):
        return []
    return [member for pid in psutil.pids() if _session_of(pid) == leader and (member := _living(pid)) is not None]


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _living(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if _is_alive(process) else None


def marked_processes() -> dict[str, tuple[int, ...]]:
    """Find the processes that carry a run's id in their environment: run ids with pids."""
    found: dict[str, tuple[int, ...]] = {}
    for process in _others():
        if run_id := _mark_of(process):
            found[run_id] = (*found.get(run_id, ()), process.pid)
    return found


def _others() -> Iterator[psutil.Process]:
    """Every process but this one and those that it was started from: their environment is the user's, who may have a
    variable of the same name."""
    ours = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return (process for process in psutil.process_iter() if process.pid not in ours)


def _mark_of(process: psutil.Process) -> str:
    """Read a process's run id; empty for one that is dead, of another user, or of no run."""
    try:
        return process.environ().get(RUN_ID_VARIABLE, "") if _is_alive(process) else ""
    except psutil.Error:
        return ""


def end_strays(run_id: str, recorded: Mapping[int, float]) -> tuple[int, ...]:
    """Ends what a dead run left: processes whose pid and start time are in its journal, or that carry its id.

    `recorded` maps pids to start times (seconds since the epoch). Returns the pids of those that were ended.
    """
    found: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while strays := [process for process in _others() if _is_of(process, run_id, recorded)]:
        found |= {process.pid: process for process in strays}  # one may have forked another one meanwhile
        for process in strays:
            with suppress(psutil.Error):
                process.kill()
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return tuple(pid for pid, process in found.items() if not _is_alive(process))


def find_strays(run_id: str, recorded: Mapping[int, float]) -> tuple[int, ...]:
    """The pids that `end_strays` would end."""
    return tuple(process.pid for process in _others() if _is_of(process, run_id, recorded))


def _is_alive(process: psutil.Process) -> bool:
    """Not one that is dead and waits for a parent that never asks."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_of(process: psutil.Process, run_id: str, recorded: Mapping[int, float]) -> bool:
    created = recorded.get(process.pid)
    return (created is not None and is_running(process.pid, created)) or _mark_of(process) == run_id


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return time.time()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
