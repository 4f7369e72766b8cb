"""Loads without a usable result: one run with a trial for each faulty locustfile."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import command
from tests.issues import read_reasons

pytestmark = [pytest.mark.slow, pytest.mark.measures]

# What a user does depends on how many there are, the one thing that a configuration can change.
FAULTY_USERS = """
turns = 0

@task
def turn(self) -> None:
    began = time.perf_counter()
    Faulty.began = getattr(Faulty, "began", began)
    Faulty.turns += 1
    age_s = began - Faulty.began
    match self.environment.parsed_options.num_users:
        case 3:
            self.ask("/nowhere" if Faulty.turns % 25 == 0 else "/productpage")
        case 4:
            self.ask_slowly(-0.005)
        case 5:
            gevent.sleep(0.1)
        case 6:
            while time.perf_counter() - began < 0.05:
                pass
            self.ask()
        case 40:
            self.ask_slowly(0.02 * 2 ** (age_s / 1.5), "/health")
        case 41:
            self.ask_slowly(0.25 if age_s < 1.5 else 0.04, "/health")
"""
LOST_USERS = """
@task
def turn(self) -> None:
    self.ask("/nowhere")
"""
CONFIGURATIONS: list[dict[str, Any]] = [
    {"name": "errors", "mesh": "none", "load": {"users": 3}},
    {"name": "negative", "mesh": "none", "load": {"users": 4}},
    {"name": "empty", "mesh": "none", "load": {"users": 5}},
    {"name": "saturated", "mesh": "none", "load": {"users": 6, "think_time": "1ms"}},
    {"name": "growing", "mesh": "none", "load": {"users": 40}},
    {"name": "settling", "mesh": "none", "load": {"users": 41}},
]


@dataclass(frozen=True)
class FaultyLoads:
    """The run after it ended."""

    folder: Path
    finished: command.Finished

    def trial(self, configuration: str) -> dict[str, Any]:
        """A trial's record."""
        [path] = (self.folder / "trials").glob(f"*-{configuration}-1")
        return dict(json.loads((path / "trial.json").read_text("utf-8")))

    def reasons(self, configuration: str) -> dict[str, str]:
        """A trial's reasons by their codes."""
        return {
            one["code"]: one["detail"] for one in self.trial(configuration)["issues"] if one["severity"] == "reason"
        }

    def repeat(self, configuration: str) -> dict[str, Any]:
        """A configuration's one repeat in the summary."""
        summary = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return dict(summary["configurations"][configuration]["repeats"][0])


@pytest.fixture(scope="module")
def faulty_loads(shared_output: Path) -> FaultyLoads:
    """A run in which the load of every trial is faulty."""
    load = {
        "locustfile": command.write_locustfile(shared_output.parent, FAULTY_USERS),
        "duration": "3s",
        "think_time": "100ms",
    }
    scenario = command.write_scenario(shared_output.parent, CONFIGURATIONS, load=load)
    finished = command.run("run", "--scenario", scenario, output=shared_output)
    return FaultyLoads(command.find_only_run(shared_output), finished)


def test_invalid_trials_exit_with_5_and_a_report(faulty_loads: FaultyLoads) -> None:
    """All trials run, the report is written, the reasons are on standard error, and the exit code is 5."""
    assert faulty_loads.finished.code == 5, faulty_loads.finished.output
    assert "Traceback" not in faulty_loads.finished.err
    assert len(command.read_record(faulty_loads.folder)["trials"]) == len(CONFIGURATIONS)
    assert list((faulty_loads.folder / "report").glob("*.png"))
    assert "invalid: errors: " in faulty_loads.finished.err


def test_error_rate_above_one_percent_is_invalid(faulty_loads: FaultyLoads) -> None:
    """Case 36: failures make the trial invalid, and the summary has both its P95 and its errors."""
    assert "status 404" in faulty_loads.reasons("errors")["errors"]
    repeat = faulty_loads.repeat("errors")
    assert not repeat["valid"]
    assert repeat["errors"] >= 1
    assert repeat["p95_ms"] > 0


