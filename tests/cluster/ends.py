"""How runs on the lab end: signals at one step of their journal, and the time until nothing is left."""

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.k8s.client import Cluster
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import Job, list_leftovers, run_command
from tests.command import Command

_EMPTY_S: Final = 90.0
_POLL_S: Final = 0.3

# Sends itself each signal at the first step that matches: lines of the journal, once they are written, and requested
# deletions. Writes each step to the file STEPS, if one is named.
_DRIVER: Final = """
import json, os, re
from bench.system.journal import Journal
from bench.k8s.client import Cluster, ref_of

plot, steps = json.loads(os.environ["PLOT"]), os.environ.get("STEPS", os.devnull)

def reached(step):
    with open(steps, "a") as log:
        log.write(step + "\\n")
    if plot and re.search(plot[0][0], step):
        os.kill(os.getpid(), plot.pop(0)[1])

write, delete = Journal.write, Cluster.delete

def written(journal, step, **facts):
    write(journal, step, **facts)
    reached(f"{step} {facts.get('kind', '')} {facts.get('namespace', '')}/{facts.get('name', '')}")

def deleted(cluster, thing, **options):
    delete(cluster, thing, **options)
    reached(f"deleted {ref_of(thing)}")

Journal.write, Cluster.delete = written, deleted
"""


def signal_at(*plot: tuple[str, signal.Signals], **env: str) -> dict[str, Any]:
    """Return options of `run_job` for a run that gets these signals, one after another, each at the first step that
    matches: `apply-done Pod bookinfo-7f3a/locust`, `deleted Namespace istio-system`."""
    return {"driver": _DRIVER, "env": {"PLOT": json.dumps(plot), **env}}


def signal_at_removal(*plot: tuple[str, signal.Signals]) -> dict[str, Any]:
    """Return the same for steps that only a run's end has: Ctrl-C as the first trial begins reaches them soonest, when
    the control plane has created its objects."""
    return signal_at(("^apply Namespace /bookinfo", signal.SIGINT), *plot)


@dataclass
class SentSignal:
    """A signal to a run as soon as `when` returns; `at_s` is the monotonic clock's time then."""

    number: signal.Signals
    when: Callable[[Command], object]
    at_s: float = 0.0

    def __call__(self, started: Command) -> None:
        self.when(started)
        self.at_s = time.monotonic()
        started.send(self.number)


def clean_up_after(killed: Job, folder: Path, *, from_folder: bool) -> Job:
    """Run `cleanup` by the name of the run's own folder, which is below `folder`, or where only the cluster has a
    record of it."""
    if from_folder:
        return run_command(folder, "cleanup", "--run", killed.folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return run_command(elsewhere, "cleanup")


def print_figure(figure: str) -> None:
    """Print a figure, which `pytest -rP` shows."""
    sys.stdout.write(f"{figure}\n")
    sys.stdout.flush()


def seconds_until_empty(cluster: Cluster, since_s: float) -> float:
    """Wait until the last object of ours, or of a mesh, was deleted; return the seconds."""
    gone = wait_until(lambda: not list_leftovers(cluster), timeout_s=_EMPTY_S, watch=CancelToken(), poll_s=_POLL_S)
    assert gone, list_leftovers(cluster)
    return time.monotonic() - since_s
