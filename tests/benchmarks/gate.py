"""How often the nightly gate is wrong in simulated histories, and how often it finds a change, by the nights before.

A night has 3 repeats of each of two configurations, which differ by 5 % (sd of ln P95), and each configuration differs
by some more from night to night: 2 % on a machine that does nothing else, 6 % on one that does. What both have in
common cancels in their ratio. All is drawn from one seed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from bench.analysis.history import HistoryLine
from bench.analysis.regression import Decision, decide
from bench.units import format_change, format_percent
from tests.benchmarks.figure import Figure
from tests.nights import make_night

HISTORIES: Final = 200
BEFORE: Final = (1, 2, 4, 5, 20)
AFTER: Final = 5  # nights that a change has to be found in
CHANGES: Final = (1.0, 1.1, 1.2)
NIGHT_SDS: Final = (0.02, 0.06)
SEED: Final = 17
MOST_FALSE: Final = 0.02  # of the nights, where nights differ by 2 %
_REPEATS: Final = 3
_REPEAT_SD: Final = 0.05
_FIRST: Final = datetime(2026, 1, 1, 3, 17, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The shares of histories that have a regression: on the night of the change, by the fifth night, and of all five
    nights."""

    first: float
    by_fifth: float
    of_nights: float


def figures() -> Iterator[Figure]:
    """Yield false alarms and power for each number of nights before."""
    for night_sd in NIGHT_SDS:
        for change in CHANGES:
            for before in BEFORE:
                cell = measure(before, change=change, night_sd=night_sd)
                is_false = change == 1.0
                what = "false alarms" if is_false else f"{format_change(change)} found"
                has_aim = is_false and night_sd == NIGHT_SDS[0]
                yield Figure(
                    what=f"nights differ by {format_percent(night_sd)}, {before} before: {what}",
                    value=f"{round(cell.first * HISTORIES)} of {HISTORIES}",
                    aim=f"<= {format_percent(MOST_FALSE)}" if has_aim else "",
                    met=cell.of_nights <= MOST_FALSE if has_aim else None,
                    spread=f"by night {AFTER} in {format_percent(cell.by_fifth)} of histories;"
                    f" {format_percent(cell.of_nights)} of these nights",
                )


def measure(before: int, *, change: float, night_sd: float, histories: int = HISTORIES) -> Cell:
    """Return how often the gate fails in the five nights from a change on, after nights without one."""
    rng = np.random.default_rng([SEED, before, round(1000 * change), round(1000 * night_sd)])
    found = []
    for _ in range(histories):
        decisions = decide(draw_history(rng, before, change=change, night_sd=night_sd))[before:]
        found.append([_fails(decision) for decision in decisions])
    fails = np.array(found)
    return Cell(
        first=float(fails[:, 0].mean()), by_fifth=float(fails.any(axis=1).mean()), of_nights=float(fails.mean())
    )


def draw_history(rng: np.random.Generator, before: int, *, change: float, night_sd: float) -> list[HistoryLine]:
    """Return the nights of a history: `before` of them, then five in which the configuration is slower by `change`."""
    count = before + AFTER
    nights = rng.normal(0, night_sd, (count, 2, 1)) + rng.normal(0, _REPEAT_SD, (count, 2, _REPEATS))
    nights[before:, 0] += math.log(change)
    return [make_night(_FIRST + timedelta(days=day), *sides.tolist()) for day, sides in enumerate(nights)]


def _fails(decision: Decision) -> bool:
    return decision.outcome == "regression"
