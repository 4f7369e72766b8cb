"""A run is ended by SIGKILL: `cleanup` removes what it left, and `run --resume` completes it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.system.journal import read_journal
from bench.system.processes import RUN_ID_VARIABLE, identify_process
from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Kills a run right after its first, second, third ... line in the journal, until one completes; of the lines
# about ended processes, which are written together when all have ended, after the first and the last. Each command is
# a separate process, forked from one that has imported everything: over a hundred of them in a minute or two.
AT_EVERY_STEP = """
import json, os, signal, sys, time
import bench.cli.main, bench.analysis.compare, bench.report.html, bench.run.session
from bench.system.journal import Journal

scenario, output = sys.argv[1:]
bench.cli.run.REPORT_FORMATS = bench.cli.reports.REPORT_FORMATS = ("md",)
write = Journal.write

def deadly(last):
    def write_and_die(self, step, **facts):
        write(self, step, **facts)
        if step != "ended-process" or facts["name"] in EDGES:
            written.append(step)
        if len(written) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    written = []
    return write_and_die

def meshbench(*arguments, last=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if last:
        Journal.write = deadly(last)
    try:
        bench.cli.main.main([*arguments])
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code or 0)

def run_of(before):
    return max(set(os.listdir(output)) - before, default="")

step, ended, resumed = 0, None, set()
while ended is None or ended == -signal.SIGKILL:
    step += 1
    before = set(os.listdir(output)) if os.path.isdir(output) else set()
    run = ("run", "--scenario", scenario, "--output", output)
    ended = meshbench(*run, last=step)
    if ended == 8:  # another user measures this machine
        step, ended = step - 1, None
        time.sleep(0.5)
        continue
    found = {"step": step, "run": run_of(before), "ended": ended}
    if ended == -signal.SIGKILL:
        line = json.loads(open(f"{output}/{found['run']}/journal.jsonl").readlines()[-1])
        name = f"{line['step']} {line.get('name', '')}".strip()
        found |= {"name": name, "locked": meshbench(*run), "cleaned": meshbench("cleanup", "--output", output)}
        found["again"] = meshbench("cleanup", "--output", output)
        if name in RESUMED and name not in resumed:
            resumed.add(name)
            found["resumed"] = meshbench("run", "--resume", f"{output}/{found['run']}")
    print(json.dumps(found), flush=True)
"""
EDGES = {"locust-validate", "details-validate", "locust-sidecar", "details"}
RESUMED = {"begin", "start-process-done reviews", "start-process-done locust", "removed-folder"}


@pytest.fixture(scope="module")
def killed(shared_output: Path) -> list[dict[str, Any]]:
    """The results of a kill at each step of a run with one trial and sidecars; the last run was not killed."""
    command.wait_for_machine()
    scenario = command.write_scenario(shared_output.parent, [command.ISTIO], load={"duration": "1s", "users": 30})
    driver = f"EDGES, RESUMED = {EDGES!r}, {RESUMED!r}\n{AT_EVERY_STEP}\nsys.exit(0)"
    finished = command.start(scenario, shared_output, output=shared_output, driver=driver).wait(800)
    assert finished.code == 0, finished.output
    assert "Traceback" not in finished.err
    return [json.loads(line) for line in finished.out.splitlines() if line.startswith('{"step"')]


@pytest.mark.soak("kills", together=True)
def test_run_is_killed_at_every_step(killed: list[dict[str, Any]]) -> None:
    """Case 52: each line of the journal was the last one of a killed run, until a run completed."""
    names = [found["name"] for found in killed[:-1]]
    assert (names[0], names[-1]) == ("begin", "end")
    assert {"make-folder", "start-process productpage-sidecar", "start-process-done locust"} <= set(names)
    assert sum(name.startswith("ended-process") for name in names) == len(EDGES)
    assert killed[-1]["ended"] == 0


@pytest.mark.soak("kills", together=True)
def test_next_run_requires_cleanup(killed: list[dict[str, Any]]) -> None:
    """Case 52: exit 8 before it; `cleanup` exits with 0, and again with 0 when nothing is left (case 59)."""
    codes = {(found["locked"], found["cleaned"], found["again"]) for found in killed[:-1]}
    assert codes == {(8, 0, 0)}


@pytest.mark.soak("kills", together=True)
def test_cleanup_leaves_nothing_of_a_killed_run(killed: list[dict[str, Any]], shared_output: Path) -> None:
    """Cases 52 and 64: no process with a run's id and no working folder with its keys remain, whatever the last step
    was."""
    left = {found["name"]: command.find_leftovers(shared_output / found["run"]) for found in killed[:-1]}
    assert {name: things for name, things in left.items() if things} == {}


@pytest.mark.soak("kills", together=True)
def test_killed_run_is_recorded_as_killed(killed: list[dict[str, Any]], shared_output: Path) -> None:
    """Its record has how it ended; a run that was killed after its last record keeps that record."""
    *cut, last = [command.read_record(shared_output / found["run"]) for found in killed[:-1] if "resumed" not in found]
    assert {(record["status"], record["exit_code"]) for record in cut} == {("interrupted", 137)}
    assert last["status"] == "complete"


@pytest.mark.soak("kills", together=True)
def test_killed_run_can_be_resumed(killed: list[dict[str, Any]], shared_output: Path) -> None:
    """Case 52: `run --resume` exits with 0 and completes a run that was killed at its begin, while deploying, loading
    or ending."""
    resumed = [found for found in killed if "resumed" in found]
    assert {found["name"] for found in resumed} == RESUMED
    assert [found["resumed"] for found in resumed] == [0] * len(RESUMED)
    records = [command.read_record(shared_output / found["run"]) for found in resumed]
    assert {(record["status"], len(record["trials"])) for record in records} == {("complete", 1)}


# Killed between a trial's new name and its entry in run.json, which is not a step of the journal.
BEFORE_THE_ENTRY = """
import os, signal, bench.results.store
update = bench.results.store.RunFolder.update
def dying(self, **changes):
    os.kill(os.getpid(), signal.SIGKILL) if changes.get("trials") else update(self, **changes)
