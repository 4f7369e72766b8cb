"""Signals, closed pipes and time limits, in every phase of a run: what was measured is kept, and nothing stays."""

import fcntl
import os
import pty
import signal
import termios
import time
from pathlib import Path

import pytest

from bench.results.samples import read_parquet
from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = {"duration": "120s"}
TRIAL = "01-baseline-1"
XTERM = {"TERM": "xterm"}


@pytest.fixture
def scenario(output: Path) -> Path:
    """One trial without a mesh, with a window that no test waits for."""
    return command.write_scenario(output.parent, [command.BASELINE], load=LONG)


def assert_interrupted(finished: command.Finished, output: Path, number: signal.Signals) -> None:
    """The exit code, the record, and one message that says how to go on; no traceback, nothing left."""
    assert finished.code == 128 + number, finished.told
    assert "Traceback" not in finished.err
    run = command.only_run(output)
    record = command.record(run)
    assert (record["status"], record["exit_code"]) == ("interrupted", 128 + number)
    assert record["reason"] == f"ended by {number.name}"
    assert command.left_of(run) == []


@pytest.mark.measures
def test_sigterm_during_the_load_leaves_readable_samples_within_two_seconds(scenario: Path, output: Path) -> None:
    """Case 51: samples on disk in under 2 s, the trial marked as interrupted, exit 143, and how to go on is told."""
    with command.running("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGTERM)
        sent = time.monotonic()
        running.until((draft / "trial.json").exists, "the interrupted trial")
        took_s = time.monotonic() - sent
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGTERM)
    assert took_s < 2
    assert len(read_parquet(draft / "samples.parquet")) >= 20
    trial = command.trial_record(draft.parents[1], draft.name)
    assert (trial["status"], trial["reasons"]) == ("interrupted", ["interrupted: ended by SIGTERM"])
    assert f"to go on: meshbench run --resume {draft.parents[1]}" in finished.err


def test_ctrl_c_while_it_is_deployed_ends_what_was_started(output: Path) -> None:
    """Case 50: in the middle of a deployment with sidecars: exit 130, all processes ended, no keys left."""
    scenario = command.write_scenario(output.parent, [command.ISTIO], load=LONG)
    with command.running("run", "--scenario", scenario, output=output) as running:
        running.line("start-process", name="productpage-sidecar")
        running.send(signal.SIGINT)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGINT)


def test_a_hang_up_during_the_warm_up_ends_the_run(output: Path) -> None:
    """Case 53: SIGHUP is like SIGTERM, with exit 129, also before the window has begun."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], load={"warmup": "60s", "duration": "60s"})
    with command.running("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGHUP)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)
    assert len(read_parquet(draft / "samples.parquet")) >= 20


def test_a_second_signal_waits_for_nobody(scenario: Path, output: Path) -> None:
    """A service that does not react holds the end up for 10 s; a second Ctrl-C does not wait for it."""
    with command.running("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.kill("details", signal.SIGSTOP)
        running.send(signal.SIGINT)
        running.until((draft / "trial.json").exists, "the interrupted trial")
        running.send(signal.SIGINT)
        sent = time.monotonic()
        finished = running.wait()
    assert time.monotonic() - sent < 5
    assert_interrupted(finished, output, signal.SIGINT)


def test_ctrl_c_while_the_report_is_made_says_that_the_run_is_kept(output: Path) -> None:
    """Case 50, analysis: exit 130; the run is whole, and the command that makes its report is told."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    driver = (
        "import os, signal, bench.report\n"
        "bench.report.write_report = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    )
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver)
    assert finished.code == 130, finished.told
    run = command.only_run(output)
    assert command.record(run)["status"] == "complete"
    assert f"to make its report: meshbench report {run}" in finished.err


LATE_SIGNAL = """
import os, signal, bench.system.processes
stop = bench.system.processes.Launcher.stop
def interrupted_stop(self, processes):
    os.kill(os.getpid(), signal.SIGINT)
    stop(self, processes)
bench.system.processes.Launcher.stop = interrupted_stop
"""


def test_ctrl_c_while_the_last_processes_are_ended_still_counts(output: Path) -> None:
    """Case 50, cleanup: it goes on and ends all of them; the exit code is 130, never 0 after a signal."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    finished = command.run("run", "--scenario", scenario, output=output, driver=LATE_SIGNAL)
    assert_interrupted(finished, output, signal.SIGINT)
    assert len(command.record(command.only_run(output))["trials"]) == 1


def test_a_closed_pipe_ends_the_run_as_a_hang_up(output: Path) -> None:
    """Case 53: nobody reads standard error any more: exit 129 at the next line, no traceback, nothing left."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], repeats=2)
    with command.running("run", "--scenario", scenario, output=output) as running:
        running.loading(TRIAL)
        assert running.popen.stderr
        running.popen.stderr.close()
        running.popen.stderr = None
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)


def test_a_closed_standard_output_keeps_the_report(output: Path) -> None:
    """Case 53: `meshbench run | head -0`: the run and its report are whole, exit 129, no traceback."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    with command.running("run", "--scenario", scenario, output=output) as running:
        assert running.popen.stdout
        running.popen.stdout.close()
        running.popen.stdout = None
        finished = running.wait()
    assert finished.code == 129, finished.told
    assert "Traceback" not in finished.err
    assert "BrokenPipe" not in finished.err
    assert (command.only_run(output) / "report" / "index.html").is_file()


def test_a_closed_terminal_ends_the_run(scenario: Path, output: Path) -> None:
    """Case 53: the terminal with the live display is gone: exit 129, samples kept, nothing left."""
    ours, theirs = pty.openpty()
    terminal = {"stderr": theirs, "env": XTERM, "prepare": _take_terminal}
    with command.running("run", "--scenario", scenario, output=output, **terminal) as running:
        os.close(theirs)
        draft = running.loading(TRIAL)
        assert b"baseline" in os.read(ours, 1 << 16)
        os.close(ours)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)
    assert len(read_parquet(draft / "samples.parquet")) >= 20


def _take_terminal() -> None:
    """Standard error becomes the terminal whose end is a hang-up."""
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


def test_nohup_keeps_a_run_alive(scenario: Path, output: Path) -> None:
    """A run that was told to ignore hang-ups goes on after one."""
    with command.running(
        "run", "--scenario", scenario, output=output, prepare=lambda: _ignore(signal.SIGHUP)
    ) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGHUP)
        size = (draft / "samples.bin").stat().st_size
        running.until(lambda: (draft / "samples.bin").stat().st_size > size + 33 * 40, "more requests")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGTERM)


def _ignore(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)


def test_a_run_over_its_time_limit_ends_with_a_report_of_what_there_is(output: Path) -> None:
    """Case 60: exit 10; complete trials are in the report, and the run can be resumed."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], repeats=40, load={"duration": "1s"})
    finished = command.run("run", "--scenario", scenario, "--timeout", "15s", output=output)
    assert finished.code == 10, finished.told
    assert "took longer than --timeout" in finished.err
    run = command.only_run(output)
    record = command.record(run)
    assert (record["status"], record["exit_code"]) == ("interrupted", 10)
    assert 0 < len(record["trials"]) < 40
    assert (run / "report" / "index.html").is_file()
    assert "of 40 planned trials were not measured; go on with --resume" in finished.out
    assert command.left_of(run) == []
