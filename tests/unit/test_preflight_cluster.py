"""The checks of the cluster itself and of other workloads on it, and the confirmation of the user."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bench.errors import ClusterError, ErrorKind, LockedError, RefusedError
from bench.k8s.client import Cluster, Object
from bench.k8s.connection import KindInfo
from bench.k8s.scheduling import schedulable_nodes
from bench.meshes.rights import Need
from bench.targets.cluster.preflight.cluster import (
    examine_admission,
    examine_dangling,
    examine_earlier_runs,
    examine_meshes,
    examine_nodes,
    examine_terminating,
    examine_version,
)
from bench.targets.cluster.preflight.examination import guard
from bench.targets.cluster.teardown.blockers import Dangling
from bench.targets.cluster.teardown.stages import make_run_object
from tests.shown_cluster import fake, node, pod


@pytest.mark.parametrize(
    ("version", "kubelet", "state"),
    [
        ("v1.34.2", "v1.34.2", "ok"),
        ("v1.34.2-eks-abc", "v1.31.9", "ok"),
        ("v1.34.2", "v1.30.0", "warning"),
        ("v1.34.2", "v1.35.0", "warning"),
        ("v1.30.14", "v1.30.14", "ok"),
        ("v1.29.15", "v1.29.15", "error"),
    ],
)
def test_refuses_old_servers_and_reports_old_kubelets(version: str, kubelet: str, state: str) -> None:
    """Proofs close a command's input, which needs Kubernetes 1.30; kubelets may be three minor versions older."""
    assert examine_version(version, [node(kubelet=kubelet)]).status == state


def test_ignores_unschedulable_nodes() -> None:
    """Cordoned, tainted or not ready: no pod of a run can be there."""
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    nodes = [node(), node("two", cordoned=True), node("three", taints=[taint]), node("four", ready="Unknown")]
    assert [one["metadata"]["name"] for one in schedulable_nodes(nodes)] == ["one"]
    head, trouble = examine_nodes(nodes, context="lab")
    assert (head.status, head.detail) == ("warning", "1 of 4 nodes ready and open to pods")
    assert "four is not ready" in trouble.detail
    assert examine_nodes([node("two", cordoned=True)], context="lab")[0].status == "error"
    assert examine_nodes([node(), node("two")], context="lab")[0].status == "ok"


def test_refuses_node_under_pressure() -> None:
    """It evicts pods, which would be measured as latency or errors."""
    findings = examine_nodes([node(), node("two", pressure=["MemoryPressure"])], context="lab")
    assert [finding.status for finding in findings] == ["ok", "error"]
    assert "two has MemoryPressure" in findings[1].detail


def webhook(
    *, policy: str = "Fail", resources: tuple[str, ...] = ("pods",), groups: tuple[str, ...] = ("",)
) -> Dangling:
    rule = {"operations": ["CREATE"], "apiGroups": list(groups), "apiVersions": ["*"], "resources": list(resources)}
    client = {"service": {"name": "istiod", "namespace": "istio-system"}}
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "left", "uid": "1"},
        "webhooks": [{"name": "a.istio.io", "failurePolicy": policy, "clientConfig": client, "rules": [rule]}],
    }
    return Dangling(make_run_object(configuration), "istio-system", "its service istio-system/istiod does not exist")


@pytest.mark.parametrize(
    ("residue", "state"),
    [
        (webhook(), "error"),
        (webhook(resources=("*",), groups=("*",)), "error"),
        (webhook(resources=("*/*",), groups=("*",)), "error"),
        (webhook(resources=("pods/exec",)), "warning"),  # only CONNECT would ask about it
        (webhook(policy="Ignore"), "warning"),
        (webhook(resources=("widgets",), groups=("example.com",)), "warning"),
        (webhook(groups=("apps",)), "warning"),
    ],
)
def test_refuses_dangling_webhook_for_the_run(residue: Dangling, state: str) -> None:
    """The error has the command that removes it; a webhook for other objects is a warning."""
    pods = Need(("create", "patch", "delete"), "", "pods", "application")
    (finding,) = examine_dangling([residue], [pods], "lab")
    assert finding.status == state
    assert "istio-system/istiod does not exist" in finding.detail
    assert finding.hint.endswith("kubectl --context lab delete mutatingwebhookconfiguration left")


def test_refuses_unavailable_api() -> None:
    """Namespaces cannot be deleted meanwhile, so that a run could not clean up."""
    api = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.x.io", "uid": "1"}}
    (finding,) = examine_dangling([Dangling(make_run_object(api), "x", "not available: no endpoints")], [], "lab")
    assert finding.status == "error"
    assert "no namespace can be deleted" in finding.detail
    assert examine_dangling([], [], "lab")[0].status == "ok"