bench.results.store.RunFolder.update = dying
"""


def test_trial_without_journal_entry_is_measured_again(output: Path) -> None:
    """A resumed run renames a stored trial that is not in the journal, keeps it, and measures it again."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], load={"duration": "1s", "users": 30})
    assert command.run("run", "--scenario", scenario, output=output, driver=BEFORE_THE_ENTRY).code == -signal.SIGKILL
    run = command.find_only_run(output)
    assert (run / "trials" / "01-baseline-1").is_dir()
    assert command.clean_up(output).code == 0
    finished = command.run("run", "--resume", run, output=output)
    assert finished.code == 0, finished.output
    names = sorted(path.name.partition("-")[0] + path.suffix[:11] for path in (run / "trials").iterdir())
    assert names == ["01", "01.superseded"]


@pytest.fixture
def dead_run(output: Path) -> Path:
    """The folder of a run that was killed, with a journal that has begun."""
    run = output / "20261123T031500Z-dead-0000"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"run_id": run.name}), "utf-8")
    _journal(run, step="begin")
    return run


@pytest.fixture
def sleepers() -> Iterator[ExitStack]:
    """End the processes that a test started and cleanup spared."""
    with ExitStack() as stack:
        yield stack


def _journal(run: Path, **line: Any) -> None:
    with (run / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": "2026-11-23T03:15:00.000+00:00", **line}) + "\n")


def _sleep(sleepers: ExitStack, **environment: str) -> "subprocess.Popen[bytes]":
    sleeper = subprocess.Popen(["sleep", "300"], env={**os.environ, **environment})
    sleepers.callback(sleeper.wait)
    sleepers.callback(sleeper.kill)
    return sleeper


def test_orphan_with_run_id_is_ended(dead_run: Path, sleepers: ExitStack) -> None:
    """Case 64: a process that is not in the journal yet is ended by the run id in its environment."""
    orphan = _sleep(sleepers, **{RUN_ID_VARIABLE: dead_run.name})
    other = _sleep(sleepers, **{RUN_ID_VARIABLE: "20261123T031500Z-other-1111"})
    finished = command.clean_up(dead_run.parent)
    assert finished.code == 0, finished.output
    assert orphan.wait(5) == -signal.SIGKILL
    assert other.poll() is None


def test_process_that_only_the_journal_names_is_spared(dead_run: Path, sleepers: ExitStack) -> None:
    """Case 64: a process whose id and start are in the journal, and which has not the run's id, is another's."""
    stranger = _sleep(sleepers)
    known = {**identify_process(stranger.pid), "created": psutil.Process(stranger.pid).create_time()}
    _journal(dead_run, step="start-process-done", name="productpage-sidecar", **known)
    finished = command.clean_up(dead_run.parent)
    assert finished.code == 0, finished.output
    assert stranger.poll() is None
    assert read_journal(dead_run / "journal.jsonl")[-1]["step"] == "end"


def test_cleanup_list_changes_nothing(dead_run: Path, sleepers: ExitStack) -> None:
    """`cleanup --list` only prints what is there."""
    orphan = _sleep(sleepers, **{RUN_ID_VARIABLE: dead_run.name})
    finished = command.call("cleanup", "--output", dead_run.parent, "--list", output=dead_run.parent)
    assert finished.code == 0, finished.output
    assert f"processes {orphan.pid}" in finished.out
    assert orphan.poll() is None
