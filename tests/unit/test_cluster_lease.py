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

from bench.errors import DeployError, Interrupted, LeftoversError, LockedError
from bench.k8s.client import Object, Ref
from bench.k8s.timing import DURATION_S
from bench.system.cancellation import Watch
from bench.targets.cluster.lock import (
    LEASE,
    PLACE,
    Holder,
    cluster_lock,
    ensure_held,
    here,
    holder_of,
    is_alive,
    judged,
    read_holder,
    remove_lock,
)
from bench.targets.cluster.session import ClusterPlace
from tests.fake_cluster import FakeCluster, thing
from tests.shown_cluster import options

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
UNUSED = cast("Any", None)
NOW = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)

NO_PROCESS = 2**22 + 1  # Linux gives no such number to a process


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster that nobody uses."""
    return FakeCluster()


def _lease(identity: str, *, renewed: datetime = NOW, since: datetime = NOW) -> Object:
    times = {"acquireTime": since.isoformat(), "renewTime": renewed.isoformat()}
    spec = {"holderIdentity": identity, "leaseDurationSeconds": DURATION_S, **times}
    return thing(LEASE.api_version, LEASE.kind, LEASE.name, namespace=LEASE.namespace, run=RUN, spec=spec)


def _held(fake: FakeCluster, identity: str, *, silent_s: float = 0.0) -> None:
    renewed = datetime.now(UTC) - timedelta(seconds=silent_s)
    fake.add([thing("v1", "Namespace", PLACE.name, run=OTHER, component="lock")])
    fake.add([_lease(identity, renewed=renewed, since=renewed - timedelta(seconds=65))])


def test_a_lock_names_its_run_machine_and_process_and_leaves_nothing(fake: FakeCluster) -> None:
    """While it is held; then lease and namespace are gone."""
    with cluster_lock(fake.cluster, RUN):
        holder = read_holder(fake.cluster)
        assert holder is not None
        assert (holder.run_id, holder.process) == (RUN, os.getpid())
        assert f"{holder.host} {holder.process}" == here()
        labels = fake.things[LEASE]["metadata"]["labels"]
        assert (labels["meshbench.dev/run-id"], labels["meshbench.dev/component"]) == (RUN, "lock")
    assert fake.things == {}


def test_a_second_run_is_refused_while_the_first_is_alive(fake: FakeCluster) -> None:
    """It is told who has the cluster, and leaves the lock alone."""
    told = pytest.raises(LockedError, match=f"context fake is being measured by the run {RUN} .*process {os.getpid()}")
    with cluster_lock(fake.cluster, RUN):
        with told, cluster_lock(fake.cluster, OTHER):
            pytest.fail("two runs at once")
        ensure_held(fake.cluster, RUN)


@pytest.mark.parametrize("identity", [f"{OTHER} 00000000 7", OTHER])
def test_a_run_elsewhere_that_is_silent_for_too_long_has_to_be_cleaned_up_first(
    fake: FakeCluster, identity: str
) -> None:
    """No silent take-over: the dead run is named, and the command that helps."""
    _held(fake, identity, silent_s=DURATION_S + 5)
    told = pytest.raises(
        LockedError, match=rf"{OTHER} .* without cleaning up .*cleanup --context fake --run-id {OTHER}$"
    )
    with told, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")
    assert LEASE in fake.things


def test_a_run_elsewhere_that_was_heard_of_lately_is_taken_for_alive(fake: FakeCluster) -> None:
    """Its age is told."""
    _held(fake, f"{OTHER} 00000000 7", silent_s=DURATION_S - 10)
    told = pytest.raises(LockedError, match=r"host 00000000, process 7, for 1min 40s\); wait for it to end")
    with told, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(fake: FakeCluster) -> None:
    """Nobody has to wait for its lease to run out."""
    _held(fake, f"{OTHER} {here().split()[0]} {NO_PROCESS}")
    told = pytest.raises(LockedError, match="without cleaning up")
    with told, cluster_lock(fake.cluster, RUN):
        pytest.fail("took over")


def test_a_later_process_with_the_same_number_is_not_the_holder() -> None:
    """Numbers are used again."""
    host, process = here().split()
    began = Holder(RUN, host, int(process), since=datetime(2020, 1, 1, tzinfo=UTC), renewed=NOW)
    assert judged(began, here=here(), now=NOW) == "dead"


@pytest.mark.parametrize(("silent_s", "verdict"), [(0, "unknown"), (DURATION_S + 1, "unknown"), (3601, "dead")])
def test_a_holder_elsewhere_is_judged_by_its_silence_only_when_that_is_long(silent_s: int, verdict: str) -> None:
    """Two machines' clocks may differ by minutes."""
    holder = Holder(RUN, "00000000", 7, since=NOW - timedelta(hours=9), renewed=NOW - timedelta(seconds=silent_s))
    assert judged(holder, here="11111111 7", now=NOW) == verdict


