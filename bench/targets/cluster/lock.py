"""Lock a cluster: one run at a time, since two would measure each other.

The cluster lock is a Lease, which its holder renews; the API server lets only one of two writers win. A Lease that is
no longer renewed names a run that died: it has to be cleaned up before the next one starts, and is never taken over.
"""

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Final, Literal

from bench.errors import BadAnswerError, ClusterError, ErrorKind, LeftoversError, LockedError, note_leftovers
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.ownership import MANAGED_BY, PRODUCT, add_run_labels, format_cleanup, labels_of, run_of
from bench.k8s.wait import describe_blockers
from bench.system.cancellation import CancelToken, Shield, wait_until
from bench.system.machine import Machine
from bench.system.output import format_command
from bench.system.processes import identify_process, is_running
from bench.system.redaction import one_line
from bench.system.timing import LEASE_DURATION_S
from bench.targets.cluster.teardown.stages import LOCK_COMPONENT
from bench.units import format_duration

LOCK_NAMESPACE: Final = Ref("v1", "Namespace", "meshbench-lock")
LEASE: Final = Ref("coordination.k8s.io/v1", "Lease", "meshbench", LOCK_NAMESPACE.name)
_LOOK_S: Final = 1.0  # at a holder elsewhere
_NO_NAMESPACE: Final = (ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND)  # the namespace is terminating or deleted
_IDENTITY: Final = re.compile(r"(\S+) ([0-9]{1,10})(?: ([0-9]{1,18}))?", re.ASCII)  # after the run's id

Verdict = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder that a Lease names. `host` is a hash; `process` is 0 where the Lease was not written by meshbench, and
    `started_ns`, when the process started after its host, is None where an older version wrote it."""

    run_id: str
    host: str
    process: int
    since: datetime
    renewed: datetime
    started_ns: int | None = None

    def silent_s(self, now: datetime) -> float:
        """Return the seconds since the last renewal, by two machines' clocks."""
        return (now - self.renewed).total_seconds()

    def describe(self, now: datetime) -> str:
        """Format its name and age for messages."""
        age = format_duration(max(1, round((now - self.since).total_seconds())))
        return f"{self.run_id} (host {self.host}, process {self.process}, for {age})"


def holder_of(lease: Object) -> Holder | None:
    """Read a Lease; return None for one without a holder. Raises BadAnswerError for one that is not valid."""
    spec = lease.get("spec") or {}
    words = (spec.get("holderIdentity") or "").split()
    if not words:
        return None
    host, process, started_ns = "unknown", 0, None
    if match := _IDENTITY.fullmatch(" ".join(words[1:])):
        host, process, started_ns = match[1], int(match[2]), int(match[3]) if match[3] else None
    renewed = spec.get("renewTime") or lease["metadata"]["creationTimestamp"]
    try:
        return Holder(words[0], host, process, _time(spec.get("acquireTime") or renewed), _time(renewed), started_ns)
    except (ValueError, OverflowError) as error:
        raise BadAnswerError(f"reading {LEASE}: its times are invalid: {one_line(str(error))}") from error


def process_identity() -> str:
    """Return this process as a Lease names it: `<host hash> <pid> <its start>`. The hash differs between machines,
    boots and containers."""
    return f"{_host()} {os.getpid()} {identify_process(os.getpid())['started_ns']}"


def judge_holder(holder: Holder, *, here: str) -> Verdict:
    """Return what is known of a holder without watching it: by its process if it is on this machine, which no clock
    that is set changes. Elsewhere only its renewals tell."""
    if holder.host != here.partition(" ")[0] or holder.started_ns is None:
        return "unknown"
    known = {"pid": holder.process, "started_ns": holder.started_ns, "boot": Machine().boot_id()}
    return "alive" if is_running(known) else "dead"


def seems_dead(holder: Holder) -> bool:
    """Return whether it will surely, or most likely, not go on; a cleanup checks that again."""
    verdict = judge_holder(holder, here=process_identity())
    return verdict == "dead" or (verdict == "unknown" and holder.silent_s(datetime.now(UTC)) > LEASE_DURATION_S)


def _host() -> str:
    container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  # not a path, but a number of the kernel's
    text = f"meshbench {platform.node()} {Machine().boot_id()}\n {container}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@contextmanager
