"""Choose the design of a run: what was asked for, the times that go with it, and whether the load allows it."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from bench.scenario.model import QUICK_BLOCKS, QUICK_WARMUP_S, QUICK_WINDOW_S, Scenario
from bench.scenario.types import Design
from bench.units import format_count

DUET_BLOCKS: Final = 12
DUET_WARMUP_S: Final = 10.0
DUET_WINDOW_S: Final = 30.0
FEWEST_USERS: Final = 4  # of each configuration in a duet: fewer send too few requests for a P95 in 15 s

Paths = Collection[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class SettledScenario:
    """A scenario whose `design` is the one that is measured; `remarks` say why, where another one was asked for.
    `asked` is whether the file or the command line names a design; `sequential` is the scenario with the number and
    length of blocks that it has where configurations cannot share one."""

    scenario: Scenario
    remarks: tuple[str, ...] = ()
    asked: bool = False
    sequential: Scenario | None = None


def settle_design(scenario: Scenario, changed: Paths = ()) -> SettledScenario:
    """Return the scenario with its design, and with the times that go with it.

    `changed` are the keys that the command line gave, as paths: they are kept. A design of the command line has its own
    number and length of blocks in place of the file's; one of the file only where the file gives none.
    """
    alone = _set_times(scenario, "sequential", changed).model_copy(update={"design": "sequential"})
    return replace(_settle(scenario, changed), asked=scenario.design is not None, sequential=alone)


def _settle(scenario: Scenario, changed: Paths) -> SettledScenario:
    asked = scenario.design or _choose_default(scenario)
    timed = _set_times(scenario, asked, changed)
    if asked == "duet" and (remark := explain_few_users(timed)):
        if timed.list_obstacles("interleaved"):
            return settle_as(_set_times(scenario, "sequential", changed), "sequential", remark)
        return settle_as(timed, "interleaved", remark)
    return SettledScenario(timed.model_copy(update={"design": asked}))


def settle_as(scenario: Scenario, design: Design, why: str) -> SettledScenario:
    """Return the scenario with another design than was asked for, and the remark that says why."""
    was = scenario.design or _choose_default(scenario)
    return SettledScenario(scenario.model_copy(update={"design": design}), (f"{design} in place of {was}: {why}",))


def explain_few_users(scenario: Scenario) -> str:
    """Return why the users are too few to be shared out in a duet; empty where they are not."""
    count, each = len(scenario.configurations), scenario.users_in_duet
    if each >= FEWEST_USERS:
        return ""
    return (
        f"{format_count(scenario.load.users)} users over {count} configurations are {each} each, and a duet needs"
        f" {FEWEST_USERS} each: {format_count(FEWEST_USERS * count)} in all"
    )


def _choose_default(scenario: Scenario) -> Design:
    """Return the design of a scenario that names none."""
    wanted: Design = "duet" if scenario.quick else "interleaved"
    return "sequential" if scenario.list_obstacles(wanted) else wanted


def _set_times(scenario: Scenario, asked: Design, changed: Paths) -> Scenario:
    """Return the scenario with the number and length of blocks of `quick` or a duet; `quick` makes none longer."""
    load = scenario.load
    if scenario.quick:
        times = {"warmup_s": min(load.warmup_s, QUICK_WARMUP_S), "duration_s": min(load.duration_s, QUICK_WINDOW_S)}
        given = _find_given(scenario, changed, key="quick")
        repeats = scenario.repeats if asked != "duet" or "repeats" in given else max(scenario.repeats, QUICK_BLOCKS)
    elif asked == "duet":
        given = _find_given(scenario, changed, key="design")
        duration_s = load.duration_s if "duration" in given else DUET_WINDOW_S
        times = {
            "warmup_s": load.warmup_s if "warmup" in given else min(DUET_WARMUP_S, duration_s),
            "duration_s": duration_s,
        }
        repeats = scenario.repeats if "repeats" in given else DUET_BLOCKS
    else:
        return scenario
    return scenario.model_copy(update={"repeats": repeats, "load": load.model_copy(update=times)})


def _find_given(scenario: Scenario, changed: Paths, *, key: str) -> set[str]:
    """Return the keys of times that are kept: those of the command line where it gave `key`, too, else the file's."""
    if (key,) in changed:
        return {path[-1] for path in changed}
    return {*scenario.model_fields_set, *(name.removesuffix("_s") for name in scenario.load.model_fields_set)}
