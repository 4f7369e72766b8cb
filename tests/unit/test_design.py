"""The design of a run: what is asked for, what is measured, and why."""

from typing import Any

import pytest

from bench.errors import InputError
from bench.meshes.resolved import resolve_scenario
from bench.scenario.design import SettledScenario
from bench.scenario.loader import settle_scenario
from bench.scenario.model import Scenario
from bench.scenario.overrides import Overrides
from bench.scenario.plan import count_rounds, estimate_load_seconds, make_plan
from tests.factory import ConfigSpec, RunSpec, make_scenario

MINE = """
schema_version: 1
name: mine
title: Mine
{keys}
reference: baseline
configurations:
  - {{name: baseline, mesh: none}}
  - {{name: istio, mesh: istio}}
"""


def settle(name: str, **overrides: Any) -> SettledScenario:
    return settle_scenario(name, Overrides(**overrides))


def settle_file(tmp_path: Any, keys: str, **overrides: Any) -> Scenario:
    (tmp_path / "mine.yaml").write_text(MINE.format(keys=keys), "utf-8")
    return settle(str(tmp_path / "mine.yaml"), **overrides).scenario


def times(scenario: Scenario) -> tuple[str | None, int, float, float]:
    return scenario.design, scenario.repeats, scenario.load.warmup_s, scenario.load.duration_s


