"""How many bytes a stored request takes: simulated as in a real trial, and in stored runs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.results.samples import write_parquet
from bench.results.store import read_run
from bench.units import format_count
from tests.benchmarks.figure import Figure
from tests.factory import ISTIO_POLICIES, RunSpec, simulate

_AIM = 12
_LONG = RunSpec(duration_s=570.0)  # 20 users for ten minutes: about 110 000 requests


def figures(runs: Sequence[Path]) -> Iterator[Figure]:
    """Yield one simulated trial, then each of `runs`."""
    samples = simulate(ISTIO_POLICIES[0], _LONG.users, _LONG, rng=np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.parquet"
        write_parquet(samples, path)
        yield _figure("samples.parquet, simulated trial", path.stat().st_size, len(samples))
    for run in runs:
        trials = read_run(run).trials
        size = sum((trial.path / "samples.parquet").stat().st_size for trial in trials)
        yield _figure(f"samples.parquet, {run.name}", size, sum(len(trial.samples()) for trial in trials))


def _figure(what: str, size: int, requests: int) -> Figure:
    return Figure(
        what=what,
        value=f"{size / requests:.1f} B/request",
        spread=f"{format_count(requests)} requests",
        aim=f"<= {_AIM}",
        met=size / requests <= _AIM,
    )
