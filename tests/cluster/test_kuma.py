"""Kuma on a real cluster: rendered by kumactl, applied by us, proven with Bookinfo, and gone without a trace.

Kuma's images come from nobody in the lab: without them, or without kumactl on PATH, this is skipped.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, DeployError
from bench.files.folders import shipped
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.ownership import Owner
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.protocols import InstallOptions
from bench.system.cancellation import Watch
from bench.system.journal import Journal
from bench.targets.cluster.probes.injection import mesh_evidence
from bench.targets.cluster.probes.prober import Question, pod_name
from bench.targets.cluster.teardown.cleanup import clean_cluster
from tests.cluster.deployed import Deployed, apply_namespace, deploy, failures, traces, until, written
from tests.cluster.lab_images import build_bookinfo

MANIFESTS = shipped("manifests") / "kuma"
GROUP = "kuma.io"


@contextmanager
def installed(cluster: Cluster, folder: Path) -> Iterator[Owner]:
    """Kuma for a run of its own, ready, with its mesh; everything of the run is gone afterwards."""
    assert kuma.present(cluster) == ""
    owner = Owner(cluster, f"t-kuma-{secrets.token_hex(3)}", Journal(folder / "journal.jsonl"), Watch())
    try:
        owner.apply_all(kuma.render(InstallOptions()), "kuma")
        kuma.wait_ready(cluster, timeout_s=120, watch=owner.watch)
        owner.apply_all(kuma.base_objects(), "kuma")
        yield owner
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        owner.journal.close()


# --- the way back, from half-way states -------------------------------------------------------------------------


def test_a_control_plane_that_never_ran_goes_without_a_trace(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """Webhooks behind which nobody ever answered do not keep anything from going."""
    assert kuma.present(cluster) == ""
    owner = Owner(cluster, f"t-kuma-{secrets.token_hex(3)}", Journal(tmp_path / "journal.jsonl"), Watch())
    try:
        for thing in kuma.render(InstallOptions()):
            owner.apply(_without_pods(thing), "kuma")
        assert "Deployment kuma-system/kuma-control-plane" in kuma.present(cluster)
        with pytest.raises(ClusterError, match="failed calling webhook"):
            cluster.apply(kuma.base_objects()[0], dry_run=True)
        with pytest.raises(DeployError, match="no control plane of Kuma runs"):
            kuma.admin(cluster, "one", "/certs", namespace="default")
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        owner.journal.close()
    assert traces(cluster, "kuma") == set()
    assert kuma.present(cluster) == ""


def _without_pods(thing: Object) -> Object:
    return {**thing, "spec": {**thing["spec"], "replicas": 0}} if thing["kind"] == "Deployment" else thing


def test_a_mesh_whose_control_plane_has_gone_is_removed(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """Somebody took the control plane from under its mesh, policies and what it made itself: all of it goes."""
    with installed(cluster, tmp_path) as owner:
        name = f"{owner.run_id}-app"
        apply_namespace(owner, name, **kuma.namespace_labels())
        owner.apply_all(kuma.mesh_objects(written(MANIFESTS / "policies"), name), "policy")
        until(lambda: {"Zone default"} - {str(ref) for ref in kuma.own_leftovers(cluster)})
        cluster.delete(Ref("apps/v1", "Deployment", "kuma-control-plane", kuma.NAMESPACE))
        cluster.delete(Ref("v1", "Service", "kuma-control-plane", kuma.NAMESPACE))
    assert traces(cluster, "kuma") == set()
    assert kuma.own_leftovers(cluster) == ()


# --- Bookinfo with the shipped policies -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def owner(cluster: Cluster, kumactl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Kuma, shared by the tests that follow."""
    build_bookinfo()
    with installed(cluster, tmp_path_factory.mktemp("kuma")) as owner:
        yield owner


@pytest.fixture(scope="module", params=["policies", "policies-legacy"])
def deployed(request: pytest.FixtureRequest, owner: Owner) -> Iterator[Deployed]:
    """Bookinfo with reviews v3, once with each form of the policies, and all of it taken back."""
    deployed = deploy(owner, kuma, MANIFESTS / request.param)
    yield deployed
    take_back(owner, deployed.policies, deployed.spaces)


def take_back(owner: Owner, policies: tuple[Object, ...], spaces: tuple[str, ...]) -> None:
    """As a run does between trials: what is in namespaces goes with them, and the mesh is as it was."""
    refs = [Ref("v1", "Namespace", space) for space in spaces]
    elsewhere = [thing for thing in policies if thing["metadata"].get("namespace") not in spaces]
    refs += [ref for thing in elsewhere if (ref := ref_of_policy(thing)).kind != "Mesh"]
    for ref in refs:
        owner.remove(ref)
    owner.apply_all(kuma.base_objects(), "kuma")
    for ref in kuma.made_for(policies):
        owner.cluster.delete(ref)
    until(lambda: [ref for ref in (*refs, *kuma.made_for(policies)) if owner.cluster.get(ref)], timeout_s=90)


