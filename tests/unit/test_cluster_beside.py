"""Control planes that end while a trial runs beside them."""

from typing import Any

import pytest

from bench.k8s.client import Object
from bench.targets.cluster.interference import control_plane_pods, ended_since, gone_since, seen
from tests.fake_cluster import FakeCluster, thing

OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
RUNNING = {"name": "discovery", "restartCount": 2, "state": {"running": {}}, "lastState": OOM}


def istiod(name: str = "istiod-1", **status: Any) -> Object:
    made = thing(
        "v1", "Pod", name, namespace="istio-system", status={"containerStatuses": [{**RUNNING, **status}]}, spec={}
    )
    made["metadata"] |= {"uid": name, "labels": {"app": "istiod"}}
    return made


def test_a_control_plane_that_goes_on_is_no_disturbance() -> None:
    """Restarts from before the trial, as of a mesh that has been there for months, are nobody's fault."""
    assert ended_since(seen([istiod()]), [istiod()]) == ()


@pytest.mark.parametrize("status", [{"restartCount": 3}, {"state": OOM}], ids=["started again", "waiting"])
def test_a_control_plane_that_ended_is_told_with_the_reason(status: dict[str, Any]) -> None:
    """As for the application: who, and why."""
    assert ended_since(seen([istiod()]), [istiod(**status)]) == (
        "discovery in istiod-1 (OOMKilled, exit code 137) ended",
    )


def test_the_time_between_an_end_and_the_next_start_counts_once() -> None:
    """A container that had ended before the trial, and is started again in it, ended only once, and before."""
    assert ended_since(seen([istiod(state=OOM)]), [istiod(restartCount=3)]) == ()


def test_a_control_planes_pod_that_was_replaced_is_told() -> None:
    """Somebody's rollout, or an eviction: the new pod has no restarts, and sidecars had to connect again."""
    assert ended_since(seen([istiod()]), [istiod("istiod-2", restartCount=0)]) == ("pod istiod-1 ended",)


def test_only_control_planes_count() -> None:
    """What else runs in their namespaces is not part of the mesh that is measured."""
    fake = FakeCluster()
    kiali = thing("v1", "Pod", "kiali", namespace="istio-system")
    kuma = thing("v1", "Pod", "kuma-control-plane-1", namespace="kuma-system")
    kuma["metadata"]["labels"] = {"app": "kuma-control-plane"}
    fake.add([istiod(), kiali, kuma])
    found = [pod["metadata"]["name"] for pod in control_plane_pods(fake.cluster)]
    assert found == ["istiod-1", "kuma-control-plane-1"]


def test_a_pod_on_its_way_out_is_gone() -> None:
    """What it still answers proves nothing: its sidecar may be down before it is."""
    going = istiod()
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    assert gone_since(seen([istiod()]), [istiod()]) == ()
    assert gone_since(seen([istiod()]), [going]) == ("pod istiod-1 ended",)


EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def test_a_pod_that_was_evicted_is_told_with_that_reason() -> None:
    """It stays listed, under its uid, and may have no container left that tells how it ended."""
    evicted = {**istiod(), "status": EVICTED}
    assert gone_since(seen([istiod()]), [evicted]) == ("pod istiod-1 (Evicted) ended",)


def test_a_pod_that_was_evicted_before_is_nobodys_fault() -> None:
    """It stays listed for weeks; the one in its place is what the trial has beside it."""
    there = [{**istiod("istiod-0"), "status": EVICTED}, istiod()]
    assert ended_since(seen(there), there) == ()
