"""Istio on a real cluster: rendered by istioctl, applied by meshbench, proven with Bookinfo, and removed without a
trace.

The lab's sidecars are upstream Envoy: its own values file has what that requires of istiod.
"""

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, DeployError
from bench.files.folders import find_shipped
from bench.k8s.client import Cluster, ref_of
from bench.k8s.ownership import Owner
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.istio import control_plane as istio
from bench.meshes.istio.install import sidecars
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.probes.injection import read_mesh_state
from bench.targets.cluster.teardown.cleanup import clean_cluster
from bench.verification.counts import policies_of, read_requests
from bench.verification.questions import Question
from tests.cluster.deployed import (
    Deployed,
    apply_namespace,
    deploy,
    find_failed_proofs,
    list_mesh_objects,
    wait_until_empty,
)
from tests.cluster.lab_images import MESHLAB, build_bookinfo

VALUES = MESHLAB.parent / "istio-values.yaml"
POLICIES = find_shipped("manifests") / "istio/policies"
HARMLESS = {"selector": {"matchLabels": {"app": "no-app"}}, "action": "DENY", "rules": [{}]}


@pytest.fixture(scope="module")
def istioctl(lab_kubeconfig: Path) -> Iterator[str]:
    """The lab's istioctl, on PATH."""
    tools = lab_kubeconfig.parents[1] / "cli"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools), prepend=":")
        yield str(tools / "istioctl")


@contextmanager
def installed(cluster: Cluster, folder: Path, options: InstallOptions) -> Iterator[Owner]:
    """Istio for one run, ready; everything of the run is deleted afterwards."""
    assert istio.find_installed(cluster) == ""
    with owned(cluster, folder) as owner:
        owner.apply_all(istio.render(options), "istio")
        istio.wait_ready(cluster, timeout_s=120, watch=owner.watch)
        yield owner


@contextmanager
def owned(cluster: Cluster, folder: Path) -> Iterator[Owner]:
    """The owner of objects of one run; everything of it is deleted afterwards."""
    owner = Owner(cluster, f"t-istio-{secrets.token_hex(3)}", Journal(folder / "journal.jsonl"), CancelToken())
    try:
        yield owner
    finally:
        clean_cluster(cluster, owner.run_id, watch=owner.watch)
        owner.journal.close()


# --- without the Istio that the other tests share -------------------------------------------------------------


def test_revision_is_installed_and_removed_without_a_trace(cluster: Cluster, istioctl: str, tmp_path: Path) -> None:
    """With a revision only the namespaces that name it get sidecars; after the removal no object of Istio is left."""
    with installed(cluster, tmp_path, InstallOptions(values=(VALUES,), revision="canary")) as owner:
        assert "Deployment istio-system/istiod-canary" in istio.find_installed(cluster)
        made = []
        for revision in ("canary", ""):
            name = f"{owner.run_id}-{revision or 'default'}"
            apply_namespace(owner, name, **istio.namespace_labels(revision))
            pod = {"name": "one", "namespace": name}
            spec = {"containers": [{"name": "one", "image": "one"}]}
            thing = {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec}
            made.append(len(sidecars(cluster.apply(thing, dry_run=True)["spec"])))
        assert made == [1, 0]
        left = {str(ref_of(one)) for one in istio.find_leftovers(cluster, since="")}
        assert "ConfigMap default/istio-ca-root-cert" in left
    assert list_mesh_objects(cluster, "istio") == set()
    assert istio.find_installed(cluster) == ""


def test_missing_istiod_is_reported(cluster: Cluster) -> None:
    """Without a running istiod, a query of it ends with a message."""
    with pytest.raises(DeployError, match="there is no istiod in istio-system"):
        istio.wait_ready(cluster, timeout_s=1, watch=CancelToken())
    with pytest.raises(DeployError, match="no istiod runs in istio-system"):
        istio.find_unsynced(cluster, "default", ["one"])


def test_istioctl_error_is_reported(istioctl: str, tmp_path: Path) -> None:
    """A value that Istio does not know is invalid input, with istioctl's message and the file's name."""
    values = tmp_path / "mine.yaml"
    spec = "spec: {values: {pilot: {nope: 1}}}"
    values.write_text(f"apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n{spec}\n", "utf-8")
    with pytest.raises(Exception, match=r'mine.yaml.*unknown field "nope"') as caught:
        istio.render(InstallOptions(values=(values,)))
    assert type(caught.value).__name__ == "InputError"


# --- Bookinfo with the shipped policies -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(
    cluster: Cluster, existing_istio: None, istioctl: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """Istio's policies, then Bookinfo with reviews v3."""
    build_bookinfo()
    with owned(cluster, tmp_path_factory.mktemp("istio")) as owner:
        yield deploy(owner, istio, POLICIES)


def test_kubelet_probes_are_not_counted(deployed: Deployed) -> None:
    """Pods that got only the kubelet's probes have passed no request on: only load is counted."""
    for workload in deployed.application.workloads:
        inbound = deployed.data_plane.inbound_cluster(workload)
        assert deployed.first[workload.name].get(inbound, 0) == 0


def test_every_pod_has_a_native_sidecar_with_two_workers(deployed: Deployed) -> None:
    """It is injected as an init container that keeps running, with the CPU limit that gives two worker threads."""
    pods = deployed.pods()
    state = read_mesh_state(pods, istio.SIDECAR)
    assert (state.pods, state.missing, state.restarts) == (len(pods), (), ())
    for pod in pods:
        (sidecar,) = sidecars(pod["spec"])
        assert sidecar in pod["spec"]["initContainers"]
        assert (sidecar["restartPolicy"], sidecar["resources"]["limits"]["cpu"]) == ("Always", "2")
    name = deployed.sidecars["details"]
    stats = istio.admin(deployed.cluster, name, "/stats?filter=server.concurrency", namespace=deployed.namespace)
    assert stats.strip() == "server.concurrency: 2"