def refused(name: str, **overrides: Any) -> str:
    with pytest.raises(InputError) as raised:
        settle(name, **overrides)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("istio-policies", {}, ("interleaved", 3, 30, 120)),
        ("istio-policies", {"quick": True}, ("duet", 8, 5, 15)),
        ("istio-policies", {"quick": True, "repeats": 2}, ("duet", 2, 5, 15)),
        ("istio-policies", {"quick": True, "repeats": 12}, ("duet", 12, 5, 15)),
        ("istio-policies", {"quick": True, "duration": "6s", "warmup": "2s"}, ("duet", 8, 2, 6)),
        ("istio-policies", {"quick": True, "design": "sequential"}, ("sequential", 3, 5, 15)),
        ("istio-policies", {"design": "duet"}, ("duet", 12, 10, 30)),
        ("istio-policies", {"design": "duet", "repeats": 5}, ("duet", 5, 10, 30)),
        ("istio-policies", {"sets": ("design=duet",), "duration": "60s"}, ("duet", 12, 10, 60)),
        ("istio-policies", {"design": "duet", "duration": "4s", "warmup": "2s"}, ("duet", 12, 2, 4)),
        ("istio-policies", {"study": True}, ("sequential", 3, 30, 120)),
        ("aa", {}, ("interleaved", 6, 30, 120)),
        ("smoke", {}, ("sequential", 2, 1, 3)),
        ("users-sweep", {}, ("sequential", 3, 30, 120)),
        ("users-sweep", {"quick": True}, ("sequential", 3, 5, 15)),
    ],
)
def test_design_and_its_times(name: str, overrides: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """A scenario with a reference is interleaved, or with `quick` a duet of 8 blocks; what the command line gives is
    kept, and a scenario without a reference or with short windows is sequential."""
    settled = settle(name, **overrides)
    assert (times(settled.scenario), settled.remarks) == (expected, ())


def test_duet_of_a_file_keeps_the_times_of_the_file(tmp_path: Any) -> None:
    """Only what a file leaves out gets the times of a duet."""
    assert times(settle_file(tmp_path, "design: duet")) == ("duet", 12, 10, 30)
    keys = "design: duet\nrepeats: 4\nload: {duration: 20s, warmup: 9s}"
    assert times(settle_file(tmp_path, keys)) == ("duet", 4, 9, 20)
    assert times(settle_file(tmp_path, "quick: true\nrepeats: 4")) == ("duet", 4, 5, 15)


def test_too_few_users_for_a_duet_are_interleaved() -> None:
    """A duet needs four users for each configuration, and the remark says how many that are in all."""
    settled = settle("gateway", quick=True)
    assert settled.scenario.design == "interleaved"
    assert settled.remarks == (
        "interleaved in place of duet: 20 users over 6 configurations are 3 each, and a duet needs 4 each: 24 in all",
    )
    assert settle("gateway", quick=True, users=24).remarks == ()
    assert settle("gateway", quick=True, sets=("load.users_each=4",)).scenario.design == "duet"
    assert [issue.code for issue in resolve_scenario("gateway", Overrides(quick=True)).remarks] == ["design"]


def test_short_windows_with_too_few_users_are_sequential() -> None:
    """Where the load cannot be divided into windows either, each configuration is measured alone."""
    assert settle("gateway", quick=True, duration="6s", warmup="2s").scenario.design == "sequential"


@pytest.mark.parametrize(
    ("name", "overrides", "reason"),
    [
        ("users-sweep", {"design": "duet"}, "there is no reference"),
        ("users-sweep", {"design": "duet", "sets": ("reference=users-10",)}, "have a load of their own"),
        ("istio-policies", {"design": "interleaved", "sets": ("isolation=full",)}, "isolation: shared"),
        ("smoke", {"design": "interleaved"}, "use a duration of 10s or more"),
        ("istio-policies", {"study": True, "quick": True}, "--quick: cannot be given with --study"),
        ("istio-policies", {"study": True, "design": "duet"}, "--design: cannot be given with --study"),
    ],
)
def test_design_that_is_impossible_is_refused(name: str, overrides: dict[str, Any], reason: str) -> None:
    """Where a design is asked for and cannot be, the message says why, and what to change."""
    assert reason in refused(name, **overrides)


def test_isolation_alone_is_sequential() -> None:
    """A scenario that isolates meshes, and asks for no design, is measured one configuration after another."""
    assert settle("istio-policies", sets=("isolation=full",)).scenario.design == "sequential"


def test_users_of_a_duet_are_shared_out() -> None:
    """The scenario's users are those of a block; `users_each` overrides the equal share."""
    shared = settle("istio-policies", quick=True).scenario
    assert [shared.load_of(one.name).users for one in shared.configurations] == [6, 6, 6]
    each = settle("istio-policies", quick=True, sets=("load.users_each=9",)).scenario
    assert each.load_of("istio").users == 9
    alone = settle("istio-policies", sets=("load.users_each=9",)).scenario
    assert alone.load_of("istio").users == 20


def test_rate_of_a_duet_is_shared_out() -> None:
    """So is the rate of an open loop."""
    assert settle("istio-policies", quick=True, rate="90/s").scenario.load_of("istio").rate_per_s == 30


@pytest.mark.parametrize(("duration_s", "rounds"), [(10, 2), (15, 2), (30, 2), (60, 2), (120, 4), (300, 10)])
def test_rounds_are_even_and_about_30_s(duration_s: float, rounds: int) -> None:
    """An interleaved block has an even number of windows, of about 30 s where the time allows."""
    assert count_rounds(duration_s) == rounds


def test_interleaved_windows_are_balanced_inside_the_block() -> None:
    """Each round mirrors the one before: every configuration has the same mean position in its block."""
    scenario = settle("istio-policies").scenario
    plan = make_plan(scenario, 7)
    (first, second, third, fourth) = plan.window_order(1)
    assert first == third == plan.order[0]
    assert second == fourth == plan.order[0][::-1]
    assert [len(unit) for unit in plan.units] == [3, 3, 3]


def test_sequential_plan_is_as_before() -> None:
    """A sequential run deploys each trial alone, in the balanced orders."""
    plan = make_plan(make_scenario(RunSpec([ConfigSpec(name) for name in "abc"], repeats=3, reference=None)), 7)
    assert (plan.design, plan.rounds, [len(unit) for unit in plan.units]) == ("sequential", 1, [1] * 9)
    assert "balanced" in plan.method


def test_time_of_a_block_counts_the_windows_of_a_duet_once() -> None:
    """All windows of a duet are at the same time; interleaved ones follow each other."""
    duet, turns = settle("istio-policies", quick=True).scenario, settle("istio-policies").scenario
    assert estimate_load_seconds(duet, make_plan(duet, 1)) == 20
    assert estimate_load_seconds(turns, make_plan(turns, 1)) == pytest.approx(3 * (150 + 3 * 1.5))
