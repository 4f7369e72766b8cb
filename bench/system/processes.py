"""Start and end processes; no other module does.

Every process is recorded in the journal before it is started, has the run's id in its environment, leads its own
session (so that Ctrl-C reaches only meshbench) and is killed with its parent (Linux's parent-death signal).
"""

import codecs
import ctypes
import math
import os
import re
import resource
import secrets
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from bench.errors import DeployError, LeftoversError, MeshbenchError, note_leftovers
from bench.system.bounded import read_bounded
from bench.system.cancellation import POLL_S, CancelToken
from bench.system.journal import Journal
from bench.system.machine import Machine

Role = Literal["service", "sidecar", "generator", "control-plane", "node", "noise"]


RUN_ID_VARIABLE = "MESHBENCH_RUN_ID"
RUN_ID_FILE = "meshbench-run-id"  # the file with the run's id in a working folder
_FOLDER_PREFIX = "meshbench-"
_FOLDER_BYTES = 4
_FOLDER_NAME = re.compile(rf"{_FOLDER_PREFIX}[0-9a-f]{{{2 * _FOLDER_BYTES}}}")
STOP_TIMEOUT_S = 10.0
_CHUNK = 64 * 1024
_MOST_OUTPUT = 1024 * 1024  # of each output of `run_program`
_SAME_START_S = 0.02
_LONGEST_ID = 200
_MOST_PID = 1 << 22  # the kernel's own limit
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """A process that meshbench started. `log` is the file of its standard output and error."""

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
        """Return the last lines of its log, for error messages."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def describe_end(self) -> str:
        """Format how it ended: `exit code 1` or `SIGKILL`."""
        code = self.popen.poll()
        if code is None:
            return "still running"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def describe_failure(self) -> str:
        """Format how it ended and its last output on one line: `exit code 1, last output: ...`."""
        output = self.log_tail(lines=3).strip().replace("\n", " / ")
        return f"{self.describe_end()}, last output: {output}" if output else f"{self.describe_end()}, without output"

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S, watch: CancelToken | None = None, asked: bool = False) -> int:
        """Send SIGTERM, unless it was `asked` to end before, then SIGKILL after `timeout_s` or a second signal in
        `watch`; then SIGKILL to the rest of its session. Return the exit code."""
        if not asked:
            self.popen.terminate()
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline and not (watch and watch.is_forced):
            time.sleep(POLL_S)
        if self.running:
            self.popen.kill()
        exit_code = self.popen.wait()
        _end_session(self.pid)
        return exit_code


@dataclass(frozen=True, slots=True)
class Launcher:
    """Start processes for one run."""

    run_id: str
    journal: Journal
    watch: CancelToken

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
        """Start `argv` with its output in `log`. Raises DeployError where the program cannot be run.

        `env` changes the inherited environment; None removes a variable. `cwd` is the working directory.
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
            outcome.update(pid=popen.pid)
        return Process(name, role, popen, log)

    @contextmanager
    def group(self) -> Iterator[list[Process]]:
        """Yield a list of processes that are ended, last started first, at the end of the block."""
        processes: list[Process] = []
        try:
            yield processes
        finally:
            self.stop(processes)

    def stop(self, processes: Sequence[Process]) -> None:
        """End all of them at once, wait for each, and only then write the journal, which may fail."""
        for process in reversed(processes):
            if process.running:
                process.popen.terminate()
        codes = [(process, process.stop(watch=self.watch, asked=True)) for process in reversed(processes)]
        for process, code in codes:
            self.journal.write("ended-process", name=process.name, pid=process.pid, exit_code=code)

    @contextmanager
    def without_strays(self) -> Iterator[None]:
        """End every process of the run after the block. Raises LeftoversError, or adds it to the block's failure."""
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
        """End processes that carry the run's id when none should. Raises LeftoversError for those that remain."""
        ended = end_strays(self.run_id)
        if left := find_strays(self.run_id):
            raise LeftoversError(f"processes {', '.join(map(str, left))} of the run {self.run_id} cannot be ended")
        if ended:
            self.journal.write("ended-strays", pids=ended)

    @contextmanager
    def working_folder(self) -> Iterator[Path]:
        """Yield a private folder, removed at the end. It is in the system's folder for temporary files, since Unix
        sockets need short paths, and never in the results, since it contains keys."""
        path = Path(tempfile.gettempdir()) / f"{_FOLDER_PREFIX}{secrets.token_hex(_FOLDER_BYTES)}"
        self.journal.write("make-folder", path=str(path))
        path.mkdir(mode=0o700)
        try:
            (path / RUN_ID_FILE).write_text(self.run_id, "utf-8")
            yield path
        finally:
            _remove_folder(path)
            self.journal.write("removed-folder", path=str(path))


