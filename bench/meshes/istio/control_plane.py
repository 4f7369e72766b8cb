"""Implement `bench.meshes.cluster_protocol.ControlPlane` for Istio, with Istio's own tools.

What `bench.envoy.admin` finds in Istio's sidecars (observed with istiod 1.31, on both sides of a hop):

- requests, by cluster: at the caller `outbound|9080||details.NAMESPACE.svc.cluster.local`, at the callee
  `inbound|9080||`, which has no host before its first request and keeps it when idle. The counters of hosts are outside
  Istio's selection of statistics, and include retries.
- the kubelet's probes are not among them: Istio sends them to its agent, which bypasses the proxy.
- own identity: in the certificates, with any policies. The identities of peers are not available.
- retries, TLS versions and handshakes: only with `pod_annotations`. The callee has them as
  `listener.0.0.0.0_15006.ssl.*`, without an entry for plaintext connections.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.objects import is_selected
from bench.k8s.ownership import labels_of
from bench.k8s.pod_page import fetch_page
from bench.meshes.cluster_protocol import SidecarImage, Tool
from bench.meshes.istio.footprint import find_telemetry, list_mesh_settings, read_sidecar, scale_sidecars
from bench.meshes.istio.install import render, wait_ready
from bench.meshes.istio.istiod import ISTIOD as PODS
from bench.meshes.istio.istiod import find_unaccepted, find_unsynced
from bench.meshes.istio.policies import ROOT_NAMESPACE as NAMESPACE
from bench.meshes.istio.rights import rights
from bench.units import format_counted

__all__ = [
    "GATEWAY",
    "GATEWAY_KINDS",
    "INJECTION_LABELS",
    "NAME",
    "NAMESPACE",
    "PODS",
    "REVISIONS",
    "SIDECAR",
    "TOOL",
    "admin",
    "base_objects",
    "decision_annotations",
    "find_installed",
    "find_leftovers",
    "find_mismatches",
    "find_telemetry",
    "find_unaccepted",
    "find_unsynced",
    "gateway_pods",
    "list_generated",
    "namespace_labels",
    "outside_labels",
    "pod_annotations",
    "read_sidecar",
    "render",
    "rights",
    "scale_sidecars",
    "sidecar_image",
    "wait_ready",
]

NAME = "istio"
# 1.22 was the first to serve security.istio.io/v1, in which our policies are written.
TOOL = Tool("istioctl", ("version", "--remote=false"), (1, 22), "https://istio.io/latest/docs/setup/getting-started/")
SIDECAR = "istio-proxy"
GATEWAY = ""
GATEWAY_KINDS: tuple[str, ...] = ()  # a gateway's Deployment is the user's own
_REVISION: Final = "istio.io/rev"
INJECTION_LABELS: tuple[str, ...] = ("istio-injection", _REVISION, "istio.io/dataplane-mode")
REVISIONS = True

_ADMIN_PORT: Final = 15000

# What istiod puts into every namespace, and marks so: the root of its certificates, and what it has revoked.
_NAMESPACE_CONFIG: Final = "istio.io/config=true"
_CONFIGS: Final = ("istio-ca-root-cert", "istio-ca-crl")
_CLASSES: Final = ("istio", "istio-remote", "istio-waypoint", "istio-east-west")
_GATEWAY_CONTROLLERS: Final = "istio.io/"
_WEBHOOKS: Final = "admissionregistration.k8s.io/v1"
_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def gateway_pods(manifest: Object) -> tuple[Object, ...]:  # noqa: ARG001
    """Return nothing: see `GATEWAY_KINDS`."""
    return ()


def namespace_labels(revision: str = "", run_mesh: str = "") -> Mapping[str, str]:  # noqa: ARG001  # Istio has one mesh
    """Return the label of a namespace that gets sidecars; with a revision, from that control plane only."""
    return {_REVISION: revision} if revision else {"istio-injection": "enabled"}


def outside_labels() -> Mapping[str, str]:
    """Return the label of a pod that gets no sidecar, although its namespace does."""
    return {"sidecar.istio.io/inject": "false"}


_STATISTICS: Final = "sidecar.istio.io/statsInclusionRegexps"
_ALWAYS_COUNTED: Final = (r".*\.ssl\.(versions|ciphers|curves)\..*", r".*\.upstream_cx_http[12]_total")
_DECISIONS: Final = r".*\.(rbac|jwt_authn|fault|http_local_rate_limit|ext_authz)\..*"


def pod_annotations() -> Mapping[str, str]:
    """Return the annotations of every pod with a sidecar: statistics that proofs need, in addition to Istio's few.

    Each statistic costs memory, and CPU when it changes. These change with a connection, a handshake or a retry, never
    with an ordinary request. They are in the sidecar's start-up configuration, so they have no effect on a running pod.
    The local target's sidecars keep the same statistics.
    """
    return {
        "sidecar.istio.io/statsInclusionSuffixes": "ssl.handshake,upstream_rq_retry",
        _STATISTICS: ",".join(_ALWAYS_COUNTED),
    }


def decision_annotations() -> Mapping[str, str]:
    """Return the annotation, in place of the one of `pod_annotations`, with which sidecars also count what their
    filters decide about each request."""
    return {_STATISTICS: ",".join((*_ALWAYS_COUNTED, _DECISIONS))}


def sidecar_image(image: str, owner: str) -> SidecarImage:  # noqa: ARG001  # Istio needs no object for it
    """Return the annotation of a pod whose sidecar, and the container that sets up its redirection, have this image.

    Istio's template takes the annotation for a whole reference only if it has a slash; of any other it keeps nothing.
    """
    whole = image if "/" in image else f"docker.io/library/{image}"
    return SidecarImage(whole, {"sidecar.istio.io/proxyImage": whole})


def list_generated(objects: Sequence[Object]) -> tuple[Ref, ...]:  # noqa: ARG001  # the same for every mesh
    """Return nothing: istiod creates no object for a policy."""
    return ()


def base_objects(run_mesh: str = "") -> tuple[Object, ...]:  # noqa: ARG001  # the same for every mesh
    """Return nothing: istiod needs no object for a mesh without policies."""
    return ()


def admin(cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
    """Return the response to a GET on the admin interface of the pod's sidecar. Raises DeployError without one.

    The request uses a forwarded port, which is always available and four times as fast as Istio's agent in the
    container. That agent would also use the sidecar's own CPU.
    """
    who = f"the sidecar of {namespace}/{pod}"
    return fetch_page(cluster, pod, _ADMIN_PORT, namespace=namespace, path=path, who=who)


def find_installed(cluster: Cluster) -> str:
    """Return a text that lists the parts of Istio on the cluster; empty if there are none."""
    return ", ".join(_list_installed(cluster))


def _list_installed(cluster: Cluster) -> Iterator[str]:
    if cluster.get(Ref("v1", "Namespace", NAMESPACE)) is not None:
        yield f"namespace {NAMESPACE}"
    for deployment in cluster.list("apps/v1", "Deployment", labels="app=istiod"):
        yield str(ref_of(deployment))
    for kind in _WEBHOOK_KINDS:
        yield from (str(ref_of(one)) for one in cluster.list(_WEBHOOKS, kind) if _calls_istiod(one))
    if configs := _list_configs(cluster):  # istiod would overwrite them
        yield f"ConfigMap {configs[0]['metadata']['name']} in {format_counted(len(configs), 'namespace')}"
    groups = {kind.api_version.partition("/")[0] for kind in cluster.kinds()}
    own = sorted(group for group in groups if group.endswith(".istio.io"))
    if own:
        yield f"custom resources of {' '.join(own)}"


def _calls_istiod(configuration: Object) -> bool:
    services = [hook["clientConfig"].get("service", {}) for hook in configuration.get("webhooks", [])]
    return any(service.get("name", "").startswith("istiod") for service in services)


def find_mismatches(cluster: Cluster, namespace: Object) -> tuple[str, ...]:
    """Return the existing mesh-wide policies that would change what a configuration is, and the settings by which
    istiod would not know the run's namespaces, as texts."""
    modes = [
        one for one in _list_mesh_wide(cluster, "PeerAuthentication") if _mode(one) not in ("", "UNSET", "PERMISSIVE")
    ]
    allowing = [one for one in _list_mesh_wide(cluster, "AuthorizationPolicy") if _action(one) == "ALLOW"]
    return (
        *(f"{ref_of(one)} has mode {_mode(one)} for the whole mesh, and so for the run's namespace" for one in modes),
        *(
            f"{ref_of(one)} allows only some requests in the whole mesh, and so in the run's namespace"
            for one in allowing
        ),
        *_find_unselected(cluster, namespace),
    )


