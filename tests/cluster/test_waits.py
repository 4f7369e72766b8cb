"""Waits on a real cluster: each failure of pods to start ends with its reason."""

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DeployError, Interrupted
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.wait import Pods, wait_for, wait_for_rollout, wait_until_deleted
from bench.system.cancellation import CancelToken
from bench.system.timing import Timing
from tests.cluster.job import delete_named
from tests.cluster.lab import CONTEXT

IMAGE = "locustio/locust:2.47.0"
FOREVER = "import signal; signal.pause()"


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of one test."""
    name = f"t-waits-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        delete_named(cluster, Ref("v1", "Namespace", name))


def _container(program: str = FOREVER, **more: Any) -> dict[str, Any]:
    command = ["python", "-c", program]
    return {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command, **more}


def _deployment(namespace: str, *containers: dict[str, Any], name: str = "app", **spec: Any) -> Object:
    labels = {"app": name}
    pod = {"terminationGracePeriodSeconds": 0, "containers": list(containers), **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


@pytest.fixture
def short_grace(lab_kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The lab, where a state counts as final after a fifth of the usual time."""
    monkeypatch.setenv("KUBECONFIG", str(lab_kubeconfig))
    with open_cluster(CONTEXT, private_folder=tmp_path, timing=Timing(grace=0.2)) as opened:
        yield opened


def _failure(cluster: Cluster, namespace: str, *, timeout_s: float = 60) -> str:
    with pytest.raises(DeployError) as caught:
        wait_for_rollout(cluster, namespace, ["app"], timeout_s=timeout_s, watch=CancelToken())
    return str(caught.value)


def test_rollout_ends_when_new_pods_are_available(cluster: Cluster, namespace: str) -> None:
    """So does a second rollout, which leaves no pod of the first."""
    cluster.apply(_deployment(namespace, _container()))
    wait_for_rollout(cluster, namespace, ["app"], timeout_s=60, watch=CancelToken())
    (first,) = cluster.list("v1", "Pod", namespace=namespace)
    cluster.apply(_deployment(namespace, _container(env=[{"name": "A", "value": "1"}])))
    wait_for_rollout(cluster, namespace, ["app"], timeout_s=60, watch=CancelToken())
    pods = [one for one in cluster.list("v1", "Pod", namespace=namespace) if "deletionTimestamp" not in one["metadata"]]
    assert len(pods) == 1
    assert pods[0]["metadata"]["uid"] != first["metadata"]["uid"]


def test_daemon_set_wait_needs_a_pod_per_node(short_grace: Cluster, namespace: str) -> None:
    """As a mesh's CNI plugin; one that cannot start has a reason, as a Deployment does."""
    cluster, daemons = short_grace, {**_deployment(namespace, _container()), "kind": "DaemonSet"}
    cluster.apply(daemons)
    wait_for_rollout(cluster, namespace, ["app"], kind="DaemonSet", timeout_s=60, watch=CancelToken())
    (pod,) = cluster.list("v1", "Pod", namespace=namespace)
    assert {one["status"] for one in pod["status"]["conditions"] if one["type"] == "Ready"} == {"True"}
    cluster.apply({**_deployment(namespace, _container(image="registry.example/none:1")), "kind": "DaemonSet"})
    with pytest.raises(DeployError, match=r"DaemonSet .*/app: 0 of 1 pods available, will not become ready: Pod app-"):
        wait_for_rollout(cluster, namespace, ["app"], kind="DaemonSet", timeout_s=120, watch=CancelToken())


def test_missing_image_fails_after_its_grace_period(short_grace: Cluster, namespace: str) -> None:
    """The message has image, container and the error of the pull."""
    short_grace.apply(_deployment(namespace, _container(image="registry.example/none:1")))
    started = time.monotonic()
    text = _failure(short_grace, namespace, timeout_s=300)
    assert 5 < time.monotonic() - started < 120
    assert "0 of 1 pods available, will not become ready: Pod app-" in text
    assert "container main: waits" in text
    assert "registry.example/none:1" in text
    assert re.search("event Pod app-.*: Failed: .*lookup registry.example", text)


def test_crashing_sidecar_fails_with_its_log(cluster: Cluster, namespace: str) -> None:
    """The wait fails though the sidecar is a native one, and the application's own container is ready."""
    program = "import sys; print('no certificate for me'); sys.exit(41)"
    sidecar = _container(program, restartPolicy="Always") | {"name": "sidecar"}
    cluster.apply(_deployment(namespace, _container(), initContainers=[sidecar]))
    text = _failure(cluster, namespace, timeout_s=120)
    # Between two restarts Kubernetes may show the back-off, or the last termination.
    assert re.search("container sidecar: (waits, CrashLoopBackOff|ended with exit code 41)", text)
    assert "ended with exit code 41: Error" in text
    assert "    | no certificate for me" in text


