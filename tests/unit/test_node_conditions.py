"""Bad conditions of nodes during a trial."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.k8s.client import Object
from bench.system.cancellation import CancelToken
from bench.targets.cluster import deployment
from bench.targets.cluster.deployment import ClusterDeployment
from bench.targets.cluster.interference import find_node_problems, snapshot_conditions
from tests.fake_cluster import FakeCluster, make_object

BEFORE, LATER = "2026-11-23T03:15:00Z", "2026-11-23T04:15:00Z"
WELL = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}


def node(name: str = "one", *, changed: tuple[str, ...] = (), **statuses: str) -> Object:
    """A node with old conditions, except for those that `changed`; all are good by default."""
    conditions = [
        {
            "type": kind,
            "status": status,
            "lastTransitionTime": LATER if kind in changed else BEFORE,
            "lastHeartbeatTime": LATER,
        }
        for kind, status in {**WELL, **statuses}.items()
    ]
    return make_object("v1", "Node", name, status={"conditions": conditions, "capacity": {"cpu": "2"}})


def find_conditions(after: Object, *, before: Object | None = None) -> tuple[str, ...]:
    return find_node_problems(snapshot_conditions([before or node()], {"one"}), [after])


def test_ignores_healthy_node() -> None:
    """Heartbeats continue; conditions before the trial do not count."""
    assert find_conditions(node()) == ()
    assert find_conditions(node(changed=("Ready",)), before=node(changed=("Ready",))) == ()


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
def test_reports_unhealthy_node(after: Object, what: tuple[str, ...]) -> None:
    """Also one that has recovered: its condition has changed since the load began."""
    assert find_conditions(after) == tuple(f"node one: {one}" for one in what)


def test_silent_kubelet_had_no_pressure() -> None:
    """All its conditions become unknown, and change again when it reports."""
    assert find_conditions(node(changed=tuple(WELL))) == ("node one: was not ready",)


def test_ignores_nodes_of_other_pods() -> None:
    """Only nodes with pods of the application or the load count."""
    before = [node(), node("two")]
    assert find_node_problems(snapshot_conditions(before, {"one"}), [node(), node("two", Ready="False")]) == ()


def pod(name: str, at: str, component: str) -> Object:
    made = make_object(
        "v1", "Pod", name, namespace="here", run="r", component=component, spec={"nodeName": at}, status={}
    )
    return {**made, "spec": {"nodeName": at, "containers": []}}


@pytest.mark.parametrize(
    ("after", "restarts"),
    [
        (node("application", changed=("Ready",)), ("node application: was not ready",)),
        (node("load", DiskPressure="True"), ("node load: had DiskPressure",)),
        (node("other", Ready="False"), ()),
    ],
)
def test_deployment_reports_nodes_of_its_pods(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: Object, restarts: tuple[str, ...]
) -> None:
    """A bad condition of a node of application or load is a retryable reason."""
    fake = FakeCluster()
    fake.add([node("application"), node("load"), node("other")])
    fake.add([pod("details", "application", "application"), pod("locust", "load", "load"), pod("p", "other", "probe")])
    options = SimpleNamespace(prometheus="", locust_ui=None)
    application = SimpleNamespace(namespace="here", spaces=("here",))
    manifests = SimpleNamespace(
        namespace="here",
        plane=None,
        configuration=SimpleNamespace(mesh=None, untranslated=()),
        order=None,
        application=application,
        outside="",
        options=options,
        sidecar_image="",
        containers={},
    )
    deployed = ClusterDeployment(
        cluster=fake.cluster,
        owner=SimpleNamespace(run_id="r", mine=lambda: "meshbench.dev/run-id=r", note_stage=lambda _: None),  # type: ignore[arg-type]
        watch=CancelToken(),
        manifests=manifests,  # type: ignore[arg-type]
        absent=(),
    )
    monkeypatch.setattr(deployment, "start_load", lambda *_, **__: None)
    monkeypatch.setattr(deployment, "save_logs", lambda *_: None)
    with deployed.loading(tmp_path):
        fake.add([after])
    assert deployed.restarts() == restarts
