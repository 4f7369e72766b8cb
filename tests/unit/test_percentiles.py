"""One repeat's numbers, from raw samples."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis import percentiles as latency

S = 1_000_000_000
MS = 1_000_000

latencies = st.lists(st.integers(1, 10**11), min_size=1, max_size=300)
shares = st.sampled_from([0.01, 0.07, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0])


def array(values: Any) -> latency.Ns:
    return np.array(values, np.int64)


@given(values=latencies, share=shares)
def test_percentile_is_the_nearest_rank(values: list[int], share: float) -> None:
    """A percentile is a measured value: the first that leaves its share of the values at or below it."""
    found = latency.percentile_ns(array(values), share)
    below = sorted(values)
    enough = [value for value in below if sum(v <= value for v in values) >= share * len(values) - 1e-6]
    assert found == enough[0]


@given(values=latencies, wanted=st.lists(shares, min_size=1))
def test_all_percentiles_at_once_equal_single_ones(values: list[int], wanted: list[float]) -> None:
    """One partition for all percentiles gives the same values as one for each."""
    together = latency.percentiles_ns(array(values), wanted)
    assert together == tuple(latency.percentile_ns(array(values), share) for share in wanted)


@given(values=latencies, share=shares, draw=st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(values: list[int], share: float, draw: Any) -> None:
    """Shuffled samples have the same percentiles, and the input stays unchanged."""
    shuffled = list(values)
    draw.shuffle(shuffled)
    given_values = array(shuffled)
    assert latency.percentile_ns(given_values, share) == latency.percentile_ns(array(values), share)
    assert given_values.tolist() == shuffled


@given(values=latencies, share=shares, factor=st.integers(1, 1000))
def test_percentiles_scale_with_the_unit(values: list[int], share: float, factor: int) -> None:
    """Latencies that are k times as long have percentiles that are k times as long."""
    scaled = latency.percentile_ns(array(values) * factor, share)
    assert scaled == latency.percentile_ns(array(values), share) * factor


def test_no_values_have_no_percentile() -> None:
    """Without values a percentile is an error, never a number."""
    with pytest.raises(ValueError, match="no values"):
        latency.percentile_ns(array([]), 0.95)


@pytest.mark.parametrize(("share", "needed"), [(0.5, 1), (0.95, 1), (0.99, 1000), (0.999, 10_000), (0.995, 2000)])
def test_far_percentiles_need_many_requests(share: float, needed: int) -> None:
    """Beyond P95 a percentile needs ten requests beyond it."""
    assert latency.is_enough(share, needed)
    assert not latency.is_enough(share, needed - 1)


@given(ended=st.lists(st.integers(-5 * S, 40 * S), max_size=60), seconds=st.integers(1, 30))
def test_groups_requests_by_second(ended: list[int], seconds: int) -> None:
    """Every request is in the group of the second in which it ended; ends outside are in none."""
    groups = latency.group_by_second(array(ended), array(range(len(ended))), seconds)
    for second in range(seconds):
        expected = [index for index, end in enumerate(ended) if end // S == second]
        assert sorted(groups.between(second, second + 1).tolist()) == expected
    assert len(groups.between(-3, seconds + 9)) == sum(0 <= end < seconds * S for end in ended)


@given(ended=st.lists(st.integers(0, 20 * S), max_size=60))
def test_stall_is_a_second_without_an_end(ended: list[int]) -> None:
    """A stall is a whole second of the window in which no request ended."""
    busy = {(end - 5 * S) // S for end in ended if 5 * S <= end < 15 * S}
    assert latency.count_stall_seconds(array(ended), 5 * S, 15 * S + 400 * MS) == 10 - len(busy)


def test_correction_adds_requests_of_the_closed_loop() -> None:
    """HdrHistogram's rule: 100 s with an interval of one second stands for 99, 98 ... 1 s, too."""
    corrected = latency.corrected_p95_ns(array([100 * S]), S)
    assert corrected == 95 * S  # of 100, 99 ... 1


