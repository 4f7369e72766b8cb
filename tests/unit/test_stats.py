"""Means, ratios and intervals over repeats."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis import stats

milliseconds = st.floats(0.01, 1e5)
repeats = st.lists(milliseconds, min_size=2, max_size=8).filter(lambda values: max(values) > min(values) * 1.0001)


@given(values=repeats, reference=repeats)
def test_ratio_and_interval_equal_scipys_welch(values: list[float], reference: list[float]) -> None:
    """The ratio's intervals are those of SciPy's Welch test on logarithms, at 95 and 90 %."""
    found = stats.compare(values, reference)
    test = scipy.stats.ttest_ind(np.log(values), np.log(reference), equal_var=False)
    for interval, confidence in ((found.interval, 0.95), (found.equivalence_interval, 0.90)):
        expected = test.confidence_interval(confidence)
        assert interval is not None
        assert np.log(interval) == pytest.approx([expected.low, expected.high], rel=1e-6, abs=1e-9)
    assert math.log(found.ratio) == pytest.approx(np.log(values).mean() - np.log(reference).mean(), abs=1e-9)


@given(values=repeats)
def test_geometric_mean_equals_scipys(values: list[float]) -> None:
    """A configuration's mean and interval are SciPy's geometric mean and t interval of logarithms."""
    found = stats.geometric_mean(values)
    assert found.value == pytest.approx(scipy.stats.gmean(values))
    expected = scipy.stats.ttest_1samp(np.log(values), 0).confidence_interval(0.95)
    assert found.interval is not None
    assert np.log(found.interval) == pytest.approx([expected.low, expected.high], rel=1e-6, abs=1e-9)
    assert found.sd == pytest.approx(np.std(np.log(values), ddof=1))


@given(values=repeats, reference=repeats, factor=st.floats(0.001, 1000))
def test_ratio_has_no_unit(values: list[float], reference: list[float], factor: float) -> None:
    """Ratio and interval are the same when everything is measured in another unit."""
    scaled = stats.compare([v * factor for v in values], [v * factor for v in reference])
    found = stats.compare(values, reference)
    assert scaled.ratio == pytest.approx(found.ratio)
    assert scaled.interval == pytest.approx(found.interval, rel=1e-5)


@given(values=repeats, reference=repeats)
def test_exchanging_the_sides_inverts_the_ratio(values: list[float], reference: list[float]) -> None:
    """A against B is one over B against A, interval included."""
    there, back = stats.compare(values, reference), stats.compare(reference, values)
    assert there.interval is not None
    assert back.interval is not None
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]), rel=1e-5)


@given(values=repeats, draw=st.randoms(use_true_random=False))
def test_the_order_of_repeats_does_not_matter(values: list[float], draw: Any) -> None:
    """Shuffled repeats have the same mean and interval."""
    shuffled = list(values)
    draw.shuffle(shuffled)
    assert stats.geometric_mean(shuffled).value == pytest.approx(stats.geometric_mean(values).value)


def test_arithmetic_mean_equals_scipys() -> None:
    """Throughput has the plain mean with its t interval."""
    values = [151.2, 149.8, 155.0, 150.1]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = stats.arithmetic_mean(values)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(151.525)


def test_welch_intervals_have_their_coverage() -> None:
    """Of 500 campaigns of two equal systems, 3 repeats each, 5 % run-to-run sd, about 95 % leave 1 inside."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(500):
        sides = np.exp(rng.normal(math.log(100), 0.05, (2, 3)))
        low, high = stats.compare(*sides.tolist()).interval or (0, 0)
        inside += low <= 1 <= high
    assert 0.93 <= inside / 500 <= 0.985


def test_unequal_spreads_have_their_coverage() -> None:
    """For a noisy mesh and a quiet baseline the interval covers the true ratio at least 93 % of the time."""
    rng = np.random.default_rng(12)
    inside = 0
    for _ in range(500):
        mesh, baseline = np.exp(rng.normal(math.log(130), 0.12, 3)), np.exp(rng.normal(math.log(100), 0.02, 3))
        low, high = stats.compare(mesh.tolist(), baseline.tolist()).interval or (0, 0)
        inside += low <= 1.3 <= high
    assert inside / 500 >= 0.93


