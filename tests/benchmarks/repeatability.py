"""Whether runs of the same scenario agree: their ratios of P95 side by side."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.results.store import read_record
from bench.results.summary_records import Contrast, SummaryRecord
from bench.units import format_change, format_change_interval, format_counted
from tests.benchmarks.figure import Figure


def figures(runs: Sequence[Path]) -> Iterator[Figure]:
    """Yield for each configuration against the reference every run's ratio with its interval, then how far they
    agree."""
    if not runs:
        yield Figure(what="give two runs or more: --run RUN --run RUN", value="")
    by_pair: dict[str, list[Contrast]] = defaultdict(list)
    for run in runs:
        summary = read_record(run / "summary.json", SummaryRecord)
        for found in summary.contrasts:
            if found.confirmatory:
                by_pair[f"{found.configuration} / {found.reference}"].append(found)
    for pair, contrasts in by_pair.items():
        yield from (_one(pair, found) for found in contrasts)
        yield _together(pair, contrasts)


def _one(pair: str, found: Contrast) -> Figure:
    interval = format_change_interval(found.ratio_low, found.ratio_high)
    return Figure(what=f"P95, {pair}", value=format_change(found.ratio), spread=f"{interval}; {found.verdict}")


def _together(pair: str, contrasts: Sequence[Contrast]) -> Figure:
    """Return the largest ratio over the smallest; whether the intervals meet; whether the verdicts are the same."""
    ratios = [found.ratio for found in contrasts if found.ratio is not None]
    apart = max(ratios) / min(ratios) if ratios else None
    verdicts = {found.verdict for found in contrasts}
    return Figure(
        what=f"P95, {pair}: largest over smallest",
        value=format_change(apart),
        spread=f"{format_counted(len(ratios), 'run')}; {overlap(contrasts)}; verdicts: {', '.join(sorted(verdicts))}",
    )


def overlap(contrasts: Sequence[Contrast]) -> str:
    """Return whether there are values that all runs' intervals contain: `intervals share +20 % to +25 %`."""
    lows = [found.ratio_low for found in contrasts if found.ratio_low is not None]
    highs = [found.ratio_high for found in contrasts if found.ratio_high is not None]
    if not lows or not highs:
        return "no intervals"
    if max(lows) > min(highs):
        return "intervals do not all meet"
    return f"all intervals share {format_change_interval(max(lows), min(highs))}"
