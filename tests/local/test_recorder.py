"""The recorder inside Locust: in a separate process, since Locust patches the one that imports it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.analysis.pace import measure_pace
from bench.load.raw_samples import read_samples, read_valid_tasks
from bench.results.records import PaceRecord, Window
from bench.results.samples import RAW_ROW
from tests.bookinfo import ROOT

pytestmark = pytest.mark.measures

MS = 1_000_000
STALL_MS = 2000  # a busy machine may delay a process for so long


def facts_of(fact: str, folder: Path) -> Any:
    """What `tests.recording` reports for a fact."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.recording", fact, folder], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def rows_by_name(folder: Path) -> dict[str, "npt.NDArray[np.int64]"]:
    """Columns intended, started and ended (ns), in the order of their starts."""
    found = read_samples(folder)
    columns = np.stack([found.intended_ns, found.started_ns, found.completed_ns], axis=1)
    return {name: columns[found.name == number] for number, name in enumerate(found.names)}


@pytest.fixture(scope="module")
def closed_loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A closed loop of one user: its rows' folder, and its context."""
    folder = tmp_path_factory.mktemp("closed")
    return folder, facts_of("closed_loop", folder)


def test_intended_start_is_the_end_of_the_wait(closed_loop: tuple[Path, dict[str, Any]]) -> None:
    """In a closed loop the first request after a wait was due at its end, and each other one when it started."""
    rows = rows_by_name(closed_loop[0])
    for name in ("login", "second"):
        assert (rows[name][:, 0] == rows[name][:, 1]).all()
    intended, started, _ = rows["first"].T
    assert intended[0] == started[0]  # it follows no wait
    assert (intended[1:] < started[1:]).all()
    assert np.median(started[1:] - intended[1:]) < 10 * MS
    waits = intended[1:] - rows["second"][: len(intended) - 1, 2]
    assert waits.min() >= 20 * MS
    assert np.median(waits) < 25 * MS


def test_user_context_is_kept(closed_loop: tuple[Path, dict[str, Any]]) -> None:
    """A user whose context and attributes use our field names keeps them, and they change no row."""
    folder, kept = closed_loop
    assert kept == {"context": {"started_ns": 1, "intended_ns": "never"}, "attributes": ["own", "own"]}
    found = read_samples(folder)
    assert len(found) > 20
    assert found.started_ns.min() >= 0
    assert (np.diff(found.completed_ns) > 0).all()


def pace_of(folder: Path, begin_s: float, end_s: float) -> PaceRecord:
    tasks, invalid = read_valid_tasks(folder)
    assert invalid == ""
    found = measure_pace(tasks, [Window(start_ns=round(begin_s * 1e9), end_ns=round(end_s * 1e9))])
    assert found is not None
    return found


def test_waits_and_tasks_add_up(tmp_path: Path) -> None:
    """Whatever the file's waits, pauses and task sets are, each user is in a wait or in a task, until its last one."""
    facts_of("any_waits", tmp_path)
    for begin_s, end_s in ((0.4, 3.9), (1.0, 2.5)):
        found = pace_of(tmp_path, begin_s, end_s)
        assert found.waiting_s + found.working_s == pytest.approx(5 * (end_s - begin_s), rel=0.02)
        assert 0.01 < found.mean_wait_s < 0.06
        assert found.late_p95_ms < 10
    samples = read_samples(tmp_path)
    firsts = sum((samples.intended_ns < samples.started_ns).tolist())
    assert firsts <= pace_of(tmp_path, 0.0, 60.0).tasks + 5 < len(samples)


def test_hanging_user_is_missing(tmp_path: Path) -> None:
    """A task that did not end is in no row: the time of its user is missing."""
    facts_of("hanging_user", tmp_path)
    found = pace_of(tmp_path, 1.0, 2.8)
    assert found.waiting_s + found.working_s == pytest.approx(4 * 1.8, rel=0.05)


def test_arrivals_are_starts_of_tasks(tmp_path: Path) -> None:
    """In an open loop every task has one arrival, whose time its first request has as intended start."""
    schedule = np.array(facts_of("open_loop", tmp_path)["schedule_ns"])
    due = read_valid_tasks(tmp_path)[0]["due_ns"]
    due = np.sort(due[due > 0])  # without the waits that the end of the load cut
    logins = rows_by_name(tmp_path)["login"]
    assert len(read_samples(tmp_path)) - len(logins) <= len(due)
    np.testing.assert_allclose(np.diff(due), np.diff(schedule[: len(due)]), atol=1000)


