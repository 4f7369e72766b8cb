"""The nights from which on the ratio has another level."""

import numpy as np
import pytest

from bench.analysis.change_points import find_change_points


def draw(*levels: tuple[float, int], seed: int = 1, spread: float = 0.03) -> list[float]:
    """Nights around these levels, each for so many nights."""
    rng = np.random.default_rng(seed)
    return [value for level, count in levels for value in rng.normal(level, spread, count).tolist()]


def test_finds_a_step_where_it_is() -> None:
    """A step of several spreads is found at its first night, with its size."""
    (found,) = find_change_points(draw((0.3, 20), (0.5, 15)))
    assert found.at == 20
    assert found.step == pytest.approx(0.2, abs=0.02)


def test_finds_every_step_in_the_order_of_nights() -> None:
    """A slow month between two usual ones has two steps, up and down."""
    up, down = find_change_points(draw((0.3, 30), (0.45, 30), (0.3, 30)))
    assert (up.at, down.at) == (30, 60)
    assert up.step > 0.1
    assert down.step < -0.1


def test_nights_without_a_change_have_steps_in_one_series_of_a_hundred() -> None:
    """Chance makes a step in about 1 % of series, however long."""
    found = [find_change_points(draw((0.3, 10 + seed % 40), seed=seed)) for seed in range(300)]
    assert sum(map(bool, found)) <= 9


def test_single_outlier_is_no_step() -> None:
    """One night far off has no level of its own."""
    assert find_change_points([*draw((0.3, 20)), 0.9, *draw((0.3, 20), seed=2)]) == ()


def test_small_steps_are_left_out() -> None:
    """A step of 1 % is not reported, even where nights hardly differ."""
    assert find_change_points(draw((0.30, 20), (0.31, 20), spread=0.0001)) == ()


@pytest.mark.parametrize("values", [[], [0.3], [0.3] * 30, [0.1, 0.1, 0.1, 0.9, 0.9]])
def test_few_or_equal_nights_have_no_steps(values: list[float]) -> None:
    """Fewer than three nights on each side, and nights that are all equal, have none."""
    assert find_change_points(values) == ()


def test_equal_series_have_equal_steps() -> None:
    """The page of a history is the same each time it is written."""
    values = draw((0.3, 12), (0.4, 9), spread=0.05)
    assert find_change_points(values) == find_change_points(values)
