"""The lock that lets one run at a time use a cluster."""

import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from bench.errors import BadAnswerError, DeployError, Interrupted, LeftoversError, LockedError
from bench.k8s.client import Object, Ref
from bench.system.cancellation import CancelToken
from bench.system.timing import LEASE_DURATION_S
from bench.targets.cluster.lock import (
    LEASE,
    LOCK_NAMESPACE,
    Holder,
    cluster_lock,
    ensure_held,
    holder_of,
    is_alive,
    judge_holder,
    process_identity,
    read_holder,
    remove_lock,
    seems_dead,
)
from bench.targets.cluster.session import ClusterBackend
from tests.fake_cluster import FakeCluster, make_object
from tests.shown_cluster import options

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
UNUSED = cast("Any", None)
NOW = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)

NO_PROCESS = 2**22 + 1  # Linux gives no such number to a process


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster without runs."""
    return FakeCluster()


def _lease(identity: str, *, renewed: datetime = NOW, since: datetime = NOW) -> Object:
    times = {"acquireTime": since.isoformat(), "renewTime": renewed.isoformat()}
    spec = {"holderIdentity": identity, "leaseDurationSeconds": LEASE_DURATION_S, **times}
    return make_object(LEASE.api_version, LEASE.kind, LEASE.name, namespace=LEASE.namespace, run=RUN, spec=spec)


def _held(fake: FakeCluster, identity: str, *, silent_s: float = 0.0) -> None:
    renewed = datetime.now(UTC) - timedelta(seconds=silent_s)
    fake.add([make_object("v1", "Namespace", LOCK_NAMESPACE.name, run=OTHER, component="lock")])
    fake.add([_lease(identity, renewed=renewed, since=renewed - timedelta(seconds=65))])


def test_lock_names_run_host_and_process(fake: FakeCluster) -> None:
    """Lease and namespace exist while the lock is held, and are deleted afterwards."""
    with cluster_lock(fake.cluster, RUN):
        holder = read_holder(fake.cluster)
        assert holder is not None
        assert (holder.run_id, holder.process) == (RUN, os.getpid())
        assert f"{holder.host} {holder.process} {holder.started_ns}" == process_identity()
        labels = fake.things[LEASE]["metadata"]["labels"]
        assert (labels["meshbench.dev/run-id"], labels["meshbench.dev/component"]) == (RUN, "lock")
    assert fake.things == {}


def test_refuses_second_run(fake: FakeCluster) -> None:
    """The error names the holder, and the lock stays unchanged."""
    refusal = pytest.raises(
        LockedError, match=f"context fake is being measured by the run {RUN} .*process {os.getpid()}"
    )
    with cluster_lock(fake.cluster, RUN):
        with refusal, cluster_lock(fake.cluster, OTHER):
            pytest.fail("two runs at once")
        ensure_held(fake.cluster, RUN)


@pytest.mark.parametrize("identity", [f"{OTHER} 00000000 7", OTHER])
def test_refuses_until_dead_run_is_cleaned_up(fake: FakeCluster, identity: str) -> None:
    """The error names the dead run and the cleanup command; the lock is not taken over."""
    _held(fake, identity, silent_s=LEASE_DURATION_S + 5)
    refusal = pytest.raises(
        LockedError, match=rf"{OTHER} .* without cleaning up .*cleanup --context fake --run-id {OTHER}$"
    )
    with refusal, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")
    assert LEASE in fake.things


def test_recently_renewed_lock_is_alive(fake: FakeCluster) -> None:
    """The error has the age of the lock."""
    _held(fake, f"{OTHER} 00000000 7", silent_s=LEASE_DURATION_S - 10)
    refusal = pytest.raises(LockedError, match=r"host 00000000, process 7, for 1min 40s\); hint: wait for it to end")
    with refusal, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")


def test_process_of_this_host_is_dead_at_once(fake: FakeCluster) -> None:
    """A process that no longer exists is dead before its Lease expires."""
    _held(fake, f"{OTHER} {process_identity().split()[0]} {NO_PROCESS} 1")
    refusal = pytest.raises(LockedError, match="without cleaning up")
    with refusal, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")


def test_process_with_reused_pid_is_not_the_holder() -> None:
    """The system reuses process ids; the start since the machine's boot is different."""
    host, process, started_ns = process_identity().split()
    holder = Holder(RUN, host, int(process), since=NOW, renewed=NOW, started_ns=int(started_ns) - 1)
    assert judge_holder(holder, here=process_identity()) == "dead"


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_set_clock_does_not_make_holder_dead(hours: int) -> None:
    """A run on this host lives as long as its process, whatever the wall clock says of its start and its renewals."""
    host, process, started_ns = process_identity().split()
    at = datetime.now(UTC) + timedelta(hours=hours)
    holder = Holder(RUN, host, int(process), since=at, renewed=at, started_ns=int(started_ns))
    assert judge_holder(holder, here=process_identity()) == "alive"
    assert not seems_dead(holder)


