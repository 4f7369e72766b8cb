"""How time and memory of a report grow with the run: 1, 3 and 10 million simulated requests."""

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.units import format_bytes, format_count
from tests.benchmarks.children import MESHBENCH, used_by
from tests.benchmarks.figure import Figure, format_s

_AIM_S, _AIM_BYTES, _AIM_AT = 5.0, 1024**3, 10_000_000
_PLOTS = "png,svg"
_EVERYTHING = "html,md,csv,latex,png,svg"
_REPEATS = 3
_TRIAL_S = 150.0


def figures(sizes: Sequence[int] = (1_000_000, 3_000_000, 10_000_000)) -> Iterator[Figure]:
    """Yield `meshbench report` from start to end, as a user waits for it, for each number of requests."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            # made in a separate process: a child's peak memory counts from that of its parent
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                run = pool.apply(_build_run, (Path(folder), size))
            yield _figure(run, size, formats=_PLOTS, what="summary and plots")
            yield _figure(run, size, formats=_EVERYTHING, what="everything")


def _build_run(folder: Path, requests: int) -> Path:
    """Build a run of nine trials with as many users as it takes, warm-up included."""
    from tests.factory import ISTIO_POLICIES, THINK_S, RunSpec, make_run

    seconds = len(ISTIO_POLICIES) * _REPEATS * _TRIAL_S
    users = round(requests / seconds * (THINK_S + 0.009))
    return make_run(folder, RunSpec(users=users, repeats=_REPEATS, duration_s=_TRIAL_S - 30)).path


def _figure(run: Path, requests: int, *, formats: str, what: str) -> Figure:
    used = used_by([MESHBENCH, "report", str(run), "--format", formats])
    limited = requests == _AIM_AT and formats == _PLOTS
    return Figure(
        what=f"report of {format_count(requests)} requests, {what}",
        value=format_s(used.wall_s),
        spread=f"at most {format_bytes(used.peak_bytes)} (aim <= 1 GiB); CPU {format_s(used.cpu_s)}",
        aim="<= 5s" if limited else "",
        met=used.wall_s <= _AIM_S and used.peak_bytes <= _AIM_BYTES if limited else None,
    )