def test_correction_leaves_fast_responses_unchanged() -> None:
    """Where no response took two intervals nothing was omitted: the corrected P95 is the P95."""
    values = array(range(1, 200)) * MS
    assert latency.corrected_p95_ns(values, 100 * MS) == latency.percentile_ns(values, 0.95)


@given(values=st.lists(st.integers(1, 10**9), min_size=1, max_size=50), interval=st.integers(10**7, 10**9))
def test_correction_equals_hdrhistograms(values: list[int], interval: int) -> None:
    """The filled values are those of a plain loop over HdrHistogram's rule."""
    filled = list(values)
    for value in values:
        missing = value - interval
        while missing >= interval:
            filled.append(missing)
            missing -= interval
    assert latency.corrected_p95_ns(array(values), interval) == latency.percentile_ns(array(filled), 0.95)


def steady_load(count: int, *, seed: int, drift: float = 0.0, decay_s: float | None = None) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    started = np.sort(rng.uniform(0, 120, count))
    excess = drift * (np.exp(-started / decay_s) if decay_s else started / 120)
    values = 0.05 * rng.lognormal(0, 0.45, count) * (1 + excess)
    return (started * S).astype(np.int64), (values * S).astype(np.int64)


def is_steady(started: Any, values: Any) -> bool:
    found = latency.measure_steadiness(started, values, 0, 120 * S)
    assert found is not None
    return found.steady


@pytest.mark.parametrize("count", [400, 1500, 6000, 20_000])
def test_recognises_steady_load(count: int) -> None:
    """Of steady windows, long or short, almost none is reported as unsteady."""
    assert sum(not is_steady(*steady_load(count, seed=seed)) for seed in range(200)) <= 2


@pytest.mark.parametrize("count", [2000, 6000, 20_000])
def test_reports_warm_up_that_goes_on(count: int) -> None:
    """A system that gets faster, or slower, during the window is detected."""
    assert sum(is_steady(*steady_load(count, seed=s, drift=1.5, decay_s=30)) for s in range(50)) <= 5
    assert sum(is_steady(*steady_load(count, seed=s, drift=1.0)) for s in range(50)) <= 5


def test_slow_periods_are_no_drift() -> None:
    """A window whose P95 goes up and down is noisy, but not unsteady."""
    started, values = steady_load(6000, seed=3)
    spells = np.isin(started // (10 * S), [1, 3, 5, 9])  # four of twelve stretches of 10 s are slow
    found = latency.measure_steadiness(started, np.where(spells, values * 1.5, values).astype(np.int64), 0, 120 * S)
    assert found is not None
    assert abs(math.log(found.ratio)) > math.log1p(found.limit)
    assert found.steady


def test_large_change_is_unsteady() -> None:
    """A window whose P95 doubles is not steady, even where slow periods could explain it."""
    started, values = steady_load(6000, seed=3)
    assert not is_steady(started, values * (1 + 2 * np.isin(started // (10 * S), [8, 10])))


def test_reports_warm_up_that_ends_inside_the_window() -> None:
    """A slow beginning of the window is no slow period, even where it is short."""
    started, values = steady_load(6000, seed=3)
    assert not is_steady(started, values * (1 + (started < 20 * S)))


def test_short_windows_have_a_wider_limit() -> None:
    """With a quarter of the requests P95 is twice as noisy, and so is the limit."""
    found = [latency.measure_steadiness(*steady_load(count, seed=1), 0, 120 * S) for count in (1500, 6000, 24_000)]
    limits = [math.log1p(one.limit) for one in found if one is not None]
    assert limits == pytest.approx([2 * math.log(1.11), math.log(1.11), math.log(1.11)])


def test_few_requests_have_no_steadiness() -> None:
    """Below 80 requests per third of the window steadiness is unknown."""
    assert latency.measure_steadiness(*steady_load(150, seed=1), 0, 120 * S) is None
    assert latency.measure_steadiness(array([]), array([]), 0, 120 * S) is None