@pytest.mark.parametrize("fact", ["held_closed_loop", "held_open_loop"])
def test_held_users_send_nothing(tmp_path: Path, fact: str) -> None:
    """Users of any class start only when they are released, and once all are held, no request is in flight."""
    times = facts_of(fact, tmp_path)
    found = read_samples(tmp_path)
    (_, second_held), (first, second) = times["held"], times["released"]
    assert found.started_ns.min() >= first
    before, after = found.started_ns < second_held, found.started_ns >= second
    assert (before | after).all()
    assert found.completed_ns[before].max() <= second_held
    assert before.sum() > 30
    assert after.sum() > 30


def test_released_users_keep_their_distance(tmp_path: Path) -> None:
    """A hold changes nothing but the time: users go on with what was left of their waits, and none is late."""
    times = facts_of("held_closed_loop", tmp_path)
    rows = rows_by_name(tmp_path)["Regular page"]
    (_, held), (first, second) = times["held"], times["released"]
    starts = rows[:, 1] - np.where(rows[:, 1] >= second, second - held, 0)
    assert np.median(rows[:, 1] - rows[:, 0]) < 10 * MS
    assert np.ptp(starts[rows[:, 1] >= second][:3]) > 10 * MS  # three users, which began at random
    cycles = np.diff(np.sort(starts[starts > first])[::3])
    assert np.median(cycles) == pytest.approx(320 * MS, rel=0.2)


def test_arrivals_pause_while_users_are_held(tmp_path: Path) -> None:
    """An open loop's schedule goes on where it was: no arrival is taken late, and none is lost."""
    times = facts_of("held_open_loop", tmp_path)
    found = read_samples(tmp_path)
    second = times["released"][1]
    assert np.percentile(found.started_ns - found.intended_ns, 90) < 20 * MS
    assert ((found.started_ns >= second) & (found.started_ns < second + 200 * MS)).sum() < 30
    assert 60 < len(found) < 190


def test_every_wait_takes_one_arrival(tmp_path: Path) -> None:
    """In an open loop no arrival is skipped or used twice, by users of inheriting classes, with waits of task sets and
    of Locust's own pacing, in greenlets that a task spawns, and no `wait_time` is called; `on_start` comes before the
    first one, and its requests are no arrivals."""
    schedule = np.array(facts_of("open_loop", tmp_path)["schedule_ns"])
    rows = rows_by_name(tmp_path)
    logins = rows.pop("login")
    assert (logins[:, 0] == logins[:, 1]).all()
    assert {*rows} == {"Parent page", "Child page", "Nested page", "Nested detail", "Paced page", "Spawned page"}
    arrived = np.concatenate([*rows.values()])
    assert (arrived[:, 0] <= arrived[:, 1]).all()
    assert logins[:, 2].max() < arrived[:, 1].min()
    intended = np.sort(arrived[:, 0])
    assert len(intended) > 40
    # intended starts are exact, except for the error of the start's conversion
    np.testing.assert_allclose(np.diff(intended), np.diff(schedule[: len(intended)]), atol=1000)


def test_late_arrival_keeps_its_intended_start(tmp_path: Path) -> None:
    """In an open loop a free user starts a past arrival at once, and its intended start stays that of the arrival."""
    facts_of("busy_open_loop", tmp_path)
    intended, started, ended = rows_by_name(tmp_path)["page"].T
    assert np.diff(intended).mean() < 40 * MS
    assert np.median(started[5:] - ended[4:-1]) < 10 * MS
    assert started[-1] - intended[-1] > 200 * MS


def test_waiting_users_end_at_once(tmp_path: Path) -> None:
    """Locust ends a waiting user at once, also one that waits for its first arrival: not after its stop timeout."""
    found = facts_of("ended_in_waits", tmp_path)
    assert 0 < found["closed"] < 5
    assert 0 < found["open"] < 5


def test_arrivals_are_exponential_at_the_rate(tmp_path: Path) -> None:
    """The gaps of 50/s are exponential: their mean is 20 ms and so is their deviation; the seed determines them all."""
    found = facts_of("arrivals", tmp_path)
    gaps = found["gaps_s"]
    mean = fmean(gaps)
    assert mean == pytest.approx(0.02, rel=0.03)
    assert fmean((gap - mean) ** 2 for gap in gaps) ** 0.5 == pytest.approx(0.02, rel=0.05)
    assert found["first_s"] == 0.5
    assert found["same"]
    assert found["other"]


