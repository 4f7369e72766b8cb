"""Who else is on the cluster: earlier runs of ours, or one that is there now, and meshes."""

from collections.abc import Sequence
from datetime import UTC, datetime

from bench.errors import LockedError
from bench.findings import CheckResult
from bench.targets.kubernetes.client import Cluster
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.deletion import Found
from bench.targets.kubernetes.holder import Holder, seems_dead
from bench.targets.kubernetes.lease import read_holder
from bench.targets.kubernetes.leftovers import find_leftovers, told


def examine_earlier_runs(cluster: Cluster) -> tuple[CheckResult, ...]:
    """What runs left, or have there now; what is on its way out already is told by its namespace."""
    holder = read_holder(cluster)
    everything = find_leftovers(cluster).by_run()
    found = (
        _run_left(cluster, run, _staying(things), holder) for run, things in everything.items() if _staying(things)
    )
    return tuple(found) or (CheckResult("earlier runs", "ok", "nothing left"),)


def _staying(things: Sequence[Found]) -> tuple[Found, ...]:
    """What nobody has asked to go yet."""
    going = {one.ref.name for one in things if one.ref.kind == "Namespace" and one.going}
    return tuple(one for one in things if not one.going and one.ref.namespace not in going)


def _run_left(cluster: Cluster, run: str, things: Sequence[Found], holder: Holder | None) -> CheckResult:
    command = f"meshbench cleanup --context {cluster.context} --run-id {run}"
    who, hint = f"{run} left", command
    if holder is not None and holder.run_id == run:
        named = holder.told(datetime.now(UTC))
        if seems_dead(holder):
            who = f"{named} ended without cleaning up and left"
        else:
            who, hint = f"{named} has the lock, and there is", f"wait for it to end; if it is dead: {command}"
    return CheckResult("earlier runs", "error", f"{who} {told(things)}", hint, LockedError)


def examine_meshes(cluster: Cluster, meshes: Sequence[str], *, existing: bool) -> tuple[CheckResult, ...]:
    """Meshes that are there, against those that the scenario needs."""
    there = {name: plane.present(cluster) for name, plane in CONTROL_PLANES.items()}
    return (
        *(_wanted_mesh(name, there[name], existing=existing) for name in meshes),
        *(_idle_mesh(name, found) for name, found in there.items() if found and name not in meshes),
    )


def _idle_mesh(name: str, there: str) -> CheckResult:
    detail = f"on the cluster, and not measured: {there}; it takes its part of the nodes"
    return CheckResult(name, "warning", detail, "use a cluster without it")


def _wanted_mesh(name: str, there: str, *, existing: bool) -> CheckResult:
    if existing and not there:
        return CheckResult(name, "error", "not on the cluster", "leave out --use-existing-mesh, and it is installed")
    if there and not existing:
        hint = "--use-existing-mesh takes it as it is and leaves it there; or remove it, as by meshbench cleanup"
        return CheckResult(name, "error", f"on the cluster already: {there}", hint)
    return CheckResult(name, "ok", there or "not there yet; the run installs and removes it")