@pytest.mark.parametrize(
    ("sd", "repeats", "percent"),
    [
        (0.02, 3, 7.3),
        (0.02, 5, 4.3),
        (0.02, 6, 3.7),
        (0.02, 10, 2.7),
        (0.05, 3, 19),
        (0.05, 5, 11),
        (0.05, 6, 10),
        (0.05, 10, 7),
        (0.10, 3, 42),
        (0.10, 5, 23),
        (0.10, 6, 20),
        (0.10, 10, 14),
    ],
)
def test_minimum_detectable_effects_equal_simulated_ones(sd: float, repeats: int, percent: float) -> None:
    """The effect that a number of repeats can detect agrees with simulated campaigns, to the digits of their table."""
    effect = stats.minimum_detectable_effect(sd, repeats)
    assert effect is not None
    digits = 1 if percent < 8 and sd == 0.02 else 0
    assert round(effect * 100, digits) == percent


def test_minimum_detectable_effect_has_80_percent_power() -> None:
    """Simulated campaigns with a difference of exactly this effect detect it in about 80 %."""
    rng = np.random.default_rng(13)
    effect = stats.minimum_detectable_effect(0.05, 3)
    assert effect is not None
    found = 0
    for _ in range(1000):
        mesh, baseline = rng.normal(math.log1p(effect), 0.05, 3), rng.normal(0, 0.05, 3)
        interval = stats.compare(np.exp(mesh).tolist(), np.exp(baseline).tolist()).interval
        found += interval is not None and interval[0] > 1
    assert found / 1000 == pytest.approx(0.80, abs=0.04)


@given(sd=st.floats(0.005, 0.3), effect=st.floats(0.02, 0.5))
def test_needed_repeats_are_the_fewest(sd: float, effect: float) -> None:
    """The returned number of repeats detects the effect, and one fewer does not."""
    needed = stats.compute_repeats_needed(sd, effect)
    if needed is None:
        assert (stats.minimum_detectable_effect(sd, stats.MOST_REPEATS) or 0) > effect
        return
    assert (stats.minimum_detectable_effect(sd, needed) or math.inf) <= effect
    assert (stats.minimum_detectable_effect(sd, needed - 1) or math.inf) > effect


def test_mde_of_a_comparison_uses_its_own_spread() -> None:
    """It follows from the comparison's spread and number of repeats."""
    values = (100 * np.exp([-0.05, 0, 0.05])).tolist()
    found = stats.compare(values, values)
    assert found.mde == pytest.approx(stats.minimum_detectable_effect(0.05, 3))


@pytest.mark.parametrize(
    ("values", "why"), [([5.0], "one repeat"), ([5.0, 5.0, 5.0], "resolution"), ([0.1 + 0.2] * 3, "resolution")]
)
def test_no_spread_has_no_interval(values: list[float], why: str) -> None:
    """One repeat, or equal ones, have a mean but neither interval nor detectable effect, with the reason."""
    for mean in (stats.geometric_mean(values), stats.arithmetic_mean(values)):
        assert mean.value == pytest.approx(values[0])
        assert (mean.interval, mean.sd) == (None, None)
        assert why in mean.reason
    for found in (stats.compare(values, [1.0, 2.0, 3.0]), stats.compare([1.0, 2.0, 3.0], values)):
        assert (found.interval, found.equivalence_interval, found.mde) == (None, None, None)
        assert why in found.reason


def test_values_without_a_mean_are_an_error() -> None:
    """No values, or values without a logarithm, never become a number."""
    for values in ([], [0.0, 1.0], [-1.0]):
        with pytest.raises(ValueError, match="positive"):
            stats.geometric_mean(values)
    with pytest.raises(ValueError, match="no values"):
        stats.arithmetic_mean([])


def test_single_repeat_detects_nothing() -> None:
    """There is no minimum detectable effect without a spread."""
    assert stats.minimum_detectable_effect(0.05, 1) is None


def test_two_columns_within_blocks_equal_paired_t_test() -> None:
    """With two configurations the analysis within blocks is the paired t test on logarithms, as SciPy has it."""
    table = np.array([[90.0, 102.0], [140.0, 163.0], [70.0, 76.0], [120.0, 133.0]])
    paired = scipy.stats.ttest_rel(np.log(table[:, 1]), np.log(table[:, 0])).confidence_interval(stats.CONFIDENCE)
    assert stats.within_blocks(table, 1, 0) == pytest.approx((math.exp(paired.low), math.exp(paired.high)))


