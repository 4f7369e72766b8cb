"""How often the interval of a paired run holds the true ratio, in simulated campaigns with several kinds of noise.

A campaign measures two configurations side by side in each of its blocks. What both have in common in a block (sd of
ln P95 0.3, as on two shared cores) cancels; what each has alone (sd 0.06) does not. All is drawn from one seed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.analysis.stats import CONFIDENCE, average_blocks, t_quantile, welch
from bench.units import format_percent
from tests.benchmarks.figure import Figure

CAMPAIGNS: Final = 4000
BLOCKS: Final = (3, 5, 8, 12)
FEWEST: Final = 0.93
MOST: Final = 0.97  # where noise is normal
TRUE: Final = float(np.log(1.7))
SEED: Final = 14
_COMMON_SD: Final = 0.3
_OWN_SD: Final = 0.06
_BURST: Final = 0.3  # ln: 1.35 times as slow

Floats = npt.NDArray[np.float64]
Sides = tuple[Floats, Floats, float]  # ln P95 of both, one row per campaign and one column per block; the true ln ratio


@dataclass(frozen=True, slots=True)
class Noise:
    """A kind of noise. `is_normal`: the interval must not be too wide either; `is_promised`: its coverage is."""

    name: str
    draw: Callable[[np.random.Generator, int, int], Sides]
    is_normal: bool = False
    is_promised: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Coverages and median half widths (of the ln ratio) of a kind of noise and a number of blocks.

    paired: as meshbench computes it; `widened` of the intervals, as neighbouring blocks resemble each other
    plain: the paired t interval that ignores the order of blocks
    welch: of a run that ignores the blocks
    """

    noise: Noise
    blocks: int
    paired: float
    plain: float
    welch: float
    paired_width: float
    welch_width: float
    widened: float

    @property
    def met(self) -> bool:
        return self.paired >= FEWEST and (self.paired <= MOST or not self.noise.is_normal)


def figures() -> Iterator[Figure]:
    """Yield the coverage of each kind of noise and number of blocks."""
    for noise in NOISES:
        for blocks in BLOCKS:
            cell = measure(noise, blocks)
            aim = "93 to 97 %" if noise.is_normal else ">= 93 %"
            yield Figure(
                what=f"{noise.name}, {blocks} blocks",
                value=_format_share(cell.paired),
                aim=aim if noise.is_promised else "",
                met=cell.met if noise.is_promised else None,
                spread=f"paired t alone {_format_share(cell.plain)}, Welch {_format_share(cell.welch)}; half width"
                f" {format_percent(cell.paired_width)}, Welch {format_percent(cell.welch_width)}; widened"
                f" {format_percent(cell.widened)}",
            )


def measure(noise: Noise, blocks: int, *, campaigns: int = CAMPAIGNS) -> Cell:
    """Return how often intervals of simulated campaigns hold the true ratio."""
    rng = np.random.default_rng([SEED, NOISES.index(noise), blocks])
    values, reference, truth = noise.draw(rng, campaigns, blocks)
    means = [average_blocks(row) for row in (values - reference).tolist()]
    centres = np.array([mean.value for mean in means])
    paired = np.array([mean.half_width() or 0 for mean in means])
    plain = (values - reference).std(axis=1, ddof=1) / np.sqrt(blocks) * t_quantile(CONFIDENCE, blocks - 1)
    separate = np.array([_welch_half_width(*sides) for sides in zip(values, reference, strict=True)])
    off = np.abs(centres - truth)
    return Cell(
        noise=noise,
        blocks=blocks,
        paired=float(np.mean(off <= paired)),
        plain=float(np.mean(off <= plain)),
        welch=float(np.mean(off <= separate)),
        paired_width=float(np.median(paired)),
        welch_width=float(np.median(separate)),
        widened=float(np.mean([mean.effective_n < mean.n for mean in means])),
    )


def _welch_half_width(values: Floats, reference: Floats) -> float:
    error, df = welch(values, reference)
    return error * t_quantile(CONFIDENCE, df)


def _format_share(share: float) -> str:
    return f"{share * 100:.1f} %"


def _draw_normal(
    rng: np.random.Generator, campaigns: int, blocks: int, sds: tuple[float, float] = (_OWN_SD,) * 2
) -> Sides:
    shape = (campaigns, blocks)
    common = rng.normal(0, _COMMON_SD, shape)
    return TRUE + common + rng.normal(0, sds[0], shape), common + rng.normal(0, sds[1], shape), TRUE


