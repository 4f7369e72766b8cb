"""A process is ended with its whole session, so that its forks neither run during the next trial nor after the run."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bench.errors import LeftoversError
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal, read_journal
from bench.system.processes import RUN_ID_VARIABLE, Launcher, Process, find_marked_processes, find_strays
from tests import command
from tests.issues import read_reasons

RUN = "20261123T031500Z-strays-0000"
# Forks three children that ignore SIGTERM, and writes their pids: one as it is, one in its own process group, one in
# its own session. Ends at SIGTERM without ending them.
PARENT = """
import os, signal, sys
def child(*leave):
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for leave_parent in leave:
            leave_parent()
        os.write(write, b"x")
        signal.pause()
        os._exit(0)
    return pid
read, write = os.pipe()
pids = [child(), child(os.setpgrp), child(os.setsid)]
for _ in pids:
    os.read(read, 1)
print("ready", *pids, flush=True)
signal.pause()
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """A launcher with its own journal; nothing of its run is left."""
    journal = Journal(tmp_path / "journal.jsonl")
    launcher = Launcher(RUN, journal, CancelToken())
    yield launcher
    launcher.end_strays()
    journal.close()


def start(launcher: Launcher) -> tuple[Process, list[int]]:
    """The parent, and its three children."""
    log = launcher.journal.path.with_name("parent.log")
    process = launcher.start("parent", [sys.executable, "-c", PARENT], role="generator", log=log)
    assert wait_until(lambda: log.read_text().endswith("\n"), timeout_s=30, watch=CancelToken())
    return process, [int(word) for word in log.read_text().split()[1:]]


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("killed", [False, True], ids=["asked to end", "killed before"])
def test_session_ends_with_its_process(launcher: Launcher, killed: bool) -> None:
    """The session ends whatever ended the process itself, including children with their own process group."""
    process, (plain, grouped, _) = start(launcher)
    if killed:
        process.popen.kill()
        process.popen.wait()
        assert is_alive(plain)
    process.stop()
    assert (is_alive(plain), is_alive(grouped)) == (False, False)


def test_stray_outside_session_is_ended_and_journaled(launcher: Launcher) -> None:
    """A process with the run's id outside its session is found before each trial and at the end of the run."""
    process, (*_, apart) = start(launcher)
    process.stop()
    assert find_strays(RUN) == find_marked_processes()[RUN] == (apart,)
    launcher.end_strays()
    assert not is_alive(apart)
    assert read_journal(launcher.journal.path)[-1] | {"at": ""} == {"at": "", "step": "ended-strays", "pids": [apart]}


