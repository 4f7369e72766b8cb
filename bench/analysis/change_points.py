"""Find the nights from which on a series has another level: in all of its history, whatever the gate decided then."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

FEWEST_ON_A_SIDE: Final = 3  # nights: two are chance too often
SMALLEST: Final = 0.02  # ln: a smaller step is no news, however sure it is
SIGNIFICANCE: Final = 0.01
_PERMUTATIONS: Final = 499
_SEED: Final = 17

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A step: `at` is the index of the first value of the new level, `step` its size against the level before."""

    at: int
    step: float


def find_change_points(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """Return the steps of a series, in its order. The same series has the same steps.

    Binary segmentation: the split whose sides differ most is a step where at most 1 % of the series' random orders have
    a split that differs as much; then each side is searched. Each step is then looked for again between its
    neighbours, since the first ones were found while other steps were in their sides. Levels are means between steps.
    """
    series = np.asarray(values, np.float64)
    rng = np.random.default_rng(_SEED)
    steps = [0, *_settle(series, sorted(_search(series, rng)), rng), len(series)]
    levels = [float(series[start:end].mean()) for start, end in pairwise(steps) if end > start]
    found = (ChangePoint(at, after - before) for at, (before, after) in zip(steps[1:], pairwise(levels), strict=False))
    return tuple(point for point in found if abs(point.step) >= SMALLEST)


def _search(series: Floats, rng: np.random.Generator, first: int = 0) -> Iterator[int]:
    """Yield the index of each step, counted from `first`."""
    split = _find_split(series, rng)
    if split is not None:
        yield first + split
        yield from _search(series[:split], rng, first)
        yield from _search(series[split:], rng, first + split)


def _settle(series: Floats, steps: list[int], rng: np.random.Generator) -> list[int]:
    """Return the steps that are still there between their neighbours, each where it is there."""
    for _ in range(len(steps) + 1):
        settled: list[int] = []
        for after in (*steps[1:], len(series)) if steps else ():
            start = settled[-1] if settled else 0
            split = _find_split(series[start:after], rng)
            settled += [] if split is None else [start + split]
        if settled == steps:
            break
        steps = settled
    return steps


def _find_split(series: Floats, rng: np.random.Generator) -> int | None:
    """Return the index of the first value after the largest step; None where there is none."""
    count = len(series)
    if count < 2 * FEWEST_ON_A_SIDE or series.max() == series.min():
        return None
    differences = _differences(series[np.newaxis])[0]
    orders = rng.permuted(np.broadcast_to(series, (_PERMUTATIONS, count)), axis=1)
    as_large = int((_differences(orders).max(axis=1) >= differences.max()).sum())
    if (1 + as_large) / (1 + _PERMUTATIONS) > SIGNIFICANCE:
        return None
    return FEWEST_ON_A_SIDE + int(differences.argmax())


def _differences(rows: Floats) -> Floats:
    """Return how much both sides of each split differ, in a unit that is the same for all splits of all orders of a
    series. Columns are the splits from `FEWEST_ON_A_SIDE` values on the left to as many on the right."""
    count = rows.shape[1]
    left = np.arange(FEWEST_ON_A_SIDE, count - FEWEST_ON_A_SIDE + 1)
    sums = np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1)[:, left - 1]
    return np.asarray(np.abs(sums) * np.sqrt(count / (left * (count - left))))