def ref_of_policy(thing: Object) -> Ref:
    metadata = thing["metadata"]
    return Ref(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace", ""))


def broken(deployed: Deployed) -> list[Any]:
    own = deployed.sidecars.own_ids()
    # The older form names a pod without a Service after the pod, and the load's own pod is called `locust`.
    own["locust"] = tuple(name.replace(f"/{pod_name('locust')}_", "/locust_") for name in own["locust"])
    return failures(deployed, own)


def test_the_kubelets_probes_are_not_counted(deployed: Deployed) -> None:
    """Pods that the kubelet has asked until they were ready have passed no request on: what is counted is load."""
    for workload in deployed.meshed.application.workloads:
        inbound = deployed.meshed.mesh.inbound_cluster(workload)
        assert deployed.first[workload.name].get(inbound, 0) == 0


def test_every_pod_has_a_native_sidecar_with_two_workers(deployed: Deployed) -> None:
    """Injected as an init container that goes on running, with as many worker threads as Istio's."""
    pods = deployed.pods()
    assert [proof for proof in mesh_evidence(pods, kuma.SIDECAR) if not proof.ok] == []
    for pod in pods:
        (sidecar,) = (one for one in pod["spec"]["initContainers"] if one["name"] == kuma.SIDECAR)
        assert sidecar["restartPolicy"] == "Always"
    name = deployed.sidecars.pods["details"]
    path = "/stats?format=json&filter=^server.concurrency$"
    told = kuma.admin(deployed.cluster, name, path, namespace=deployed.namespace)
    assert told == '{"stats": [{"name": "server.concurrency", "value": 2}]}'


def test_the_placed_policies_take_effect(deployed: Deployed) -> None:
    """In a namespace of another name: mutual TLS with its identities on each hop, plain text refused, and each policy's
    allowed and denied request answered right."""
    until(lambda: broken(deployed), timeout_s=90)
    assert broken(deployed) == []


def test_both_sidecars_of_a_hop_count_its_requests(deployed: Deployed) -> None:
    """Seven requests are seven at the caller and seven at the callee; handshakes are counted as TLS 1.2."""
    application, mesh = deployed.meshed.application, deployed.meshed.mesh
    service = next(one for one in application.services if one.name == "productpage")
    outbound = mesh.outbound_cluster(deployed.meshed.policies, application, service)
    before = deployed.sidecars.requests()
    answers = deployed.prober.ask([Question("locust", "productpage", path="/health")] * 7)
    assert {answer.status for answer in answers} == {200}
    now = deployed.sidecars.requests()
    assert now["locust"][outbound] - before["locust"].get(outbound, 0) == 7
    inbound = mesh.inbound_cluster(service.workload)
    assert now["productpage"][inbound] - before["productpage"].get(inbound, 0) == 7
    tls = deployed.sidecars.tls(["productpage"])["productpage"]
    (agreed,) = (name for name, count in tls.items() if "_9080.ssl.versions.TLSv1.2" in name and count)
    assert agreed.startswith("listener.")
    assert not any("_9901." in name for name in tls)


def test_a_pod_outside_the_mesh_is_behind(deployed: Deployed) -> None:
    """Who has no sidecar has acknowledged nothing; everybody else has."""
    until(deployed.unsynced)
    outside = kuma.unsynced(deployed.cluster, deployed.prober.outside, ["probe-outside"])
    assert outside == "probe-outside is not connected to the control plane"


def test_a_sidecar_that_does_not_answer_is_behind(deployed: Deployed) -> None:
    """A sidecar that is stopped has not acknowledged a change, and has once it goes on."""
    pod = deployed.sidecars.pods["ratings"]
    timeout = {
        "name": f"t-{secrets.token_hex(3)}",
        "namespace": deployed.namespace,
        "labels": {"kuma.io/mesh": "default"},
    }
    default = {"http": {"requestTimeout": "14s"}}
    spec = {"targetRef": {"kind": "Dataplane"}, "to": [{"targetRef": {"kind": "Mesh"}, "default": default}]}

    def signal(name: str) -> None:
        argv = ["sh", "-c", f"kill -{name} $(pgrep -x envoy)"]
        ran = deployed.cluster.exec(pod, argv, namespace=deployed.namespace, container=kuma.SIDECAR)
        assert ran.exit_code == 0, ran.stderr

    until(deployed.unsynced)
    signal("STOP")
    try:
        thing = {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTimeout", "metadata": timeout, "spec": spec}
        deployed.owner.apply(thing, "policy")
        until(lambda: f"{pod} has not acknowledged" not in deployed.unsynced(), timeout_s=20)
    finally:
        signal("CONT")
    until(deployed.unsynced)


def test_the_control_plane_checks_a_policy_before_it_is_applied(deployed: Deployed) -> None:
    """A dry run is refused in Kuma's words where a policy is well formed and still makes no sense."""
    metadata = {"name": "never", "namespace": deployed.namespace, "labels": {"kuma.io/mesh": "default"}}
    allow = [{"spiffeID": {"type": "Prefix", "value": "spiffe://default.default.mesh.local/"}}]
    spec = {"targetRef": {"kind": "Dataplane"}, "rules": [{"default": {"allow": allow}}]}
    policy = {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTrafficPermission", "metadata": metadata, "spec": spec}
    with pytest.raises(ClusterError, match="spiffeID"):
        deployed.cluster.apply(policy, dry_run=True)