def test_unkillable_stray_is_a_leftover(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its pid; together with another failure, that failure counts and this is added."""
    process, (*_, apart) = start(launcher)
    process.stop()
    with monkeypatch.context() as patch:
        patch.setattr("bench.system.processes.end_strays", lambda _run: ())
        with pytest.raises(LeftoversError, match=f"processes {apart} of the run {RUN} cannot be ended"):
            launcher.end_strays()
        with pytest.raises(ValueError, match="failed") as caught, launcher.without_strays():
            raise ValueError("failed")
    assert f"processes {apart}" in caught.value.__notes__[0]


def workers_of(run: Path) -> list[int]:
    """The pids of the worker processes that a run's Locust forked, by their command line; the master is the first
    one."""
    return [pid for pid in find_marked_processes().get(run.name, ()) if "locust" in psutil.Process(pid).cmdline()][1:]


@contextmanager
def two_workers(output: Path) -> Iterator[tuple[command.Command, Path, list[int]]]:
    """A run of 30 s with two workers, its folder and their pids, as soon as both have recorded something."""
    load = {"workers": 2, "duration": "30s"}
    scenario = command.write_scenario(output.parent, [command.BASELINE], load=load)
    with command.run_in_background("run", "--scenario", scenario, output=output) as run:
        folder = run.folder()

        def have_recorded() -> bool:
            drafts = (folder / "trials" / "01-baseline-1.partial").glob("samples-*.bin")
            sizes = [path.stat().st_size for path in drafts]
            return len(sizes) == 2 and all(sizes)

        run.until(have_recorded, "samples of both workers")
        yield run, folder, workers_of(folder)


@pytest.mark.slow
def test_workers_end_with_a_killed_master(output: Path) -> None:
    """Workers that outlived their master would load the next trial for 60 s."""
    with two_workers(output) as (run, folder, _):
        run.kill("locust")
        finished = run.wait()
    assert finished.code == 5, finished.output
    assert any(
        "generator-ended" in reason for reason in read_reasons(command.read_trial_record(folder, "01-baseline-1"))
    )
    assert command.find_leftovers(folder) == []


@pytest.mark.slow
def test_workers_end_with_a_killed_run(output: Path) -> None:
    """The workers end with their master, which ends with meshbench; `cleanup` then reports correctly."""
    with two_workers(output) as (run, folder, workers):
        run.popen.kill()
        assert wait_until(lambda: not any(map(is_alive, workers)), timeout_s=10, watch=CancelToken())
        run.wait()
    assert command.clean_up(output).code == 0
    assert command.find_leftovers(folder) == []


def test_cleanup_finds_processes_of_an_ended_run(output: Path, tmp_path: Path) -> None:
    """The run's journal has an end, and a process still has its id."""
    run = output / RUN
    run.mkdir(parents=True)
    (run / "run.json").write_text(f'{{"run_id": "{RUN}"}}', "utf-8")
    (run / "journal.jsonl").write_text('{"step": "begin"}\n{"step": "end"}\n', "utf-8")
    journal = Journal(tmp_path / "journal.jsonl")
    process, children = start(Launcher(RUN, journal, CancelToken()))
    os.kill(process.pid, signal.SIGKILL)
    process.popen.wait()
    finished = command.clean_up(output)
    assert finished.code == 0, finished.output
    assert f"processes {', '.join(map(str, sorted(children)))}; folders none" in finished.out
    assert "cleaned up: 3 processes ended, 0 folders removed" in finished.out
    assert command.find_leftovers(run) == []
    assert command.clean_up(output).out == f"no leftover objects of runs below {output}\n"
    journal.close()


# A child that leaves the session of Locust, as a tool that a locustfile starts may do.
LEAVING = """
import subprocess
from locust import events

@events.test_start.add_listener
def leave(**_):
    subprocess.Popen(["sleep", "300"], start_new_session=True)
"""


@pytest.mark.slow
@pytest.mark.measures
def test_strays_are_ended_before_each_trial_and_at_the_end(output: Path) -> None:
    """A trial's strays would otherwise run during the next trial, and after the run."""
    name = command.write_locustfile(output.parent, "@task\ndef page(self):\n    self.ask()")
    locustfile = output.parent / f"{name}.py"
    locustfile.write_text(locustfile.read_text("utf-8") + LEAVING, "utf-8")
    scenario = command.write_scenario(output.parent, [command.BASELINE], repeats=2, load={"locustfile": name})
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == 0, finished.output
    run = command.find_only_run(output)
    steps = [(line["step"], line.get("name")) for line in read_journal(run / "journal.jsonl")]
    ended = [number for number, (step, _) in enumerate(steps) if step == "ended-strays"]
    loads = [number for number, step in enumerate(steps) if step == ("start-process-done", "locust")]
    assert loads[0] < ended[0] < loads[1] < ended[1]
    assert command.find_leftovers(run) == []


def test_parents_of_the_command_are_no_strays() -> None:
    """A shell whose user set the run's environment variable is spared, with all of its parents."""
    code = f"from bench.system.processes import *\nprint(find_strays({RUN!r}), find_marked_processes())"
    shell = f"{sys.executable} -c {shlex.quote(code)}; true"
    env = {**os.environ, RUN_ID_VARIABLE: RUN}
    found = subprocess.run(["sh", "-c", shell], env=env, capture_output=True, text=True, check=True, cwd=command.ROOT)
    assert RUN not in found.stdout
    assert found.stdout.startswith("()")