def test_a_holder_elsewhere_that_renews_while_it_is_watched_is_alive(fake: FakeCluster) -> None:
    """By its own clock, whatever ours says."""
    _held(fake, f"{OTHER} 00000000 7", silent_s=600)
    holder = read_holder(fake.cluster)
    assert holder is not None
    fake.things[LEASE]["spec"]["renewTime"] = (holder.renewed + timedelta(seconds=15)).isoformat()
    assert is_alive(fake.cluster, holder, watch=Watch())


def test_a_holder_elsewhere_that_stays_silent_while_it_is_watched_is_dead(fake: FakeCluster) -> None:
    """So is one whose lease goes meanwhile."""
    fake.timing = replace(fake.timing, lease_s=0.0)
    _held(fake, f"{OTHER} 00000000 7", silent_s=10)
    holder = read_holder(fake.cluster)
    assert holder is not None
    assert not is_alive(fake.cluster, holder, watch=Watch())
    del fake.things[LEASE]
    assert not is_alive(fake.cluster, holder, watch=Watch())


def test_a_lock_is_renewed_while_it_is_held(fake: FakeCluster) -> None:
    """Also after the API server was away for a while."""
    fake.timing = replace(fake.timing, renew_s=0.005)
    with cluster_lock(fake.cluster, RUN):
        first = fake.things[LEASE]["spec"]
        fake.down = 1
        deadline = time.monotonic() + 10
        while fake.things[LEASE]["spec"]["renewTime"] == first["renewTime"] and time.monotonic() < deadline:
            time.sleep(0.005)
        assert fake.things[LEASE]["spec"]["renewTime"] > first["renewTime"]
        assert fake.things[LEASE]["spec"]["acquireTime"] == first["acquireTime"]


def test_a_lock_that_was_taken_away_is_told_and_the_new_holders_is_left_alone(fake: FakeCluster) -> None:
    """As after a machine's sleep, in which somebody cleaned up."""
    with cluster_lock(fake.cluster, RUN):
        _held(fake, f"{OTHER} 00000000 7")
        with pytest.raises(LockedError, match=f"belongs to the run {OTHER}.*start a new run"):
            ensure_held(fake.cluster, RUN)
    assert LEASE in fake.things
    fake.things.clear()
    with pytest.raises(LockedError, match="belongs to nobody"):
        ensure_held(fake.cluster, RUN)


def test_a_lease_without_a_holder_is_taken_and_its_foreign_namespace_stays(fake: FakeCluster) -> None:
    """As an administrator makes one who does not let runs make namespaces."""
    fake.add([thing("v1", "Namespace", PLACE.name), _lease("")])
    with cluster_lock(fake.cluster, RUN):
        ensure_held(fake.cluster, RUN)
    assert list(fake.things) == [PLACE]


