"""Nights without a measurement: lines of a gate's history with simulated repeats, all from a seed."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.analysis.history import History, HistoryLine, hash_conditions
from bench.cli.main import main

LAST = datetime(2026, 11, 29, 3, 17, tzinfo=UTC)
CONDITIONS = {"cpus": "8", "kernel": "6.1.0", "address_host": "a1b2", "cluster": "Kubernetes v1.31.2, 3 nodes"}
USUAL = {"istio": math.log(1.4), "istio-policies": math.log(1.5)}
BASE_MS = 6.0


def make_night(
    at: datetime, values: Sequence[float], reference: Sequence[float], *, scenario: str = "nightly", **changes: Any
) -> HistoryLine:
    """The line of a night with these ln P95 of its repeats, in ms."""
    conditions = changes.pop("conditions", CONDITIONS)
    night = HistoryLine(
        run_id=f"{at:%Y%m%dT%H%M%SZ}-{scenario}-7f3a",
        at=at,
        scenario=scenario,
        configuration="istio",
        reference="baseline",
        conditions=conditions,
        fingerprint=hash_conditions(conditions),
        valid=True,
        ln_ratio=float(np.mean(values) - np.mean(reference)),
        ln_p95_ms=tuple(values),
        ln_reference_p95_ms=tuple(reference),
        verdict="slower",
        seed=7,
        order=(("baseline", "istio"),) * len(values),
        run_exit_code=0,
    )
    return night.model_copy(update=changes)


def make_history(
    nights: int,
    *,
    last: datetime = LAST,
    scenario: str = "nightly",
    slower_from: Mapping[int, float] = {},
    changes: Mapping[int, Mapping[str, Any]] = {},
    seed: int = 17,
) -> History:
    """A history of two configurations, a night a day up to `last`. `slower_from`: from which night on `istio` has how
    much more ln P95; `changes`: fields of the lines from a night on."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(nights):
        at = last - timedelta(days=nights - 1 - number)
        known = {name: value for start in sorted(changes) if start <= number for name, value in changes[start].items()}
        reference = math.log(BASE_MS) + rng.normal(0, 0.02) + rng.normal(0, 0.03, 3)
        for configuration, ratio in USUAL.items():
            more = sum(step for start, step in slower_from.items() if start <= number and configuration == "istio")
            values = math.log(BASE_MS) + ratio + more + rng.normal(0, 0.02) + rng.normal(0, 0.03, 3)
            fields = {"scenario": scenario, "configuration": configuration, **known}
            lines.append(make_night(at, values.tolist(), reference.tolist(), **fields))
    return History(tuple(lines))


def call(*words: str | Path) -> int:
    """Run a command in this process, and return its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
