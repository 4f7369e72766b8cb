"""How leftovers of a run are found on a cluster and reported, and in which stage they are deleted."""

import pytest

from bench.errors import RefusedError
from bench.k8s.client import Cluster, Object
from bench.targets.cluster.teardown import cleanup
from bench.targets.cluster.teardown.blockers import find_dangling, find_dangling_webhooks
from bench.targets.cluster.teardown.inventory import find_leftovers, format_objects
from bench.targets.cluster.teardown.stages import Stage, make_run_object, plan_deletions, select_awaited, select_stage
from tests.fake_cluster import ADMISSION, EXTENSIONS, FakeCluster, make_object, make_webhook

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
KUMA = "kuma.io/v1alpha1"
ROLES = "rbac.authorization.k8s.io/v1"


def _cluster(*things: Object) -> Cluster:
    fake = FakeCluster()
    fake.add(things)
    return fake.cluster


def test_shortens_grace_period_of_slow_pods_once() -> None:
    """The namespace's controller deletes pods with their own grace period."""
    slow, quick = (make_object("v1", "Pod", name, namespace="a", run=RUN) for name in ("slow", "quick"))
    for pod, grace_s in ((slow, 30), (quick, 1)):
        pod["metadata"] |= {"deletionTimestamp": "2026-11-23T03:15:00Z", "deletionGracePeriodSeconds": grace_s}
    assert [request.one.ref.name for request in plan_deletions(map(make_run_object, (slow, quick)))] == ["slow"]


def test_keeps_grace_period_of_daemon_set_pods() -> None:
    """A CNI plugin that is killed before it has removed itself from its node keeps all new pods off that node."""
    pod = make_object("v1", "Pod", "istio-cni-node-1", namespace="istio-system", run=RUN, component="istio")
    pod["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "istio-cni-node", "controller": True}]
    going = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "now", "deletionGracePeriodSeconds": 30}}
    assert plan_deletions([make_run_object(pod)]) == plan_deletions([make_run_object(going)]) == ()
    assert select_awaited([make_run_object(going)]) == (make_run_object(going),)


def test_does_not_delete_owned_objects() -> None:
    """A Deployment would create its ReplicaSet again."""
    replicas = make_object("apps/v1", "ReplicaSet", "details-1", namespace="default", run=RUN)
    replicas["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "details", "controller": True}]
    assert plan_deletions([make_run_object(replicas)]) == ()


@pytest.mark.parametrize(
    ("api_version", "kind", "component", "stage"),
    [
        ("v1", "Namespace", "namespace", Stage.APPLICATION),
        ("v1", "Namespace", "istio", Stage.CONTROL_PLANE),
        ("v1", "Namespace", "lock", Stage.LOCK),
        ("v1", "ConfigMap", "load", Stage.APPLICATION),
        ("security.istio.io/v1", "PeerAuthentication", "policy", Stage.POLICIES),
        (KUMA, "Mesh", "kuma", Stage.POLICIES),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "policy", Stage.POLICIES),
        ("networking.k8s.io/v1", "NetworkPolicy", "load", Stage.APPLICATION),
        (ADMISSION, "MutatingWebhookConfiguration", "istio", Stage.WEBHOOKS),
        (ROLES, "ClusterRole", "istio", Stage.CONTROL_PLANE),
        (EXTENSIONS, "CustomResourceDefinition", "kuma", Stage.KINDS),
        ("coordination.k8s.io/v1", "Lease", "lock", Stage.LOCK),
    ],
)
def test_every_kind_has_a_stage(api_version: str, kind: str, component: str, stage: Stage) -> None:
    """Kind and component alone decide the stage, never the name."""
    assert make_run_object(make_object(api_version, kind, "x", run=RUN, component=component)).stage == stage


def test_policy_in_application_namespace_is_deleted_with_it() -> None:
    """A policy in the control plane's namespace is deleted before, while its controller runs."""
    app = make_object("v1", "Namespace", "app", run=RUN, component="namespace")
    system = make_object("v1", "Namespace", "system", run=RUN, component="kuma")
    inside = make_object(KUMA, "MeshTrafficPermission", "a", namespace="app", run=RUN, component="policy")
    beside = make_object(KUMA, "MeshTrafficPermission", "b", namespace="system", run=RUN, component="policy")
    everything = tuple(map(make_run_object, (app, system, inside, beside)))
    assert [one.ref.name for one in select_stage(everything, Stage.APPLICATION)] == ["app", "a"]
    assert [one.ref.name for one in select_stage(everything, Stage.POLICIES)] == ["b"]


