"""What each design knows after the same machine time: blocks of all designs in turn, and the half width of a ratio."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

from bench.analysis.stats import CONFIDENCE, t_quantile
from bench.units import format_change, format_counted, format_percent, format_ratio
from tests.benchmarks.campaign import SCENARIOS, Campaign, Measured
from tests.benchmarks.figure import Figure, format_s

DESIGNS: Final = ("duet", "interleaved", "sequential")
PAIRS: Final = (("baseline-again", "baseline"), ("istio", "baseline"), ("istio-policies", "istio"))
MINUTES: Final = (4, 8, 16, 30)
_NARROWER: Final = 3.0
_AGREEMENT: Final = 1.05
_SCENARIO: Final = str(SCENARIOS / "designs.yaml")


def campaign(folder: Path) -> Campaign:
    """Return the campaign: one block a run, 15 s of window for each configuration, whatever the design."""
    fixed = ("--scenario", _SCENARIO, "--duration", "15s", "--warmup", "5s", "--repeats", "1")
    return Campaign(folder, {design: (*fixed, "--design", design) for design in DESIGNS})


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the figures of what the campaign has so far."""
    found = campaign(folder)
    runs = {design: found.runs(design) for design in DESIGNS}
    for design, blocks in runs.items():
        yield from _describe(design, blocks)
    for pair in PAIRS:
        yield from _compare_widths(pair, runs)
    yield from _compare_medians(runs)


def half_width(spreads: Sequence[float], blocks: int) -> float:
    """Return half the 95 % interval of a ln ratio after so many blocks. One spread: of the ln ratios inside blocks;
    two: of both sides, which Welch's interval combines."""
    variances = [spread**2 / blocks for spread in spreads]
    df = (blocks - 1) * sum(variances) ** 2 / sum(variance**2 for variance in variances)
    return math.sqrt(sum(variances)) * t_quantile(CONFIDENCE, df)


def spreads_of(design: str, sides: tuple[Mapping[int, float], Mapping[int, float]]) -> tuple[float, ...]:
    """Return the standard deviations that a design's interval is made from: of ln values by number of the block."""
    if design == "sequential":
        return tuple(stdev(math.log(value) for value in side.values()) for side in sides)
    both = sides[0].keys() & sides[1].keys()
    return (stdev(math.log(sides[0][block] / sides[1][block]) for block in both),)


def _sides(runs: Sequence[Measured], pair: tuple[str, str], metric: str) -> tuple[dict[int, float], dict[int, float]]:
    """Return the values of both sides by the number of the run, each of which is one block."""
    values = [
        {number: value for number, run in enumerate(runs) for value in run.by_block(name, metric).values()}
        for name in pair
    ]
    return values[0], values[1]


def _describe(design: str, blocks: Sequence[Measured]) -> Iterator[Figure]:
    if len(blocks) < 3:
        yield Figure(what=f"{design}: {format_counted(len(blocks), 'block')}", value="too few")
        return
    used = [block.summary.cpu_use for block in blocks if block.summary.cpu_use is not None]
    seconds = fmean(block.seconds for block in blocks)
    cpu = f", {format_percent(fmean(used))} of the CPUs in use" if used else ""
    yield Figure(what=f"{design}: time of a block", value=format_s(seconds), spread=f"{len(blocks)} blocks{cpu}")
    for pair in PAIRS:
        sides = _sides(blocks, pair, "p95_ms")
        both = sorted(sides[0].keys() & sides[1].keys())
        logs = [math.log(sides[0][block] / sides[1][block]) for block in both]
        half = half_width((stdev(logs),), len(logs))
        low, high = (format_change(math.exp(fmean(logs) + sign * half)) for sign in (-1, 1))
        interval = f"{format_change(math.exp(fmean(logs)))} [{low}, {high}] by {len(logs)} blocks"
        yield Figure(what=f"  {' / '.join(pair)}: sd of ln P95 ratio", value=format_ratio(stdev(logs)), spread=interval)


def _compare_widths(pair: tuple[str, str], runs: Mapping[str, Sequence[Measured]]) -> Iterator[Figure]:
    """Yield the half width of each design by machine minutes, and how many times narrower than a sequential run's."""
    if any(len(blocks) < 3 for blocks in runs.values()):
        return
    spreads = {design: spreads_of(design, _sides(blocks, pair, "p95_ms")) for design, blocks in runs.items()}
    seconds = {design: fmean(block.seconds for block in blocks) for design, blocks in runs.items()}
    for minutes in MINUTES:
        counts = {design: int(60 * minutes / each) for design, each in seconds.items()}
        widths = {design: half_width(spreads[design], n) for design, n in counts.items() if n > 1}
        values = ", ".join(f"{design} {format_change(math.exp(width))[1:]}" for design, width in widths.items())
        times = widths["sequential"] / widths["duet"] if {"sequential", "duet"} <= widths.keys() else None
        yield Figure(
            what=f"{' / '.join(pair)}, {minutes} min: duet narrower by",
            value=format_ratio(times),
            spread=f"half widths: {values}",
            aim=f">= {format_ratio(_NARROWER)}",
            met=None if times is None else times >= _NARROWER,
        )


def _compare_medians(runs: Mapping[str, Sequence[Measured]]) -> Iterator[Figure]:
    """Yield how far the designs agree on the ratio of P50."""
    for pair in PAIRS:
        ratios = {}
        for design, blocks in runs.items():
            sides = _sides(blocks, pair, "p50_ms")
            logs = [math.log(sides[0][block] / sides[1][block]) for block in sides[0].keys() & sides[1].keys()]
            if logs:
                ratios[design] = math.exp(fmean(logs))
        if len(ratios) < len(runs):
            continue
        apart = max(ratios.values()) / min(ratios.values())
        yield Figure(
            what=f"{' / '.join(pair)}, P50: largest over smallest",
            value=format_ratio(apart),
            spread=", ".join(chain(f"{design} {format_ratio(ratio)}" for design, ratio in ratios.items())),
            aim=f"<= {format_ratio(_AGREEMENT)}",
            met=apart <= _AGREEMENT,
        )
