"""The 2022 study's method, three windows of 120 s grouped by configuration, against a duet of half its machine time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.analysis.stats import Comparison, compare
from bench.units import format_change, format_change_interval
from tests.benchmarks.campaign import SCENARIOS, Campaign
from tests.benchmarks.figure import Figure, format_s

_NAMES: Final = ("baseline", "istio", "istio-policies")
_PAIRS: Final = (("istio", "baseline"), ("istio-policies", "istio"))
_DUET: Final = ("--scenario", "istio-policies", "--design", "duet", "--duration", "15s", "--warmup", "5s")
_BLOCKS: Final = 28  # of about 25 s: half of the time of nine windows with their warm-ups


def campaign(folder: Path) -> Campaign:
    """Return the campaign: all repeats of each configuration, then the duet."""
    alone = {name: ("--scenario", str(SCENARIOS / f"{name}-alone.yaml"), "--study") for name in _NAMES}
    return Campaign(folder, {**alone, "duet": (*_DUET, "--repeats", str(_BLOCKS))})


def figures(folder: Path) -> Iterator[Figure]:
    """Yield each round's ratios by the study's method and by a duet; the designs estimate different things, so compare
    widths, and the spread of estimates between rounds."""
    found = campaign(folder)
    groups = [found.runs(name) for name in _NAMES]
    for number, (*alone, duet) in enumerate(zip(*groups, found.runs("duet"), strict=False), start=1):
        by_name = dict(zip(_NAMES, alone, strict=True))
        seconds = sum(run.seconds for run in alone)
        for pair in _PAIRS:
            ratio = compare(*(list(by_name[name].by_block(name).values()) for name in pair))
            yield _describe(f"round {number}, study's method, {' / '.join(pair)}", ratio, seconds)
            one = duet.contrast(*pair)
            interval = format_change_interval(one.ratio_low, one.ratio_high)
            yield Figure(
                what=f"round {number}, duet, {' / '.join(pair)}",
                value=format_change(one.ratio),
                spread=f"[{interval}] in {format_s(duet.seconds)}",
            )


def _describe(what: str, found: Comparison, seconds: float) -> Figure:
    low, high = found.interval or (None, None)
    return Figure(
        what=what,
        value=format_change(found.ratio),
        spread=f"[{format_change_interval(low, high)}] in {format_s(seconds)}",
    )
