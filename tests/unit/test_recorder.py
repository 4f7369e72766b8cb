"""The recorder inside Locust: in a process of its own, since Locust patches the one that imports it."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from bench.load.merge import read_samples
from tests.bookinfo import ROOT


def told(fact: str, folder: Path) -> Any:
    """What `tests.recording` says of a fact."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.recording", fact, folder], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_a_request_is_due_when_the_wait_is_over(tmp_path: Path) -> None:
    """In a closed loop the first request after a wait was due at its end, and a further one when it started."""
    found = told("closed_loop", tmp_path)
    first, second = found["first"], found["second"]
    assert found["wait_s"] == pytest.approx(0.02)
    # this user did not wait: its request is early by what was left of the wait
    assert 0 < first["intended_ns"] - first["started_ns"] <= 0.02e9
    assert second["intended_ns"] == second["started_ns"]
    assert second["started_ns"] > first["started_ns"]


def test_a_users_own_context_is_kept(tmp_path: Path) -> None:
    """What a locustfile puts into its requests' context is still there when it is recorded."""
    assert told("closed_loop", tmp_path)["first"]["own"] == "kept"


def test_an_arrival_that_nobody_was_free_for_is_late(tmp_path: Path) -> None:
    """In an open loop a user waits for the next arrival, and takes one that has passed at once, due when it was."""
    found = told("open_loop", tmp_path)
    assert found["waits_s"] == [pytest.approx(1, abs=0.2), 0]
    assert found["dues_s"] == [1, -1]


def test_arrivals_come_at_the_rate_and_at_random(tmp_path: Path) -> None:
    """The gaps of 50/s are exponential: their mean is 20 ms and so is their deviation; the seed fixes them all."""
    found = told("arrivals", tmp_path)
    gaps = found["gaps_s"]
    mean = fmean(gaps)
    assert mean == pytest.approx(0.02, rel=0.03)
    assert fmean((gap - mean) ** 2 for gap in gaps) ** 0.5 == pytest.approx(0.02, rel=0.05)
    assert found["first_s"] == 0.5
    assert found["same"]
    assert found["other"]


def test_every_request_is_a_row(tmp_path: Path) -> None:
    """What Locust counts is what is stored: as many rows, as many failures, and its own account of both."""
    counted = told("load", tmp_path)
    samples = read_samples(tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert len(samples) == counted["requests"] == own["recorded"] == own["locust_requests"] > 20
    assert (~samples.ok).sum() == counted["failures"] == own["locust_failures"] > 0
    assert (tmp_path / "samples.bin").stat().st_size == 33 * len(samples)


def test_a_row_holds_what_the_request_was(tmp_path: Path) -> None:
    """Names are kept on one line each, latencies to the nanosecond, starts since the test's start."""
    told("load", tmp_path)
    samples = read_samples(tmp_path)
    assert sorted(samples.names) == ["page 0", "page 1"]
    assert set(samples.latency_ns.tolist()) == {1_250_000}
    assert set(samples.bytes.tolist()) == {100}
    assert set(samples.status.tolist()) == {0}  # no answer came
    assert 0 <= samples.started_ns[0] < samples.started_ns[-1] < 10e9


def test_the_clock_has_one_zero(tmp_path: Path) -> None:
    """Who starts more load from Locust's page does not shift the times of what was recorded before."""
    found = told("two_starts", tmp_path)
    first, second = found["zeros"]
    assert first == second == found["stored"] > 0


def test_the_recorders_rows_are_read_as_they_were_packed(tmp_path: Path) -> None:
    """The rows that the recorder packs have the layout that is read: sorted by start, without the torn last one."""
    told("packed_rows", tmp_path)
    (tmp_path / "started.json").write_text('{"zero_ns": 0, "wall_s": 0}', "utf-8")
    (tmp_path / "names.txt").write_text("page\nlogin\n", "utf-8")
    found = read_samples(tmp_path)
    assert found.intended_ns.tolist() == [10, 20, 30]
    assert found.started_ns.tolist() == [11, 22, 33]
    assert found.latency_ns.tolist() == [1_000_000, 2_000_000, 3_000_000]
    assert found.status.tolist() == [201, 202, 203]
    assert found.ok.tolist() == [True, False, True]
    assert found.bytes.tolist() == [15_001, 15_002, 15_003]
    assert found.name.tolist() == [1, 0, 1]


def test_a_full_disk_ends_the_load(tmp_path: Path) -> None:
    """Requests that cannot be recorded are not sent: the load ends long before its time, and says why."""
    found = told("full_disk", tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert found["exit_code"] == 1
    assert found["seconds"] < 20
    assert own["problem"] == "samples cannot be written: No space left on device"