def test_every_request_is_a_row(tmp_path: Path) -> None:
    """Rows and failed rows are as many as Locust counts, and as the recorder's own summary has."""
    counted = facts_of("load", tmp_path)
    samples = read_samples(tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert len(samples) == counted["requests"] == own["recorded"] == own["locust_requests"] > 20
    assert (~samples.ok).sum() == counted["failures"] == own["locust_failures"] > 0
    assert (tmp_path / "samples.bin").stat().st_size == RAW_ROW.itemsize * len(samples)


def test_row_has_name_latency_and_start(tmp_path: Path) -> None:
    """Names are stored on one line each, latencies in nanoseconds, starts since the test's start."""
    facts_of("load", tmp_path)
    samples = read_samples(tmp_path)
    assert sorted(samples.names) == ["page 0", "page 1"]
    assert set(samples.latency_ns.tolist()) == {1_250_000}
    assert set(samples.bytes.tolist()) == {100}
    assert set(samples.status.tolist()) == {0}  # there was no response
    assert 0 <= samples.started_ns[0] < samples.started_ns[-1] < 10e9


def test_second_start_keeps_the_time_origin(tmp_path: Path) -> None:
    """Starting more load from Locust's page does not shift the times of earlier rows."""
    found = facts_of("two_starts", tmp_path)
    first, second = found["zeros"]
    assert first == second == found["stored"] > 0


def test_packed_rows_are_read_back(tmp_path: Path) -> None:
    """The recorder's rows have the layout that is read: sorted by start, without the incomplete last one."""
    facts_of("packed_rows", tmp_path)
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


def test_full_disk_ends_the_load(tmp_path: Path) -> None:
    """Requests that cannot be recorded are not sent: the load ends long before its time, and reports the reason."""
    found = facts_of("full_disk", tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert found["exit_code"] == 1
    assert found["seconds"] < 20
    assert own["problem"] == "samples cannot be written: No space left on device"


def test_unrecordable_request_ends_the_load(tmp_path: Path) -> None:
    """The load ends long before its time, from within the user that sent the request, and reports the reason."""
    found = facts_of("refused_row", tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert found["exit_code"] == 1
    assert found["seconds"] < 20
    assert own["problem"] == "the request 'page' cannot be recorded: its response_time None is not a time in ms"
    assert len(read_samples(tmp_path)) == own["recorded"] >= 20


def test_unwritable_start_ends_the_load(tmp_path: Path) -> None:
    """A recorder that cannot write its start lets no user send requests."""
    found = facts_of("no_start", tmp_path)
    assert found["exit_code"] == 1
    assert found["seconds"] < 20
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert own["problem"].startswith("started.json cannot be written: ")


@pytest.fixture(scope="module")
def unusual_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rows of unusual events, by their names in `tests.recording`."""
    found: dict[str, dict[str, Any]] = facts_of("odd_events", tmp_path_factory.mktemp("odd"))
    return found


MOST_BYTES = (1 << 62) - 1
GIVEN_MS = -70  # the start that the event has, 50 ms before the request that it was fired after
DERIVED_MS = -20


@pytest.mark.parametrize(
    ("event", "started_ms", "derived", "fields"),
    [
        ("plain", GIVEN_MS, 0, [0, 1, 5]),
        ("no-start", DERIVED_MS, 2, [0, 1, 5]),
        ("start-none", DERIVED_MS, 2, [0, 1, 5]),
        ("start-monotonic", DERIVED_MS, 2, [0, 1, 5]),
        ("start-future", DERIVED_MS, 2, [0, 1, 5]),
        ("context", GIVEN_MS, 0, [0, 1, 5]),
        ("no-length", GIVEN_MS, 0, [0, 1, 0]),
        ("length-unknown", GIVEN_MS, 0, [0, 1, 0]),
        ("length-large", GIVEN_MS, 0, [0, 1, 3_000_000_000]),
        ("status", GIVEN_MS, 0, [404, 1, 5]),
        ("status-none", GIVEN_MS, 0, [0, 1, 5]),
        ("no-status", GIVEN_MS, 0, [0, 1, 5]),
        ("failure", GIVEN_MS, 0, [0, 0, 5]),
        ("no-failure", GIVEN_MS, 0, [0, 1, 5]),
    ],
)
def test_missing_event_fields_are_derived(
    unusual_rows: dict[str, dict[str, Any]], event: str, started_ms: int, derived: int, fields: list[int]
) -> None:
    """A request without a start gets its response time before its event as start, and is counted as derived; status and
    size may be missing, and a failure is what Locust counts as one."""
    found = unusual_rows[event]
    intended, started, latency, status, ok, size, _ = found["row"]
    assert (intended, latency, [status, ok, size]) == (started, 20 * MS, fields)
    assert started / MS == pytest.approx(started_ms, abs=5)
    assert (found["recorded"], found["derived_starts"], found["given_up"]) == (2, derived, [])


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ("time-none", "its response_time None is not a time in ms"),
        ("time-nan", "its response_time nan is not a time in ms"),
        ("time-negative", "its response_time -1.0 is not a time in ms"),
        ("time-text", "its response_time '12' is not a time in ms"),
        ("time-huge", "its response_time 1000000000000000.0 is not a time in ms"),
        ("status-text", "its status_code 'OK' is not a whole number of up to 32767"),
        ("status-negative", "its status_code -1 is not a whole number of up to 32767"),
        ("length-negative", f"its response_length -2 is not a whole number of up to {MOST_BYTES} bytes"),
        ("status-huge", "its status_code 70000 is not a whole number of up to 32767"),
        (
            "length-huge",
            f"its response_length 9223372036854775808 is not a whole number of up to {MOST_BYTES} bytes",
        ),
        ("length-float", f"its response_length 1.5 is not a whole number of up to {MOST_BYTES} bytes"),
        ("name-none", "its name is not a string"),
        ("name-list", "unhashable type: 'list'"),
    ],
)
def test_oversized_request_is_named(unusual_rows: dict[str, dict[str, Any]], event: str, cause: str) -> None:
    """A request that no row can hold makes the recorder fail, once, with the request and the reason."""
    found = unusual_rows[event]
    [given_up] = found["given_up"]
    assert found["problem"] == given_up
    assert re.fullmatch(rf"the request .+ cannot be recorded: .*{re.escape(cause)}", given_up)
    assert (found["recorded"], found["derived_starts"]) == (0, 0)


def test_no_row_is_lost_for_its_name(tmp_path: Path) -> None:
    """The file of the names is bounded: requests with further names are rows all the same, under one name."""
    found = facts_of("too_many_names", tmp_path)
    assert (found["recorded"], found["problem"]) == (70_001, "")
    samples = read_samples(tmp_path)
    assert len(samples) == 70_001
    assert (tmp_path / "names.txt").stat().st_size <= 1 << 20
    assert samples.names[:2] == ("/item/" + "0" * 20, "/item/" + "0" * 19 + "1")
    assert samples.names[-1] == "(other names)"
    counts = np.bincount(samples.name)
    assert counts[7] == 2
    assert counts[-1] == 70_001 - counts[:-1].sum() > 30_000


def test_unusual_names_are_read_back(tmp_path: Path) -> None:
    """A name is stored on one line, without control characters and not too long: no request is lost for its name."""
    assert facts_of("odd_names", tmp_path) == {"recorded": 7, "problem": ""}
    long = ("long" * 9999)[:8192]
    expected = ("two lines", "?[31mred", "half a pair ?", "?", "", long, "plain ü?")
    assert read_samples(tmp_path).names == expected


def test_request_before_start_counts_from_zero(tmp_path: Path) -> None:
    """A request that another listener sends before the test's start is a row at the load's beginning, and the time
    origin stays."""
    found = facts_of("before_the_start", tmp_path)
    assert found == {"same_zero": True, "derived": 0, "problem": ""}
    (started_ns,) = read_samples(tmp_path).started_ns.tolist()
    assert -STALL_MS * MS < started_ns < 0


def test_wall_clock_step_is_reported(tmp_path: Path) -> None:
    """The summary has the size of a clock step between two requests or while none is sent."""
    found = facts_of("stepped_clock", tmp_path)
    for seen_by in ("request", "flush"):
        assert found[seen_by]["clock_step_ms"] == pytest.approx(30, abs=1)
        assert found[seen_by]["problem"] == ""


def test_master_sums_worker_accounts(tmp_path: Path) -> None:
    """Requests and derived starts are summed over workers; the largest clock step is that of the load."""
    facts_of("workers", tmp_path)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert (own["recorded"], own["derived_starts"], own["clock_step_ms"]) == (7, 3, 12.5)