def cluster_lock(
    cluster: Cluster, run_id: str, *, watch: CancelToken | None = None, place: Ref = LOCK_NAMESPACE
) -> Iterator[None]:
    """Hold the cluster for a run, by a Lease in the namespace `place`. Raises LockedError where another run has it, or
    died with it."""
    watch = watch or CancelToken()
    _acquire(cluster, run_id, watch, place)
    ended = Event()
    renewal = Thread(target=_renew, args=(cluster, run_id, ended, place), name="lease", daemon=True)
    renewal.start()
    try:
        yield
    except BaseException as error:
        _stop_renewal(renewal, ended)
        try:
            _release(cluster, run_id, watch, place)
        except LeftoversError as left:
            note_leftovers(error, left)
        raise
    else:
        _stop_renewal(renewal, ended)
        _release(cluster, run_id, watch, place)


def _stop_renewal(renewal: Thread, ended: Event) -> None:
    ended.set()
    renewal.join()


def _release(cluster: Cluster, run_id: str, watch: CancelToken, place: Ref) -> None:
    try:
        remove_lock(cluster, run_id, watch=watch, place=place)
    except ClusterError as error:
        raise LeftoversError(
            f"the run's lock is still there: {error}; hint: later run: {format_cleanup(cluster.context, run_id)}"
        ) from error


def read_holder(cluster: Cluster, place: Ref = LOCK_NAMESPACE) -> Holder | None:
    """Return the holder of the lock, alive or not; None if it is free."""
    lease = cluster.get(_lease_ref(place))
    return None if lease is None else holder_of(lease)


def _lease_ref(place: Ref) -> Ref:
    return replace(LEASE, namespace=place.name)


def ensure_held(cluster: Cluster, run_id: str, *, place: Ref = LOCK_NAMESPACE) -> None:
    """Raise LockedError where the lock is not this run's any more: another command took it for dead and cleaned up."""
    holder = read_holder(cluster, place)
    if holder is None or holder.run_id != run_id:
        now = f"the run {holder.run_id}" if holder else "no run"
        raise LockedError(
            f"the lock of context {cluster.context} was taken from this run and belongs to {now}: it was not renewed "
            f"for {LEASE_DURATION_S} s (did this machine sleep?) or another command removed it; hint: start a new run"
        )


def is_alive(cluster: Cluster, holder: Holder, *, watch: CancelToken, place: Ref = LOCK_NAMESPACE) -> bool:
    """Return whether the lock's holder lives, for a command that would remove its run: on this machine by its process,
    else by watching for its next renewal, since two machines' clocks may differ. A run of this process has ended, as it
    has when a night cleans up."""
    here = process_identity()
    if f"{holder.host} {holder.process} {holder.started_ns}" == here:
        return False
    verdict = judge_holder(holder, here=here)
    if verdict != "unknown":
        return verdict == "alive"

    def look() -> str | None:
        now = read_holder(cluster, place)
        return None if now == holder else "alive" if now and now.run_id == holder.run_id else "gone"

    return wait_until(look, timeout_s=cluster.timing.lease_s, watch=Shield(watch), poll_s=_LOOK_S) == "alive"


def remove_lock(cluster: Cluster, run_id: str, *, watch: CancelToken, place: Ref = LOCK_NAMESPACE) -> None:
    """Release the lock, and delete its namespace if meshbench made it. Another run's lock is left alone."""
    lease, there = cluster.get(_lease_ref(place)), cluster.get(place)
    holder = None if lease is None else holder_of(lease)
    if (holder is not None and holder.run_id != run_id) or there is None:
        return
    is_ours = labels_of(there).get(MANAGED_BY) == PRODUCT
    if is_ours:  # the Lease is deleted with it, so that no other run can take it in between
        cluster.delete(there)
    elif lease is not None and holder is not None:
        _give_back(cluster, lease)
    if not is_ours or watch.is_forced or watch.has_short_deadline:
        return
    wait_s, poll_s = cluster.timing.lock_s, cluster.timing.lock_poll_s
    if not wait_until(lambda: cluster.get(place) is None, timeout_s=wait_s, watch=Shield(watch), poll_s=poll_s):
        left = cluster.get(place)
        if left is not None:
            kubectl = ("kubectl", "--context", cluster.context)
            command = format_command(*kubectl, "get", "namespace", place.name, "-o", "yaml")
            blockers = describe_blockers(left)
            raise LeftoversError(
                f"{place} has been terminating for {wait_s:.0f} s: {blockers}; hint: look at it with: {command}"
            )


