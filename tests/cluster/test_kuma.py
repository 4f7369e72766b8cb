"""Kuma on a real cluster: rendered by kumactl, applied by meshbench, proven with Bookinfo, and removed without a trace.

The lab has no source of Kuma's images: without them, or without kumactl on PATH, this is skipped.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, DeployError
from bench.files.folders import find_shipped
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import Owner
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.kuma import control_plane as kuma
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.probes.injection import read_mesh_state
from bench.targets.cluster.probes.pods import pod_name
from bench.targets.cluster.teardown.cleanup import clean_cluster
from bench.verification.counts import policies_of, read_requests
from bench.verification.questions import Question
from tests.cluster.deployed import (
    Deployed,
    apply_namespace,
    deploy,
    find_failed_proofs,
    list_mesh_objects,
    read_manifests,
    wait_until_empty,
)
from tests.cluster.job import delete_named
from tests.cluster.lab_images import build_bookinfo
from tests.moving import move_objects

MANIFESTS = find_shipped("manifests") / "kuma"
GROUP = "kuma.io"


@contextmanager
def installed(cluster: Cluster, folder: Path) -> Iterator[Owner]:
    """Kuma for one run, ready, with its mesh; everything of the run is deleted afterwards."""
    assert kuma.find_installed(cluster) == ""
    owner = Owner(cluster, f"t-kuma-{secrets.token_hex(3)}", Journal(folder / "journal.jsonl"), CancelToken())
    try:
        owner.apply_all(kuma.render(InstallOptions()), "kuma")
        kuma.wait_ready(cluster, timeout_s=120, watch=owner.watch)
        owner.apply_all(kuma.base_objects(), "policy")
        yield owner
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        owner.journal.close()


# --- removal from partial states --------------------------------------------------------------------------------


def test_control_plane_that_never_ran_is_removed(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """Webhooks whose service never responded block no deletion."""
    assert kuma.find_installed(cluster) == ""
    owner = Owner(cluster, f"t-kuma-{secrets.token_hex(3)}", Journal(tmp_path / "journal.jsonl"), CancelToken())
    try:
        for thing in kuma.render(InstallOptions()):
            owner.apply(_without_pods(thing), "kuma")
        assert "Deployment kuma-system/kuma-control-plane" in kuma.find_installed(cluster)
        with pytest.raises(ClusterError, match="failed calling webhook"):
            cluster.apply(kuma.base_objects()[0], dry_run=True)
        with pytest.raises(DeployError, match="no control plane of Kuma runs"):
            kuma.admin(cluster, "one", "/certs", namespace="default")
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        owner.journal.close()
    assert list_mesh_objects(cluster, "kuma") == set()
    assert kuma.find_installed(cluster) == ""


def _without_pods(thing: Object) -> Object:
    return {**thing, "spec": {**thing["spec"], "replicas": 0}} if thing["kind"] == "Deployment" else thing


def test_mesh_without_control_plane_is_removed(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """The control plane was deleted before its mesh, policies and own objects: all of them are removed."""
    with installed(cluster, tmp_path) as owner:
        name = f"{owner.run_id}-app"
        apply_namespace(owner, name, **kuma.namespace_labels())
        owner.apply_all(move_objects("kuma", read_manifests(MANIFESTS / "policies"), name), "policy")
        wait_until_empty(
            lambda: {"Zone default"} - {str(ref_of(one)) for one in kuma.find_leftovers(cluster, since="")}
        )
        delete_named(cluster, Ref("apps/v1", "Deployment", "kuma-control-plane", kuma.NAMESPACE))
        delete_named(cluster, Ref("v1", "Service", "kuma-control-plane", kuma.NAMESPACE))
    assert list_mesh_objects(cluster, "kuma") == set()
    assert kuma.find_leftovers(cluster, since="") == ()


# --- Bookinfo with the shipped policies -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def owner(cluster: Cluster, kumactl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Kuma, shared by the tests that follow."""
    build_bookinfo()
    with installed(cluster, tmp_path_factory.mktemp("kuma")) as owner:
        yield owner


@pytest.fixture(scope="module", params=["policies", "policies-legacy"])
def deployed(request: pytest.FixtureRequest, owner: Owner) -> Iterator[Deployed]:
    """Bookinfo with reviews v3, once with each form of the policies, removed afterwards."""
    deployed = deploy(owner, kuma, MANIFESTS / request.param)
    yield deployed
    remove_policies(owner, deployed.policies, deployed.spaces)


def remove_policies(owner: Owner, policies: tuple[Object, ...], spaces: tuple[str, ...]) -> None:
    """Remove policies as a run does between trials: namespaced ones are deleted with their namespace, and the mesh is
    as before."""
    refs = [Ref("v1", "Namespace", space) for space in spaces]
    elsewhere = [thing for thing in policies if thing["metadata"].get("namespace") not in spaces]
    refs += [ref for thing in elsewhere if (ref := ref_of(thing)).kind != "Mesh"]
    for ref in refs:
        owner.remove(ref)
    owner.apply_all(kuma.base_objects(), "policy")
    for ref in kuma.list_generated(policies):
        delete_named(owner.cluster, ref)
    wait_until_empty(
        lambda: [ref for ref in (*refs, *kuma.list_generated(policies)) if owner.cluster.get(ref)], timeout_s=90
    )


