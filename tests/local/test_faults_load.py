"""Loads that cannot carry a result: one run with a trial for each, by a locustfile that does what it should not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.measures, pytest.mark.timeout(600)]

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
class Doubtful:
    """The run after it ended."""

    folder: Path
    finished: command.Finished

    def trial(self, configuration: str) -> dict[str, Any]:
        """A trial's record."""
        [path] = (self.folder / "trials").glob(f"*-{configuration}-1")
        return dict(json.loads((path / "trial.json").read_text("utf-8")))

    def reasons(self, configuration: str) -> dict[str, str]:
        """A trial's reasons by their codes."""
        found = (reason.partition(": ") for reason in self.trial(configuration)["reasons"])
        return {code: told for code, _, told in found}

    def repeat(self, configuration: str) -> dict[str, Any]:
        """A configuration's one repeat in the summary."""
        summary = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return dict(summary["configurations"][configuration]["repeats"][0])


@pytest.fixture(scope="module")
def doubtful(shared_output: Path) -> Doubtful:
    """A run whose every trial has something wrong with its load."""
    load = {
        "locustfile": command.write_locustfile(shared_output.parent, FAULTY_USERS),
        "duration": "3s",
        "think_time": "100ms",
    }
    scenario = command.write_scenario(shared_output.parent, CONFIGURATIONS, load=load)
    finished = command.run("run", "--scenario", scenario, output=shared_output)
    return Doubtful(command.only_run(shared_output), finished)


def test_invalid_trials_end_in_exit_5_and_a_report(doubtful: Doubtful) -> None:
    """All trials are run, the report is drawn, the reasons stand on standard error, the exit code is 5."""
    assert doubtful.finished.code == 5, doubtful.finished.told
    assert "Traceback" not in doubtful.finished.err
    assert len(command.record(doubtful.folder)["trials"]) == len(CONFIGURATIONS)
    assert list((doubtful.folder / "report").glob("*.png"))
    assert "invalid: errors: " in doubtful.finished.err


def test_more_than_one_percent_of_errors_is_invalid_and_shown_beside_p95(doubtful: Doubtful) -> None:
    """Case 36: failures make the trial invalid, and its P95 and errors are both in the summary."""
    assert "status 404" in doubtful.reasons("errors")["errors"]
    repeat = doubtful.repeat("errors")
    assert not repeat["valid"]
    assert repeat["errors"] >= 1
    assert repeat["p95_ms"] > 0


def test_a_window_without_requests_is_invalid_and_has_no_numbers(doubtful: Doubtful) -> None:
    """Case 37: without a request there is no P95 but "n/a" in the tables, and a report all the same."""
    assert "no request started inside the window" in doubtful.reasons("empty")["empty"]
    assert doubtful.repeat("empty")["p95_ms"] is None
    assert "n/a" in (doubtful.folder / "report" / "report.md").read_text("utf-8")


def test_latencies_below_zero_are_invalid(doubtful: Doubtful) -> None:
    """Case 37: a latency that cannot be ends the load, whatever the percentiles of the others are."""
    reason = doubtful.reasons("negative")["generator-ended"]
    assert "its response_time -5.0 is not a time in ms" in reason


def test_a_saturated_client_is_invalid_with_advice(doubtful: Doubtful) -> None:
    """Case 43: a client that is busy itself is told from a slow system, and what to do about it."""
    reasons = doubtful.reasons("saturated")
    assert reasons.keys() & {"generator-cpu", "late-requests"}
    assert "use fewer users" in " ".join(reasons.values())


def test_a_load_that_does_not_settle_gets_one_longer_warm_up_and_is_invalid(doubtful: Doubtful) -> None:
    """Case 45: the warm-up is extended once; when the next window is not steady either, the trial is invalid."""
    record = doubtful.trial("growing")
    assert record["warmup_extended"]
    assert "of the last third is" in doubtful.reasons("growing")["unsteady"]


def test_a_load_that_settles_late_is_measured_after_a_longer_warm_up(doubtful: Doubtful) -> None:
    """Case 45: a second window that is steady counts, and the record says that the warm-up was extended."""
    record = doubtful.trial("settling")
    assert record["warmup_extended"]
    assert record["windows"][0]["start_ns"] >= 3e9
    assert "unsteady" not in doubtful.reasons("settling")


def test_a_load_without_any_good_answer_is_ended_after_ten_seconds(output: Path) -> None:
    """Case 35: when all requests of 10 seconds failed the load ends, its samples are kept, and the exit code is 5."""
    load = {"locustfile": command.write_locustfile(output.parent, LOST_USERS), "duration": "60s"}
    scenario = command.write_scenario(output.parent, [command.BASELINE], load=load)
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == 5, finished.told
    record = command.trial_record(command.only_run(output), "01-baseline-1")
    assert "of 10 seconds failed; the load was ended early" in " ".join(record["warnings"])
    assert 10 < record["windows"][0]["end_ns"] / 1e9 < 30
    assert record["generator"]["recorded"] > 100
    assert [reason.partition(":")[0] for reason in record["reasons"]] == ["all-failed"]
