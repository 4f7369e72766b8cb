"""Lock a cluster: one run at a time, since two would measure each other.

The lock is a Lease, which its holder renews; the API server lets only one of two writers win. A lease that nobody
renews any more names a run that died: it has to be cleaned up before the next one starts, and is never taken over.
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Final, Literal

import psutil

from bench.errors import ClusterError, LeftoversError, LockedError, note_leftovers
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.ownership import MANAGED_BY, PRODUCT, labelled, labels_of
from bench.k8s.timing import DURATION_S
from bench.k8s.wait import holding
from bench.system.cancellation import Patience, Watch, wait_until
from bench.targets.cluster.teardown.stages import LOCK_COMPONENT
from bench.units import format_duration

_SURELY_DEAD_S: Final = 3600.0  # no two machines' clocks differ by so much
_START_SLACK_S: Final = 2.0

Verdict = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease says of its holder. `host` is a hash; `process` 0 where the lease was not written by meshbench."""

    run_id: str
    host: str
    process: int
    since: datetime
    renewed: datetime

    def silent_s(self, now: datetime) -> float:
        """Seconds since it last said that it lives, by two machines' clocks."""
        return (now - self.renewed).total_seconds()

    def told(self, now: datetime) -> str:
        """Its name and age for messages."""
        age = format_duration(max(1, round((now - self.since).total_seconds())))
        return f"{self.run_id} (host {self.host}, process {self.process}, for {age})"


def holder_of(lease: Object) -> Holder | None:
    """Reads a Lease; None for one that nobody holds."""
    spec = lease.get("spec") or {}
    words = (spec.get("holderIdentity") or "").split()
    if not words:
        return None
    host, process = (words[1], int(words[2])) if len(words) == 3 and words[2].isdecimal() else ("unknown", 0)
    renewed = spec.get("renewTime") or lease["metadata"]["creationTimestamp"]
    return Holder(words[0], host, process, _time(spec.get("acquireTime") or renewed), _time(renewed))


def here() -> str:
    """This process as a lease names it: `<host hash> <pid>`. The hash tells machines, boots and containers apart."""
    return f"{_host()} {os.getpid()}"


def judged(holder: Holder, *, here: str, now: datetime) -> Verdict:
    """What can be said without watching it: by its process if it is on this machine, by its silence if that is long."""
    if holder.host == here.partition(" ")[0]:
        return "alive" if _runs(holder) else "dead"
    return "dead" if holder.silent_s(now) > _SURELY_DEAD_S else "unknown"


def seems_dead(holder: Holder) -> bool:
    """Whether it will surely, or most likely, not go on: who asks for its cleanup has that looked at again."""
    now = datetime.now(UTC)
    return judged(holder, here=here(), now=now) == "dead" or holder.silent_s(now) > DURATION_S


def _runs(holder: Holder) -> bool:
    """Whether its process is there, and not a later one with the same number."""
    try:
        process = psutil.Process(holder.process)
        began = process.create_time()
        return process.status() != psutil.STATUS_ZOMBIE and began <= holder.since.timestamp() + _START_SLACK_S
    except psutil.NoSuchProcess:
        return False


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # no path, a number of the kernel's
    return hashlib.sha256(f"meshbench {platform.node()} {boot} {container}".encode()).hexdigest()[:8]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


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
