"""The whole command on the lab: run as a user runs it, disturbed while it runs, and checked for what it leaves."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.scenario.loader import load_scenario
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.lock import is_alive, read_holder, remove_lock
from bench.targets.cluster.teardown.cleanup import clean_cluster
from bench.targets.cluster.teardown.inventory import find_leftovers
from tests import command
from tests.cluster.lab import CONTEXT, MESHLAB, home, kubeconfig
from tests.command import BASELINE, ISTIO, MEASURED, Command

__all__ = ["BASELINE", "ISTIO", "MEASURED", "MESH", "POLICIES", "Job", "run_job"]

POLICIES: Mapping[str, Any] = {"name": "istio-policies", "mesh": "istio", "manifests": ["istio/policies"]}
MESH: Final = ("--mesh-values", str(MESHLAB.parent / "istio-values.yaml"))
# Issues that only a fault causes; a busy machine may make any window unsteady.
HARM: Final = re.compile("generator-ended|lost-rows|restart|proof|unproven|errors|all-failed|clock")
# With Kuma's own requests, many pods do not fit on the lab's two CPUs.
_SMALL_KUMA: Final = """\
controlPlane: {resources: {requests: {cpu: 50m, memory: 128Mi}}}
dataPlane: {sidecarContainer: {resources: {requests: {cpu: 10m, memory: 64Mi}}}}
"""

During = Callable[[Command], object]

_DEADLINE_S: Final = 500.0
_END_S: Final = 150.0  # an interrupted run cleans up for as long as 120 s
_SEEDS: Final = 1000
_MANAGED_BY: Final = ("app.kubernetes.io/managed-by", "meshbench")
_MESSAGE: Final = re.compile(r"^meshbench: (.*)", re.MULTILINE | re.DOTALL)
_OURS: Final = ("meshbench", "istio", "kuma")
_AT_ONCE: Final = 8
_GONE_S: Final = 60.0
_POLL_S: Final = 0.3


@dataclass(frozen=True)
class Job:
    """A command that has ended. `run_folder` is None if it ended before creating one."""

    exit_code: int
    stdout: str
    stderr: str
    run_folder: Path | None
    seconds: float

    @property
    def output(self) -> str:
        """Output and duration, for failed assertions."""
        finished = command.Finished(self.exit_code, self.stdout, self.stderr)
        return f"{self.seconds:.1f} s, {finished.output}"

    @property
    def message(self) -> str:
        """The one message of a failure, without what was printed before it."""
        found = _MESSAGE.search(self.stderr)
        assert found, self.output
        assert "Traceback" not in self.stderr, self.output
        return found[1]

    @property
    def folder(self) -> Path:
        assert self.run_folder is not None, self.output
        return self.run_folder

    @property
    def private(self) -> Path:
        """The folder of its private files."""
        return self.folder.parent / ".private" / self.folder.name

    @property
    def record(self) -> dict[str, Any]:
        """`run.json`."""
        return command.read_record(self.folder)

    def trials(self) -> dict[str, dict[str, Any]]:
        """`trial.json` of each complete trial, by the trial's name."""
        return {one["folder"]: command.read_trial_record(self.folder, one["folder"]) for one in self.record["trials"]}


def small_kuma_options(folder: Path) -> tuple[str, str]:
    """Return options for a Kuma with small resource requests."""
    values = folder / "small.yaml"
    values.write_text(_SMALL_KUMA, "utf-8")
    return "--mesh-values", str(values)


def run_job(
    tmp_path: Path,
    *arguments: str | Path,
    scenario: Sequence[Mapping[str, Any]] | Path = (BASELINE,),
    during: During | None = None,
    env: Mapping[str, str] | None = None,
    driver: str = "",
    timing: Mapping[str, float] | None = None,
    **changes: Any,
) -> Job:
    """Run `meshbench run` on the lab to its end. `scenario` is a file, or its configurations in the order in which they
    are measured; `changes` are merged into that file. `during` follows the command and may cause faults; so may
    `driver`, Python in the command's own process. `timing` are the differences from the usual `Timing`."""
    path = scenario if isinstance(scenario, Path) else write_scenario(tmp_path, scenario, **changes)
    options: dict[str, Any] = {"during": during, "env": env, "driver": driver, "timing": timing}
    return run_command(tmp_path, "run", "--scenario", path, "--yes", *arguments, **options)


