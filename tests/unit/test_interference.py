"""Control planes that end during a trial."""

from typing import Any

import pytest

from bench.k8s.client import Object
from bench.targets.cluster.interference import control_plane_pods, find_ended, find_removed, snapshot_pods
from tests.fake_cluster import FakeCluster, make_object

OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
RUNNING = {"name": "discovery", "restartCount": 2, "state": {"running": {}}, "lastState": OOM}


def istiod(name: str = "istiod-1", **status: Any) -> Object:
    made = make_object(
        "v1", "Pod", name, namespace="istio-system", status={"containerStatuses": [{**RUNNING, **status}]}, spec={}
    )
    made["metadata"] |= {"uid": name, "labels": {"app": "istiod"}}
    return made


def test_running_control_plane_is_no_interference() -> None:
    """Restarts from before the trial do not count."""
    assert find_ended(snapshot_pods([istiod()]), [istiod()]) == ()


@pytest.mark.parametrize("status", [{"restartCount": 3}, {"state": OOM}], ids=["started again", "waiting"])
def test_reports_control_plane_restart(status: dict[str, Any]) -> None:
    """A restart of a control plane is reported with pod and reason."""
    assert find_ended(snapshot_pods([istiod()]), [istiod(**status)]) == (
        "discovery in istiod-1 (OOMKilled, exit code 137) ended",
    )


def test_counts_end_and_next_start_once() -> None:
    """A container that had ended before the trial, and is started again in it, ended once, and before."""
    assert find_ended(snapshot_pods([istiod(state=OOM)]), [istiod(restartCount=3)]) == ()


def test_reports_replaced_control_plane_pod() -> None:
    """The new pod has no restarts, but sidecars had to connect again."""
    assert find_ended(snapshot_pods([istiod()]), [istiod("istiod-2", restartCount=0)]) == ("pod istiod-1 ended",)


def test_counts_control_planes_only() -> None:
    """Other pods in their namespaces are not part of the mesh that is measured."""
    fake = FakeCluster()
    kiali = make_object("v1", "Pod", "kiali", namespace="istio-system")
    kuma = make_object("v1", "Pod", "kuma-control-plane-1", namespace="kuma-system")
    kuma["metadata"]["labels"] = {"app": "kuma-control-plane"}
    fake.add([istiod(), kiali, kuma])
    found = [pod["metadata"]["name"] for pod in control_plane_pods(fake.cluster)]
    assert found == ["istiod-1", "kuma-control-plane-1"]


def test_terminating_pod_counts_as_deleted() -> None:
    """The sidecar of a terminating pod may be down before the pod is."""
    going = istiod()
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    assert find_removed(snapshot_pods([istiod()]), [istiod()]) == ()
    assert find_removed(snapshot_pods([istiod()]), [going]) == ("pod istiod-1 ended",)


EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def test_reports_eviction_with_its_reason() -> None:
    """An evicted pod stays listed under its uid, perhaps without a container that says how it ended."""
    evicted = {**istiod(), "status": EVICTED}
    assert find_removed(snapshot_pods([istiod()]), [evicted]) == ("pod istiod-1 (Evicted) ended",)


def test_ignores_earlier_eviction() -> None:
    """An evicted pod stays listed for weeks; its successor is the one that counts."""
    there = [{**istiod("istiod-0"), "status": EVICTED}, istiod()]
    assert find_ended(snapshot_pods(there), there) == ()
