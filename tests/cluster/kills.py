"""End runs by SIGKILL at every kind of step, and remove them: `python -m tests.cluster.kills [MESH] [REGEX]`.

It takes half a minute of the lab for each step, or for those whose text matches; `kuma` in place of `istio` requires
Kuma's images. For each step it prints how many objects existed when the run was killed, and how long `cleanup` took,
from the run's own folder and from an empty one in turn. Objects that cleanup leaves, or changes to other objects, are a
failure.
"""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import open_cluster
from tests.cluster import lab
from tests.cluster.ends import SentSignal, clean_up_after, print_figure, signal_at, signal_at_removal
from tests.cluster.job import (
    BASELINE,
    MEASURED,
    MESH,
    POLICIES,
    Job,
    assert_unchanged,
    list_leftovers,
    run_job,
    small_kuma_options,
    until_loading,
)

KILL: Final = signal.SIGKILL
MESHES: Final = {"istio": POLICIES, "kuma": {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}}
Run = Callable[..., Job]
_RUN_ID: Final = re.compile(r"(?<=bookinfo-)[0-9a-f]{4}")


def main(mesh: str = "istio", pattern: str = "") -> None:
    os.environ["KUBECONFIG"] = str(lab.kubeconfig())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = MESH if mesh == "istio" else small_kuma_options(folder)

        def run(place: Path, **plot: Any) -> Job:
            return run_job(place, *options, scenario=[MESHES[mesh], BASELINE], **plot)

        with open_cluster(lab.CONTEXT, private_folder=folder / "private") as cluster:
            with assert_unchanged(cluster):
                plots = dict(_kill_points(folder, run))
            chosen = {step: plot for step, plot in plots.items() if re.search(pattern, step)}
            failed = [
                step
                for number, (step, plot) in enumerate(chosen.items())
                if not _is_removed(cluster, run, folder / str(number), step, plot, from_folder=number % 2 == 0)
            ]
    print_figure(f"{len(chosen)} kills, after {len(failed)} of which something was left or changed")
    sys.exit(bool(failed))


def _kill_points(folder: Path, run: Run) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every kind of step of a whole run, and the signals that kill another run at the first step of this kind."""
    log = folder / "steps"
    job = run(folder, **signal_at(STEPS=str(log)))
    assert job.exit_code in MEASURED, job.output
    steps = log.read_text("utf-8").splitlines()
    trials_end = max(number for number, step in enumerate(steps) if step.startswith("delete-done"))
    in_trials = {*map(_kind, steps[:trials_end])}
    first = next(iter(job.trials()))
    in_window = SentSignal(KILL, lambda started: until_loading(started, first))
    yield "in the window", {"during": in_window, "load": {"duration": "60s"}}
    for kind in dict.fromkeys(map(_kind, steps)):
        kill = (f"^{kind}", KILL)
        yield kind, signal_at(kill) if kind in in_trials else signal_at_removal(kill)


def _kind(step: str) -> str:
    """Return a step without its object's own name, as a regular expression; the few namespaces keep their names."""
    action, kind, name = _RUN_ID.sub("....", step).split(" ", 2)
    place = name if kind == "Namespace" else f"{name.rpartition('/')[0]}/" if "/" in name else ""
    return f"{action} {kind} {place}"


def _is_removed(
    cluster: Cluster, run: Run, folder: Path, step: str, plot: Mapping[str, Any], *, from_folder: bool
) -> bool:
    folder.mkdir()
    try:
        with assert_unchanged(cluster):
            killed = run(folder, **plot)
            assert killed.exit_code == -KILL, f"it was not reached: {killed.output}"
            there = len(list_leftovers(cluster))
            cleaned = clean_up_after(killed, folder, from_folder=from_folder)
            assert cleaned.exit_code == 0, cleaned.output
            assert list_leftovers(cluster) == []
    except AssertionError as error:
        print_figure(f"{step:<60} FAILED: {error}")
        return False
    place = "its folder" if from_folder else "an empty one"
    print_figure(f"{step:<60} {there:>4} objects there, none left after {cleaned.seconds:5.1f} s from {place}")
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