@pytest.mark.parametrize("silent_s", [0, LEASE_DURATION_S + 1, 3601, 10**9])
@pytest.mark.parametrize("identity", ["00000000 7 5", "", f"{process_identity().split()[0]} 1"])
def test_holder_of_unknown_start_is_watched(silent_s: int, identity: str) -> None:
    """The clocks of two hosts may differ by any time: a holder elsewhere, and one of an older version, is dead when it
    is not seen to renew its Lease."""
    holder = holder_of(_lease(f"{OTHER} {identity}", renewed=NOW - timedelta(seconds=silent_s)))
    assert holder is not None
    assert judge_holder(holder, here=process_identity()) == "unknown"


@pytest.mark.parametrize("time", ["soon", "2026-11-23T03:15:00+99:00", "0001-01-01T00:00:00+14:00"])
def test_refuses_lease_with_invalid_times(time: str) -> None:
    """Any user of a cluster may write a Lease."""
    lease = _lease(OTHER)
    lease["spec"]["renewTime"] = time
    with pytest.raises(BadAnswerError, match="Lease meshbench-lock/meshbench: its times are invalid"):
        holder_of(lease)


def test_holder_that_renews_is_alive(fake: FakeCluster) -> None:
    """A renewal is noticed by the holder's own clock."""
    _held(fake, f"{OTHER} 00000000 7", silent_s=600)
    holder = read_holder(fake.cluster)
    assert holder is not None
    fake.things[LEASE]["spec"]["renewTime"] = (holder.renewed + timedelta(seconds=15)).isoformat()
    assert is_alive(fake.cluster, holder, watch=CancelToken())


def test_holder_that_does_not_renew_is_dead(fake: FakeCluster) -> None:
    """So is a holder whose Lease is deleted meanwhile."""
    fake.timing = replace(fake.timing, lease_s=0.0)
    _held(fake, f"{OTHER} 00000000 7", silent_s=10)
    holder = read_holder(fake.cluster)
    assert holder is not None
    assert not is_alive(fake.cluster, holder, watch=CancelToken())
    del fake.things[LEASE]
    assert not is_alive(fake.cluster, holder, watch=CancelToken())


def test_run_of_the_process_that_cleans_up_has_ended(fake: FakeCluster) -> None:
    """A night cleans up in the process of its run: what a signal left no time for is removed."""
    _held(fake, f"{OTHER} {process_identity()}")
    holder = read_holder(fake.cluster)
    assert holder is not None
    assert not is_alive(fake.cluster, holder, watch=CancelToken())


def test_renews_lock_while_it_is_held(fake: FakeCluster) -> None:
    """Renewal continues after an outage of the API server."""
    fake.timing = replace(fake.timing, renew_s=0.005)
    with cluster_lock(fake.cluster, RUN):
        first = fake.things[LEASE]["spec"]
        fake.down = 1
        deadline = time.monotonic() + 10
        while fake.things[LEASE]["spec"]["renewTime"] == first["renewTime"] and time.monotonic() < deadline:
            time.sleep(0.005)
        assert fake.things[LEASE]["spec"]["renewTime"] > first["renewTime"]
        assert fake.things[LEASE]["spec"]["acquireTime"] == first["acquireTime"]


def test_reports_lost_lock(fake: FakeCluster) -> None:
    """The lock of the new holder stays unchanged, as after this machine slept and another user cleaned up."""
    with cluster_lock(fake.cluster, RUN):
        _held(fake, f"{OTHER} 00000000 7")
        with pytest.raises(LockedError, match=f"belongs to the run {OTHER}.*start a new run"):
            ensure_held(fake.cluster, RUN)
    assert LEASE in fake.things
    fake.things.clear()
    with pytest.raises(LockedError, match="belongs to no run"):
        ensure_held(fake.cluster, RUN)


def test_takes_lease_without_a_holder(fake: FakeCluster) -> None:
    """The foreign namespace stays, as an administrator creates it where runs may not create namespaces."""
    fake.add([make_object("v1", "Namespace", LOCK_NAMESPACE.name), _lease("")])
    with cluster_lock(fake.cluster, RUN):
        ensure_held(fake.cluster, RUN)
    assert list(fake.things) == [LOCK_NAMESPACE]