def test_common_block_effect_does_not_widen_interval() -> None:
    """A machine that is slower in one block than in another changes nothing in the interval within blocks."""
    table = np.array([[90.0, 160.0, 166.0], [91.0, 158.0, 163.0], [88.0, 161.0, 170.0]])
    slower = table * np.array([[1.0], [2.0], [0.6]])
    assert stats.within_blocks(slower, 2, 0) == pytest.approx(stats.within_blocks(table, 2, 0))


def test_intervals_within_blocks_have_their_coverage() -> None:
    """Where all configurations scatter equally, 95 of 100 intervals within blocks hold the true ratio."""
    random = np.random.default_rng(5)
    shape, truth = (2000, 3, 3), 1.2
    tables = np.exp(random.normal(0, 0.3, (2000, 3, 1)) + random.normal(0, 0.05, shape)) * [1.0, truth, 1.3]
    found = [interval for table in tables if (interval := stats.within_blocks(table, 1, 0))]
    assert np.mean([low <= truth <= high for low, high in found]) == pytest.approx(0.95, abs=0.015)


def test_rates_are_never_negative() -> None:
    """Repeats that scatter widely give an interval down to zero."""
    interval = stats.arithmetic_mean([1.0, 9.0]).interval
    assert interval is not None
    assert interval[0] == 0
    assert interval[1] > 9


@pytest.mark.parametrize("table", [[[90.0, 99.0]], [[90.0, 99.0], [90.0, 99.0]]], ids=["one block", "no noise"])
def test_blocks_without_noise_have_no_interval(table: list[list[float]]) -> None:
    """One block, or equal blocks, have no measure of noise."""
    assert stats.within_blocks(np.array(table), 1, 0) is None


@given(values=repeats)
def test_few_blocks_have_scipys_paired_interval(values: list[float]) -> None:
    """Up to four blocks the ratio's interval is that of SciPy's paired t test on logarithms."""
    values = values[:4]
    reference = [100.0, 103.0, 98.0, 101.0][: len(values)]
    found = stats.compare_blocks(values, reference)
    if found.interval is None:
        assert found.reason
        return
    test = scipy.stats.ttest_rel(np.log(values), np.log(reference))
    for interval, confidence in ((found.interval, 0.95), (found.equivalence_interval, 0.90)):
        expected = test.confidence_interval(confidence)
        assert interval is not None
        assert np.log(interval) == pytest.approx([expected.low, expected.high], rel=1e-6, abs=1e-9)
    assert found.blocks is not None
    assert (found.blocks.lag_1, found.blocks.effective_n) == (None, len(values))


@given(values=repeats, factors=st.lists(st.floats(0.1, 10), min_size=8, max_size=8))
def test_what_both_sides_share_cancels(values: list[float], factors: list[float]) -> None:
    """A block that is slower for both sides changes neither ratio nor interval."""
    reference = [90.0 + block for block in range(len(values))]
    slower = [[v * f for v, f in zip(side, factors, strict=False)] for side in (values, reference)]
    plain, shared = stats.compare_blocks(values, reference), stats.compare_blocks(slower[0], slower[1])
    assert shared.ratio == pytest.approx(plain.ratio)
    if plain.blocks is not None and plain.blocks.lag_1 is not None and abs(plain.blocks.lag_1 - stats.MOST_LAG) < 1e-6:
        return
    assert shared.interval == pytest.approx(plain.interval, rel=1e-5)


def test_neighbours_that_resemble_each_other_count_for_fewer_blocks() -> None:
    """A slow wave widens the interval; the same values without an order do not."""
    wave = [0.1, 0.09, 0.06, 0.02, -0.03, -0.07, -0.09, -0.08]
    shuffled = [wave[block] for block in (0, 6, 2, 5, 1, 7, 3, 4)]
    found, other = stats.average_blocks(wave), stats.average_blocks(shuffled)
    assert found.lag_1 is not None
    assert found.lag_1 > stats.MOST_LAG
    assert found.effective_n < 8 == other.effective_n
    assert found.value == pytest.approx(other.value)
    assert found.error == pytest.approx((other.error or 0) * math.sqrt(8 / found.effective_n))
    assert found.effective_n >= 2


