"""Nodes that were not well while a trial ran on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.k8s.client import Object
from bench.targets.cluster import deployment
from bench.targets.cluster.deployment import ClusterDeployment, Site
from bench.targets.cluster.interference import ailed_since, conditions_of
from tests.fake_cluster import FakeCluster, thing

BEFORE, LATER = "2026-11-23T03:15:00Z", "2026-11-23T04:15:00Z"
WELL = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}


def node(name: str = "one", *, changed: tuple[str, ...] = (), **statuses: str) -> Object:
    """A node whose conditions are as long ago as can be, but for those that `changed`; all is well unless told."""
    conditions = [
        {
            "type": kind,
            "status": status,
            "lastTransitionTime": LATER if kind in changed else BEFORE,
            "lastHeartbeatTime": LATER,
        }
        for kind, status in {**WELL, **statuses}.items()
    ]
    return thing("v1", "Node", name, status={"conditions": conditions})


def told(after: Object, *, before: Object | None = None) -> tuple[str, ...]:
    return ailed_since(conditions_of([before or node()], {"one"}), [after])


def test_a_node_that_was_well_all_the_time_is_not_told() -> None:
    """Its heartbeats go on; what it was before its conditions last changed is not of this trial."""
    assert told(node()) == ()
    assert told(node(changed=("Ready",)), before=node(changed=("Ready",))) == ()


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (node(Ready="False", changed=("Ready",)), ("was not ready",)),
        (node(Ready="Unknown", changed=("Ready",)), ("was not ready",)),
        (node(changed=("Ready",)), ("was not ready",)),
        (node(MemoryPressure="True", changed=("MemoryPressure",)), ("had MemoryPressure",)),
        (node(DiskPressure="True"), ("had DiskPressure",)),
        (node(changed=("DiskPressure", "PIDPressure")), ("had DiskPressure", "had PIDPressure")),
        (node("two"), ("was removed",)),
    ],
)
def test_a_node_that_was_not_well_is_told(after: Object, what: tuple[str, ...]) -> None:
    """Whether it still is, or has recovered: then its condition has changed since the load began."""
    assert told(after) == tuple(f"node one: {one}" for one in what)


def test_a_kubelet_that_was_silent_had_no_pressure() -> None:
    """All its conditions become unknown, and change once more when it speaks again."""
    assert told(node(changed=tuple(WELL))) == ("node one: was not ready",)


def test_other_nodes_do_not_count() -> None:
    """What has no pod of application or load disturbs nobody."""
    before = [node(), node("two")]
    assert ailed_since(conditions_of(before, {"one"}), [node(), node("two", Ready="False")]) == ()


def pod(name: str, at: str, component: str) -> Object:
    made = thing("v1", "Pod", name, namespace="here", run="r", component=component, spec={"nodeName": at}, status={})
    return {**made, "spec": {"nodeName": at, "containers": []}}


class Harm:
    """A load during which something happens to the cluster."""

    def __init__(self, fake: FakeCluster, *after: Object) -> None:
        self.fake, self.after = fake, after

    def run(self, **_: Any) -> None:
        self.fake.add(self.after)


@pytest.mark.parametrize(
    ("after", "restarts"),
    [
        (node("application", changed=("Ready",)), ("node application: was not ready",)),
        (node("load", DiskPressure="True"), ("node load: had DiskPressure",)),
        (node("other", Ready="False"), ()),
    ],
)
def test_a_deployment_tells_of_the_nodes_of_its_pods(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: Object, restarts: tuple[str, ...]
) -> None:
    """Those of the application and of the load, among what makes a trial invalid and lets it be measured again."""
    fake = FakeCluster()
    fake.add([node("application"), node("load"), node("other")])
    fake.add([pod("details", "application", "application"), pod("locust", "load", "load"), pod("p", "other", "probe")])
    options = SimpleNamespace(prometheus="", locust_ui=None)
    blueprint = SimpleNamespace(plane=None, meshed=None, order=None)
    site = SimpleNamespace(cluster=fake.cluster, namespace="here", watch=None, blueprint=blueprint, options=options)
    deployed = ClusterDeployment(cast("Site", site))
    monkeypatch.setattr(deployment, "start_load", lambda *_, **__: Harm(fake, after))
    monkeypatch.setattr(deployment, "save_logs", lambda *_: None)
    deployed.load(tmp_path, show=lambda _: None, kept=lambda _: None)
    assert deployed.restarts() == restarts
