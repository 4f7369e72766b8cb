"""Compute the statistics of one repeat from its raw samples: arrays of integer nanoseconds in, values out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.analysis.stats import t_quantile
from bench.units import NANOSECONDS, NS_PER_MS

Ns = npt.NDArray[np.int64]

ALWAYS_SHOWN: Final = 0.95  # the share up to which a percentile needs one request only
# A percentile further out than P95 is shown when this many requests lie beyond it: with 10 of them the share
# beyond is known to about a third (1 / sqrt 10).
ENOUGH_BEYOND: Final = 10
# Between the thirds of steady data P95 moves by about 5.5 % at 6000 requests; twice that is 11 %.
STEADY_LIMIT: Final = 0.11
STEADY_REQUESTS: Final = 6000
# Each third is divided into this many parts; with fewer requests a part has no usable P95.
_PARTS: Final = 4
_PART_REQUESTS: Final = 20
_STEADY_CONFIDENCE: Final = 0.995
_UNSTEADY_FACTOR: Final = 3  # times the limit: not steady, whatever the variation

_STUDY_SHARE: Final = 0.95
_STUDY_STEP_S: Final = 5
_STUDY_WINDOW_S: Final = 10
_STUDY_SPAN_S: Final = 120


def rank(share: float, count: int) -> int:
    """Return the nearest rank, from 1, of a share among `count` values: the first with the share at or below it."""
    return max(1, math.ceil(round(share * count, 6)))  # rounded first: 0.07 * 100 is 7.000000000000001


def percentiles_ns(values_ns: Ns, shares: Sequence[float]) -> tuple[int, ...]:
    """Return nearest-rank percentiles: each is one of the values. One partition computes all of them.

    Raises ValueError where there are no values.
    """
    if not len(values_ns):
        raise ValueError("no values, no percentiles")
    indexes = [rank(share, len(values_ns)) - 1 for share in shares]
    ordered = np.partition(values_ns, sorted(set(indexes)))
    return tuple(int(ordered[index]) for index in indexes)


def percentile_ns(values_ns: Ns, share: float) -> int:
    """Return one nearest-rank percentile. Raises ValueError where there are no values."""
    return percentiles_ns(values_ns, [share])[0]


def is_enough(share: float, count: int) -> bool:
    """Return whether `count` requests are enough for this percentile.

    P95 and below need one request: a trial with too few of them is invalid (`bench.analysis.validity`), and its P95 is
    shown with that mark. Above P95, `ENOUGH_BEYOND` requests must lie beyond: 1000 for P99, 10 000 for P99.9.
    """
    return count > 0 if share <= ALWAYS_SHOWN else round(count * (1 - share), 6) >= ENOUGH_BEYOND


@dataclass(frozen=True, slots=True, eq=False)
class BySecond:
    """Latencies in groups, by the second in which each request ended; second s is `edges[s]:edges[s + 1]`."""

    latency_ns: Ns
    edges: Ns

    @property
    def seconds(self) -> int:
        return len(self.edges) - 1

    def between(self, first: int, last: int) -> Ns:
        """Return the latencies of the requests that ended in the seconds [first, last)."""
        low, high = self.edges[max(first, 0)], self.edges[max(min(last, self.seconds), 0)]
        return self.latency_ns[low:high]


def group_by_second(ended_ns: Ns, latency_ns: Ns, seconds: int) -> BySecond:
    """Group requests by the second in which they ended, for the first `seconds` on their clock."""
    second = _seconds(ended_ns, seconds)
    order = np.argsort(second, kind="stable")
    counts = np.bincount(second, minlength=seconds + 1)[:seconds]
    return BySecond(latency_ns[order], np.concatenate([[0], np.cumsum(counts)]))


def _seconds(ended_ns: Ns, seconds: int) -> npt.NDArray[np.unsignedinteger]:
    """Return the second of each end, `seconds` where it is outside of them; in a small integer type, to sort fast."""
    second = ended_ns // NANOSECONDS
    outside = (second < 0) | (second > seconds)
    if outside.any():
        second[outside] = seconds
    return second.astype(np.min_scalar_type(seconds))


def study_p95_ms(started_ns: Ns, latency_ns: Ns) -> float | None:
    """Return the 2022 study's statistic: the mean of Locust's sliding P95, a point each 5 s over the first 120 s.

    Each point covers about the last 10 s, is the value at rank floor(0.95 N) + 1 and is rounded as Locust
    rounds; failed requests count as they do in Locust. Seconds are those of the samples' clock, from the one
    in which the load started. Points without a request are skipped. None where there is no point.
    """
    if not len(started_ns):
        return None
    zero_ns = int(started_ns.min()) // NANOSECONDS * NANOSECONDS
    ended = group_by_second(started_ns + latency_ns - zero_ns, latency_ns, _STUDY_SPAN_S)
    busy = np.flatnonzero(np.diff(ended.edges))
    end = int(busy[-1]) + 1 if len(busy) else 0
    windows = [
        ended.between(_find_window_start(now, busy), now) for now in range(_STUDY_STEP_S, end + 1, _STUDY_STEP_S)
    ]
    points = [_locust_p95_ms(window) for window in windows if len(window)]
    return sum(points) / len(points) if points else None


def _find_window_start(now: int, busy: npt.NDArray[np.intp]) -> int:
    """Return the second from which Locust's sliding window at `now` counts.

    Locust copies its counts when the first request of a new second ends, under the number of the second before. It
    uses the copy from 10 s ago, else from 11, 9, 12, 8 ... 18 and 2 s ago. The first copy, 0, is empty.
    """
    copies = {0: 0} | {int(second) - 1: int(second) for second in busy[1:]}
    steps = [offset for i in range(1, 9) for offset in (_STUDY_WINDOW_S + i, _STUDY_WINDOW_S - i)]
    found = (copies[now - back] for back in (_STUDY_WINDOW_S, *steps) if now - back in copies)
    return next(found, now)


def _locust_p95_ms(latency_ns: Ns) -> int:
    index = min(int(len(latency_ns) * _STUDY_SHARE), len(latency_ns) - 1)
    ordered = np.partition(latency_ns, index)
    return round_as_locust(int(ordered[index]))  # rounding keeps the order, so that rounding one value is enough


def round_as_locust(latency_ns: int) -> int:
    """Round a latency as Locust does: whole ms below 100, else two digits; halves to even."""
    milliseconds = latency_ns / NS_PER_MS
    digits = 0 if milliseconds < 100 else -1 if milliseconds < 1_000 else -2 if milliseconds < 10_000 else -3
    return int(round(milliseconds, digits))


def corrected_p95_ns(latency_ns: Ns, interval_ns: int) -> int:
    """Return P95 including the requests that a closed loop omitted while it waited, by HdrHistogram's rule.

    A latency beyond the expected interval (think time + median) stands for further requests that would have
    waited one, two, ... intervals less, down to the interval. These are counted and not made: a short interval and a
    long latency stand for very many. Raises ValueError where there are no values.
    """
    if interval_ns <= 0 or not len(latency_ns):
        return percentile_ns(latency_ns, 0.95)
    ordered = np.sort(latency_ns)
    slow_ns = ordered[ordered >= 2 * interval_ns]  # few: the others stand for no further request
    missing = slow_ns // interval_ns - 1

    def count_up_to(limit_ns: int) -> float:
        further = np.clip(missing + 1 - np.maximum(-((limit_ns - slow_ns) // interval_ns), 1), 0, missing)
        return float(np.searchsorted(ordered, limit_ns, side="right")) + float(further.sum(dtype=np.float64))

    wanted = rank(0.95, len(ordered) + int(missing.sum(dtype=np.float64)))
    low_ns, high_ns = min(int(ordered[0]), interval_ns), int(ordered[-1])
    while low_ns < high_ns:
        middle_ns = (low_ns + high_ns) // 2
        low_ns, high_ns = (low_ns, middle_ns) if count_up_to(middle_ns) >= wanted else (middle_ns + 1, high_ns)
    return low_ns


def count_stall_seconds(ended_ns: Ns, start_ns: int, end_ns: int) -> int:
    """Count the whole seconds of the window, from its start, in which no request ended."""
    seconds = (end_ns - start_ns) // NANOSECONDS
    ended = np.bincount(_seconds(ended_ns - start_ns, seconds), minlength=seconds + 1)
    return int((ended[:seconds] == 0).sum())


@dataclass(frozen=True, slots=True)
class Steadiness:
    """P95 of the window's last third divided by that of its first, and whether that is steady."""

    ratio: float
    limit: float
    steady: bool


