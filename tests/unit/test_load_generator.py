"""The load as its target controls it: its duration and its window."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import StoreError, exit_code_of
from bench.load.generator import CpuUse, LoadOutcome, LoadSpec, Progress, RunningLoad
from bench.load.schedule import UnitLoads, drive_alone
from bench.results.issues import Issue
from bench.results.resources import Row
from bench.results.samples import RAW_ROW
from bench.system.cancellation import CancelToken
from tests.issues import codes, issue

S = 1_000_000_000


OUTAGE = issue("api-outage")


class FakeGenerator:
    """A generator whose clock advances by half a second at each reading, and whose users send ten requests per second;
    the responses of the listed seconds are failures."""

    def __init__(self, folder: Path, *, bad: range = range(0), account: Mapping[str, Any] | None = None) -> None:
        self.folder, self.bad = folder, bad
        self.account = {"locust_requests": 0, "locust_failures": 0, "recorded": 0} if account is None else account
        self.ends_ns: int | None = None
        self.at_ns = 0
        (folder / "started.json").write_text(json.dumps({"zero_ns": 0, "wall_s": 0.0}), "utf-8")
        (folder / "names.txt").write_text("page\n", "utf-8")

    def wait_for_start(self) -> float:
        return 0.0

    def zero_ns(self) -> int:
        return 0

    def now_ns(self) -> int:
        self.at_ns += S // 2
        return self.at_ns

    def tick(self) -> None:
        rows = np.zeros(self.at_ns * 10 // S, RAW_ROW)
        rows["started_ns"] = rows["intended_ns"] = np.arange(len(rows)) * (S // 10)
        rows["latency_ns"] = S // 100
        rows["ok"] = ~np.isin(rows["started_ns"] // S, self.bad)
        rows.tofile(self.folder / "samples.bin")

    def trouble(self) -> str:
        return "Locust ended" if self.ends_ns is not None and self.at_ns > self.ends_ns else ""

    def broken(self) -> bool:
        return False

    def read_cpu(self) -> CpuUse | None:
        return None

    def hold(self) -> None:
        raise NotImplementedError

    release = hold

    def is_held(self) -> bool:
        return False

    def begin_stop(self) -> None:
        """It ends at once."""

    def stop(self, *, timeout_s: float) -> int:
        assert timeout_s > 0
        (self.folder / "generator.json").write_text(json.dumps(self.account), "utf-8")
        return 0

    def resources(self) -> Sequence[Row]:
        return ()

    def issues(self) -> tuple[Issue, ...]:
        return (OUTAGE,)


def led(folder: Path, *, bad: range, warmup_s: float) -> LoadOutcome:
    """The result of such a load, with a window of 60 seconds."""
    return led_by(FakeGenerator(folder, bad=bad), folder, warmup_s=warmup_s)


def led_by(generator: FakeGenerator, folder: Path, *, warmup_s: float = 5, **more: Any) -> LoadOutcome:
    order: dict[str, Any] = {"address": "", "virtual_host": "", "locustfile": folder, "seed": 1, **more}
    load = LoadSpec(users=1, think_time_s=0.1, rate_per_s=None, warmup_s=warmup_s, duration_s=60, **order)
    return run_alone(RunningLoad(generator, load, folder))


def run_alone(
    load: RunningLoad, *, shown: list[Progress] | None = None, kept: list[LoadOutcome] | None = None
) -> LoadOutcome:
    """Run a load that shares its time with no other."""

    def show(_: str, progress: Progress) -> None:
        if shown is not None:
            shown.append(progress)

    def keep(_: str, outcome: LoadOutcome) -> None:
        if kept is not None:
            kept.append(outcome)

    return UnitLoads({"one": load}, CancelToken(), show, keep).run(drive_alone)["one"]


@pytest.mark.parametrize(("warmup_s", "begins_s"), [(0, 0), (5, 5), (30, 0)])
def test_ends_load_whose_requests_all_fail(tmp_path: Path, warmup_s: float, begins_s: float) -> None:
    """After more than ten seconds, also in the warm-up, the failures become the window. The generator itself has no
    error."""
    outcome = led(tmp_path, bad=range(100), warmup_s=warmup_s)
    assert outcome.windows[0].start_ns == begins_s * S
    assert 11 < outcome.windows[0].end_ns / S < 17
    assert codes(outcome.issues) == ["api-outage", "ended-early"]
    assert outcome.issues[1].detail.endswith("requests of 10 seconds failed; the load was ended early")
    assert not outcome.countable


def test_continues_load_whose_failures_end(tmp_path: Path) -> None:
    """Nine seconds of failures do not end the load."""
    outcome = led(tmp_path, bad=range(9), warmup_s=20)
    assert (outcome.windows[0].start_ns, outcome.windows[0].end_ns) == (20 * S, 80 * S)
    assert outcome.issues == (OUTAGE,)
    assert outcome.countable


def test_load_that_breaks_off_has_ended_early(tmp_path: Path) -> None:
    """A load that fails after successful requests is no result, however few of them failed."""
    outcome = led(tmp_path, bad=range(40, 100), warmup_s=20)
    assert 50 < outcome.windows[0].end_ns / S < 57
    assert codes(outcome.issues) == ["generator-ended", "api-outage"]
    assert outcome.issues[0].detail.endswith("requests of 10 seconds failed; the load was ended early")
    assert not outcome.countable


RECORDED = {"locust_requests": 9, "locust_failures": 0, "recorded": 8}
REFUSED = "the request 'page' cannot be recorded: its response_time None is not a time in ms"


@pytest.mark.parametrize(
    ("account", "problem"),
    [
        ({**RECORDED, "problem": REFUSED}, REFUSED),
        ({**RECORDED, "problem": ""}, "Locust ended"),
        ({}, "Locust ended"),
        ({"problem": "a file is missing"}, "Locust ended"),
    ],
    ids=["the recorder gave up", "it did not", "no account", "an account that is not Locust's"],
)
def test_recorders_reason_takes_precedence(tmp_path: Path, account: Mapping[str, Any], problem: str) -> None:
    """A load that ends by itself has the recorder's reason, if it gave one, and else the target's."""
    generator = FakeGenerator(tmp_path, account=account)
    generator.ends_ns = 20 * S
    outcome = led_by(generator, tmp_path)
    assert outcome.issues[0] == issue("generator-ended", problem)
    assert outcome.windows[0].end_ns < 60 * S


def test_record_has_the_recorders_account(tmp_path: Path) -> None:
    """Derived starts and the largest clock step come from Locust's account."""
    account = {**RECORDED, "problem": "", "derived_starts": 4, "clock_step_ms": 12.5}
    record = led_by(FakeGenerator(tmp_path, account=account), tmp_path).generator
    assert (record.derived_starts, record.clock_step_ms) == (4, 12.5)


