"""The loads of a unit: their windows on the common clock, whose users send when, and what ends all of them."""

import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.errors import Interrupted
from bench.load.generator import CpuUse, LoadOutcome, LoadSpec, RunningLoad
from bench.load.schedule import BusyCpusError, UnitLoads, drive_in_turn, drive_together
from bench.results.issues import Issue
from bench.results.resources import Row
from bench.results.samples import RAW_ROW
from bench.scenario.plan import SETTLE_S
from bench.system import cancellation
from bench.system.cancellation import CancelToken
from tests.issues import codes

S = 1_000_000_000
ORDER = (("a", "b", "c"), ("c", "b", "a"))


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by reading the clock."""
    monkeypatch.setattr(cancellation, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))


class Clock:
    """meshbench's monotonic clock: each reading takes 20 ms."""

    def __init__(self) -> None:
        self.at_ns = 1000 * S

    def read(self) -> int:
        self.at_ns += S // 50
        return self.at_ns


class FakeGenerator:
    """A generator that began `late_s` after the clock's beginning. Its users send ten requests per second while they
    are not held; `ends_s` is when its process dies, `bad` is whether every request fails."""

    def __init__(self, folder: Path, clock: Clock, *, late_s: float = 0, held: bool = False) -> None:
        folder.mkdir()
        self.folder, self.clock, self.zero = folder, clock, clock.at_ns + round(late_s * S)
        self.sent: list[int] = []
        self.active: list[tuple[int, int | None]] = [] if held else [(0, None)]
        self.ends_s = 1e9
        self.bad = self.deaf = False
        self.cpu_share = 0.7
        (folder / "started.json").write_text(json.dumps({"zero_ns": self.zero, "wall_s": 0.0}), "utf-8")
        (folder / "names.txt").write_text("page\n", "utf-8")

    def wait_for_start(self) -> float:
        self.clock.at_ns = max(self.clock.at_ns, self.zero)
        return 0.0

    def zero_ns(self) -> int:
        return self.zero

    def now_ns(self) -> int:
        return self.clock.read() - self.zero

    def tick(self) -> None:
        now_ns = self.clock.at_ns - self.zero
        spans = [(start, end or now_ns) for start, end in self.active]
        rows = np.zeros(sum(len(range(start, end, S // 10)) for start, end in spans), RAW_ROW)
        sent = [at for start, end in spans for at in range(start, end, S // 10)]
        rows["started_ns"] = rows["intended_ns"] = sent
        rows["latency_ns"], rows["ok"] = S // 100, not self.bad
        rows.tofile(self.folder / "samples.bin")

    def trouble(self) -> str:
        return "Locust ended" if self.clock.at_ns - self.zero > self.ends_s * S else ""

    def broken(self) -> bool:
        return False

    def read_cpu(self) -> CpuUse | None:
        """The run uses `cpu_share` of two CPUs from the beginning of the warm-up's second half, and nothing before."""
        passed_ns = self.clock.at_ns - self.zero
        return CpuUse(round(self.cpu_share * 2 * max(0, passed_ns - 5 * S // 2)), 2 * passed_ns)

    def hold(self) -> None:
        self.active[-1] = (self.active[-1][0], self.now_ns())

    def release(self) -> None:
        self.active.append((self.now_ns(), None))

    def is_held(self) -> bool:
        return not self.deaf and not (self.active and self.active[-1][1] is None)

    def begin_stop(self) -> None:
        """It ends at once."""

    def stop(self, *, timeout_s: float) -> int:
        assert timeout_s > 0
        account = {"locust_requests": 0, "locust_failures": 0, "recorded": 0}
        (self.folder / "generator.json").write_text(json.dumps(account), "utf-8")
        return 0

    def resources(self) -> Sequence[Row]:
        return ()

    def issues(self) -> tuple[Issue, ...]:
        return ()


def make_unit(folder: Path, *, held: bool = False, names: str = "abc", **kept: Any) -> UnitLoads:
    """A unit whose generators began half a second after each other, with a warm-up of 5 s and 20 s of windows."""
    clock = Clock()
    more: dict[str, Any] = {"address": "", "virtual_host": "", "locustfile": folder, "seed": 1, "held": held}
    spec = LoadSpec(users=1, think_time_s=0.1, rate_per_s=None, warmup_s=5, duration_s=20, **more)
    loads = {
        name: RunningLoad(FakeGenerator(folder / name, clock, late_s=0.5 * number, held=held), spec, folder / name)
        for number, name in enumerate(names)
    }
    return UnitLoads(loads, CancelToken(), lambda *_: None, kept.get("kept", lambda *_: None))


def generator_of(unit: UnitLoads, name: str) -> FakeGenerator:
    generator = unit.loads[name].generator
    assert isinstance(generator, FakeGenerator)
    return generator


def on_common_clock(found: dict[str, LoadOutcome]) -> dict[str, list[tuple[int, int]]]:
    """The windows of each load, in ns on meshbench's clock."""
    return {
        name: [(window.start_ns + one.zero_ns, window.end_ns + one.zero_ns) for window in one.windows]
        for name, one in found.items()
    }


def test_duet_has_one_common_window(tmp_path: Path) -> None:
    """The windows are the same on the common clock, after the warm-up of the load that began last, and different on the
    clocks of the generators; no warm-up is extended."""
    unit = make_unit(tmp_path)
    unit.wait_for_starts()
    found = unit.run(drive_together)
    (first,) = (window := on_common_clock(found))["a"]
    assert window == {name: [first] for name in "abc"}
    assert first[1] - first[0] == 20 * S
    assert first[0] >= generator_of(unit, "c").zero + 5 * S
    assert found["a"].windows[0].start_ns == found["c"].windows[0].start_ns + S
    assert not any(one.issues or one.warmup_extended for one in found.values())


def test_loads_in_turn_have_the_planned_order(tmp_path: Path) -> None:
    """Each configuration has a window per round, in the order of the plan; users of the others send nothing."""
    unit = make_unit(tmp_path, held=True)
    unit.wait_for_starts()
    found = unit.run(partial(drive_in_turn, order=ORDER))
    windows = on_common_clock(found)
    turns = sorted((start, end, name) for name, pairs in windows.items() for start, end in pairs)
    assert [name for _, _, name in turns] == ["a", "b", "c", "c", "b", "a"]
    assert {end - start for start, end, _ in turns} == {10 * S}
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(turns))
    for name, one in found.items():
        sent_ns = one.samples.started_ns + one.zero_ns
        others = [pair for other, pairs in windows.items() if other != name for pair in pairs]
        assert not any(((sent_ns >= start) & (sent_ns < end)).any() for start, end in others)
        assert len(one.samples.counted(one.windows)) == pytest.approx(200, abs=4)


def test_first_window_has_the_whole_warm_up(tmp_path: Path) -> None:
    """Before a later window the users only settle."""
    unit = make_unit(tmp_path, held=True)
    found = unit.run(partial(drive_in_turn, order=ORDER))
    (first, second) = generator_of(unit, "a").active
    windows = found["a"].windows
    assert windows[0].start_ns - first[0] == pytest.approx(5 * S, abs=S / 4)
    assert windows[1].start_ns - second[0] == pytest.approx(SETTLE_S * S, abs=S / 4)


@pytest.mark.parametrize("held", [False, True])
def test_broken_load_ends_the_others(tmp_path: Path, held: bool) -> None:
    """A unit ends early with the load that broke; the others are invalid for a reason that a rerun may be without."""
    unit = make_unit(tmp_path, held=held)
    generator_of(unit, "b").ends_s = 12
    found = unit.run(partial(drive_in_turn, order=ORDER) if held else drive_together)
    assert [codes(found[name].issues) for name in "abc"] == [["interrupted"], ["generator-ended"], ["interrupted"]]
    assert found["a"].issues[0].detail == "the load ended early, with that of b: Locust ended"
    assert all(one.windows[-1].end_ns < 20 * S for one in found.values() if len(one.samples))


def test_hopeless_load_ends_the_others(tmp_path: Path) -> None:
    """A configuration that fails every request ends the block after ten seconds of failures."""
    unit = make_unit(tmp_path)
    generator_of(unit, "c").bad = True
    found = unit.run(drive_together)
    assert [codes(found[name].issues) for name in "abc"] == [["interrupted"], ["interrupted"], ["ended-early"]]


def test_users_that_cannot_be_held_end_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their requests would be part of another configuration's window."""
    monkeypatch.setattr("bench.load.schedule._HELD_S", -9.9)
    unit = make_unit(tmp_path, held=True)
    generator_of(unit, "b").deaf = True
    found = unit.run(partial(drive_in_turn, order=ORDER))
    assert found["b"].issues[0].detail.startswith("its users were not held within")
    assert codes(found["a"].issues) == ["interrupted"]


def test_interrupted_unit_keeps_every_load(tmp_path: Path) -> None:
    """What was measured of each load is saved before the exception is raised again."""
    kept: dict[str, LoadOutcome] = {}
    unit = make_unit(tmp_path, kept=kept.__setitem__)

    def interrupt(now: UnitLoads) -> None:
        now.wait_until(now.now_ns() + 8 * S)
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        unit.run(interrupt)
    assert {name: codes(one.issues) for name, one in kept.items()} == {name: ["interrupted"] for name in "abc"}
    assert all(len(one.samples) > 50 and (tmp_path / name / "samples.parquet").exists() for name, one in kept.items())


def test_busy_duet_ends_before_its_window(tmp_path: Path) -> None:
    """CPU use of the warm-up's second half decides, where a limit is given; what was measured is kept."""
    kept: dict[str, LoadOutcome] = {}
    unit = make_unit(tmp_path, kept=kept.__setitem__)
    for name in "abc":
        generator_of(unit, name).cpu_share = 0.8
    with pytest.raises(BusyCpusError, match="of the CPUs in the warm-up") as caught:
        unit.run(partial(drive_together, most_cpu=0.75))
    assert caught.value.share == pytest.approx(0.8, abs=0.05)
    assert all(len(kept[name].samples.counted(kept[name].windows)) <= 2 for name in "abc")
    assert {name: codes(one.issues) for name, one in kept.items()} == {name: ["interrupted"] for name in "abc"}


@pytest.mark.parametrize("most_cpu", [None, 0.75])
def test_duet_with_free_cpus_is_measured(tmp_path: Path, most_cpu: float | None) -> None:
    """It goes on to its window, as does one whose target does not know its CPU use."""
    unit = make_unit(tmp_path, names="ab")
    found = unit.run(partial(drive_together, most_cpu=most_cpu))
    assert not any(one.issues for one in found.values())