def measure_steadiness(started_ns: Ns, latency_ns: Ns, start_ns: int, end_ns: int) -> Steadiness | None:
    """Compare the window's first third with its last. None where there are too few requests.

    `latency_ns` are the window's requests, in order of their start. A change is unsteady beyond 11 % (more where the
    window has fewer than 6000 requests) if it also exceeds the window's own variation (99.5 %), or is three times as
    large.
    """
    third_ns = (end_ns - start_ns) / 3
    edges = np.searchsorted(started_ns, [start_ns + third_ns, end_ns - third_ns])
    thirds = np.split(latency_ns, edges)
    if min(map(len, thirds)) < _PARTS * _PART_REQUESTS:
        return None
    change = math.log(_p95_or_1(thirds[2]) / _p95_or_1(thirds[0]))
    limit = math.log1p(STEADY_LIMIT) * math.sqrt(max(STEADY_REQUESTS / len(latency_ns), 1))
    steady = abs(change) <= limit or (abs(change) <= _UNSTEADY_FACTOR * limit and not _is_significant(thirds))
    return Steadiness(ratio=math.exp(change), limit=math.expm1(limit), steady=steady)


def _is_significant(thirds: Sequence[Ns]) -> bool:
    """Return whether first and last third differ by more than the slow periods that any busy machine has.

    The variation is that of the parts' P95 within the last two thirds: a warm-up that reaches into the first third
    must not hide itself.
    """
    first, middle, last = (np.log([_p95_or_1(part) for part in np.array_split(third, _PARTS)]) for third in thirds)
    spread = math.sqrt((np.var(middle, ddof=1) + np.var(last, ddof=1)) / 2)
    error = spread * math.sqrt(2 / _PARTS)
    return bool(abs(last.mean() - first.mean()) > t_quantile(_STEADY_CONFIDENCE, 2 * (_PARTS - 1)) * error)


def _p95_or_1(latency_ns: Ns) -> int:
    """Return P95, at least 1 ns, so that it has a logarithm."""
    return max(percentile_ns(latency_ns, 0.95), 1)
