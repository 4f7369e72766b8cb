"""The application, the client or the machine's clock breaks during the load: one run with a trial for each."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.results.store import read_run
from tests import command
from tests.command import Command
from tests.issues import read_reasons

pytestmark = [pytest.mark.slow, pytest.mark.measures]

SLEEPER_USERS = 7
# The wall clock moves on by an hour while the trial with SLEEPER_USERS ends, as if the machine had slept.
SLEEPING_CLOCK = f"""
import time, types, bench.load.generator as generator
ahead_s = [0]
generator.time = types.SimpleNamespace(
    time=lambda: time.time() + ahead_s[0], perf_counter_ns=time.perf_counter_ns)
finish = generator.RunningLoad.finish
def late_finish(self, **options):
    ahead_s[0] = 3600 if self.spec.users == {SLEEPER_USERS} else 0
    return finish(self, **options)
generator.RunningLoad.finish = late_finish
"""


def _freeze(running: Command) -> None:
    running.kill("productpage", signal.SIGSTOP)
    time.sleep(2.2)  # the fault itself: long enough for a whole second without a response
    running.kill("productpage", signal.SIGCONT)


FAULTS: dict[str, Callable[[Command], object]] = {
    "envoy-dies": lambda running: running.kill("productpage-sidecar"),
    "service-dies": lambda running: running.kill("reviews"),
    "locust-dies": lambda running: running.kill("locust"),
    "freezes": _freeze,
    "sleeps": lambda _: None,  # see SLEEPING_CLOCK
    "calm": lambda _: None,
}
CONFIGURATIONS: list[dict[str, Any]] = [
    {"name": "envoy-dies", "mesh": "istio"},
    {"name": "service-dies", "mesh": "none"},
    {"name": "locust-dies", "mesh": "istio"},
    {"name": "freezes", "mesh": "none"},
    {"name": "sleeps", "mesh": "none", "load": {"users": SLEEPER_USERS}},
    {"name": "calm", "mesh": "none", "load": {"users": 24, "think_time": "1s"}},
]


@dataclass(frozen=True)
class BrokenRun:
    """The run after it ended."""

    folder: Path
    finished: command.Finished

    def trial(self, configuration: str) -> tuple[Path, dict[str, Any]]:
        """A trial's folder and record."""
        [path] = (self.folder / "trials").glob(f"*-{configuration}-1")
        return path, json.loads((path / "trial.json").read_text("utf-8"))

    def codes(self, configuration: str) -> list[str]:
        """The codes of a trial's reasons."""
        return [reason.partition(":")[0] for reason in read_reasons(self.trial(configuration)[1])]


@pytest.fixture(scope="module")
def broken_run(shared_output: Path) -> BrokenRun:
    """A run with a trial for each fault, and one without."""
    shared_output.parent.mkdir(exist_ok=True)
    load = {"users": 6, "think_time": "250ms", "duration": "4s"}
    scenario = command.write_scenario(shared_output.parent, CONFIGURATIONS, reference="calm", load=load)
    with command.run_in_background(
        "run", "--scenario", scenario, output=shared_output, driver=SLEEPING_CLOCK
    ) as running:
        for number, name in enumerate(running.record()["plan"]["order"][0], start=1):
            running.loading(f"{number:02}-{name}-1")
            FAULTS[name](running)
        return BrokenRun(running.folder(), running.wait())


def test_run_with_broken_trials_completes_with_a_report(broken_run: BrokenRun) -> None:
    """Every trial is stored, the report is written, the exit code is 5, there is no traceback, and no process is left
    running."""
    assert broken_run.finished.code == 5, broken_run.finished.output
    assert "Traceback" not in broken_run.finished.err
    assert len(read_run(broken_run.folder).trials) == len(CONFIGURATIONS)
    assert (broken_run.folder / "report" / "index.html").is_file()
    assert command.read_record(broken_run.folder)["status"] == "invalid"
    assert command.find_leftovers(broken_run.folder) == []


@pytest.mark.parametrize(
    ("configuration", "process"), [("envoy-dies", "productpage-sidecar"), ("service-dies", "reviews")]
)
def test_dead_process_makes_trial_invalid(broken_run: BrokenRun, configuration: str, process: str) -> None:
    """Case 62: the trial names the process, its exit and its last log lines; samples until then are kept."""
    path, record = broken_run.trial(configuration)
    assert record["status"] == "invalid"
    assert "restart" in broken_run.codes(configuration)
    assert "proof" not in broken_run.codes(configuration)
    [restart] = (reason for reason in read_reasons(record) if reason.startswith("restart: "))
    assert restart.startswith(f"restart: {process} (SIGKILL, ")
    assert f"{process} (SIGKILL" in broken_run.finished.err
    assert (path / "samples.parquet").stat().st_size > 0


def test_dead_load_generator_makes_trial_invalid(broken_run: BrokenRun) -> None:
    """Case 42: the trial records that Locust ended and how; its samples until then are kept."""
    _, record = broken_run.trial("locust-dies")
    assert broken_run.codes("locust-dies")[0] == "generator-ended"
    assert "lost-rows" not in broken_run.codes("locust-dies")
    assert "Locust ended during the load (SIGKILL" in read_reasons(record)[0]
    assert record["generator"]["recorded"] >= 20
    assert "proof" not in broken_run.codes("locust-dies")


def test_stall_is_counted_and_withholds_verdict(broken_run: BrokenRun) -> None:
    """Case 44: seconds without a response are counted and make the trial invalid, and there is no verdict on it."""
    assert "stall" in broken_run.codes("freezes")
    summary = json.loads((broken_run.folder / "summary.json").read_text("utf-8"))
    [repeat] = summary["configurations"]["freezes"]["repeats"]
    assert repeat["stall_s"] >= 1
    assert {c["verdict"] for c in summary["contrasts"] if c["configuration"] == "freezes"} == {"invalid"}


def test_suspended_machine_makes_trial_invalid(broken_run: BrokenRun) -> None:
    """Case 48: if the wall clock and the monotonic clock differ by more than 2 s, the trial is invalid and records the
    difference."""
    _, record = broken_run.trial("sleeps")
    assert "clock: wall clock and monotonic clock diverged by 1h" in " ".join(read_reasons(record))


def test_trial_stays_valid_despite_broken_ones(broken_run: BrokenRun) -> None:
    """Faults of other trials do not affect a trial without faults."""
    assert broken_run.codes("calm") == []
    assert broken_run.trial("calm")[1]["status"] == "complete"
