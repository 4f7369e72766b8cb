"""An existing mesh on the lab, installed with its own tool, and the changes that its user may make."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_until_deleted
from bench.meshes.istio import control_plane as istio
from bench.meshes.istio.install import probe_pod, sidecars
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.teardown.blockers import find_dangling_webhooks
from tests.cluster.job import MESH, delete_named
from tests.cluster.lab import home, kubeconfig

SYSTEM: Final = "istio-system"
ISTIOD: Final = Ref("apps/v1", "Deployment", "istiod", SYSTEM)
_INJECTORS: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.3


@contextmanager
def install_istio(cluster: Cluster) -> Iterator[None]:
    """Istio, ready, as `istioctl install` puts it there; removed by `istioctl uninstall` at the end."""
    _istioctl("install", "-y", "-f", MESH[1])
    try:
        istio.wait_ready(cluster, timeout_s=_TIMEOUT_S, watch=CancelToken())
        yield
    finally:
        _istioctl("uninstall", "-y", "--purge")
        place = Ref("v1", "Namespace", SYSTEM)
        delete_named(cluster, place)
        wait_until_deleted(cluster, [place], timeout_s=_TIMEOUT_S, watch=CancelToken())
        for made in istio.find_leftovers(cluster, since=""):
            cluster.delete(made)


def _istioctl(*arguments: str) -> None:
    argv = [str(home() / "cli" / "istioctl"), *arguments]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig())}
    subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=_TIMEOUT_S)


@contextmanager
def without_istiod(cluster: Cluster) -> Iterator[None]:
    """Scale Istio's control plane to 0 meanwhile; its webhooks stay registered."""
    _scale_istiod(cluster, 0)
    try:
        for pod in cluster.list("v1", "Pod", namespace=SYSTEM, labels="app=istiod"):
            cluster.delete(pod, grace_s=1)
        assert wait_until(
            lambda: find_dangling_webhooks(cluster), timeout_s=_TIMEOUT_S, watch=CancelToken(), poll_s=_POLL_S
        )
        yield
    finally:
        _scale_istiod(cluster, 1)
        istio.wait_ready(cluster, timeout_s=_TIMEOUT_S, watch=CancelToken())


@contextmanager
def without_injection(cluster: Cluster) -> Iterator[None]:
    """Exclude all pods from Istio's webhooks meanwhile, as after a user narrowed them to one namespace."""
    selector = {"matchLabels": {"meshbench.dev/excluded": "yes"}}
    no_pods = {"objectSelector": selector, "namespaceSelector": selector}
    with ExitStack() as stack:
        for injector in cluster.list(*_INJECTORS):  # the mesh's own, and that of its default revision
            narrowed = [{**one, **no_pods} for one in injector["webhooks"]]
            stack.enter_context(replace_fields(cluster, ref_of(injector), webhooks=narrowed))
        assert wait_until(lambda: not _is_injected(cluster), timeout_s=_TIMEOUT_S, watch=CancelToken(), poll_s=_POLL_S)
        yield
    assert wait_until(lambda: _is_injected(cluster), timeout_s=_TIMEOUT_S, watch=CancelToken(), poll_s=_POLL_S)


def _is_injected(cluster: Cluster) -> bool:
    return bool(sidecars(cluster.apply(probe_pod("default"), dry_run=True)["spec"]))


@contextmanager
def replace_fields(cluster: Cluster, ref: Ref, **fields: Any) -> Iterator[None]:
    """Replace these fields of an object meanwhile; then restore them."""
    before = cluster.get(ref)
    assert before is not None
    old = {key: before[key] for key in fields}
    _put(cluster, ref, fields)
    try:
        yield
    finally:
        _put(cluster, ref, old)


def _put(cluster: Cluster, ref: Ref, fields: Object) -> None:
    now = cluster.get(ref)
    assert now is not None
    cluster.replace({**now, **fields})


def _scale_istiod(cluster: Cluster, replicas: int) -> None:
    now = cluster.get(ISTIOD)
    assert now is not None
    cluster.change(now, {**now, "spec": {**now["spec"], "replicas": replicas}})