def test_window_without_requests_is_invalid(faulty_loads: FaultyLoads) -> None:
    """Case 37: without a request the tables have "n/a" instead of a P95, and the report is still written."""
    assert "no request started inside the window" in faulty_loads.reasons("empty")["empty"]
    assert faulty_loads.repeat("empty")["p95_ms"] is None
    assert "n/a" in (faulty_loads.folder / "report" / "report.md").read_text("utf-8")


def test_negative_latencies_are_invalid(faulty_loads: FaultyLoads) -> None:
    """Case 37: a negative latency ends the load, whatever the percentiles of the others are."""
    reason = faulty_loads.reasons("negative")["generator-ended"]
    assert "its response_time -5.0 is not a time in ms" in reason


def test_saturated_client_is_invalid_with_advice(faulty_loads: FaultyLoads) -> None:
    """Case 43: a busy client is distinguished from a slow system, and the message has advice."""
    reasons = faulty_loads.reasons("saturated")
    assert reasons.keys() & {"generator-cpu", "late-requests"}
    assert "; use fewer users" in faulty_loads.finished.err


def test_unsteady_load_is_invalid_after_longer_warm_up(faulty_loads: FaultyLoads) -> None:
    """Case 45: the warm-up is extended once; if the next window is not steady either, the trial is invalid."""
    record = faulty_loads.trial("growing")
    assert record["warmup_extended"]
    assert "P95 of the last third differs from the first's by" in faulty_loads.reasons("growing")["unsteady"]


def test_steady_load_after_longer_warm_up_is_valid(faulty_loads: FaultyLoads) -> None:
    """Case 45: a steady second window counts, and the record notes that the warm-up was extended."""
    record = faulty_loads.trial("settling")
    assert record["warmup_extended"]
    assert record["windows"][0]["start_ns"] >= 3e9
    assert "unsteady" not in faulty_loads.reasons("settling")


def test_load_with_only_failures_ends_after_ten_seconds(output: Path) -> None:
    """Case 35: when all requests of 10 seconds failed the load ends, its samples are kept, and the exit code is 5."""
    load = {"locustfile": command.write_locustfile(output.parent, LOST_USERS), "duration": "60s"}
    scenario = command.write_scenario(output.parent, [command.BASELINE], load=load)
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == 5, finished.output
    record = command.read_trial_record(command.find_only_run(output), "01-baseline-1")
    assert "of 10 seconds failed; the load was ended early" in " ".join(read_reasons(record, "warning"))
    assert 10 < record["windows"][0]["end_ns"] / 1e9 < 30
    assert record["generator"]["recorded"] > 100
    assert [reason.partition(":")[0] for reason in read_reasons(record)] == ["all-failed"]


# By kind: imports, body of the task, exit code, the message.
PLAIN_FILES = {
    "silent": (
        "import time; from locust import User, constant, task",
        "time.sleep(0.01)",
        5,
        "none of them fires Locust",
    ),
    "shaped": ("from locust import LoadTestShape, User, constant, task", "pass", 2, "Steps is a LoadTestShape"),
    "stray": (
        "from locust import HttpUser as User, constant, task",
        'self.client.get("http://elsewhere.example/")',
        5,
        "off-target: connections were refused: ",
    ),
    "raising": ("from locust import User, constant, task", "raise KeyError(1)", 5, "the first: KeyError: 1 (plain.py:"),
}


@pytest.mark.parametrize("kind", PLAIN_FILES)
def test_file_that_cannot_be_measured_has_its_reason(output: Path, kind: str) -> None:
    """A file that sends nothing, sends elsewhere, raises in each task or has a shape ends with a message of it."""
    imports, body, code, message = PLAIN_FILES[kind]
    lines = [imports, "", "class Buyer(User):", "    wait_time = constant(0.1)", "    @task", "    def buy(self):"]
    shape = ["class Steps(LoadTestShape):", "    def tick(self):", "        return (1, 1)"] if kind == "shaped" else []
    text = "\n".join([*lines, f"        {body}", *shape, ""])
    (output.parent / "plain.py").write_text(text, "utf-8")
    load = {"locustfile": "plain", "users": 4, "duration": "15s" if kind == "raising" else "2s"}
    scenario = command.write_scenario(output.parent, [command.BASELINE], load=load)
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == code, finished.output
    assert message in finished.err, finished.output
    assert "Traceback" not in finished.err