def _find_unselected(cluster: Cluster, namespace: Object) -> Iterator[str]:
    """Yield a text where istiod watches other namespaces only: it would not send sidecars any of the run's services."""
    labels = labels_of(namespace)
    revision = labels.get(_REVISION, "")
    name = f"istio-{revision}" if revision else "istio"
    configs = [one for one in cluster.list("v1", "ConfigMap", namespace=NAMESPACE) if one["metadata"]["name"] == name]
    for settings in list_mesh_settings(configs):
        selectors = settings.get("discoverySelectors") or ()
        if selectors and not any(is_selected(one, labels) for one in selectors):
            yield (
                f"its discoverySelectors select no namespace of a run ({json.dumps(selectors)}); give their labels in"
                " the scenario's placement.namespaces.labels"
            )


def _list_mesh_wide(cluster: Cluster, kind: str) -> tuple[Object, ...]:
    return cluster.list("security.istio.io/v1", kind, namespace=NAMESPACE)


def _mode(policy: Object) -> str:
    return str(((policy.get("spec") or {}).get("mtls") or {}).get("mode", ""))


def _action(policy: Object) -> str:
    return str((policy.get("spec") or {}).get("action", "ALLOW"))


def find_leftovers(cluster: Cluster, *, since: str) -> tuple[Object, ...]:
    """Return what istiod created itself outside its namespace.

    This is its root certificate in each namespace and, on a cluster with the Gateway API, its GatewayClasses, by the
    names that istiod gives them. Call it after istiod has ended: until then istiod creates them again.
    """
    classes = cluster.list("gateway.networking.k8s.io/v1", "GatewayClass")
    found = (*_list_configs(cluster), *filter(_is_own_class, classes))
    return tuple(one for one in found if one["metadata"].get("creationTimestamp", since) >= since)


def _list_configs(cluster: Cluster) -> tuple[Object, ...]:
    found = cluster.list("v1", "ConfigMap", labels=_NAMESPACE_CONFIG)
    return tuple(one for one in found if one["metadata"]["name"] in _CONFIGS)


def _is_own_class(one: Object) -> bool:
    return one["metadata"]["name"] in _CLASSES and one["spec"]["controllerName"].startswith(_GATEWAY_CONTROLLERS)