def test_next_stage_waits_for_pods_and_policies_only() -> None:
    """A namespace takes seconds to terminate, and the next stage does not depend on it."""
    app = make_object("v1", "Namespace", "app", run=RUN, component="namespace")
    inside = (
        make_object("v1", "Pod", "pod", namespace="app", run=RUN),
        make_object(KUMA, "MeshTrafficPermission", "policy", namespace="app", run=RUN),
        make_object("v1", "ConfigMap", "config", namespace="app", run=RUN),
    )
    outside = make_object(ROLES, "ClusterRole", "role", run=RUN)
    everything = [make_run_object(one) for one in (app, *inside, outside)]
    assert [one.ref.name for one in select_awaited(everything)] == ["app", "pod", "policy", "config", "role"]
    app["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    assert [one.ref.name for one in select_awaited(everything)] == ["pod", "policy", "role"]


def test_lists_each_run_separately() -> None:
    """Each run has its own objects; an object with only one of the two labels belongs to none."""
    half = make_object("v1", "ConfigMap", "half", namespace="default")
    half["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "meshbench"}
    theirs = make_object("v1", "Namespace", "theirs", run=OTHER, component="namespace")
    ours = make_object("v1", "Namespace", "ours", run=RUN, component="namespace")
    runs = find_leftovers(_cluster(theirs, half, ours)).by_run()
    assert {run: [str(one.ref) for one in things] for run, things in runs.items()} == {
        RUN: ["Namespace ours"],
        OTHER: ["Namespace theirs"],
    }


def test_refuses_to_remove_several_runs() -> None:
    """One of them may belong to another user; the command for each is printed."""
    places = [make_object("v1", "Namespace", run.lower(), run=run) for run in (RUN, OTHER)]
    with pytest.raises(RefusedError, match=f"--run-id {RUN}\n.*--run-id {OTHER}"):
        cleanup._pick_only_run(find_leftovers(_cluster(*places)).by_run(), "fake")


def test_reports_kinds_that_cannot_be_listed() -> None:
    """A kind that was not listed is reported as unknown."""
    fake = FakeCluster(unlisted=frozenset({"Secret"}))
    fake.add(
        [make_object("v1", "Secret", "theirs", namespace="default"), make_object("v1", "Namespace", "ours", run=RUN)]
    )
    seen = find_leftovers(fake.cluster, RUN)
    assert (seen.unseen, [one.ref.name for one in seen.found]) == (("Secret",), ["ours"])


def test_groups_leftovers_by_kind() -> None:
    """Many objects of a kind are reported by their number, and objects in a namespace of the run are left out."""
    app = make_object("v1", "Namespace", "app", run=RUN, component="namespace")
    pod = make_object("v1", "Pod", "details", namespace="app", run=RUN)
    many = [make_object(EXTENSIONS, "CustomResourceDefinition", f"kind-{number}", run=RUN) for number in range(5)]
    things = find_leftovers(_cluster(app, pod, *many), RUN).found
    assert format_objects(things) == "Namespace app; 5 CustomResourceDefinition"


def test_webhook_dangles_without_a_ready_pod() -> None:
    """A webhook is dangling without its service, and not with one ready pod, whatever its name and owner."""
    fake = FakeCluster(alive={("kuma-system", "kuma-control-plane")})
    fake.add([make_webhook("alive", ("kuma-system", "kuma-control-plane")), make_webhook("dead", ("gone", "service"))])
    assert [(one.found.ref.name, one.why) for one in find_dangling_webhooks(fake.cluster)] == [
        ("dead", "its service gone/service does not exist")
    ]


def test_unavailable_api_is_a_deletion_blocker() -> None:
    """It blocks every namespace that is being deleted."""
    down = {"type": "Available", "status": "False", "message": "no endpoints"}
    api = make_object(
        "apiregistration.k8s.io/v1",
        "APIService",
        "v1.example.com",
        spec={"service": {"namespace": "gone", "name": "x"}},
        status={"conditions": [down]},
    )
    assert [(one.namespace, one.why) for one in find_dangling(_cluster(api))] == [
        ("gone", "not available: no endpoints")
    ]