def test_quota_is_named_without_a_pod(short_grace: Cluster, namespace: str) -> None:
    """The wait fails after a while in which nothing else happened."""
    metadata = {"name": "small", "namespace": namespace}
    short_grace.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "0"}}}
    )
    short_grace.apply(_deployment(namespace, _container()))
    started = time.monotonic()
    text = _failure(short_grace, namespace)
    assert 3 < time.monotonic() - started < 20
    assert "Deployment app: FailedCreate: " in text
    assert re.search("event ReplicaSet app-.*: FailedCreate: .*exceeded quota: small", text)


def test_unschedulable_pod_names_what_nodes_lack(cluster: Cluster, namespace: str) -> None:
    """The wait fails at its timeout; until then a node may be added."""
    cluster.apply(_deployment(namespace, _container(resources={"requests": {"cpu": "1000"}})))
    text = _failure(cluster, namespace, timeout_s=3)
    assert "0 of 1 pods available, after 3 s" in text
    assert "waits for a node: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu" in text


def test_unready_pod_shows_its_log_and_probe(cluster: Cluster, namespace: str) -> None:
    """Both are needed to find the reason."""
    probe = {"exec": {"command": ["sh", "-c", "echo still loading; exit 1"]}, "periodSeconds": 1}
    program = f"print('loading', flush=True); {FOREVER}"
    cluster.apply(_deployment(namespace, _container(program, readinessProbe=probe)))
    text = _failure(cluster, namespace, timeout_s=8)
    assert "container main: runs, but is not ready" in text
    assert "    | loading" in text
    assert "Unhealthy: Readiness probe failed: still loading" in text


def test_missing_deployment_is_named(cluster: Cluster, namespace: str) -> None:
    """It was never created, or was deleted meanwhile."""
    assert _failure(cluster, namespace, timeout_s=0) == f"there is no Deployment {namespace}/app, after 0 s"


def test_pods_are_awaited_by_label(cluster: Cluster, namespace: str) -> None:
    """The wait ends when the condition holds for the existing pods; a failing one is still explained."""
    cluster.apply(_deployment(namespace, _container()))
    pods = Pods(namespace, "app=app")
    (pod,) = wait_for(cluster, pods, lambda found: len(found) == 1, timeout_s=30, watch=CancelToken())
    assert pod["metadata"]["labels"]["app"] == "app"
    with pytest.raises(DeployError, match=f"pods of {namespace} with app=none: not there, after 0 s"):
        wait_for(cluster, Pods(namespace, "app=none"), bool, timeout_s=0, watch=CancelToken())


def test_signal_ends_a_wait(cluster: Cluster, namespace: str) -> None:
    """The wait ends at the next check."""
    watch = CancelToken()
    watch.note(2, None)
    with pytest.raises(Interrupted):
        wait_until_deleted(cluster, namespace, timeout_s=60, watch=watch)


def test_deletion_blocker_of_a_namespace_is_reported(cluster: Cluster, namespace: str) -> None:
    """The finalizer without a controller is named; once it is removed, the namespace is deleted."""
    metadata = {"name": "held", "namespace": namespace, "finalizers": ["meshbench.dev/test"]}
    held = cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    with pytest.raises(DeployError, match=f"Namespace {namespace}: its deletion was not requested"):
        wait_until_deleted(cluster, namespace, timeout_s=0, watch=CancelToken())
    ref, place = Ref("v1", "ConfigMap", "held", namespace), Ref("v1", "Namespace", namespace)
    try:
        delete_named(cluster, place)
        wait_for(cluster, place, lambda found: "SomeFinalizersRemain" in str(found), timeout_s=60, watch=CancelToken())
        with pytest.raises(DeployError, match=r"NamespaceFinalizersRemaining: .*meshbench.dev/test"):
            wait_until_deleted(cluster, namespace, timeout_s=0, watch=CancelToken())
        with pytest.raises(DeployError, match=rf"{ref}: terminating; finalizer meshbench.dev/test"):
            wait_until_deleted(cluster, [ref], timeout_s=0, watch=CancelToken())
    finally:
        cluster.apply({**held, "metadata": {"name": "held", "namespace": namespace, "finalizers": []}})
    wait_until_deleted(cluster, [ref], timeout_s=30, watch=CancelToken())
    wait_until_deleted(cluster, namespace, timeout_s=60, watch=CancelToken())
