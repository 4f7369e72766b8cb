"""Compare two configurations: the ratio of a metric with its interval, and a verdict against a margin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.analysis.stats import (
    MOST_LAG,
    BlockMean,
    Comparison,
    Interval,
    compare,
    compare_blocks,
    geometric_mean,
    within_blocks,
)
from bench.analysis.validity import make_issue
from bench.results.issues import Issue, IssueCode
from bench.results.summary_records import Contrast, Metric, RepeatSummary, Verdict
from bench.scenario.types import Design
from bench.units import format_counted, format_percent, format_ratio

METHOD: Final[dict[Design, str]] = {
    "sequential": "ratio of geometric means over repeats, 95 % Welch t interval on logarithms",
    "interleaved": "geometric mean of the blocks' ratios, 95 % paired t interval on logarithms; loaded in turn",
    "duet": "geometric mean of the blocks' ratios, 95 % paired t interval on logarithms; loaded at the same time",
}
_HIGHER_IS_BETTER: Final[frozenset[Metric]] = frozenset({"rps"})
_NO_DELTA: Final = (None, None, None)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two configurations of a contrast."""

    name: str
    mesh: str
    repeats: Sequence[RepeatSummary]

    def valid(self) -> list[RepeatSummary]:
        """Return the valid repeats."""
        return [repeat for repeat in self.repeats if repeat.valid]

    def by_block(self, metric: Metric) -> dict[int, float]:
        """Return the metric of each valid repeat that has it, by block."""
        values = {repeat.block: getattr(repeat, metric) for repeat in self.valid()}
        return {block: value for block, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Values:
    """The values of both sides of a contrast, by block. In a paired design both have the same blocks, in the order in
    which they were measured: those in which both sides are valid."""

    configuration: Mapping[int, float]
    reference: Mapping[int, float]

    @property
    def both(self) -> tuple[list[float], list[float]]:
        """Return the values alone."""
        return list(self.configuration.values()), list(self.reference.values())


def read_values(
    configuration: Side, reference: Side, metric: Metric, *, design: Design = "sequential", order: Sequence[int] = ()
) -> Values:
    """Return the values that a contrast compares. `order`: the blocks by the time of their start, where that is not
    the order of their numbers."""
    values, references = configuration.by_block(metric), reference.by_block(metric)
    if design == "sequential":
        return Values(values, references)
    shared = [block for block in order or sorted(values) if block in values and block in references]
    return Values({block: values[block] for block in shared}, {block: references[block] for block in shared})


def judge(comparison: Comparison, margin: float, *, higher_is_better: bool = False) -> Verdict:
    """Return the verdict of an interval: the first of these rules that holds.

    slower, faster: the 95 % interval lies beyond the margin
    different: it excludes 1, but the margin lies inside it, so the size is unclear
    equivalent: the 90 % interval lies inside the margin (two one-sided tests at 5 %)
    inconclusive: anything else, and no interval
    """
    if comparison.interval is None or comparison.equivalence_interval is None:
        return "inconclusive"
    low, high = comparison.interval
    if low > 1 + margin:
        return "faster" if higher_is_better else "slower"
    if high < 1 - margin:
        return "slower" if higher_is_better else "faster"
    if 1 < low <= 1 + margin < high or low < 1 - margin <= high < 1:
        return "different"
    low, high = comparison.equivalence_interval
    return "equivalent" if 1 - margin < low and high < 1 + margin else "inconclusive"


def contrast(
    configuration: Side,
    reference: Side,
    *,
    metric: Metric,
    margin: float,
    confirmatory: bool,
    design: Design = "sequential",
    order: Sequence[int] = (),
) -> Contrast:
    """Compare two configurations on one metric, over their valid repeats.

    `design`, `order`: of the run that measured both in the same blocks, for `read_values`. Two runs are compared as
    `sequential`, since they share no block.
    """
    values = read_values(configuration, reference, metric, design=design, order=order)
    found = _compare(values, design)
    verdict = _verdict(configuration, reference, found=found, metric=metric, margin=margin, design=design)
    ratio_low, ratio_high = _pair(found.interval if found else None)
    deltas = _deltas(found, values.reference)
    blocks = found.blocks if found else None
    median, median_low, median_high = (found.median if found else None) or (None, None, None)
    in_ms, in_rps = (_NO_DELTA, deltas) if metric == "rps" else (deltas, _NO_DELTA)
    return Contrast(
        configuration=configuration.name,
        reference=reference.name,
        metric=metric,
        n=(len(values.configuration), len(values.reference)),
        ratio=found.ratio if found else None,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        delta_ms=in_ms[0],
        delta_low_ms=in_ms[1],
        delta_high_ms=in_ms[2],
        delta_rps=in_rps[0],
        delta_low_rps=in_rps[1],
        delta_high_rps=in_rps[2],
        method=METHOD[design],
        verdict=verdict,
        confirmatory=confirmatory,
        issues=tuple(_find_issues(configuration, reference, found=found, metric=metric, design=design)),
        mde=found.mde if found else None,
        block_ratios=_block_ratios(configuration, reference, metric),
        median_ratio=median,
        median_low=median_low,
        median_high=median_high,
        lag_1=blocks.lag_1 if blocks else None,
        effective_n=blocks.effective_n if blocks else None,
    )


def _compare(values: Values, design: Design) -> Comparison | None:
    if not values.configuration or not values.reference:
        return None
    return compare(*values.both) if design == "sequential" else compare_blocks(*values.both)


def within_interval(
    sides: Sequence[Side], configuration: str, reference: str, *, metric: Metric
) -> tuple[float | None, float | None]:
    """Return the interval of a ratio without the variation between blocks, over blocks in which all sides are valid.

    It is a sensitivity analysis: it assumes that all sides have the same variance, so it gives no verdict.
    """
    columns = {side.name: side.by_block(metric) for side in sides}
    blocks = sorted(set.intersection(*(set(column) for column in columns.values())))
    if not blocks:
        return None, None
    names = list(columns)
    table = np.array([[columns[name][block] for name in names] for block in blocks])
    return _pair(within_blocks(table, names.index(configuration), names.index(reference)))


def _verdict(
    configuration: Side, reference: Side, *, found: Comparison | None, metric: Metric, margin: float, design: Design
) -> Verdict:
    if not configuration.valid() or not reference.valid():
        return "invalid"
    if design != "sequential" and not _share_block(configuration, reference):
        return "invalid"
    if found is None:
        return "inconclusive"
    return judge(found, margin, higher_is_better=metric in _HIGHER_IS_BETTER)


def _deltas(
    found: Comparison | None, references: Mapping[int, float]
) -> tuple[float | None, float | None, float | None]:
    """Return the ratio and its interval in the metric's unit, scaled by the reference's geometric mean.

    So the difference excludes 0 exactly where the ratio excludes 1.
    """
    if found is None:
        return _NO_DELTA
    scale = geometric_mean(list(references.values())).value
    if found.interval is None:
        return (found.ratio - 1) * scale, None, None
    low, high = found.interval
    return (found.ratio - 1) * scale, (low - 1) * scale, (high - 1) * scale


def _find_issues(
    configuration: Side, reference: Side, *, found: Comparison | None, metric: Metric, design: Design
) -> Iterator[Issue]:
    """Yield all limitations of the number."""
    sides = (configuration, reference)
    for side in sides:
        if not side.valid():
            yield make_issue(IssueCode.NO_VALID_REPEAT, f"{side.name} has no valid repeat")
    find_excluded = _find_excluded_repeats if design == "sequential" else _find_excluded_blocks
    for detail in find_excluded(sides):
        yield make_issue(IssueCode.EXCLUDED_REPEATS, detail)
    if found is None:
        scarce = [side.name for side in sides if side.valid() and not side.by_block(metric)]
        for name in scarce:
            yield make_issue(IssueCode.NO_PERCENTILE, f"{name} has too few requests for {metric}")
        if not scarce and all(side.valid() for side in sides):
            yield make_issue(IssueCode.NO_VALID_REPEAT, "there is no block in which both are valid")
        return
    if found.reason:
        yield make_issue(IssueCode.NO_INTERVAL, found.reason)
    yield from find_correlation(found.blocks)
    adds_mesh = configuration.mesh != "none" and reference.mesh == "none"
    if adds_mesh and metric == "p95_ms" and found.interval and found.interval[1] < 1:
        yield make_issue(
            IssueCode.BELOW_REFERENCE,
            f"{format_percent(1 - found.ratio)} below {reference.name}: a mesh adds work; treat this as noise unless"
            " another run shows it",
        )


def _find_excluded_repeats(sides: Sequence[Side]) -> Iterator[str]:
    for side in sides:
        if 0 < len(side.valid()) < len(side.repeats):
            yield f"{len(side.valid())} of {len(side.repeats)} repeats of {side.name} are valid"


def _find_excluded_blocks(sides: Sequence[Side]) -> Iterator[str]:
    """Yield how many blocks do not count: those in which a side is invalid."""
    blocks = {repeat.block for side in sides for repeat in side.repeats}
    valid = set.intersection(*({repeat.block for repeat in side.valid()} for side in sides))
    if 0 < len(valid) < len(blocks):
        excluded = len(blocks) - len(valid)
        yield f"{excluded} of {format_counted(len(blocks), 'block')} {'does' if excluded == 1 else 'do'} not count"


def find_correlation(blocks: BlockMean | None) -> Iterator[Issue]:
    """Yield a warning where neighbouring blocks resemble each other so much that the interval counts fewer."""
    if blocks is not None and blocks.lag_1 is not None and blocks.lag_1 > MOST_LAG:
        detail = f"the correlation of neighbouring blocks is {format_ratio(blocks.lag_1)}, so they count as"
        yield make_issue(IssueCode.CORRELATED, f"{detail} {blocks.effective_n:.1f}")


def _share_block(one: Side, other: Side) -> bool:
    """Return whether there is a block in which both sides are valid."""
    return not {repeat.block for repeat in one.valid()}.isdisjoint(repeat.block for repeat in other.valid())


def _block_ratios(configuration: Side, reference: Side, metric: Metric) -> tuple[float | None, ...]:
    """Return the ratio inside each block, from the first to the last; None where a side has no valid repeat."""
    values, references = configuration.by_block(metric), reference.by_block(metric)
    blocks = sorted({repeat.block for side in (configuration, reference) for repeat in side.repeats})
    return tuple(values[b] / references[b] if b in values and b in references else None for b in blocks)


def _pair(interval: Interval | None) -> tuple[float | None, float | None]:
    return interval or (None, None)
