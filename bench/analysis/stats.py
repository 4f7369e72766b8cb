"""Compute statistics across repeats: means, ratios, their intervals and minimum detectable effects.

The unit of evidence is the repeat, never the request. Latencies are compared on the logarithmic scale, where
a mesh's cost is a factor and the spread between repeats is about the same for slow and for quick systems.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE: Final = 0.95
EQUIVALENCE_CONFIDENCE: Final = 0.90  # two one-sided tests at 5 %
POWER: Final = 0.80
MOST_REPEATS: Final = 1000
FEWEST_FOR_MEDIAN: Final = 8  # blocks: from here on the median's interval can leave out an extreme block or so
FEWEST_FOR_LAG: Final = 5  # blocks: three or four of them say nothing about the correlation of neighbours
MOST_LAG: Final = 0.3  # a larger correlation widens the interval
_FEWEST_EFFECTIVE: Final = 2.0
_NO_NOISE: Final = 1e-12  # rounding error of the logarithms of equal values

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over repeats. `sd`: for a geometric mean, of logarithms; `reason`: why there is no interval."""

    value: float
    interval: Interval | None
    sd: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class BlockMean:
    """The mean over blocks of a difference between two configurations, in the order in which the blocks were measured.

    n: the number of blocks
    error: its standard error; None where there is none, with the `reason`
    lag_1: the correlation of neighbouring blocks, corrected for its bias; None for fewer than 5 blocks
    effective_n: the number of independent blocks that know as much; below `n` where `lag_1` is above 0.3
    """

    value: float
    n: int
    error: float | None
    lag_1: float | None
    effective_n: float
    reason: str = ""

    def half_width(self, confidence: float = CONFIDENCE) -> float | None:
        """Return half the width of the mean's t interval; None where there is none."""
        return None if self.error is None else self.error * t_quantile(confidence, self.n - 1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratio of two configurations' geometric means, with its intervals and minimum detectable effect.

    Where blocks were paired: `blocks`, the mean of their ln ratios; `median`, the median of their ratios with the lower
    and upper end of its interval, from 8 blocks on.
    """

    ratio: float
    interval: Interval | None
    equivalence_interval: Interval | None
    mde: float | None
    reason: str
    blocks: BlockMean | None = None
    median: tuple[float, float, float] | None = None


def geometric_mean(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Mean:
    """Return the geometric mean of positive values with its t interval. Raises ValueError where there are none."""
    logs = np.log(_require_positive(values))
    value, reason = math.exp(logs.mean()), explain_no_interval(values)
    if reason:
        return Mean(value, None, None, reason)
    sd, half = _half_width(logs, confidence)
    return Mean(value, (value * math.exp(-half), value * math.exp(half)), sd, "")


def arithmetic_mean(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Mean:
    """Return the mean of non-negative values with its t interval. Raises ValueError where there are no values."""
    if not len(values):
        raise ValueError("no values, no mean")
    value, reason = float(np.mean(values)), explain_no_interval(values)
    if reason:
        return Mean(value, None, None, reason)
    sd, half = _half_width(np.asarray(values, np.float64), confidence)
    return Mean(value, (max(value - half, 0.0), value + half), sd, "")


def compare(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Return the ratio of the geometric means with Welch's interval. Raises ValueError where a side is empty."""
    logs, reference_logs = np.log(_require_positive(values)), np.log(_require_positive(reference))
    difference = float(logs.mean() - reference_logs.mean())
    reason = explain_no_interval(values) or explain_no_interval(reference)
    if reason:
        return Comparison(math.exp(difference), None, None, None, reason)
    error, df = welch(logs, reference_logs)
    return Comparison(
        ratio=math.exp(difference),
        interval=ratio_interval(difference, error * t_quantile(CONFIDENCE, df)),
        equivalence_interval=ratio_interval(difference, error * t_quantile(EQUIVALENCE_CONFIDENCE, df)),
        mde=math.expm1(_welch_effect(min(len(logs), len(reference_logs))) * error),
        reason="",
    )


def compare_blocks(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Return the ratio of two configurations that were measured together in each block, with its paired t interval.

    Both have one value per block, in the order of time. Raises ValueError where they are none, or not as many.
    """
    if len(values) != len(reference):
        raise ValueError(f"blocks have two sides, not {len(values)} and {len(reference)} values")
    logs = np.log(_require_positive(values)) - np.log(_require_positive(reference))
    found = average_blocks(logs.tolist())
    ratio, median = math.exp(found.value), _find_median(np.exp(logs))
    half, equivalence_half = found.half_width(), found.half_width(EQUIVALENCE_CONFIDENCE)
    if found.error is None or half is None or equivalence_half is None:
        return Comparison(ratio, None, None, None, found.reason, found, median)
    return Comparison(
        ratio=ratio,
        interval=ratio_interval(found.value, half),
        equivalence_interval=ratio_interval(found.value, equivalence_half),
        mde=math.expm1(_paired_effect(found.n - 1) * found.error),
        reason="",
        blocks=found,
        median=median,
    )


def average_blocks(differences: Sequence[float]) -> BlockMean:
    """Return the mean of the blocks' differences with its standard error. Raises ValueError where there are none.

    `differences`: of each block, in the order of time. Neighbouring blocks that resemble each other count for fewer:
    n (1 - r) / (1 + r) of n, where their correlation r is above 0.3. The degrees of freedom stay n - 1: with fewer the
    interval would be several times wider, and would hardly hold the true value more often.
    """
    if not len(differences):
        raise ValueError("no blocks, no mean")
    blocks = np.asarray(differences, np.float64)
    value, count = float(blocks.mean()), len(blocks)
    if count < 2:
        return BlockMean(value, count, None, None, count, "one block has no spread: no interval")
    spread = float(np.std(blocks, ddof=1))
    if spread <= _NO_NOISE:
        return BlockMean(value, count, None, None, count, "all blocks are equal: no interval (resolution)")
    lag_1 = _correlate_neighbours(blocks) if count >= FEWEST_FOR_LAG else None
    effective = float(count)
    if lag_1 is not None and lag_1 > MOST_LAG:
        effective = max(count * (1 - lag_1) / (1 + lag_1), _FEWEST_EFFECTIVE)
    return BlockMean(value, count, spread / math.sqrt(effective), lag_1, effective)


def _correlate_neighbours(blocks: Floats) -> float:
    """Return the lag-1 correlation. Deviations are from the blocks' own mean, which makes the plain figure too low by
    1 / n where blocks are independent; this is corrected."""
    deviations = blocks - blocks.mean()
    return float((deviations[1:] * deviations[:-1]).sum()) / float((deviations**2).sum()) + 1 / len(blocks)


def _find_median(ratios: Floats) -> tuple[float, float, float] | None:
    """Return the median with its exact interval, the narrowest pair of order statistics of 95 % or more.

    As many of n ratios lie below the true median as coins show heads: Binomial(n, 1/2). None for fewer than 8.
    """
    count = len(ratios)
    if count < FEWEST_FOR_MEDIAN:
        return None
    ordered = np.sort(ratios)
    outside = 0  # ratios on each side that the interval leaves out
    while 1 - 2 * float(special.bdtr(outside + 1, count, 0.5)) >= CONFIDENCE:
        outside += 1
    return float(np.median(ordered)), float(ordered[outside]), float(ordered[count - 1 - outside])


def within_blocks(table: Floats, one: int, other: int) -> Interval | None:
    """Return the interval of the ratio of two columns' geometric means, without the variation between blocks.

    `table`: one row per complete block, one column per configuration, all positive. The model is randomised complete
    blocks: ln value = block + configuration + noise, (blocks - 1) (columns - 1) degrees of freedom. It assumes that all
    configurations have the same variance, which meshes often do not: so it is shown with Welch's interval, and decides
    nothing. None where there is no noise to estimate.
    """
    logs = np.log(table)
    blocks, columns = logs.shape
    df = (blocks - 1) * (columns - 1)
    noise = logs - logs.mean(axis=0) - logs.mean(axis=1, keepdims=True) + logs.mean()
    error = math.sqrt(2 / blocks * float((noise**2).sum()) / df) if df else 0.0
    if error <= _NO_NOISE:
        return None
    return ratio_interval(float((logs[:, one] - logs[:, other]).mean()), error * t_quantile(CONFIDENCE, df))


def explain_no_interval(values: Sequence[float]) -> str:
    """Return why these repeats cannot have an interval; empty where they can."""
    if len(values) < 2:
        return "one repeat has no spread: no interval"
    if max(values) == min(values):
        return "all repeats are equal: no interval (resolution)"
    return ""


def t_quantile(confidence: float, df: float) -> float:
    """Return the quantile of Student's t for a two-sided interval of this confidence."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


def welch(values: Floats, reference: Floats) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a difference of means, without assuming equal variances."""
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (values, reference)]
    total = sum(parts)
    df = total**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (values, reference), strict=True))
    return math.sqrt(total), df


def minimum_detectable_effect(sd: float, repeats: int) -> float | None:
    """Return the ratio minus 1 that Welch's test finds with 80 % power, given the sd of ln P95 between repeats.

    None for fewer than 2 repeats.
    """
    if repeats < 2:
        return None
    return math.expm1(_welch_effect(repeats) * sd * math.sqrt(2 / repeats))


def paired_detectable_effect(sd: float, blocks: int) -> float | None:
    """Return the ratio minus 1 that the paired t test finds with 80 % power, given the sd of the blocks' ln ratios.

    None for fewer than 2 blocks.
    """
    if blocks < 2:
        return None
    return math.expm1(_paired_effect(blocks - 1) * sd / math.sqrt(blocks))


def compute_repeats_needed(sd: float, effect: float) -> int | None:
    """Return the fewest repeats that find `effect` (0.1: 10 %) with 80 % power; None beyond `MOST_REPEATS`."""
    return _find_fewest(lambda repeats: minimum_detectable_effect(sd, repeats), effect)


def compute_blocks_needed(sd: float, effect: float) -> int | None:
    """Return the fewest blocks, measured side by side, that find `effect` with 80 % power; None beyond `MOST_REPEATS`.

    `sd`: of the blocks' ln ratios.
    """
    return _find_fewest(lambda blocks: paired_detectable_effect(sd, blocks), effect)


def compute_welch_half_width(values: Sequence[float], reference: Sequence[float], repeats: int) -> float | None:
    """Return half the width that Welch's 95 % interval of the ln ratio would have with `repeats` of this spread a side.

    None where a side has no spread, or for fewer than 2 repeats.
    """
    if repeats < 2 or explain_no_interval(values) or explain_no_interval(reference):
        return None
    one, other = (float(np.var(np.log(_require_positive(side)), ddof=1)) for side in (values, reference))
    df = (repeats - 1) * (one + other) ** 2 / (one**2 + other**2)
    return math.sqrt((one + other) / repeats) * t_quantile(CONFIDENCE, df)


def compute_repeats_as_narrow(values: Sequence[float], reference: Sequence[float], half_width: float) -> int | None:
    """Return the fewest repeats of this spread whose Welch interval is no wider than this; None beyond `MOST_REPEATS`,
    or where a side has no spread."""
    return _find_fewest(lambda repeats: compute_welch_half_width(values, reference, repeats), half_width)


def _find_fewest(compute: Callable[[int], float | None], most: float) -> int | None:
    """Return the smallest count for which `compute`, which falls with it, is at most `most`."""
    largest = compute(MOST_REPEATS)
    if largest is None or largest > most:
        return None
    low, high = 1, MOST_REPEATS  # `low` is too few, `high` is enough
    while high - low > 1:
        middle = (low + high) // 2
        found = compute(middle)
        low, high = (low, middle) if found is not None and found <= most else (middle, high)
    return high


@lru_cache
def _welch_effect(repeats: int) -> float:
    """Return the effect, in standard errors, that Welch's test with `repeats` a side finds with 80 % power."""
    return _find_effect(lambda effect: _welch_power(effect, repeats))  # with 2 repeats, the fewest, about 10.4


@lru_cache
def _paired_effect(df: int) -> float:
    """Return the effect, in standard errors, that a t test with these degrees of freedom finds with 80 % power."""
    critical = t_quantile(CONFIDENCE, df)
    return _find_effect(lambda effect: float(1 - special.nctdtr(df, effect, critical)))  # with 1 degree about 16.3


def _find_effect(power: Callable[[float], float]) -> float:
    low, high = 0.0, 30.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) > POWER else (middle, high)
    return high


def _welch_power(effect: float, repeats: int) -> float:
    """Return the power of Welch's test, exact for equal variances and equal numbers of repeats.

    The share u of one side in the sum of both sample variances follows a Beta distribution and fixes Welch's
    degrees of freedom, hence the critical value; the statistic itself is noncentral t with 2 (n - 1) degrees,
    for any u. So the power is the mean over u of the probability beyond the critical value.
    """
    half = (repeats - 1) / 2
    share = special.betaincinv(half, half, (np.arange(100) + 0.5) / 100)
    critical = special.stdtrit((repeats - 1) / (share**2 + (1 - share) ** 2), (1 + CONFIDENCE) / 2)
    df = 2 * (repeats - 1)
    return float(np.mean(1 - special.nctdtr(df, effect, critical)))


def _half_width(values: Floats, confidence: float) -> Interval:
    """Return the standard deviation, and half the width of the mean's t interval."""
    sd = float(np.std(values, ddof=1))
    return sd, t_quantile(confidence, len(values) - 1) * sd / math.sqrt(len(values))


def ratio_interval(difference: float, half: float) -> Interval:
    """Return the interval of a ratio, from its logarithm and half the width of that one's interval."""
    return math.exp(difference - half), math.exp(difference + half)


def _require_positive(values: Sequence[float]) -> Sequence[float]:
    if not len(values) or min(values) <= 0:
        raise ValueError(f"a geometric mean needs positive values, not {list(values)}")
    return values
