"""Loads for the 2022 study's statistic."""

from typing import Any

import numpy as np

S = 1_000_000_000


def load(*, seed: int, count: int, seconds: float, median_ms: float, gap: tuple[float, float] = (0, 0)) -> Any:
    """Simulate starts and latencies in ns; no request ends in the gap, in seconds."""
    rng = np.random.default_rng(seed)
    started = np.sort(rng.uniform(0.01, seconds, count))
    values = median_ms / 1e3 * rng.lognormal(0, 0.6, count)
    ended = started + values
    kept = (ended < gap[0]) | (ended >= gap[1])
    return (started[kept] * S).astype(np.int64), (values[kept] * S).astype(np.int64)