def test_policies_take_effect_in_another_namespace(deployed: Deployed) -> None:
    """In a namespace of another name: mutual TLS with its identities on each hop, plaintext refused, and each policy's
    allowed and denied request answered correctly."""
    wait_until_empty(lambda: find_failed_proofs(deployed, deployed.identities()))


def test_both_sidecars_of_a_hop_count_its_requests(deployed: Deployed) -> None:
    """Seven requests are seven at the caller and seven at the callee; handshakes are counted as TLS 1.3."""
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
    assert tls["listener.0.0.0.0_15006.ssl.versions.TLSv1.3"] > 0
    assert not any("TLSv1.2" in name for name in tls)


def test_synced_agrees_with_istioctl(deployed: Deployed, istioctl: str) -> None:
    """Our answer and `istioctl proxy-status` agree on who is connected and synced; a pod without a sidecar is not."""
    argv = [istioctl, "--kubeconfig", str(deployed.cluster.kubeconfig), "proxy-status", "-o", "json"]
    proxies = {f"{pod['metadata']['name']}.{deployed.namespace}" for pod in deployed.pods()}

    def behind() -> list[Any]:
        unsynced = deployed.unsynced()
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        configs = {one["node"]["id"]: one["genericXdsConfigs"] for one in json.loads(ran.stdout)["resources"]}
        states = {config["configStatus"] for name in proxies & configs.keys() for config in configs[name]}
        return [*filter(None, [unsynced]), *(proxies - configs.keys()), *(states - {"SYNCED"})]

    wait_until_empty(behind)
    outside = istio.find_unsynced(deployed.cluster, deployed.prober.outside, ["probe-outside"])
    assert outside == "probe-outside is connected to no istiod"


def test_stopped_sidecar_is_not_synced(deployed: Deployed) -> None:
    """A stopped sidecar has not acknowledged a change, and has once it continues."""
    pod = deployed.sidecars["ratings"]

    def signal(name: str) -> None:
        argv = ["sh", "-c", f"kill -{name} $(pgrep -x envoy)"]
        ran = deployed.cluster.exec(pod, argv, namespace=deployed.namespace, container=istio.SIDECAR)
        assert ran.exit_code == 0, ran.stderr

    wait_until_empty(deployed.unsynced)
    signal("STOP")
    try:
        policy = deployed.apply("security.istio.io/v1", "AuthorizationPolicy", HARMLESS)
        wait_until_empty(lambda: f"{pod} has not acknowledged" not in deployed.unsynced())
    finally:
        signal("CONT")
    wait_until_empty(deployed.unsynced)
    deployed.owner.remove(policy)


def test_rejected_configuration_is_reported(deployed: Deployed) -> None:
    """What Envoy does not accept is reported with Envoy's reason; without it the sidecar is synced again."""
    lua = {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua", "inlineCode": "no lua at all"}
    patch = {"operation": "INSERT_BEFORE", "value": {"name": "bad", "typed_config": lua}}
    match = {"context": "SIDECAR_INBOUND"}
    spec = {
        "workloadSelector": {"labels": {"app": "ratings"}},
        "configPatches": [{"applyTo": "HTTP_FILTER", "match": match, "patch": patch}],
    }
    bad = deployed.apply("networking.istio.io/v1alpha3", "EnvoyFilter", spec)
    try:
        wait_until_empty(lambda: "has rejected its configuration: " not in deployed.unsynced())
        assert "script load error" in deployed.unsynced()
    finally:
        deployed.owner.remove(bad)
    wait_until_empty(deployed.unsynced)


def test_istiod_validates_policy_in_dry_run(deployed: Deployed) -> None:
    """A dry run of a well-formed but invalid policy is refused with istiod's message."""
    metadata = {"name": "never", "namespace": deployed.namespace}
    policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata}
    with pytest.raises(ClusterError, match="DENY action without `rules` is meaningless"):
        deployed.cluster.apply({**policy, "spec": {"action": "DENY"}}, dry_run=True)


def test_istiod_generation_of_policies_is_checked(deployed: Deployed) -> None:
    """Every applied policy is found at istiod in its newest generation, also after a change; a deleted one is an
    error."""
    assert istio.find_unaccepted(deployed.cluster, deployed.policies) == ""
    ref = deployed.apply("security.istio.io/v1", "AuthorizationPolicy", HARMLESS)
    thing = deployed.cluster.get(ref)
    assert thing is not None
    assert thing["metadata"]["generation"] == 1
    changed = {
        "apiVersion": ref.api_version,
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace},
    }
    deployed.owner.apply({**changed, "spec": {**HARMLESS, "action": "ALLOW"}}, "policy")
    wait_until_empty(lambda: istio.find_unaccepted(deployed.cluster, [thing]))
    deployed.owner.remove(ref)
    with pytest.raises(DeployError, match="is not on the cluster"):
        istio.find_unaccepted(deployed.cluster, [thing])


def test_missing_sidecar_is_an_error(deployed: Deployed) -> None:
    """A query of a pod that does not exist, or of a page that Envoy does not have, ends with the pod's name."""
    with pytest.raises(DeployError, match=f"the sidecar of {deployed.namespace}/missing does not answer GET /certs"):
        istio.admin(deployed.cluster, "missing", "/certs", namespace=deployed.namespace)
    pod = deployed.sidecars["details"]
    with pytest.raises(DeployError, match=rf"{pod} answered GET /stats\?filter=\(\( with 400: Invalid re2 regex"):
        istio.admin(deployed.cluster, pod, "/stats?filter=((", namespace=deployed.namespace)
