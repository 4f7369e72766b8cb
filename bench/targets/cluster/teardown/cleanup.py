"""Remove a run from a cluster, by its labels alone: at the end of a run, and after one that was killed.

Idempotent and safe from any half-way state: what is there is looked up, and deleted stage by stage (`stages.Stage`).
Nothing without the run's labels is touched, but what a control plane that this run installed made by itself. Finalizers
are never stripped: they are reported, with the command that does it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from bench.errors import ClusterError, LeftoversError, LockedError, RefusedError
from bench.files.folders import find_shipped
from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import connect_context, credentials_folder, describe_cluster, require_server
from bench.k8s.ownership import format_cleanup, run_of
from bench.k8s.retry import ONCE, wait_policy
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.system.cancellation import CancelToken, catch_signals
from bench.system.timing import DEFAULT, Timing
from bench.targets.cluster.lock import is_alive, read_holder, remove_lock
from bench.targets.cluster.teardown.blockers import Dangling
from bench.targets.cluster.teardown.inventory import find_leftovers, format_objects
from bench.targets.cluster.teardown.removal import Removal
from bench.targets.cluster.teardown.stages import RunObject
from bench.units import format_duration, format_first

_NAMED_AT_MOST: Final = 5


class OpenCluster(Protocol):
    """Opens the cluster of a context."""

    def __call__(
        self, context: str, /, *, private_folder: Path, timing: Timing
    ) -> AbstractContextManager[Cluster, bool | None]: ...


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """What a cleanup did: the objects that it removed, and in how many seconds; dangling webhooks and APIs of others;
    kinds that it may not list."""

    removed: tuple[RunObject, ...]
    took_s: float
    foreign: tuple[Dangling, ...]
    unseen: tuple[str, ...]


def clean_cluster(
    cluster: Cluster,
    run_id: str,
    *,
    watch: CancelToken,
    wait_s: float | None = None,
    planes: Mapping[str, ControlPlane] = CONTROL_PLANES,
) -> CleanupResult:
    """Remove everything of a run but its lock, and wait until it is deleted. The `wait_s` seconds (else the cluster's
    `timing.clean_s`) begin now, whatever ended the run, and are few with a short deadline. Raises LeftoversError for
    what stays; a second signal ends the wait."""
    clock = cluster.timing.clock
    began = clock()
    deadline = began + (cluster.timing.clean_s if wait_s is None else wait_s)
    removal = Removal(cluster, run_id, watch, deadline, planes)
    unseen = removal.remove_all()
    removed = tuple(removal.seen.values())
    dangling = removal.find_dangling() if removed else ()
    namespaces = {one.ref.name for one in removed if one.ref.kind == "Namespace"}
    ours = [one for one in dangling if one.namespace in namespaces or run_of(one.found.thing) == run_id]
    if ours:
        lines = "\n".join(f"  {one.describe(cluster.context)}" for one in ours)
        raise LeftoversError(
            f"the run {run_id} was deleted from context {cluster.context}, but not these webhooks and APIs:\n{lines}"
        )
    return CleanupResult(removed, clock() - began, tuple(one for one in dangling if one not in ours), unseen)


def cluster_cleanup(
    context: str,
    *,
    run_id: str | None = None,
    only_list: bool = False,
    timing: Timing = DEFAULT,
    opened: OpenCluster = connect_context,
) -> Iterator[str]:
    """Run the command `meshbench cleanup --context`: list or remove what dead runs left; yield lines for people.

    Without `run_id` there must not be more than one run. Raises LockedError for a run that is alive, LeftoversError
    where the API server is away for too long.
    """
    command = f"{format_cleanup(context, run_id)}{' --list' * only_list}"
    with (
        catch_signals() as watch,
        credentials_folder() as folder,
        opened(context, private_folder=folder, timing=timing) as cluster,
    ):
        try:
            yield from _wait_for_server(cluster, watch=watch)
            yield from _clean_up(cluster, run_id, only_list=only_list, watch=watch)
        except ClusterError as error:
            raise LeftoversError(
                f"context {context}: {error}\nsomething may be left; hint: later run: {command}"
            ) from error
        watch.check()  # one signal does not stop it, but sets the exit code


def _wait_for_server(cluster: Cluster, *, watch: CancelToken) -> Iterator[str]:
    """Wait for an API server that is away, and report that at once; the next request finds out whether it came back.
    Nothing was removed yet, so that a signal ends the wait. Raises RefusedError where waiting would not help."""
    timing = cluster.timing
    try:
        require_server(cluster, ONCE)
    except ClusterError as outage:
        yield f"context {cluster.context}: {outage}; waiting for up to {timing.clean_s:.0f} s"
        with suppress(ClusterError):
            require_server(cluster, wait_policy(timing.away_poll_s, timing.clean_s), watch=watch)


def _clean_up(cluster: Cluster, run_id: str | None, *, only_list: bool, watch: CancelToken) -> Iterator[str]:
    yield describe_cluster(cluster)
    leftovers = find_leftovers(cluster, run_id)
    runs = leftovers.by_run()
    if leftovers.unseen:
        yield f"not searched, since it may not be listed: {format_first(leftovers.unseen, _NAMED_AT_MOST)}"
    if not runs and leftovers.is_blind:
        role = find_shipped("manifests") / "rbac" / "run.yaml"
        raise RefusedError(f"namespaces may not be listed, so that it is unknown what is left; hint: bind {role}")
    if not runs:
        yield f"no leftover objects of {run_id or 'any run'}"
    elif only_list:
        yield from _format_runs(cluster, runs)
    else:
        run = _pick_only_run(runs, cluster.context)
        yield from _clean(cluster, run, runs[run], watch=watch)


def _pick_only_run(runs: Mapping[str, tuple[RunObject, ...]], context: str) -> str:
    if len(runs) > 1:
        commands = "\n".join(f"  {format_cleanup(context, run)}" for run in runs)
        raise RefusedError(f"{len(runs)} runs left something; hint: choose one:\n{commands}")
    return next(iter(runs))


def _clean(cluster: Cluster, run_id: str, things: tuple[RunObject, ...], *, watch: CancelToken) -> Iterator[str]:
    holder, began = read_holder(cluster), time.monotonic()
    if holder is not None and holder.run_id == run_id:
        yield f"checking whether {run_id} is alive"
        if is_alive(cluster, holder, watch=watch):
            raise LockedError(f"{run_id} is running on context {cluster.context}; hint: end it with Ctrl-C there")
    cleaned = clean_cluster(cluster, run_id, watch=watch)
    remove_lock(cluster, run_id, watch=watch)
    yield f"{run_id}: removed in {format_duration(time.monotonic() - began)}: {format_objects(things)}"
    yield from (f"not ours, and left alone: {one.describe(cluster.context)}" for one in cleaned.foreign)


def _format_runs(cluster: Cluster, runs: Mapping[str, tuple[RunObject, ...]]) -> Iterator[str]:
    holder, now = read_holder(cluster), datetime.now(UTC)
    for run, things in runs.items():
        held = holder is not None and holder.run_id == run
        lock = f"; has the lock, renewed {holder.silent_s(now):.0f} s ago" if held and holder else ""
        yield f"{run}: {format_objects(things)}{lock}"