def run_command(
    tmp_path: Path,
    *arguments: str | Path,
    during: During | None = None,
    env: Mapping[str, str] | None = None,
    driver: str = "",
    timing: Mapping[str, float] | None = None,
) -> Job:
    """Run any command of meshbench on the lab to its end, with its results below `tmp_path`; if `during` fails the
    command is interrupted. `arguments` come last, and so override others."""
    output, began = tmp_path / "results", time.monotonic()
    first, *others = arguments
    words = (first, "--context", CONTEXT, "--output", output, *others)
    started = command.start(*words, output=output, env=_on_lab(env), driver=driver, timing=timing)
    started.deadline = began + _DEADLINE_S
    try:
        if during is not None:
            during(started)
        finished = started.wait(_DEADLINE_S)
    finally:
        _end(started)
    seconds = time.monotonic() - began
    folders = sorted(output.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    return Job(finished.code, finished.out, finished.err, folders[-1].parent if folders else None, seconds)


def _on_lab(changes: Mapping[str, str] | None) -> dict[str, str]:
    """The lab's kubeconfig and its istioctl; `changes` come after them."""
    path = f"{home() / 'cli'}{os.pathsep}{os.environ['PATH']}"
    return {"KUBECONFIG": str(kubeconfig()), "PATH": path, **(changes or {})}


def _end(started: Command) -> None:
    """End a command as a user ends a run, after a test failed, so that it removes its own objects."""
    if started.popen.poll() is None:
        started.send(signal.SIGCONT)
        started.send(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            started.popen.communicate(timeout=_END_S)
    if started.popen.poll() is None:
        started.popen.kill()
        started.popen.communicate()


def write_scenario(folder: Path, configurations: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """Write a scenario file for windows of seconds, whose configurations are measured in their order in the file."""
    names = [configuration["name"] for configuration in configurations]
    for seed in range(_SEEDS):
        path = command.write_scenario(folder, configurations, **{**changes, "seed": seed})
        if list(make_plan(load_scenario(str(path), Overrides()), seed).order[0]) == names:
            return path
    raise AssertionError(f"no seed puts {names} in this order")


@contextmanager
def pause(started: Command) -> Iterator[None]:
    """Stop the command with SIGSTOP meanwhile, so that a fault happens at one exact step of its run."""
    started.send(signal.SIGSTOP)
    try:
        yield
    finally:
        started.send(signal.SIGCONT)


def namespace_of(started: Command) -> str:
    """Return the namespace of the run's application."""
    return f"bookinfo-{started.folder().name.rpartition('-')[2]}"


def until_applied(started: Command, kind: str, **facts: str) -> dict[str, Any]:
    """Wait for the journal's line before an object is created; the object may exist already."""
    return started.line("apply", kind=kind, **facts)


def until_loading(started: Command, trial: str, *, rows: int = 10) -> None:
    """Wait until requests of this trial were fetched from the load pod."""
    started.loading(trial, rows)


@contextmanager
def stop_api_server() -> Iterator[None]:
    """Stop the API server, whose address still accepts connections."""
    daemons = json.loads((home() / "run" / "processes.json").read_text("utf-8"))
    starter = psutil.Process(daemons["kube-apiserver"]["pid"])
    (server,) = starter.children()
    assert server.name() == "kube-apiserver"
    server.suspend()
    try:
        yield
    finally:
        server.resume()
        starter.resume()  # it stops itself when its child is stopped


# --- what is on the cluster -------------------------------------------------------------------------------------


@contextmanager
def assert_unchanged(cluster: Cluster) -> Iterator[None]:
    """Check that nothing of ours is on the cluster after the block, and that nothing else was created, deleted or
    changed; what a failed test leaves is removed for the next one. No test begins while a run is there."""
    _wait_for_terminating(cluster)
    there = list(find_leftovers(cluster).by_run())
    assert there == [], f"the lab is in use: {there}"
    before = list_objects(cluster)
    try:
        yield
    finally:
        _wait_for_terminating(cluster)
        found = find_changes(before, list_objects(cluster))
        remove_dead_runs(cluster)
    assert found == []


def remove_dead_runs(cluster: Cluster) -> None:
    """Remove runs that have ended, not a live one that another user may have started meanwhile."""
    holder = read_holder(cluster)
    alive = holder.run_id if holder is not None and is_alive(cluster, holder, watch=CancelToken()) else ""
    for run in find_leftovers(cluster).by_run():
        if run != alive:
            clean_cluster(cluster, run, watch=CancelToken())
            remove_lock(cluster, run, watch=CancelToken())


def _wait_for_terminating(cluster: Cluster) -> None:
    """Wait for the terminating namespaces."""

    def going() -> list[str]:
        spaces = cluster.list("v1", "Namespace")
        return [one["metadata"]["name"] for one in spaces if one["metadata"].get("deletionTimestamp")]

    assert wait_until(lambda: not going(), timeout_s=_GONE_S, watch=CancelToken(), poll_s=_POLL_S), going()


def delete_named(cluster: Cluster, ref: Ref, *, grace_s: int | None = None) -> None:
    """Request the deletion of the object that has this name now, whoever made it."""
    if (thing := cluster.get(ref)) is not None:
        cluster.delete(thing, grace_s=grace_s)


def list_leftovers(cluster: Cluster) -> list[str]:
    """Return everything with our labels, and everything of meshes: kinds, webhooks, namespaces, and their objects."""
    kinds = {f"{kind.api_version} {kind.kind}" for kind in cluster.kinds() if _is_named_ours(kind.api_version)}
    return sorted(kinds | {name for name, thing in list_objects(cluster).items() if _is_ours(thing)})


def _is_ours(thing: Object) -> bool:
    metadata = thing["metadata"]
    key, value = _MANAGED_BY
    labelled = (metadata.get("labels") or {}).get(key) == value
    return labelled or _is_named_ours(metadata["name"]) or _is_named_ours(metadata.get("namespace", ""))


def _is_named_ours(name: str) -> bool:
    return any(one in name for one in _OURS)


def list_objects(cluster: Cluster) -> dict[str, Object]:
    """Return all objects of the cluster, by kind and name. Events are left out: they expire by themselves."""
    kinds = [kind for kind in cluster.kinds() if "list" in kind.verbs and kind.kind != "Event"]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = pool.map(lambda kind: _listed(cluster, kind), kinds)
        return {f"{thing['apiVersion']} {ref_of(thing)}": thing for things in listed for thing in things}


def _listed(cluster: Cluster, kind: KindInfo) -> tuple[Object, ...]:
    return cluster.list(kind.api_version, kind.kind)


def find_changes(before: Mapping[str, Object], after: Mapping[str, Object]) -> list[str]:
    """Describe what was created, deleted or replaced. What controllers create and renew is ignored."""
    old, new = _independent(before), _independent(after)
    came = [f"new: {name}" for name in sorted(new.keys() - old.keys())]
    went = [f"gone: {name}" for name in sorted(old.keys() - new.keys())]
    both = sorted(old.keys() & new.keys())
    return [*came, *went, *(f"changed: {name}" for name in both if _core(old[name]) != _core(new[name]))]


def _independent(things: Mapping[str, Object]) -> dict[str, Object]:
    made = (name for name, thing in things.items() if not thing["metadata"].get("ownerReferences"))
    return {name: things[name] for name in made if things[name]["kind"] != "Endpoints"}


def _core(thing: Object) -> Object:
    """Return an object without what a cluster itself changes all the time: status, versions, and liveness leases."""
    metadata = {key: thing["metadata"].get(key) for key in ("uid", "labels", "finalizers", "deletionTimestamp")}
    if thing["kind"] == "Lease":
        return metadata
    return {**{key: value for key, value in thing.items() if key not in ("metadata", "status")}, **metadata}
