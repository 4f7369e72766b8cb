"""One run at a time on a cluster: two would measure each other.

The lock is a Lease, which its holder renews; the API server lets only one of two writers win. A lease that nobody
renews any more names a run that died: it has to be cleaned up before the next one starts, and is never taken over.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
RENEW_S: Final = 15.0
_CONFLICT: Final = 409
_NO_PLACE: Final = (403, 404)  # the namespace is going, or gone
_POLL_S: Final = 0.3
_WAIT_S: Final = 60.0


@contextmanager
def cluster_lock(cluster: Cluster, run_id: str, *, watch: Watch | None = None) -> Iterator[None]:
    """Holds the cluster for a run. Raises LockedError where another run has it, or died with it."""
    watch = watch or Watch()
    _take(cluster, run_id, watch)
    ended = Event()
    renewal = Thread(target=_renew, args=(cluster, run_id, ended), name="lease", daemon=True)
    renewal.start()
    try:
        yield
    except BaseException as error:
        _end(renewal, ended)
        try:
            _give_back(cluster, run_id, watch)
        except LeftoversError as left:
            note_leftovers(error, left)
        raise
    else:
        _end(renewal, ended)
        _give_back(cluster, run_id, watch)


def _end(renewal: Thread, ended: Event) -> None:
    ended.set()
    renewal.join()


def _give_back(cluster: Cluster, run_id: str, watch: Watch) -> None:
    try:
        remove_lock(cluster, run_id, watch=watch)
    except ClusterError as error:
        raise LeftoversError(
            f"the run's lock is still there: {error}; later: meshbench cleanup --context {cluster.context} "
            f"--run-id {run_id}"
        ) from error


def read_holder(cluster: Cluster) -> Holder | None:
    """Who has the lock, alive or not; None if it is free."""
    lease = cluster.get(LEASE)
    return None if lease is None else holder_of(lease)


def ensure_held(cluster: Cluster, run_id: str) -> None:
    """Raises LockedError where the lock is not this run's any more: somebody took it for dead and cleaned up."""
    holder = read_holder(cluster)
    if holder is None or holder.run_id != run_id:
        now = f"the run {holder.run_id}" if holder else "nobody"
        raise LockedError(
            f"the lock of context {cluster.context} was taken from this run and belongs to {now}: it was not renewed "
            f"for {DURATION_S} s (did this machine sleep?) or somebody removed it; start a new run"
        )


def is_alive(cluster: Cluster, holder: Holder, *, watch: Watch) -> bool:
    """Whether the lock's holder lives: on this machine by its process, else by watching for its next renewal, since
    two machines' clocks may differ."""
    verdict = judged(holder, here=here(), now=datetime.now(UTC))
    if verdict != "unknown":
        return verdict == "alive"

    def stirs() -> str | None:
        now = read_holder(cluster)
        return None if now == holder else "alive" if now and now.run_id == holder.run_id else "gone"

    return wait_until(stirs, timeout_s=DURATION_S, watch=Patience(watch), poll_s=1.0) == "alive"


def remove_lock(cluster: Cluster, run_id: str, *, watch: Watch) -> None:
    """Gives the lock back, and takes its namespace away if meshbench made it. Another run's lock is left alone."""
    holder, place = read_holder(cluster), cluster.get(PLACE)
    if (holder is not None and holder.run_id != run_id) or place is None:
        return
    made_by_us = labels_of(place).get(MANAGED_BY) == PRODUCT
    cluster.delete(PLACE if made_by_us else LEASE)  # the namespace takes the lease along, so that none slips between
    if not made_by_us or watch.impatient or watch.hasty:
        return
    if not wait_until(lambda: cluster.get(PLACE) is None, timeout_s=_WAIT_S, watch=Patience(watch), poll_s=_POLL_S):
        left = cluster.get(PLACE)
        if left is not None:
            raise LeftoversError(
                f"{PLACE} has been going for {_WAIT_S:.0f} s: {holding(left)}; look at it with "
                f"`kubectl --context {cluster.context} get namespace {PLACE.name} -o yaml`"
            )


def _take(cluster: Cluster, run_id: str, watch: Watch) -> None:
    def taken() -> bool:
        return _place_is_there(cluster, run_id) and _took(cluster, run_id)

    if not wait_until(taken, timeout_s=_WAIT_S, watch=watch, poll_s=_POLL_S):
        place = cluster.get(PLACE)
        told = holding(place) if place else "others made and removed it"
        raise LockedError(f"no lock on context {cluster.context}: {PLACE} was not usable for {_WAIT_S:.0f} s: {told}")


def _place_is_there(cluster: Cluster, run_id: str) -> bool:
    """Makes the namespace where there is none; False while an earlier one is going."""
    place = cluster.get(PLACE)
    if place is not None:
        return not place["metadata"].get("deletionTimestamp")
    return _created(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE.name}}, run_id)


def _took(cluster: Cluster, run_id: str) -> bool:
    """False where somebody was quicker, so that another look is needed; raises LockedError for a lock that is held."""
    lease = cluster.get(LEASE)
    if lease is None:
        return _created(cluster, _lease(run_id), run_id)
    holder = holder_of(lease)
    if holder is None:
        return _replaced(cluster, {**lease, "spec": _lease(run_id)["spec"]})
    raise LockedError(_told(holder, cluster.context))


def _told(holder: Holder, context: str) -> str:
    now = datetime.now(UTC)
    if seems_dead(holder):
        return (
            f"the run {holder.told(now)} ended on context {context} without cleaning up (last seen "
            f"{holder.silent_s(now):.0f} s ago); first: meshbench cleanup --context {context} --run-id {holder.run_id}"
        )
    return f"context {context} is being measured by the run {holder.told(now)}; wait for it to end"


def _created(cluster: Cluster, thing: Object, run_id: str) -> bool:
    try:
        cluster.create(labelled(thing, LOCK_COMPONENT, run_id=run_id, now=datetime.now(UTC)))
    except ClusterError as error:
        if error.status == _CONFLICT or (error.status in _NO_PLACE and _is_going(cluster)):
            return False
        raise
    return True


def _is_going(cluster: Cluster) -> bool:
    place = cluster.get(PLACE)
    return place is None or bool(place["metadata"].get("deletionTimestamp"))


def _replaced(cluster: Cluster, lease: Object) -> bool:
    try:
        cluster.replace(lease)
    except ClusterError as error:
        if error.status == _CONFLICT:
            return False
        raise
    return True


def _lease(run_id: str) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": LEASE.name, "namespace": LEASE.namespace},
        "spec": {
            "holderIdentity": f"{run_id} {here()}",
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": now,
            "renewTime": now,
        },
    }


def _renew(cluster: Cluster, run_id: str, ended: Event) -> None:
    """The thread: says that the run lives until it ends. A cluster that does not answer is asked again next time."""
    while not ended.wait(RENEW_S):
        try:
            lease = cluster.get(LEASE)
            holder = None if lease is None else holder_of(lease)
            if lease is None or holder is None or holder.run_id != run_id:
                return  # `ensure_held` tells the run
            lease["spec"]["renewTime"] = _lease(run_id)["spec"]["renewTime"]
            cluster.replace(lease)
        except ClusterError:
            continue
