"""How time and memory of a summary grow with the samples: runs of 1, 3 and 10 million simulated requests.

    python -m tests.benchmarks.report_growth [MILLIONS ...]

Prints one line per size. Each summary is made in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.store import open_run
from bench.summary import summarise
from tests.factory import ISTIO_POLICIES, THINK_S, Made, make_run

_REPEATS = 3
_TRIAL_S = 150.0


def main(sizes: list[float]) -> None:
    """Measures every size, in millions of requests."""
    print(f"{'requests':>12} {'file bytes':>12} {'open s':>8} {'summary s':>10} {'CPU s':>8} {'peak MiB':>9}")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = make_run(Path(folder), _made(size * 1e6)).path
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(_measure, (path,)), flush=True)


def _made(requests: float) -> Made:
    """A run of nine trials with as many users as it takes; warm-up included."""
    seconds = len(ISTIO_POLICIES) * _REPEATS * _TRIAL_S
    users = requests / seconds * (THINK_S + 0.009)
    return Made(users=round(users), repeats=_REPEATS, warmup_s=30.0, duration_s=_TRIAL_S - 30.0)


def _measure(path: Path) -> str:
    began = time.perf_counter()
    run = open_run(path)
    opened, used = time.perf_counter(), time.process_time()
    _, digests = summarise(run)
    seconds, cpu = time.perf_counter() - opened, time.process_time() - used
    requests = sum(round(float((d.series.rps + d.series.errors).sum())) for d in digests.values())
    size = sum(file.stat().st_size for file in path.rglob("samples.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{requests:>12} {size:>12} {opened - began:>8.2f} {seconds:>10.2f} {cpu:>8.2f} {peak:>9.0f}"


if __name__ == "__main__":
    main([float(size) for size in sys.argv[1:]] or [1, 3, 10])
