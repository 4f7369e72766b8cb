"""Whether the quick main job answers its questions in time: how long it takes, how well it knows, what it discards."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.units import format_change, format_change_interval, format_counted, format_percent
from tests.benchmarks.campaign import Campaign, Measured
from tests.benchmarks.figure import Figure, format_s

_QUESTIONS: Final = (("istio", "baseline"), ("istio-policies", "istio"))
_MOST_SECONDS: Final = 240.0
_WIDTH: Final = math.log(1.1)
_SHARE: Final = 0.9
_MOST_VOIDED: Final = 0.05


def campaign(folder: Path) -> Campaign:
    """Return the campaign: the main job as `make bench` runs it."""
    return Campaign(folder, {"bench": ("--scenario", "istio-policies", "--quick")})


def figures(folder: Path) -> Iterator[Figure]:
    """Yield a line for each run, then how many reach the aims."""
    runs = campaign(folder).runs("bench")
    for run in runs:
        yield _describe(run)
    if runs:
        good = [run for run in runs if run.seconds <= _MOST_SECONDS and _width(run) <= _WIDTH]
        yield Figure(
            what="runs within 240 s with both ratios within +-10 %",
            value=f"{len(good)} of {len(runs)}",
            aim=">= 9 of 10",
            met=len(good) >= _SHARE * len(runs),
        )
        blocks = sum(len(run.record.plan.order) for run in runs)
        voided = sum(_count_voided(run) for run in runs)
        yield Figure(
            what="blocks voided by checks",
            value=format_percent(voided / blocks),
            spread=f"{voided} of {blocks}",
            aim="< 5 %",
            met=voided / blocks < _MOST_VOIDED,
        )


def _width(run: Measured) -> float:
    """Return the larger half width of both ratios, as a difference of logarithms; infinite without an interval."""
    found = [run.contrast(*pair) for pair in _QUESTIONS]
    return max(
        math.log(one.ratio_high / one.ratio_low) / 2 if one.ratio_low and one.ratio_high else math.inf for one in found
    )


def _count_voided(run: Measured) -> int:
    """Return the number of blocks with an invalid repeat."""
    repeats = (repeat for one in run.summary.configurations.values() for repeat in one.repeats)
    return len({repeat.block for repeat in repeats if not repeat.valid})


def _describe(run: Measured) -> Figure:
    found = [run.contrast(*pair) for pair in _QUESTIONS]
    answers = ", ".join(
        f"{one.configuration} {format_change(one.ratio)} [{format_change_interval(one.ratio_low, one.ratio_high)}]"
        for one in found
    )
    width = format_change(math.exp(_width(run)))[1:] if _width(run) < math.inf else "none"
    reruns = format_counted(len(run.record.plan.again), "rerun")
    return Figure(
        what=f"{run.record.run_id}: half width", value=width, spread=f"{format_s(run.seconds)}; {answers}; {reruns}"
    )
