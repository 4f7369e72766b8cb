"""Signals, closed pipes and time limits, in every phase of a run: samples are kept, and no process remains."""

import fcntl
import os
import pty
import signal
import termios
import time
from pathlib import Path

import pytest

from bench.results.samples import RAW_ROW, read_parquet
from tests import command
from tests.issues import read_reasons

pytestmark = pytest.mark.slow

LONG = {"duration": "120s"}
TRIAL = "01-baseline-1"
XTERM = {"TERM": "xterm"}


@pytest.fixture
def scenario(output: Path) -> Path:
    """One trial without a mesh, with a window longer than any test waits."""
    return command.write_scenario(output.parent, [command.BASELINE], load=LONG)


def assert_interrupted(finished: command.Finished, output: Path, number: signal.Signals) -> None:
    """Check the exit code, the record, and the one message with its hint; there is no traceback and nothing left."""
    assert finished.code == 128 + number, finished.output
    assert "Traceback" not in finished.err
    run = command.find_only_run(output)
    record = command.read_record(run)
    assert (record["status"], record["exit_code"]) == ("interrupted", 128 + number)
    assert read_reasons(record) == [f"interrupted: ended by {number.name}"]
    assert command.find_leftovers(run) == []


@pytest.mark.measures
def test_sigterm_during_load_keeps_samples_within_two_seconds(scenario: Path, output: Path) -> None:
    """Case 51: samples are on disk in under 2 s, the trial is marked as interrupted, and exit 143 comes with a hint to
    resume."""
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGTERM)
        sent = time.monotonic()
        running.until((draft / "trial.json").exists, "the interrupted trial")
        took_s = time.monotonic() - sent
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGTERM)
    assert took_s < 2
    assert len(read_parquet(draft / "samples.parquet")) >= 20
    trial = command.read_trial_record(draft.parents[1], draft.name)
    assert (trial["status"], read_reasons(trial)) == ("interrupted", ["interrupted: ended by SIGTERM"])
    assert f"to continue: meshbench run --resume {draft.parents[1]}" in finished.err


def test_ctrl_c_during_deployment_ends_all_processes(output: Path) -> None:
    """Case 50: Ctrl-C during a deployment with sidecars exits with 130, ends all processes, and leaves no keys."""
    scenario = command.write_scenario(output.parent, [command.ISTIO], load=LONG)
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        running.line("start-process", name="productpage-sidecar")
        running.send(signal.SIGINT)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGINT)


def test_sighup_during_warm_up_ends_the_run(output: Path) -> None:
    """Case 53: SIGHUP acts like SIGTERM, with exit 129, also before the window has begun."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], load={"warmup": "60s", "duration": "60s"})
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGHUP)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)
    assert len(read_parquet(draft / "samples.parquet")) >= 20


def test_second_signal_ends_at_once(scenario: Path, output: Path) -> None:
    """A service that ignores SIGTERM delays the end by 10 s; a second Ctrl-C does not wait for it."""
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        draft = running.loading(TRIAL)
        running.kill("details", signal.SIGSTOP)
        running.send(signal.SIGINT)
        running.until((draft / "trial.json").exists, "the interrupted trial")
        running.send(signal.SIGINT)
        sent = time.monotonic()
        finished = running.wait()
    assert time.monotonic() - sent < 5
    assert_interrupted(finished, output, signal.SIGINT)


def test_ctrl_c_during_report_keeps_the_run(output: Path) -> None:
    """Case 50, analysis: exit 130; the run is complete, and the message has the command that makes its report."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    driver = (
        "import os, signal, bench.report\n"
        "bench.report.write_report = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    )
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver)
    assert finished.code == 130, finished.output
    run = command.find_only_run(output)
    assert command.read_record(run)["status"] == "complete"
    assert f"to write the report: meshbench report {run}" in finished.err


LATE_SIGNAL = """
import os, signal, bench.system.processes
stop = bench.system.processes.Launcher.stop
def interrupted_stop(self, processes):
    if processes:
        os.kill(os.getpid(), signal.SIGINT)
    stop(self, processes)
bench.system.processes.Launcher.stop = interrupted_stop
"""


def test_ctrl_c_during_final_cleanup_exits_with_130(output: Path) -> None:
    """Case 50, cleanup: it continues and ends all processes; the exit code is 130, never 0 after a signal."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    finished = command.run("run", "--scenario", scenario, output=output, driver=LATE_SIGNAL)
    assert_interrupted(finished, output, signal.SIGINT)
    assert len(command.read_record(command.find_only_run(output))["trials"]) == 1


def test_closed_stderr_pipe_ends_run_like_sighup(output: Path) -> None:
    """Case 53: with the reader of standard error closed, the next line ends the run with exit 129, no traceback and
    nothing left."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], repeats=2)
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        running.loading(TRIAL)
        assert running.popen.stderr
        running.popen.stderr.close()
        running.popen.stderr = None
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)


def test_closed_stdout_keeps_the_report(output: Path) -> None:
    """Case 53: after `meshbench run | head -0` the run and its report are complete, with the run's own exit code."""
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        assert running.popen.stdout
        running.popen.stdout.close()
        running.popen.stdout = None
        finished = running.wait()
    assert finished.code == 0, finished.output
    assert "Traceback" not in finished.err
    assert "BrokenPipe" not in finished.err
    assert (command.find_only_run(output) / "report" / "index.html").is_file()


def test_closed_terminal_ends_the_run(scenario: Path, output: Path) -> None:
    """Case 53: the terminal with the live display is closed: exit 129, samples kept, nothing left."""
    ours, theirs = pty.openpty()
    terminal = {"stderr": theirs, "env": XTERM, "prepare": _take_terminal}
    with command.run_in_background("run", "--scenario", scenario, output=output, **terminal) as running:
        os.close(theirs)
        draft = running.loading(TRIAL)
        assert b"baseline" in os.read(ours, 1 << 16)
        os.close(ours)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGHUP)
    assert len(read_parquet(draft / "samples.parquet")) >= 20


def _take_terminal() -> None:
    """Make standard error the controlling terminal, whose close sends SIGHUP."""
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


def test_nohup_run_ignores_sighup(scenario: Path, output: Path) -> None:
    """A run that was started with SIGHUP ignored continues after one."""
    with command.run_in_background(
        "run", "--scenario", scenario, output=output, prepare=lambda: _ignore(signal.SIGHUP)
    ) as running:
        draft = running.loading(TRIAL)
        running.send(signal.SIGHUP)
        size = (draft / "samples.bin").stat().st_size
        running.until(lambda: (draft / "samples.bin").stat().st_size > size + RAW_ROW.itemsize * 40, "more requests")
        running.send(signal.SIGTERM)
        finished = running.wait()
    assert_interrupted(finished, output, signal.SIGTERM)


def _ignore(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)


def test_time_limit_ends_run_with_a_partial_report(output: Path) -> None:
    """Case 60: exit 10; complete trials are in the report, and the run can be resumed."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], repeats=40, load={"duration": "1s"})
    finished = command.run("run", "--scenario", scenario, "--timeout", "15s", output=output)
    assert finished.code == 10, finished.output
    assert "took longer than --timeout" in finished.err
    run = command.find_only_run(output)
    record = command.read_record(run)
    assert (record["status"], record["exit_code"]) == ("interrupted", 10)
    assert 0 < len(record["trials"]) < 40
    assert (run / "report" / "index.html").is_file()
    assert "of 40 planned trials were not measured; continue with --resume" in finished.out
    assert command.find_leftovers(run) == []
