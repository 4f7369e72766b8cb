"""One run at a time on a cluster: two would measure each other.

The lock is a Lease, which its holder renews; the API server lets only one of two writers win. A lease that nobody
renews any more names a run that died: it has to be cleaned up before the next one starts, and is never taken over.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Final

from bench.errors import ClusterError, LeftoversError, LockedError, note_leftovers
from bench.targets.kubernetes.client import Cluster, Object, Ref
from bench.targets.kubernetes.deletion import LOCK_COMPONENT
from bench.targets.kubernetes.holder import DURATION_S, Holder, here, holder_of, judged, seems_dead
from bench.targets.kubernetes.ownership import MANAGED_BY, PRODUCT, labelled, labels_of
from bench.targets.kubernetes.waits import holding
from bench.waiting import Patience, Watch, wait_until

PLACE: Final = Ref("v1", "Namespace", "meshbench-lock")
LEASE: Final = Ref("coordination.k8s.io/v1", "Lease", "meshbench", PLACE.name)
_CONFLICT: Final = 409
_LOOK_S: Final = 1.0  # at a holder elsewhere
_NO_PLACE: Final = (403, 404)  # the namespace is going, or gone


@contextmanager
def cluster_lock(cluster: Cluster, run_id: str, *, watch: Watch | None = None, place: Ref = PLACE) -> Iterator[None]:
    """Holds the cluster for a run, by a lease in the namespace `place`. Raises LockedError where another run has it, or
    died with it."""
    watch = watch or Watch()
    _take(cluster, run_id, watch, place)
    ended = Event()
    renewal = Thread(target=_renew, args=(cluster, run_id, ended, place), name="lease", daemon=True)
    renewal.start()
    try:
        yield
    except BaseException as error:
        _end(renewal, ended)
        try:
            _give_back(cluster, run_id, watch, place)
        except LeftoversError as left:
            note_leftovers(error, left)
        raise
    else:
        _end(renewal, ended)
        _give_back(cluster, run_id, watch, place)


def _end(renewal: Thread, ended: Event) -> None:
    ended.set()
    renewal.join()


def _give_back(cluster: Cluster, run_id: str, watch: Watch, place: Ref) -> None:
    try:
        remove_lock(cluster, run_id, watch=watch, place=place)
    except ClusterError as error:
        raise LeftoversError(
            f"the run's lock is still there: {error}; later: meshbench cleanup --context {cluster.context} "
            f"--run-id {run_id}"
        ) from error


def read_holder(cluster: Cluster, place: Ref = PLACE) -> Holder | None:
    """Who has the lock, alive or not; None if it is free."""
    lease = cluster.get(_lease_in(place))
    return None if lease is None else holder_of(lease)


def _lease_in(place: Ref) -> Ref:
    return replace(LEASE, namespace=place.name)


def ensure_held(cluster: Cluster, run_id: str, *, place: Ref = PLACE) -> None:
    """Raises LockedError where the lock is not this run's any more: somebody took it for dead and cleaned up."""
    holder = read_holder(cluster, place)
    if holder is None or holder.run_id != run_id:
        now = f"the run {holder.run_id}" if holder else "nobody"
        raise LockedError(
            f"the lock of context {cluster.context} was taken from this run and belongs to {now}: it was not renewed "
            f"for {DURATION_S} s (did this machine sleep?) or somebody removed it; start a new run"
        )


def is_alive(cluster: Cluster, holder: Holder, *, watch: Watch, place: Ref = PLACE) -> bool:
    """Whether the lock's holder lives: on this machine by its process, else by watching for its next renewal, since
    two machines' clocks may differ."""
    verdict = judged(holder, here=here(), now=datetime.now(UTC))
    if verdict != "unknown":
        return verdict == "alive"

    def stirs() -> str | None:
        now = read_holder(cluster, place)
        return None if now == holder else "alive" if now and now.run_id == holder.run_id else "gone"

    return wait_until(stirs, timeout_s=cluster.timing.lease_s, watch=Patience(watch), poll_s=_LOOK_S) == "alive"