def _draw_spells(rng: np.random.Generator, campaigns: int, blocks: int) -> npt.NDArray[np.bool_]:
    """Return the blocks that bursts hit: one in four, in spells of 1.7 blocks on average."""
    hit = np.empty((campaigns, blocks), np.bool_)
    state = rng.random(campaigns) < 0.25
    for block in range(blocks):
        hit[:, block] = state
        state = rng.random(campaigns) < np.where(state, 0.4, 0.2)
    return hit


def _draw_drift(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """The machine gets 1.5 times as slow, and the ratio itself moves by 10 %."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    course = np.linspace(-0.5, 0.5, blocks)
    return values + (np.log(1.5) + np.log(1.1)) * course, reference + np.log(1.5) * course, truth


def _draw_common_bursts(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """What slows the machine hits both sides, each to a degree of its own, and may outlast a block."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    hit, shape = _draw_spells(rng, campaigns, blocks), values.shape
    degrees = [rng.normal(_BURST, 0.1, shape) for _ in range(2)]
    return values + hit * degrees[0], reference + hit * degrees[1], truth


def _draw_own_bursts(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """What hits one side or the other, each in 25 % of blocks, ends with its deployment."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    hits = [rng.random(values.shape) < 0.25 for _ in range(2)]
    return values + _BURST * hits[0], reference + _BURST * hits[1], truth


def _draw_own_spells(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """Bursts hit one side or the other, and outlast blocks although each block has new deployments."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    hits = [_draw_spells(rng, campaigns, blocks) for _ in range(2)]
    return values + _BURST * hits[0], reference + _BURST * hits[1], truth


def _draw_one_sided_bursts(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """Bursts hit one side only, in 15 % of blocks: they are part of its mean."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    return values + _BURST * (rng.random(values.shape) < 0.15), reference, truth + 0.15 * _BURST


def _draw_waits(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """Both sides wait some ms in addition: the ratio is that of this contention, closer to 1."""

    def add_waits(sides: Sides) -> Sides:
        wait = rng.exponential(0.5, sides[0].shape)  # of the reference's P95
        return np.log(np.exp(sides[0]) + wait), np.log(np.exp(sides[1]) + wait), TRUE

    many = add_waits(_draw_normal(rng, 400_000, 1))
    values, reference, _ = add_waits(_draw_normal(rng, campaigns, blocks))
    return values, reference, float(np.mean(many[0] - many[1]))


def _draw_outlier(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """In one block the ratio is 1.65 times as large."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    values[np.arange(campaigns), rng.integers(0, blocks, campaigns)] += 0.5
    return values, reference, truth


def _draw_unequal_sides(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    return _draw_normal(rng, campaigns, blocks, (0.12, 0.02))


def _draw_unequal_blocks(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """In 30 % of blocks the spread is four times as large."""
    values, reference, truth = _draw_normal(rng, campaigns, blocks)
    factor = np.where(rng.random(values.shape) < 0.3, 4, 1)
    return reference + truth + (values - reference - truth) * factor, reference, truth


def _draw_correlated(rng: np.random.Generator, campaigns: int, blocks: int) -> Sides:
    """The ratio of each block depends on that of the block before: correlation 0.5."""
    _, reference, truth = _draw_normal(rng, campaigns, blocks)
    ratio = rng.normal(0, 1, (campaigns, blocks))
    for block in range(1, blocks):
        ratio[:, block] = 0.5 * ratio[:, block - 1] + np.sqrt(0.75) * ratio[:, block]
    return reference + truth + np.sqrt(2) * _OWN_SD * ratio, reference, truth


NOISES: Final = (
    Noise("normal", _draw_normal, is_normal=True),
    Noise("normal, unequal spreads of the sides", _draw_unequal_sides, is_normal=True),
    Noise("unequal spreads of blocks", _draw_unequal_blocks),
    Noise("drift of the machine and of the ratio", _draw_drift),
    Noise("bursts on both sides", _draw_common_bursts),
    Noise("bursts on either side", _draw_own_bursts),
    Noise("bursts on one side only", _draw_one_sided_bursts),
    Noise("a wait common to both sides", _draw_waits),
    Noise("one outlier block", _draw_outlier),
    Noise("bursts on either side that outlast blocks", _draw_own_spells, is_promised=False),
    Noise("each block resembles the last (0.5)", _draw_correlated, is_promised=False),
)
