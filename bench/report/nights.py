"""Make what a page and a metric say of a history: night by night its ratio, its decision and what changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.analysis.change_points import ChangePoint, find_change_points
from bench.analysis.history import HistoryLine, list_new_conditions, list_new_versions
from bench.analysis.regression import Decision, decide, find_error
from bench.analysis.stats import CONFIDENCE, Interval, ratio_interval, t_quantile


@dataclass(frozen=True, slots=True)
class Night:
    """One night of a contrast.

    changed: the conditions and versions that differ from the night before
    begins: whether its conditions, or an acceptance, begin a new baseline
    """

    line: HistoryLine
    decision: Decision
    changed: tuple[str, ...]
    begins: bool

    @property
    def interval(self) -> Interval | None:
        """Return the 95 % interval of the ratio, from the night's own repeats or blocks; None where it has none."""
        error = find_error(self.line) if self.line.is_success else None
        if error is None or self.line.ln_ratio is None:
            return None
        return ratio_interval(self.line.ln_ratio, error.se * t_quantile(CONFIDENCE, error.df))


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level: the night that it begins with, and the new level divided by the one before."""

    night: Night
    ratio: float


@dataclass(frozen=True)
class Series:
    """The nights of one contrast, oldest first; there is at least one."""

    nights: tuple[Night, ...]

    @property
    def last(self) -> Night:
        return self.nights[-1]

    @cached_property
    def measured(self) -> tuple[Night, ...]:
        """Return the nights that have a valid ratio."""
        return tuple(night for night in self.nights if night.line.is_success)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the changes of level, across all conditions: a new version of a mesh may be one."""
        points: tuple[ChangePoint, ...] = find_change_points(
            [night.line.ln_ratio for night in self.measured if night.line.ln_ratio is not None]
        )
        return tuple(Step(self.measured[point.at], math.exp(point.step)) for point in points)


def make_series(lines: Sequence[HistoryLine]) -> Series:
    """Return the nights of one contrast, with the decisions of the gate."""
    befores = [None, *lines[:-1]]
    return Series(tuple(map(_make_night, lines, decide(lines), befores)))


def _make_night(line: HistoryLine, decision: Decision, before: HistoryLine | None) -> Night:
    if before is None:
        return Night(line, decision, changed=(), begins=False)
    changed = (*list_new_conditions(before, line), *list_new_versions(before, line))
    return Night(line, decision, changed, begins=bool(line.accepted) or line.kind != before.kind)