def test_the_quicker_of_two_has_the_lock(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the other one looked before it was made, or before it was replaced."""
    _held(fake, f"{OTHER} 00000000 7")
    blind = [PLACE, LEASE]

    def look(ref: Ref) -> Object | None:
        if ref in blind:
            blind.remove(ref)
            return None
        return FakeCluster.get(fake, ref)

    monkeypatch.setattr(fake, "get", look)
    told = pytest.raises(LockedError, match=OTHER)
    with told, cluster_lock(fake.cluster, RUN):
        pytest.fail("two runs at once")


def test_a_lock_namespace_that_is_going_is_waited_for(fake: FakeCluster) -> None:
    """The run before has just ended."""
    going = thing("v1", "Namespace", PLACE.name, run=OTHER, component="lock")
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    fake.add([going, _lease(f"{OTHER} 00000000 7")])
    with cluster_lock(fake.cluster, RUN):
        ensure_held(fake.cluster, RUN)


def test_a_lock_namespace_that_does_not_go_is_told(fake: FakeCluster) -> None:
    """With what holds it."""
    fake.timing = replace(fake.timing, lock_s=0.01)
    going = thing("v1", "Namespace", PLACE.name, run=OTHER, component="lock")
    going["metadata"] |= {"deletionTimestamp": "2026-11-23T03:15:00Z", "finalizers": ["example.com/hold"]}
    fake.add([going])
    with pytest.raises(LockedError, match=r"example\.com/hold"), cluster_lock(fake.cluster, RUN):
        pytest.fail("no place for a lock")


def test_a_lock_that_cannot_be_given_back_is_told_with_the_command(fake: FakeCluster) -> None:
    """It runs out by itself, but the next run would be refused."""
    told = pytest.raises(LeftoversError, match=f"cleanup --context fake --run-id {RUN}$")
    with told, cluster_lock(fake.cluster, RUN):
        fake.down = 10**9


def test_a_lock_that_cannot_be_given_back_never_takes_a_failures_place(fake: FakeCluster) -> None:
    """The run's own end is told, with its exit code; what stays is added to it."""

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


def test_giving_back_twice_or_another_runs_lock_does_nothing(fake: FakeCluster) -> None:
    """A cleanup may be repeated, while the next run has begun."""
    remove_lock(fake.cluster, RUN, watch=Watch())
    _held(fake, f"{OTHER} 00000000 7")
    remove_lock(fake.cluster, RUN, watch=Watch())
    assert set(fake.things) == {PLACE, LEASE}


def test_a_lease_that_others_wrote_is_read_as_far_as_it_goes() -> None:
    """Only its time of creation is certain."""
    bare = {"metadata": {"creationTimestamp": "2026-11-23T03:15:00Z"}, "spec": {"holderIdentity": "somebody else"}}
    assert holder_of(bare) == Holder("somebody", "unknown", 0, NOW, NOW)
    assert holder_of({"metadata": {}, "spec": {}}) is None


def test_a_signal_ends_the_wait_for_a_lock_that_is_going(fake: FakeCluster) -> None:
    """An earlier run's lock may be on its way out for a minute: Ctrl-C does not wait for it, and takes nothing."""
    fake.add([thing("v1", "Namespace", PLACE.name, run=OTHER, component="lock")])
    fake.things[PLACE]["metadata"] |= {"deletionTimestamp": "2026-11-23T03:15:00Z", "finalizers": ["example.com/hold"]}
    watch, looks = Watch(), count()

    class Interrupting(FakeCluster):
        def get(self, ref: Ref) -> Object | None:
            if next(looks) == 3:
                watch.note(signal.SIGINT, None)
            return super().get(ref)

    interrupting = Interrupting(things=fake.things)
    place = ClusterPlace(interrupting.cluster, options(), UNUSED, UNUSED, UNUSED, (), UNUSED)
    with pytest.raises(Interrupted), place.lock(Path("results") / "renamed", RUN, watch):
        pytest.fail("took it")
    assert next(looks) < 10
    assert LEASE not in interrupting.things
