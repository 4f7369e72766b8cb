"""Processes of a run: written down before they start, ended whatever happens."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.errors import DeployError, StoreError
from bench.system.cancellation import Watch, wait_until
from bench.system.journal import Journal, read_journal
from bench.system.processes import MARK, RUN_ID_VARIABLE, Launcher, Process, end_strays, find_strays

RUN = "20261123T031500Z-processes-0000"
# Says so when it is ready, and again when it is asked to end.
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
    """A launcher with a journal of its own."""
    journal = Journal(tmp_path / "journal.jsonl")
    yield Launcher(RUN, journal, Watch())
    journal.close()


def start(launcher: Launcher, program: str, name: str = "details") -> Process:
    """A Python program, as soon as it is ready."""
    log = launcher.journal.path.with_name(f"{name}.log")
    process = launcher.start(name, [sys.executable, "-c", program], role="service", log=log)
    assert wait_until(lambda: "ready" in log.read_text(), timeout_s=30, watch=Watch())
    return process


def test_a_process_is_written_down_and_carries_the_run_in_its_environment(launcher: Launcher) -> None:
    """Intent, then process id and start time; the mark finds it, too."""
    with launcher.group() as group:
        group.append(start(launcher, POLITE))
        pid = group[0].pid
        intent, done = read_journal(launcher.journal.path)
        assert (intent["step"], done["step"], done["pid"]) == ("start-process", "start-process-done", pid)
        assert done["created"] == pytest.approx(psutil.Process(pid).create_time())
        assert psutil.Process(pid).environ()[RUN_ID_VARIABLE] == RUN
        assert find_strays(RUN, {}) == find_strays("other", {pid: done["created"]}) == (pid,)
        assert find_strays("other", {pid: done["created"] - 5}) == ()
        assert os.getsid(pid) == pid


def _fail_in(group: list[Process], process: Process) -> None:
    group.append(process)
    raise ValueError("failed")


def test_a_group_is_ended_when_its_block_is_left_by_an_error(launcher: Launcher) -> None:
    """Asked to end, waited for, written down; its last words stay in its log."""
    process = start(launcher, POLITE)
    with pytest.raises(ValueError, match="failed"), launcher.group() as group:
        _fail_in(group, process)
    assert process.ended() == "exit code 3"
    assert process.last_words() == "exit code 3, saying: ready / bye"
    assert read_journal(launcher.journal.path)[-1]["exit_code"] == 3


def test_a_journal_without_room_keeps_no_process_alive(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are ended before the first line about it is tried."""

    def fail(_journal: Journal, _step: str, **_: object) -> None:
        raise StoreError("no room")

    processes = [start(launcher, POLITE, "details"), start(launcher, POLITE, "ratings")]
    monkeypatch.setattr(Journal, "write", fail)
    with pytest.raises(StoreError, match="no room"):
        launcher.stop(processes)
    assert [process.running for process in processes] == [False, False]


def test_a_process_that_does_not_listen_is_killed_after_its_time(launcher: Launcher) -> None:
    """And its end is told by the signal's name."""
    process = start(launcher, STUBBORN)
    assert process.stop(timeout_s=0.1) == -signal.SIGKILL
    assert process.last_words() == "SIGKILL, saying: ready"


def test_impatience_does_not_wait(launcher: Launcher) -> None:
    """After a second signal nobody gets time."""
    process = start(launcher, STUBBORN)
    launcher.watch.signals += [signal.SIGINT, signal.SIGINT]
    began = time.monotonic()
    launcher.stop([process])
    assert time.monotonic() - began < 5
    assert process.ended() == "SIGKILL"


def test_a_program_that_is_not_there_is_told_by_its_path(launcher: Launcher, tmp_path: Path) -> None:
    """Not as a traceback."""
    with pytest.raises(DeployError, match="details: cannot start /nowhere/envoy: No such file"):
        launcher.start("details", ["/nowhere/envoy"], role="sidecar", log=tmp_path / "log")


def test_a_working_folder_is_private_marked_and_removed(launcher: Launcher) -> None:
    """It holds keys: nobody else may look, and nothing stays."""
    with launcher.working_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / MARK).read_text("utf-8") == RUN
    assert not folder.exists()


def test_strays_are_ended_also_when_nobody_waits_for_them(launcher: Launcher) -> None:
    """A parent that never asks leaves them as zombies: they are dead all the same, and told so at once."""
    process = start(launcher, STUBBORN)
    began = time.monotonic()
    assert end_strays(RUN, {}) == (process.pid,)
    assert time.monotonic() - began < 5
    assert process.popen.wait() == -signal.SIGKILL
