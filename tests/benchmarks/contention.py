"""What a duet's own contention changes: its ratios against those of an interleaved run at the same rate."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np

from bench.analysis.stats import CONFIDENCE, t_quantile, welch
from bench.scenario.types import Design
from bench.units import format_change, format_percent
from tests.benchmarks.campaign import SCENARIOS, Campaign, Measured
from tests.benchmarks.figure import Figure

LEVELS: Final = (0.25, 0.50, 0.75)  # of all CPUs, in the duet
_PAIRS: Final = (("istio", "baseline"), ("istio-policies", "istio"))
_PROBE: Final = "probe"
_PROBE_RATE: Final = 60.0  # requests per second of the block
_MOST_BIAS: Final = 0.10
_SCENARIO: Final = ("--scenario", str(SCENARIOS / "contention.yaml"), "--repeats", "1")
_TIMES: Final = ("--duration", "15s", "--warmup", "5s")


def campaign(folder: Path) -> Campaign:
    """Return the campaign: first a duet that shows the CPU time of a request, then both designs at each level."""
    probe = Campaign(folder, {_PROBE: (*_SCENARIO, *_TIMES, "--design", "duet", "--rate", f"{_PROBE_RATE:g}/s")})
    used = [run.summary.cpu_use for run in probe.runs(_PROBE) if run.summary.cpu_use]
    if not used:
        return probe
    per_cpu = _PROBE_RATE / used[0]
    options = {}
    for level in LEVELS:
        rate, percent = level * per_cpu, round(100 * level)
        for design, block_rate in (("duet", rate), ("interleaved", rate / 3)):  # the duet's is shared out
            own = ("--design", design, "--rate", f"{block_rate:.1f}/s")
            options[f"{design}-{percent}"] = (*_SCENARIO, *_TIMES, *own)
    return Campaign(folder, options)


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the bias of a duet at each level, with its interval."""
    found = campaign(folder)
    for level in LEVELS:
        percent = round(100 * level)
        duets, turns = (_runs_of(found, design, percent) for design in ("duet", "interleaved"))
        used = [run.summary.cpu_use for run in duets if run.summary.cpu_use is not None]
        cpu = format_percent(fmean(used)) if used else "n/a"
        for pair in _PAIRS:
            logs = [_ln_ratios(runs, pair) for runs in (duets, turns)]
            if min(map(len, logs)) < 2:
                yield Figure(what=f"{percent} % CPU, {' / '.join(pair)}: bias of P95", value="too few")
                continue
            error, df = welch(np.array(logs[0]), np.array(logs[1]))
            bias, half = fmean(logs[0]) - fmean(logs[1]), error * t_quantile(CONFIDENCE, df)
            low, high = math.exp(bias - half), math.exp(bias + half)
            yield Figure(
                what=f"{percent} % CPU, {' / '.join(pair)}: bias of P95",
                value=format_change(math.exp(bias)),
                spread=f"[{format_change(low)}, {format_change(high)}]; {len(duets)} + {len(turns)} blocks; {cpu} used",
                aim="in +-10 %",
                met=low >= 1 - _MOST_BIAS and high <= 1 + _MOST_BIAS,
            )


def _runs_of(found: Campaign, design: Design, percent: int) -> list[Measured]:
    """Return the runs of a design; a duet that would have used too much of the CPUs was interleaved instead."""
    return [run for run in found.runs(f"{design}-{percent}") if run.summary.design == design]


def _ln_ratios(runs: Sequence[Measured], pair: tuple[str, str]) -> list[float]:
    sides = [[run.by_block(name) for run in runs] for name in pair]
    return [math.log(one[1] / other[1]) for one, other in zip(*sides, strict=True) if one and other]