def remove_lock(cluster: Cluster, run_id: str, *, watch: Watch, place: Ref = PLACE) -> None:
    """Gives the lock back, and takes its namespace away if meshbench made it. Another run's lock is left alone."""
    holder, there = read_holder(cluster, place), cluster.get(place)
    if (holder is not None and holder.run_id != run_id) or there is None:
        return
    made_by_us = labels_of(there).get(MANAGED_BY) == PRODUCT
    # The namespace takes the lease along, so that none slips between.
    cluster.delete(place if made_by_us else _lease_in(place))
    if not made_by_us or watch.impatient or watch.hasty:
        return
    wait_s, poll_s = cluster.timing.lock_s, cluster.timing.lock_poll_s
    if not wait_until(lambda: cluster.get(place) is None, timeout_s=wait_s, watch=Patience(watch), poll_s=poll_s):
        left = cluster.get(place)
        if left is not None:
            raise LeftoversError(
                f"{place} has been going for {wait_s:.0f} s: {holding(left)}; look at it with "
                f"`kubectl --context {cluster.context} get namespace {place.name} -o yaml`"
            )


def _take(cluster: Cluster, run_id: str, watch: Watch, place: Ref) -> None:
    def taken() -> bool:
        return _place_is_there(cluster, run_id, place) and _took(cluster, run_id, place)

    wait_s = cluster.timing.lock_s
    if not wait_until(taken, timeout_s=wait_s, watch=watch, poll_s=cluster.timing.lock_poll_s):
        there = cluster.get(place)
        told = holding(there) if there else "others made and removed it"
        raise LockedError(f"no lock on context {cluster.context}: {place} was not usable for {wait_s:.0f} s: {told}")


def _place_is_there(cluster: Cluster, run_id: str, place: Ref) -> bool:
    """Makes the namespace where there is none; False while an earlier one is going."""
    there = cluster.get(place)
    if there is not None:
        return not there["metadata"].get("deletionTimestamp")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.name}}
    return _created(cluster, namespace, run_id, place)


def _took(cluster: Cluster, run_id: str, place: Ref) -> bool:
    """False where somebody was quicker, so that another look is needed; raises LockedError for a lock that is held."""
    lease = cluster.get(_lease_in(place))
    if lease is None:
        return _created(cluster, _lease(run_id, place), run_id, place)
    holder = holder_of(lease)
    if holder is None:
        return _replaced(cluster, {**lease, "spec": _lease(run_id, place)["spec"]})
    raise LockedError(_told(holder, cluster.context))


def _told(holder: Holder, context: str) -> str:
    now = datetime.now(UTC)
    if seems_dead(holder):
        return (
            f"the run {holder.told(now)} ended on context {context} without cleaning up (last seen "
            f"{holder.silent_s(now):.0f} s ago); first: meshbench cleanup --context {context} --run-id {holder.run_id}"
        )
    return f"context {context} is being measured by the run {holder.told(now)}; wait for it to end"


def _created(cluster: Cluster, thing: Object, run_id: str, place: Ref) -> bool:
    try:
        cluster.create(labelled(thing, LOCK_COMPONENT, run_id=run_id, now=datetime.now(UTC)))
    except ClusterError as error:
        if error.status == _CONFLICT or (error.status in _NO_PLACE and _is_going(cluster, place)):
            return False
        raise
    return True


def _is_going(cluster: Cluster, place: Ref) -> bool:
    there = cluster.get(place)
    return there is None or bool(there["metadata"].get("deletionTimestamp"))


def _replaced(cluster: Cluster, lease: Object) -> bool:
    try:
        cluster.replace(lease)
    except ClusterError as error:
        if error.status == _CONFLICT:
            return False
        raise
    return True


def _lease(run_id: str, place: Ref) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": LEASE.name, "namespace": place.name},
        "spec": {
            "holderIdentity": f"{run_id} {here()}",
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": now,
            "renewTime": now,
        },
    }


def _renew(cluster: Cluster, run_id: str, ended: Event, place: Ref) -> None:
    """The thread: says that the run lives until it ends. A cluster that does not answer is asked again next time."""
    while not ended.wait(cluster.timing.renew_s):
        try:
            lease = cluster.get(_lease_in(place))
            holder = None if lease is None else holder_of(lease)
            if lease is None or holder is None or holder.run_id != run_id:
                return  # `ensure_held` tells the run
            lease["spec"]["renewTime"] = _lease(run_id, place)["spec"]["renewTime"]
            cluster.replace(lease)
        except ClusterError:
            continue
