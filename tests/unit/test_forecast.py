"""What a run records is foreseen: samples, disk and memory, before it starts and from its first warm-up on."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.analysis.forecast import HELD_BYTES, STORED_BYTES, expect_rates, forecast_records
from bench.errors import RefusedError, StoreError
from bench.load.generator import Progress
from bench.meshes.resolved import resolve_scenario
from bench.results.samples import RAW_ROW, TASK_ROW
from bench.results.store import RunFolder
from bench.run.space import RESERVE_BYTES, SpaceWatch, check_space, forecast_run, raise_first_error
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from tests.factory import ConfigSpec, RunSpec, make_run

GIB = 1024**3
RECORDED = RAW_ROW.itemsize + TASK_ROW.itemsize


def forecast(*sets: str, scenario: str = "smoke", **changes: Any) -> Any:
    resolved = resolve_scenario(scenario, Overrides(sets=sets, **changes))
    return forecast_run(resolved, make_plan(resolved.scenario, 1)), resolved


@pytest.mark.parametrize(
    ("sets", "rate"),
    [
        (("load.users=20", "load.think_time=100ms"), 200),
        (("load.users=20", "load.think_time=2s"), 10),
        (("load.rate=50/s",), 50),
        (("load.think_time=0s",), None),
    ],
)
def test_expected_rate_is_of_the_load(sets: tuple[str, ...], rate: float | None) -> None:
    """The rate of an open loop, else users by think time; without a think time only the application limits it."""
    found, _ = forecast("design=sequential", *sets)
    assert set(found.rates.values()) == {rate}
    assert (found.samples == 0) == (rate is None)
    assert ("is not known, and measured in the first warm-up" in str(found)) == (rate is None)


def test_own_waits_are_not_known() -> None:
    """A Locust file of the user's may wait as it likes, unless the scenario names its think time or a rate."""
    scenario = resolve_scenario("smoke", Overrides(sets=("design=sequential",))).scenario
    load = scenario.load.model_copy(update={"think_time_s": 0.5})
    load.model_fields_set.discard("think_time_s")
    own = scenario.model_copy(update={"load": load})
    assert set(expect_rates(own, has_own_waits=True).values()) == {None}
    assert set(expect_rates(own, has_own_waits=False).values()) == {load.users / 0.5}


@pytest.mark.parametrize(("design", "at_once"), [("sequential", 1), ("interleaved", 2)])
def test_numbers_are_those_of_all_trials(design: str, at_once: int) -> None:
    """Stored samples add up; records in their first form are those of the trials that are deployed together."""
    resolved = resolve_scenario(
        "smoke", Overrides(sets=(f"design={design}",), repeats="3", warmup="10s", duration="90s", rate="50/s")
    )
    names = [one.name for one in resolved.scenario.configurations][:2]
    plan = make_plan(resolved.scenario, 1)
    trials = [trial for trial in plan.trials if trial.configuration in names]
    found = forecast_records(resolved.scenario, trials, dict.fromkeys(names, 10.0))
    assert found.samples == len(names) * 3 * 1000
    assert found.disk_bytes == found.samples * STORED_BYTES + at_once * 1000 * RECORDED
    assert found.memory_bytes == at_once * 1000 * HELD_BYTES


@pytest.mark.parametrize(
    ("free_disk", "free_memory", "problem"),
    [(100 * GIB, 100 * GIB, ""), (1 * GIB, 100 * GIB, "free disk"), (100 * GIB, 1 * GIB, "free memory")],
)
def test_refuses_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_disk: int, free_memory: int, problem: str
) -> None:
    """The error names what is free and what is needed, and has exit code 3."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free_disk))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free_memory))
    found, _ = forecast(rate="50/s", duration="1h", repeats="9")
    results = check_space(tmp_path / "results" / "of" / "a run", found)
    assert [one.name for one in results if one.status == "error"] == [problem][: bool(problem)]
    if problem:
        with pytest.raises(RefusedError, match=f"{problem}: 1 GiB.*needed; hint: "):
            raise_first_error(results)


def progress(*, sent_per_s: float, in_window: bool) -> Progress:
    phase = "window" if in_window else "warm-up"
    return Progress(phase, 5, 10, None, 0, 0, sent_per_s=sent_per_s, in_window=in_window)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A watch of a run that has recorded nothing yet, with 2 GiB of free disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2 * GIB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GIB))
    made = make_run(tmp_path / "made", RunSpec(configurations=(ConfigSpec("baseline"),), repeats=3))
    folder = RunFolder.create(tmp_path / "output", made.record.model_copy(update={"trials": ()}))
    yield SpaceWatch(folder)
    folder.journal.close()


def test_measured_rate_is_checked_when_the_first_window_begins(watch: SpaceWatch) -> None:
    """A rate that fills the disk ends the run after its warm-up; one that fits is measured once."""
    watch.look("baseline", progress(sent_per_s=1e9, in_window=False))
    watch.look("baseline", progress(sent_per_s=100, in_window=True))
    watch.look("baseline", progress(sent_per_s=1e9, in_window=True))
    assert watch.rates == {"baseline": 100}
    watch.rates.clear()
    with pytest.raises(RefusedError, match="free disk: 2 GiB"):
        watch.look("baseline", progress(sent_per_s=1e6, in_window=True))


def test_load_ends_before_the_last_gib(watch: SpaceWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fills the disk: the load ends while there is room for everything else."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=RESERVE_BYTES - 1))
    with pytest.raises(StoreError, match="less than 1 GiB is free on its disk"):
        watch.look("baseline", progress(sent_per_s=1, in_window=False))
