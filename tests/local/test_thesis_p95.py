"""Our copy of Locust's sliding p95 against Locust itself, which patches the process that imports it."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bench.analysis import percentiles as latency
from tests.study_load import S, load

# Feeds Locust's statistics the same requests at the same (simulated) times, and reads them every 5 s, as Locust does.
_LOCUST = """
import json, sys
from types import SimpleNamespace
from locust import stats

cases, values = json.load(sys.stdin)
now = 0.0
stats.time = SimpleNamespace(time=lambda: now)

def points(ended, latency, last):
    global now
    now = 1_000_000.0
    requests = stats.RequestStats()
    found, due = [], 5
    for end, value in [*sorted(zip(ended, latency)), (10**15, 0)]:
        while due * 10**9 <= end and due <= last:
            now = 1_000_000.0 + due
            found.append(requests.total.get_current_response_time_percentile(0.95) or 0)
            due += 5
        now = 1_000_000.0 + end / 1e9
        requests.log_request("GET", "/productpage", value / 1e6, 0)
    return found

json.dump({
    "points": [points(**case) for case in cases],
    "buckets": [stats.bucket_response_time(value / 1e6) for value in values],
}, sys.stdout)
"""


def ask_locust(cases: list[dict[str, Any]], values: list[int]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _LOCUST],
        input=json.dumps([cases, values]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def with_pauses(started: Any, values: Any) -> Any:
    """No request ends in the seconds whose copy Locust looks for first; the latencies rise."""
    kept = (started + values) // S % 5 != 1
    return started[kept], (values * (1 + started / (60 * S))).astype(np.int64)[kept]


CASES = {
    "the study's load": load(seed=1, count=6000, seconds=121, median_ms=250),
    "quick": load(seed=2, count=20_000, seconds=150, median_ms=4),
    "slow": load(seed=3, count=900, seconds=130, median_ms=4000),
    "sparse": load(seed=4, count=70, seconds=125, median_ms=80),
    "short": load(seed=5, count=400, seconds=23, median_ms=90),
    "shorter than Locust's window": load(seed=6, count=60, seconds=7, median_ms=90),
    "with a stall": load(seed=7, count=6000, seconds=121, median_ms=60, gap=(31, 44)),
    "with a long stall": load(seed=8, count=6000, seconds=121, median_ms=60, gap=(20, 61)),
    "with a pause each 5 s": with_pauses(*load(seed=10, count=4000, seconds=121, median_ms=3)),
    "silent after its first second": load(seed=9, count=3000, seconds=121, median_ms=60, gap=(1, 9)),
}


def test_thesis_p95_is_the_mean_of_locusts_sliding_p95() -> None:
    """For every kind of load our value is the mean of what Locust itself reports, except for points without
    requests."""
    cases = []
    for started, values in CASES.values():
        ended = started + values
        last = min(120, int(ended[ended < 120 * S].max() // S) + 1)
        cases.append({"ended": ended.tolist(), "latency": values.tolist(), "last": last})
    answers = ask_locust(cases, [])["points"]
    for name, (started, values), points in zip(CASES, CASES.values(), answers, strict=True):
        seen = [point for point in points if point]
        assert latency.study_p95_ms(started, values) == pytest.approx(sum(seen) / len(seen)), name


def test_rounding_matches_locust() -> None:
    """Latencies are rounded as Locust rounds them, including halves and limits."""
    rng = np.random.default_rng(5)
    borders = [500_000, 1_500_000, 99_499_999, 99_500_000, 104_999_999, 105_000_000, 435_000_000, 445_000_000]
    borders += [994_999_999, 995_000_000, 1_050_000_000, 1_150_000_000, 9_950_000_000, 10_500_000_000]
    values = [*borders, *rng.integers(1, 20_000, 500) * 1_000_000, *rng.integers(1, 2 * 10**10, 2000)]
    whole = [int(value) for value in values]
    assert [latency.round_as_locust(value) for value in whole] == ask_locust([], whole)["buckets"]