@pytest.mark.parametrize(
    ("chosen", "options", "expected"),
    [(True, [], True), (True, ["think-time"], False), (False, [], False), (True, None, False)],
    ids=["not taken", "taken", "the default", "unknown"],
)
def test_think_time_that_is_not_applied_is_a_warning(
    tmp_path: Path, chosen: bool, options: list[str] | None, expected: bool
) -> None:
    """A think time that the scenario chose, and the locustfile does not take, is reported: its own waits hold."""
    account = RECORDED if options is None else {**RECORDED, "options": options}
    outcome = led_by(FakeGenerator(tmp_path, account=account), tmp_path, think_time_chosen=chosen)
    assert ("own-waits" in codes(outcome.issues)) == expected
    assert outcome.countable


class OddGenerator(FakeGenerator):
    """Its last row has an unknown name."""

    def tick(self) -> None:
        super().tick()
        rows = np.fromfile(self.folder / "samples.bin", RAW_ROW)
        rows["name"][-1:] = 7
        rows.tofile(self.folder / "samples.bin")


def test_invalid_rows_are_one_error_and_others_stay(tmp_path: Path) -> None:
    """On this machine the folder is unreadable; the valid samples are stored before."""
    order: dict[str, Any] = {"address": "", "virtual_host": "", "locustfile": tmp_path, "seed": 1}
    asked = LoadSpec(users=1, think_time_s=0.1, rate_per_s=None, warmup_s=0, duration_s=20, **order)
    load, kept = RunningLoad(OddGenerator(tmp_path, bad=range(0)), asked, tmp_path), list[LoadOutcome]()
    with pytest.raises(StoreError, match=r"are invalid: samples\.bin: 1 of \d+ rows") as caught:
        run_alone(load, kept=kept)
    assert exit_code_of(caught.value) == 9
    assert len(kept[0].samples) > 100
    assert (tmp_path / "samples.parquet").exists()


class VariedGenerator(FakeGenerator):
    """Each response takes a millisecond more than the one before."""

    def tick(self) -> None:
        super().tick()
        rows = np.fromfile(self.folder / "samples.bin", RAW_ROW)
        rows["latency_ns"] = (1 + np.arange(len(rows))) * 1_000_000
        rows.tofile(self.folder / "samples.bin")


def test_live_p95_is_the_nearest_rank(tmp_path: Path) -> None:
    """The printed P95 and the report's are both a measured latency, without interpolation."""
    order: dict[str, Any] = {"address": "", "virtual_host": "", "locustfile": tmp_path, "seed": 1}
    asked = LoadSpec(users=1, think_time_s=0.1, rate_per_s=None, warmup_s=0, duration_s=20, **order)
    shown: list[Progress] = []
    run_alone(RunningLoad(VariedGenerator(tmp_path), asked, tmp_path), shown=shown)
    found = [progress.p95_ms for progress in shown if progress.p95_ms is not None]
    assert len(found) > 5
    assert all(value.is_integer() for value in found)