@pytest.mark.parametrize("blocks", [5, 8, 12])
def test_independent_blocks_have_no_correlation_on_average(blocks: int) -> None:
    """The bias that the blocks' own mean causes is corrected."""
    series = np.random.default_rng(3).normal(0, 1, (2000, blocks))
    found = [stats.average_blocks(row).lag_1 for row in series.tolist()]
    assert np.mean([lag for lag in found if lag is not None]) == pytest.approx(0, abs=0.03)


def test_median_has_exact_interval_from_8_blocks_on() -> None:
    """The order statistics are those of the binomial distribution: all of 8 blocks, the third to the tenth of 12."""
    ratios = [1.0 + block / 100 for block in range(20)]
    medians = {count: stats.compare_blocks(ratios[:count], [1.0] * count).median for count in (7, 8, 9, 12, 20)}
    assert medians[7] is None
    assert medians[8] == pytest.approx((1.035, 1.00, 1.07))
    assert medians[9] == pytest.approx((1.04, 1.01, 1.07))
    assert medians[12] == pytest.approx((1.055, 1.02, 1.09))
    assert medians[20] == pytest.approx((1.095, 1.05, 1.14))


@pytest.mark.parametrize(
    ("differences", "why"), [([0.5], "one block"), ([0.5] * 3, "resolution"), ([0.1 + 0.2] * 8, "resolution")]
)
def test_blocks_without_spread_have_no_interval(differences: list[float], why: str) -> None:
    """One block, or equal ones, have a mean and the reason why it has no interval."""
    found = stats.average_blocks(differences)
    assert found.value == pytest.approx(differences[0])
    assert (found.error, found.half_width(), found.lag_1) == (None, None, None)
    assert why in found.reason


def test_blocks_need_both_sides() -> None:
    """No blocks, or blocks with one side, are an error."""
    with pytest.raises(ValueError, match="two sides"):
        stats.compare_blocks([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no blocks"):
        stats.average_blocks([])


def test_paired_minimum_detectable_effect_has_80_percent_power() -> None:
    """Simulated runs of 8 blocks with a difference of exactly this effect detect it in about 80 %."""
    rng = np.random.default_rng(15)
    effect = stats.paired_detectable_effect(0.08, 8)
    assert effect is not None
    ratios = rng.normal(math.log1p(effect), 0.08, (4000, 8))
    error = ratios.std(axis=1, ddof=1) / math.sqrt(8)
    found = ratios.mean(axis=1) > stats.t_quantile(0.95, 7) * error
    assert np.mean(found) == pytest.approx(0.80, abs=0.02)
    assert stats.paired_detectable_effect(0.08, 1) is None


@given(sd=st.floats(0.005, 0.3), effect=st.floats(0.02, 0.5))
def test_needed_blocks_are_the_fewest(sd: float, effect: float) -> None:
    """The returned number of blocks detects the effect, and one fewer does not."""
    needed = stats.compute_blocks_needed(sd, effect)
    if needed is None:
        assert (stats.paired_detectable_effect(sd, stats.MOST_REPEATS) or 0) > effect
        return
    assert (stats.paired_detectable_effect(sd, needed) or math.inf) <= effect
    assert (stats.paired_detectable_effect(sd, needed - 1) or math.inf) > effect


@given(values=repeats, reference=repeats, half=st.floats(0.05, 2))
def test_repeats_as_narrow_are_the_fewest(values: list[float], reference: list[float], half: float) -> None:
    """With the returned number of repeats Welch's interval is no wider than asked, and with one fewer it is."""
    found = stats.compute_repeats_as_narrow(values, reference, half)
    if found is not None:
        assert (stats.compute_welch_half_width(values, reference, found) or math.inf) <= half
        assert (stats.compute_welch_half_width(values, reference, found - 1) or math.inf) > half


def test_welch_half_width_is_that_of_the_repeats_themselves() -> None:
    """With as many repeats as were measured it is the width of their own interval."""
    values, reference = [14.0, 15.5, 13.2, 14.9], [10.0, 10.2, 9.7, 11.0]
    interval = stats.compare(values, reference).interval
    assert interval is not None
    half = stats.compute_welch_half_width(values, reference, 4)
    assert half == pytest.approx(math.log(interval[1] / interval[0]) / 2)
    assert stats.compute_welch_half_width([5.0, 5.0], reference, 4) is None
