"""Processes of a run: recorded before they start, ended whatever happens."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.errors import DeployError, StoreError
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal, read_journal
from bench.system.processes import RUN_ID_FILE, RUN_ID_VARIABLE, Launcher, Process, end_strays, find_strays

RUN = "20261123T031500Z-processes-0000"
# Prints a line when it is ready, and another at SIGTERM.
POLITE = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
print("bye")
sys.exit(3)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher with its own journal."""
    journal = Journal(tmp_path / "journal.jsonl")
    yield Launcher(RUN, journal, CancelToken())
    journal.close()


def start(launcher: Launcher, program: str, name: str = "details") -> Process:
    """Start a Python program and wait until it is ready."""
    log = launcher.journal.path.with_name(f"{name}.log")
    process = launcher.start(name, [sys.executable, "-c", program], role="service", log=log)
    assert wait_until(lambda: "ready" in log.read_text(), timeout_s=30, watch=CancelToken())
    return process


def test_process_is_journaled_and_has_the_run_id(launcher: Launcher) -> None:
    """The journal has the intent, then the process id; the run id in its environment finds it."""
    with launcher.group() as group:
        group.append(start(launcher, POLITE))
        pid = group[0].pid
        intent, done = read_journal(launcher.journal.path)
        assert (intent["step"], done["step"], done["pid"]) == ("start-process", "start-process-done", pid)
        assert psutil.Process(pid).environ()[RUN_ID_VARIABLE] == RUN
        assert (find_strays(RUN), find_strays("other")) == ((pid,), ())
        assert os.getsid(pid) == pid


def _fail_in(group: list[Process], process: Process) -> None:
    group.append(process)
    raise ValueError("failed")


def test_error_in_block_ends_the_group(launcher: Launcher) -> None:
    """The processes get SIGTERM, are awaited and recorded; their last output stays in the log."""
    process = start(launcher, POLITE)
    with pytest.raises(ValueError, match="failed"), launcher.group() as group:
        _fail_in(group, process)
    assert process.describe_end() == "exit code 3"
    assert process.describe_failure() == "exit code 3, last output: ready / bye"
    assert read_journal(launcher.journal.path)[-1]["exit_code"] == 3


def test_full_disk_does_not_keep_processes_alive(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes are ended before the first journal line about it is written."""

    def fail(_journal: Journal, _step: str, **_: object) -> None:
        raise StoreError("no room")

    processes = [start(launcher, POLITE, "details"), start(launcher, POLITE, "ratings")]
    monkeypatch.setattr(Journal, "write", fail)
    with pytest.raises(StoreError, match="no room"):
        launcher.stop(processes)
    assert [process.running for process in processes] == [False, False]


def test_process_ignoring_sigterm_is_killed(launcher: Launcher) -> None:
    """A process that ignores SIGTERM is killed after its grace period, and the journal has the signal's name."""
    process = start(launcher, STUBBORN)
    assert process.stop(timeout_s=0.1) == -signal.SIGKILL
    assert process.describe_failure() == "SIGKILL, last output: ready"


def test_forced_end_does_not_wait(launcher: Launcher) -> None:
    """After a second signal processes get no grace period."""
    process = start(launcher, STUBBORN)
    launcher.watch.signals += [signal.SIGINT, signal.SIGINT]
    began = time.monotonic()
    launcher.stop([process])
    assert time.monotonic() - began < 5
    assert process.describe_end() == "SIGKILL"


def test_missing_program_is_reported_by_path(launcher: Launcher, tmp_path: Path) -> None:
    """The error has the program's path and no traceback."""
    with pytest.raises(DeployError, match="details: cannot start /nowhere/envoy: No such file"):
        launcher.start("details", ["/nowhere/envoy"], role="sidecar", log=tmp_path / "log")


def test_working_folder_is_private_marked_and_removed(launcher: Launcher) -> None:
    """The folder holds keys: other users cannot read it, and it is removed completely."""
    with launcher.working_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / RUN_ID_FILE).read_text("utf-8") == RUN
    assert not folder.exists()


def test_strays_are_ended_without_a_waiting_parent(launcher: Launcher) -> None:
    """A parent that does not wait leaves them as zombies; these count as dead at once."""
    process = start(launcher, STUBBORN)
    began = time.monotonic()
    assert end_strays(RUN) == (process.pid,)
    assert time.monotonic() - began < 5
    assert process.popen.wait() == -signal.SIGKILL