def test_reports_terminating_namespace_with_its_blocker() -> None:
    """It uses capacity until it is deleted, but does not stop the run."""
    metadata = {"name": "bookinfo-x", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/wait"]}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    (finding,) = examine_terminating(fake(objects={"Namespace": (namespace,)}))
    assert finding.status == "warning"
    assert "example.com/wait" in finding.detail


def test_dry_run_detects_forbidden_pods() -> None:
    """Pod Security or OpenShift's SCCs may forbid what a sidecar needs; the hint is the platform's own."""
    refusal = ClusterError("violates PodSecurity", kind=ErrorKind.FORBIDDEN)
    (plain,) = examine_admission(fake(dry_run_error=refusal), ())
    assert (plain.status, "Pod Security" in plain.hint) == ("warning", True)
    openshift = KindInfo("config.openshift.io/v1", "ClusterVersion", "clusterversions", False, frozenset({"list"}))
    (other,) = examine_admission(fake(dry_run_error=refusal), (openshift,))
    assert "oc adm policy" in other.hint
    assert examine_admission(fake(), ())[0].status == "ok"


def answer_yes(question: str) -> bool:
    return True


def answer_no(question: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("given", "confirm", "refusal"),
    [
        ({"yes": True}, None, ""),
        ({"yes": False}, answer_yes, ""),
        ({"yes": False}, answer_no, "not agreed to"),
        ({"yes": False}, None, "add --yes"),
        ({"yes": False, "yes_this_cluster": "lab"}, None, ""),
        ({"yes": True, "yes_this_cluster": "other"}, None, "other does not name"),
    ],
)
def test_requires_confirmation(given: "dict[str, Any]", confirm: "Callable[[str], bool] | None", refusal: str) -> None:
    """A user confirms after reading which cluster it is, or passes an option; else the exit code is 3."""
    cluster = fake(objects={"Node": (node(),)})
    arguments = {"yes_this_cluster": None, "confirm": confirm, **given}
    if not refusal:
        assert guard(cluster, **arguments) == "context lab: https://127.0.0.1:6443, Kubernetes v1.34.2, 1 node"
        return
    with pytest.raises(RefusedError, match=refusal):
        guard(cluster, **arguments)


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        (fake(context="eks-prod-1"), "eks-prod-1"),
        (fake(server="https://api.production.example"), "production"),
        (fake(objects={"Node": tuple(node(str(number)) for number in range(21))}), "21 nodes"),
        (fake(objects={"Pod": (pod(),) * 201}), "201 pods"),
    ],
)
def test_production_has_to_be_named(cluster: Cluster, reason: str) -> None:
    """By its names, its size, or the workloads of others; `--yes` alone is not enough."""
    with pytest.raises(RefusedError, match=reason) as refused:
        guard(cluster, yes=True, yes_this_cluster=None, confirm=answer_yes)
    assert f"--yes-this-cluster {cluster.context}" in str(refused.value)
    assert guard(cluster, yes=False, yes_this_cluster=cluster.context, confirm=None)


def test_system_pods_are_no_sign_of_production() -> None:
    """Neither are the pods of a meshbench run."""
    system = {**pod(), "metadata": {"name": "p", "namespace": "kube-system"}}
    labels = {"app.kubernetes.io/managed-by": "meshbench", "meshbench.dev/run-id": "r"}
    ours = {**pod(), "metadata": {"name": "p", "namespace": "bookinfo", "labels": labels}}
    assert guard(fake(objects={"Pod": (system, ours) * 150}), yes=True, yes_this_cluster=None, confirm=None)


def test_guard_works_without_permission_to_list() -> None:
    """Without it the guard uses names only, and the pre-flight reports the missing permission."""
    cluster = fake(refuse=frozenset({("list", "Node"), ("list", "Pod")}))
    assert "lab" in guard(cluster, yes=True, yes_this_cluster=None, confirm=None)


NAMESPACES = KindInfo("v1", "Namespace", "namespaces", False, frozenset({"list", "delete"}))


def left(run: str, **more: Any) -> Object:
    labels = {"app.kubernetes.io/managed-by": "meshbench", "meshbench.dev/run-id": run}
    metadata = {"name": f"bookinfo-{run}", "uid": run, "labels": labels, **more}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def lease(run: str, *, renewed: datetime) -> Object:
    spec = {"holderIdentity": f"{run} 0123abcd 17", "renewTime": renewed.isoformat()}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "meshbench"}, "spec": spec}


def test_reports_leftovers_with_cleanup_command() -> None:
    """Exit code 8, as on one machine; terminating objects do not stop the run."""
    going = left("b", deletionTimestamp="2026-01-01T00:00:00Z")
    (finding,) = examine_earlier_runs(fake(kind_infos=(NAMESPACES,), objects={"Namespace": (left("a"), going)}))
    assert (finding.status, finding.error) == ("error", LockedError)
    assert "a left Namespace bookinfo-a" in finding.detail
    assert finding.hint == "meshbench cleanup --context lab --run-id a"
    assert examine_earlier_runs(fake())[0].status == "ok"


def test_run_with_the_lock_is_not_cleaned_up() -> None:
    """It may be alive: the hint says to wait. One that was silent for long is reported as dead."""
    for age, expected, hint in (
        (timedelta(), "has the lock", "wait for it to end"),
        (timedelta(minutes=2), "ended without cleaning up", "meshbench cleanup"),
    ):
        objects = {"Namespace": (left("a"),), "Lease": (lease("a", renewed=datetime.now(UTC) - age),)}
        (finding,) = examine_earlier_runs(fake(kind_infos=(NAMESPACES,), objects=objects))
        assert "a (host 0123abcd, process 17" in finding.detail
        assert expected in finding.detail
        assert finding.hint.startswith(hint)


ISTIO_SYSTEM = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}


@pytest.mark.parametrize(
    ("there", "meshes", "existing", "state", "expected"),
    [
        (True, ("istio",), False, "error", "--use-existing-mesh"),
        (True, ("istio",), True, "ok", "istio-system"),
        (False, ("istio",), True, "error", "leave out --use-existing-mesh"),
        (False, ("istio",), False, "ok", "installs and deletes"),
        (True, (), False, "warning", "not measured"),
    ],
)
def test_uses_existing_mesh_only_on_request(
    there: bool, meshes: tuple[str, ...], existing: bool, state: str, expected: str
) -> None:
    """It is neither overwritten nor used by accident; one that is not measured is a warning."""
    cluster = fake(named={"istio-system": ISTIO_SYSTEM} if there else {})
    (finding,) = examine_meshes(cluster, meshes, existing=existing)
    assert finding.status == state
    assert expected in f"{finding.detail} {finding.hint}"
