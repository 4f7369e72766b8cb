"""Percentiles as Locust computes them, reproduced from raw samples."""

import numpy as np

from bench.analysis import percentiles as latency
from tests.study_load import S, load


def test_only_the_first_two_minutes_count() -> None:
    """Requests after the load's first 120 s do not change the study's statistic."""
    started, values = load(seed=1, count=9000, seconds=180, median_ms=50)
    slower = np.where(started > 121 * S, values * 9, values)
    assert latency.study_p95_ms(started, slower) == latency.study_p95_ms(started, values)


def test_load_may_start_late() -> None:
    """The study's statistic counts from the second in which the load starts, not from the trial's start."""
    started, values = load(seed=1, count=6000, seconds=121, median_ms=250)
    assert latency.study_p95_ms(started + 40 * S, values) == latency.study_p95_ms(started, values)


def test_no_requests_have_no_statistic() -> None:
    """Without a request, or with less than 5 s of load, there is none."""
    nothing = np.array([], np.int64)
    assert latency.study_p95_ms(nothing, nothing) is None
    assert latency.study_p95_ms(*load(seed=1, count=50, seconds=2, median_ms=10)) is None