def _give_back(cluster: Cluster, lease: Object) -> None:
    """Delete a Lease of ours, or leave one that an administrator made without a holder, unless another run has taken it
    since it was read."""
    if run_of(lease):
        cluster.delete(lease, unchanged=True)
    else:
        _try_replace(cluster, {**lease, "spec": {}})


def _acquire(cluster: Cluster, run_id: str, watch: CancelToken, place: Ref) -> None:
    def is_taken() -> bool:
        return _ensure_namespace(cluster, run_id, place) and _try_acquire(cluster, run_id, place)

    wait_s = cluster.timing.lock_s
    if not wait_until(is_taken, timeout_s=wait_s, watch=watch, poll_s=cluster.timing.lock_poll_s):
        there = cluster.get(place)
        why = describe_blockers(there) if there else "others created and deleted it"
        raise LockedError(f"no lock on context {cluster.context}: {place} was not usable for {wait_s:.0f} s: {why}")


def _ensure_namespace(cluster: Cluster, run_id: str, place: Ref) -> bool:
    """Create the namespace where there is none; return False while an earlier one is terminating."""
    there = cluster.get(place)
    if there is not None:
        return not there["metadata"].get("deletionTimestamp")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.name}}
    return _try_create(cluster, namespace, run_id, place)


def _try_acquire(cluster: Cluster, run_id: str, place: Ref) -> bool:
    """Return False where another run was quicker, so that another look is needed. Raises LockedError for a lock that is
    held."""
    lease = cluster.get(_lease_ref(place))
    if lease is None:
        return _try_create(cluster, _lease(run_id, place), run_id, place)
    holder = holder_of(lease)
    if (lease.get("spec") or {}).get("holderIdentity") == f"{run_id} {process_identity()}":
        return True  # the answer to its creation was lost
    if holder is None:
        return _try_replace(cluster, {**lease, "spec": _lease(run_id, place)["spec"]})
    raise LockedError(_format_conflict(holder, cluster.context))


def _format_conflict(holder: Holder, context: str) -> str:
    now = datetime.now(UTC)
    if seems_dead(holder):
        return (
            f"the run {holder.describe(now)} ended on context {context} without cleaning up (last renewal "
            f"{holder.silent_s(now):.0f} s ago); hint: first run: "
            f"{format_cleanup(context, holder.run_id)}"
        )
    return f"context {context} is being measured by the run {holder.describe(now)}; hint: wait for it to end"


def _try_create(cluster: Cluster, thing: Object, run_id: str, place: Ref) -> bool:
    try:
        cluster.create(add_run_labels(thing, LOCK_COMPONENT, run_id=run_id, now=datetime.now(UTC)))
    except ClusterError as error:
        if error.kind is ErrorKind.CONFLICT or (error.kind in _NO_NAMESPACE and _is_terminating(cluster, place)):
            return False
        raise
    return True


def _is_terminating(cluster: Cluster, place: Ref) -> bool:
    there = cluster.get(place)
    return there is None or bool(there["metadata"].get("deletionTimestamp"))


def _try_replace(cluster: Cluster, lease: Object) -> bool:
    try:
        cluster.replace(lease)
    except ClusterError as error:
        if error.kind is ErrorKind.CONFLICT:
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
            "holderIdentity": f"{run_id} {process_identity()}",
            "leaseDurationSeconds": LEASE_DURATION_S,
            "acquireTime": now,
            "renewTime": now,
        },
    }


def _renew(cluster: Cluster, run_id: str, ended: Event, place: Ref) -> None:
    """Renew the Lease in a thread until the run ends. A cluster that does not answer is tried again next time."""
    while not ended.wait(cluster.timing.renew_s):
        try:
            lease = cluster.get(_lease_ref(place))
            holder = None if lease is None else holder_of(lease)
            if lease is None or holder is None or holder.run_id != run_id:
                return  # `ensure_held` reports it to the run
            lease["spec"]["renewTime"] = _lease(run_id, place)["spec"]["renewTime"]
            cluster.replace(lease)
        except ClusterError:
            continue
