"""Compute statistics across repeats: means, ratios, their intervals and minimum detectable effects.

The unit of evidence is the repeat, never the request. Latencies are compared on the logarithmic scale, where
a mesh's cost is a factor and the spread between repeats is about the same for slow and for quick systems.
"""

import math
from collections.abc import Sequence
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
class Comparison:
    """The ratio of two configurations' geometric means, with its intervals and minimum detectable effect."""

    ratio: float
    interval: Interval | None
    equivalence_interval: Interval | None
    mde: float | None
    reason: str


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
        interval=_ratio_interval(difference, error * t_quantile(CONFIDENCE, df)),
        equivalence_interval=_ratio_interval(difference, error * t_quantile(EQUIVALENCE_CONFIDENCE, df)),
        mde=math.expm1(_welch_effect(min(len(logs), len(reference_logs))) * error),
        reason="",
    )


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
    return _ratio_interval(float((logs[:, one] - logs[:, other]).mean()), error * t_quantile(CONFIDENCE, df))


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


def compute_repeats_needed(sd: float, effect: float) -> int | None:
    """Return the fewest repeats that find `effect` (0.1: 10 %) with 80 % power; None beyond `MOST_REPEATS`."""
    if (minimum_detectable_effect(sd, MOST_REPEATS) or 0) > effect:
        return None
    low, high = 1, MOST_REPEATS  # `low` is too few, `high` is enough
    while high - low > 1:
        middle = (low + high) // 2
        found = minimum_detectable_effect(sd, middle)
        low, high = (low, middle) if found is not None and found <= effect else (middle, high)
    return high


@lru_cache
def _welch_effect(repeats: int) -> float:
    """Return the effect, in standard errors, that Welch's test with `repeats` a side finds with 80 % power."""
    low, high = 0.0, 30.0  # with 2 repeats, the fewest, it is about 10.4
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _welch_power(middle, repeats) > POWER else (middle, high)
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


def _ratio_interval(difference: float, half: float) -> Interval:
    return math.exp(difference - half), math.exp(difference + half)


def _require_positive(values: Sequence[float]) -> Sequence[float]:
    if not len(values) or min(values) <= 0:
        raise ValueError(f"a geometric mean needs positive values, not {list(values)}")
    return values
