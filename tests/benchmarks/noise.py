"""What windows of a quiet machine show of each figure of noise, and what they show with a disturber: the thresholds of
the issue `noise` lie between them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.analysis import validity
from bench.analysis.percentiles import rank
from bench.units import format_counted, format_percent
from tests.benchmarks.campaign import Campaign, Measured
from tests.benchmarks.figure import Figure

QUIET: Final = "quiet"
DISTURBED: Final = "disturbed"
_COUNTED: Final = "baseline-a"  # the windows of both configurations are the same time
_BUSY_LOOP: Final = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass\n"
_THRESHOLDS: Final = {
    "used_cpu": None,
    "other_cpu": validity.MOST_OTHER_CPU,
    "steal": validity.MOST_STEAL,
    "pressure": None,
    "throttled": validity.MOST_THROTTLED,
}


class NoiseCampaign(Campaign):
    """Runs of one configuration under two names, side by side, by turns without and with a disturber."""

    def _run(self, kind: str) -> str:
        with disturb() if kind == DISTURBED else _leave_alone():
            return super()._run(kind)


@contextmanager
def disturb() -> Iterator[int]:
    """Keep one CPU busy, and yield the pid of the process that does. It ends with the block, or with this process."""
    with subprocess.Popen([sys.executable, "-c", _BUSY_LOOP]) as loop:
        try:
            yield loop.pid
        finally:
            loop.kill()


@contextmanager
def _leave_alone() -> Iterator[int]:
    yield os.getpid()


def campaign(folder: Path) -> NoiseCampaign:
    """Return the campaign: eight blocks a run, in windows of 15 s, as with `--quick`."""
    options = ("--scenario", "aa", "--design", "duet", "--repeats", "8", "--duration", "15s", "--warmup", "5s")
    return NoiseCampaign(folder, {QUIET: options, DISTURBED: options})


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the distribution of each figure over the windows, quiet and disturbed, with the threshold as its aim."""
    found = campaign(folder)
    for kind in (QUIET, DISTURBED):
        runs = found.runs(kind)
        for name in _THRESHOLDS:
            yield describe(kind, name, [share for run in runs for share in shares_of(run, name)])


def shares_of(run: Measured, name: str) -> Iterator[float]:
    """Yield a figure of every window of a run, those of invalid trials, too: noise is not judged by latencies."""
    for repeat in run.summary.configurations[_COUNTED].repeats:
        if (share := getattr(repeat, name)) is not None:
            yield share


def describe(kind: str, name: str, shares: Sequence[float]) -> Figure:
    """Return median, P95 and maximum. Quiet windows should stay below the threshold; a disturber that keeps a CPU busy
    should exceed that of other processes."""
    what, most = f"{kind}: {name}", _THRESHOLDS[name]
    if not shares:
        return Figure(what=what, value="n/a", spread="no window has it")
    ordered = sorted(shares)
    median, p95 = (ordered[rank(share, len(ordered)) - 1] for share in (0.5, 0.95))
    spread = f"P95 {format_percent(p95)}, max {format_percent(ordered[-1])}"
    spread += f" of {format_counted(len(ordered), 'window')}"
    aim, met = "", None
    if most is not None and kind == QUIET:
        aim, met = f"P95 <= {format_percent(most)}", p95 <= most
    elif most is not None and name == "other_cpu":
        aim, met = f"> {format_percent(most)}", ordered[0] > most
    return Figure(what=what, value=format_percent(median), spread=spread, aim=aim, met=met)