def test_first_of_two_gets_the_lock(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the other run looked before the Lease was created or before it was replaced."""
    _held(fake, f"{OTHER} 00000000 7")
    blind = [LOCK_NAMESPACE, LEASE]

    def look(ref: Ref) -> Object | None:
        if ref in blind:
            blind.remove(ref)
            return None
        return FakeCluster.get(fake, ref)

    monkeypatch.setattr(fake, "get", look)
    refusal = pytest.raises(LockedError, match=OTHER)
    with refusal, cluster_lock(fake.cluster, RUN):
        pytest.fail("two runs at once")


def test_waits_for_terminating_namespace(fake: FakeCluster) -> None:
    """The previous run has just ended."""
    going = make_object("v1", "Namespace", LOCK_NAMESPACE.name, run=OTHER, component="lock")
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    fake.add([going, _lease(f"{OTHER} 00000000 7")])
    with cluster_lock(fake.cluster, RUN):
        ensure_held(fake.cluster, RUN)


def test_reports_namespace_that_is_not_deleted(fake: FakeCluster) -> None:
    """The error names the deletion blocker."""
    fake.timing = replace(fake.timing, lock_s=0.01)
    going = make_object("v1", "Namespace", LOCK_NAMESPACE.name, run=OTHER, component="lock")
    going["metadata"] |= {"deletionTimestamp": "2026-11-23T03:15:00Z", "finalizers": ["example.com/hold"]}
    fake.add([going])
    with pytest.raises(LockedError, match=r"example\.com/hold"), cluster_lock(fake.cluster, RUN):
        pytest.fail("no place for a lock")


def test_reports_command_when_release_fails(fake: FakeCluster) -> None:
    """The Lease expires by itself, but the next run would be refused."""
    refusal = pytest.raises(LeftoversError, match=f"cleanup --context fake --run-id {RUN}$")
    with refusal, cluster_lock(fake.cluster, RUN):
        fake.down = 10**9


def test_failed_release_keeps_the_first_error(fake: FakeCluster) -> None:
    """The error of the run keeps its exit code; the remaining lock is added to its message."""

    def run() -> None:
        with cluster_lock(fake.cluster, RUN):
            fake.down = 10**9
            raise DeployError("details did not become ready")

    with pytest.raises(DeployError, match="details") as raised:
        run()
    assert not raised.value.clean
    (note,) = raised.value.__notes__
    assert "the run's lock is still there" in note
    assert f"cleanup --context fake --run-id {RUN}" in note


def test_release_is_idempotent(fake: FakeCluster) -> None:
    """A second release, and one of another run's lock, change nothing."""
    remove_lock(fake.cluster, RUN, watch=CancelToken())
    _held(fake, f"{OTHER} 00000000 7")
    remove_lock(fake.cluster, RUN, watch=CancelToken())
    assert set(fake.things) == {LOCK_NAMESPACE, LEASE}


def test_reads_incomplete_lease() -> None:
    """Only the time of creation of a foreign Lease is certain."""
    bare = {"metadata": {"creationTimestamp": "2026-11-23T03:15:00Z"}, "spec": {"holderIdentity": "another holder"}}
    assert holder_of(bare) == Holder("another", "unknown", 0, NOW, NOW)
    assert holder_of({"metadata": {}, "spec": {}}) is None


def test_signal_ends_the_wait_for_a_lock(fake: FakeCluster) -> None:
    """An earlier run's namespace may take a minute to terminate; after Ctrl-C nothing is locked."""
    fake.add([make_object("v1", "Namespace", LOCK_NAMESPACE.name, run=OTHER, component="lock")])
    fake.things[LOCK_NAMESPACE]["metadata"] |= {
        "deletionTimestamp": "2026-11-23T03:15:00Z",
        "finalizers": ["example.com/hold"],
    }
    watch, looks = CancelToken(), count()

    class Interrupting(FakeCluster):
        def get(self, ref: Ref) -> Object | None:
            if next(looks) == 3:
                watch.note(signal.SIGINT, None)
            return super().get(ref)

    interrupting = Interrupting(things=fake.things)
    place = ClusterBackend(interrupting.cluster, options(), UNUSED, UNUSED, UNUSED, (), UNUSED, UNUSED)
    with pytest.raises(Interrupted), place.lock(Path("results") / "renamed", RUN, watch):
        pytest.fail("took it")
    assert next(looks) < 10
    assert LEASE not in interrupting.things


def test_lock_whose_answer_was_lost_is_held(fake: FakeCluster) -> None:
    """The request is sent again, and refused: the Lease names this very process."""
    _held(fake, f"{RUN} {process_identity()}")
    with cluster_lock(fake.cluster, RUN):
        ensure_held(fake.cluster, RUN)
    assert fake.things == {}
