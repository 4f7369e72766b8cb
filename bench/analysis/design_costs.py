"""Estimate what each design would have cost in machine minutes, and how narrow its interval would have been."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from bench.analysis.contrast import Side, read_values
from bench.analysis.stats import compute_repeats_as_narrow, compute_welch_half_width
from bench.results.records import RunRecord
from bench.results.summary_records import ConfigurationSummary, Contrast
from bench.scenario.plan import ON_A_CLUSTER, ON_THIS_MACHINE, estimate_seconds, make_plan
from bench.scenario.types import Design

_DESIGNS: Final[tuple[Design, ...]] = get_args(Design)


@dataclass(frozen=True, slots=True)
class DesignEstimate:
    """What a design would have cost with this run's number of blocks.

    minutes: of the machine, for warm-ups, windows and deployments
    half_width: half the width of the 95 % interval of the ln ratio (0.1 is about 10 %); None where this run's data
        cannot tell
    measured: whether the run had this design, so that the half width is its own
    """

    design: Design
    minutes: float
    half_width: float | None
    measured: bool


def estimate_designs(
    record: RunRecord, contrast: Contrast, configurations: Mapping[str, ConfigurationSummary]
) -> tuple[DesignEstimate, ...]:
    """Return an estimate for each design: the run's own half width, and that of a sequential run from the spread
    between the blocks of a paired one. How much pairing would have gained, a sequential run cannot tell."""
    own, blocks = record.plan.design, record.plan.blocks
    known: dict[Design, float | None] = {own: measure_half_width(contrast)}
    if own != "sequential":
        sides = [_make_side(configurations, name) for name in (contrast.configuration, contrast.reference)]
        values = read_values(sides[0], sides[1], contrast.metric, design=own)
        known["sequential"] = compute_welch_half_width(*values.both, blocks) if values.reference else None
    return tuple(
        DesignEstimate(design, estimate_minutes(record, design, blocks), known.get(design), design == own)
        for design in _DESIGNS
    )


def estimate_sequential_minutes(
    record: RunRecord, contrast: Contrast, configuration: Side, reference: Side
) -> float | None:
    """Return the minutes of the shortest sequential run whose interval of this ratio would be no wider.

    Its repeats have the spread of this run's blocks, without pairing. None where there is no interval, or where even
    the most repeats would not be enough.
    """
    half = measure_half_width(contrast)
    if half is None:
        return None
    values = read_values(configuration, reference, contrast.metric, design=record.plan.design)
    repeats = compute_repeats_as_narrow(*values.both, half)
    return None if repeats is None else estimate_minutes(record, "sequential", repeats)


def measure_half_width(contrast: Contrast) -> float | None:
    """Return half the width of the 95 % interval of the ln ratio; None where there is none."""
    if contrast.ratio_low is None or contrast.ratio_high is None:
        return None
    return math.log(contrast.ratio_high / contrast.ratio_low) / 2


def estimate_minutes(record: RunRecord, design: Design, blocks: int) -> float:
    """Return the minutes that a run of this scenario would take with this design and number of blocks."""
    scenario = record.scenario.model_copy(update={"design": design, "repeats": 1})
    overhead = ON_A_CLUSTER if record.cluster else ON_THIS_MACHINE
    return blocks * estimate_seconds(scenario, make_plan(scenario, record.plan.seed), overhead) / 60


def _make_side(configurations: Mapping[str, ConfigurationSummary], name: str) -> Side:
    return Side(name, configurations[name].mesh, configurations[name].repeats)