def is_working_folder(path: Path, run_id: str) -> bool:
    """Check whether a path is the working folder of a run: a folder of this user, named as one, which has the run's id,
    or nothing, where the run was killed before it wrote the id."""
    if not (path.is_absolute() and ".." not in path.parts and _FOLDER_NAME.fullmatch(path.name)):
        return False
    try:
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return False
        mark = path / RUN_ID_FILE
        text = read_bounded(mark, most_bytes=_LONGEST_ID) if mark.exists() else b""
        return text == run_id.encode() or (not text and set(path.iterdir()) <= {mark})
    except (OSError, ValueError):  # it is being removed, may not be read, or no path can be like this
        return False


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LeftoversError(
            f"{folder} contains keys and cannot be removed: {error.strerror}; remove it by hand"
        ) from error


def raise_file_limit(needed: int) -> None:
    """Allow this process and its children `needed` open files, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))


def run_tool(argv: Sequence[str], *, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run a short tool and return its output, whatever its exit code.

    Raises OSError when it cannot be started, or times out.
    """
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error


def run_limited(
    argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float, most_bytes: int, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a tool in this environment alone, and return its output, whatever its exit code.

    Raises OSError when it cannot be started, does not end within `timeout_s`, or prints more than `most_bytes`. It and
    what it started are ended in any case, also when this process is interrupted.
    """
    mark = f"tool-{secrets.token_hex(4)}"  # in place of a run's id: what it starts may leave its session
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**env, RUN_ID_VARIABLE: mark},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: _limit_child(most_bytes),  # noqa: PLW1509  # two calls; this program has one thread
        )
        try:
            exit_code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise OSError(f"{argv[0]} did not end within {timeout_s:.0f} s") from None
        finally:
            process.kill()
            process.wait()
            _end_session(process.pid)
            end_strays(mark)
        sizes = [stream.seek(0, os.SEEK_END) for stream in (out, err)]
        if max(sizes) >= most_bytes:
            raise OSError(f"{argv[0]} printed more than {most_bytes // 1024 // 1024} MiB")
        texts = [_read_all(stream) for stream in (out, err)]
    return subprocess.CompletedProcess(argv, exit_code, *texts)


def _limit_child(most_bytes: int) -> None:
    """End the child with its parent, and let the kernel end a write beyond the limit."""
    _die_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def _read_all(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended: its exit code, negative for a signal, and what it wrote. `is_complete` is False where that
    was more than it may write."""

    exit_code: int
    stdout: bytes
    stderr: str
    is_complete: bool = True


def run_program(argv: Sequence[str], *, env: Mapping[str, str], on_terminal: bool, timeout_s: float | None) -> Ran:
    """Run a program that may ask the user: on the terminal it has our standard input, and its messages are shown as
    they come; else it has no input, and Ctrl-C does not reach it. What it starts in the background, such as an agent,
    stays.

    Raises OSError where it cannot be started, and TimeoutError where it does not end in time.
    """
    popen = subprocess.Popen(
        argv,
        stdin=None if on_terminal else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=not on_terminal,
    )
    try:
        return _collect(popen, show=on_terminal, timeout_s=timeout_s)
    except BaseException:
        popen.kill()
        popen.wait()
        if not on_terminal:
            _end_session(popen.pid)
        raise
    finally:
        for pipe in (popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()


def _collect(popen: "subprocess.Popen[bytes]", *, show: bool, timeout_s: float | None) -> Ran:
    """Read what a program writes until it ends; a program that it leaves behind may keep the pipes open."""
    deadline_s = time.monotonic() + timeout_s if timeout_s else math.inf
    written: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    shown, is_complete = codecs.getincrementaldecoder("utf-8")("replace"), True
    with selectors.DefaultSelector() as selector:
        for name in written:
            selector.register(getattr(popen, name), selectors.EVENT_READ, name)
        while selector.get_map():
            has_ended = popen.poll() is not None
            ready = selector.select(POLL_S)
            for key, _ in ready:
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                kept = written[key.data]
                is_complete = is_complete and len(kept) + len(data) <= _MOST_OUTPUT
                kept += data[: _MOST_OUTPUT - len(kept)]
                if show and key.data == "stderr":
                    sys.stderr.write(shown.decode(data))
                    sys.stderr.flush()
            if has_ended and not ready:
                break
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"it did not end within {timeout_s:.0f} s")
    return Ran(
        _wait(popen, deadline_s), bytes(written["stdout"]), written["stderr"].decode("utf-8", "replace"), is_complete
    )


def _wait(popen: "subprocess.Popen[bytes]", deadline_s: float) -> int:
    """Wait for a program that has closed its output."""
    try:
        return popen.wait(None if math.isinf(deadline_s) else max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError("it did not end in time") from None


def identify_process(pid: int) -> dict[str, int | str]:
    """Return pid, start and boot of a running process, which no other process has, not even a later one with its pid,
    and which a wall clock that is set does not change."""
    times = Machine().process_times(pid)
    return {"pid": pid, "started_ns": times.started_ns if times else 0, "boot": Machine().boot_id()}


def is_running(known: Mapping[str, Any]) -> bool:
    """Check whether a process is running that `identify_process` described. Older versions described its start by the
    wall clock, as `created`; the oldest have no pid."""
    pid = known.get("pid", 0)
    if not 0 < pid <= _MOST_PID or (process := _find_living(pid)) is None:
        return False
    if "created" not in known:
        return all(known.get(key) == value for key, value in identify_process(pid).items())
    created_s: float = known["created"]
    try:
        return abs(process.create_time() - created_s) < _SAME_START_S
    except psutil.Error:
        return False


def _end_session(leader: int) -> None:
    """Kill the rest of an ended process's session: forks of Locust would continue during the next load."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (members := _list_session(leader)) and time.monotonic() < deadline:
        for member in members:
            with suppress(psutil.Error):  # it ended, or belongs to another user now
                member.kill()
        time.sleep(POLL_S)


def _list_session(leader: int) -> list[psutil.Process]:
    """List the processes of the session of a leader that has ended.

    The kernel does not reuse the leader's pid as long as the session has a member; a process with that pid is a later
    one, and so is its session.
    """
    if psutil.pid_exists(leader):
        return []
    return [
        member for pid in psutil.pids() if _read_session_id(pid) == leader and (member := _find_living(pid)) is not None
    ]


def _read_session_id(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _find_living(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if _is_alive(process) else None


def find_marked_processes() -> dict[str, tuple[int, ...]]:
    """Find the processes that have a run's id in their environment: pids by run id."""
    found: dict[str, tuple[int, ...]] = {}
    for process in _list_others():
        if run_id := _read_run_id(process):
            found[run_id] = (*found.get(run_id, ()), process.pid)
    return found


def _list_others() -> Iterator[psutil.Process]:
    """Return every process but this one and its parents: their environment is the user's, who may have set the
    variable."""
    ours = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return (process for process in psutil.process_iter() if process.pid not in ours)


def _read_run_id(process: psutil.Process) -> str:
    """Read a process's run id; empty for one that has ended, of another user, or of no run."""
    try:
        return process.environ().get(RUN_ID_VARIABLE, "") if _is_alive(process) else ""
    except psutil.Error:
        return ""


def end_strays(run_id: str) -> tuple[int, ...]:
    """End the leftover processes of a run: those with its id in their environment. Return the pids of those that were
    ended."""
    found: dict[int, psutil.Process] = {}
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while strays := [process for process in _list_others() if _read_run_id(process) == run_id]:
        found |= {process.pid: process for process in strays}  # one may have forked another one meanwhile
        for process in strays:
            with suppress(psutil.Error):
                process.kill()
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return tuple(pid for pid, process in found.items() if not _is_alive(process))


def find_strays(run_id: str) -> tuple[int, ...]:
    """Return the pids that `end_strays` would end."""
    return tuple(process.pid for process in _list_others() if _read_run_id(process) == run_id)


def _is_alive(process: psutil.Process) -> bool:
    """Check that a process exists and is not a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