def broken(deployed: Deployed) -> list[Any]:
    own = deployed.identities()
    # The older form names a pod without a Service after the pod, and the load's own pod is called `locust`.
    own["locust"] = tuple(name.replace(f"/{pod_name('locust')}_", "/locust_") for name in own["locust"])
    return find_failed_proofs(deployed, own)


def test_kubelet_probes_are_not_counted(deployed: Deployed) -> None:
    """Pods that got only the kubelet's probes have passed no request on: only load is counted."""
    for workload in deployed.application.workloads:
        inbound = deployed.data_plane.inbound_cluster(workload)
        assert deployed.first[workload.name].get(inbound, 0) == 0


def test_every_pod_has_a_native_sidecar_with_two_workers(deployed: Deployed) -> None:
    """It is injected as an init container that keeps running, with as many worker threads as Istio's."""
    pods = deployed.pods()
    state = read_mesh_state(pods, kuma.SIDECAR)
    assert (state.pods, state.missing, state.restarts) == (len(pods), (), ())
    for pod in pods:
        (sidecar,) = (one for one in pod["spec"]["initContainers"] if one["name"] == kuma.SIDECAR)
        assert sidecar["restartPolicy"] == "Always"
    name = deployed.sidecars["details"]
    path = "/stats?format=json&filter=^server.concurrency$"
    stats = kuma.admin(deployed.cluster, name, path, namespace=deployed.namespace)
    assert stats == '{"stats": [{"name": "server.concurrency", "value": 2}]}'


def test_policies_take_effect_in_another_namespace(deployed: Deployed) -> None:
    """In a namespace of another name: mutual TLS with its identities on each hop, plaintext refused, and each policy's
    allowed and denied request answered correctly."""
    wait_until_empty(lambda: broken(deployed), timeout_s=90)
    assert broken(deployed) == []


def test_both_sidecars_of_a_hop_count_its_requests(deployed: Deployed) -> None:
    """Seven requests are seven at the caller and seven at the callee; handshakes are counted as TLS 1.2."""
    application, policies = deployed.application, policies_of(deployed.configuration)
    service = next(one for one in application.services if one.name == "productpage")
    outbound = policies.outbound_cluster(application, service)
    before = read_requests(deployed.data_plane, deployed.proxies)
    answers = deployed.prober.ask([Question("locust", "productpage", path="/health")] * 7)
    assert {answer.status for answer in answers} == {200}
    now = read_requests(deployed.data_plane, deployed.proxies)
    assert now["locust"][outbound] - before["locust"].get(outbound, 0) == 7
    inbound = deployed.data_plane.inbound_cluster(service.workload)
    assert now["productpage"][inbound] - before["productpage"].get(inbound, 0) == 7
    tls = deployed.data_plane.handshakes(deployed.proxies["productpage"])
    (agreed,) = (name for name, count in tls.items() if "_9080.ssl.versions.TLSv1.2" in name and count)
    assert agreed.startswith("listener.")
    assert not any("_9901." in name for name in tls)


def test_pod_outside_the_mesh_is_not_synced(deployed: Deployed) -> None:
    """A pod without a sidecar has acknowledged nothing; all others have."""
    wait_until_empty(deployed.unsynced)
    outside = kuma.find_unsynced(deployed.cluster, deployed.prober.outside, ["probe-outside"])
    assert outside == "probe-outside is not connected to the control plane"


def test_stopped_sidecar_is_not_synced(deployed: Deployed) -> None:
    """A stopped sidecar has not acknowledged a change, and has once it continues."""
    pod = deployed.sidecars["ratings"]
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

    wait_until_empty(deployed.unsynced)
    signal("STOP")
    try:
        thing = {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTimeout", "metadata": timeout, "spec": spec}
        deployed.owner.apply(thing, "policy")
        wait_until_empty(lambda: f"{pod} has not acknowledged" not in deployed.unsynced(), timeout_s=20)
    finally:
        signal("CONT")
    wait_until_empty(deployed.unsynced)


def test_control_plane_validates_policy_in_dry_run(deployed: Deployed) -> None:
    """A dry run of a well-formed but invalid policy is refused with Kuma's message."""
    metadata = {"name": "never", "namespace": deployed.namespace, "labels": {"kuma.io/mesh": "default"}}
    allow = [{"spiffeID": {"type": "Prefix", "value": "spiffe://default.default.mesh.local/"}}]
    spec = {"targetRef": {"kind": "Dataplane"}, "rules": [{"default": {"allow": allow}}]}
    policy = {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTrafficPermission", "metadata": metadata, "spec": spec}
    with pytest.raises(ClusterError, match="spiffeID"):
        deployed.cluster.apply(policy, dry_run=True)
