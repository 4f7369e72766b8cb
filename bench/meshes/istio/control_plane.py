"""Istio on a cluster: the functions of `control_plane.ControlPlane`, by Istio's own tools.

What `bench.envoy.admin` finds in sidecars as they come (seen with istiod 1.31, both sides of a hop):

- requests, by cluster: at the caller `outbound|9080||details.NAMESPACE.svc.cluster.local`, at the callee
  `inbound|9080||`, which has no host before its first request and keeps it when idle. The counters of hosts are outside
  Istio's selection of statistics, and count every try.
- the kubelet's probes are not among them: Istio turns them to its agent, which asks the application past the proxy.
- own identity: in the certificates, whatever the policies. Nothing tells the peers' identities.
- retries, TLS versions and handshakes: only with `pod_annotations`. The callee sees them as
  `listener.0.0.0.0_15006.ssl.*`, without a single entry for a plain-text connection.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.pod_page import page_of
from bench.meshes.istio.install import render, wait_ready
from bench.meshes.istio.istiod import ISTIOD as PODS
from bench.meshes.istio.istiod import accepted, unsynced
from bench.meshes.istio.namespacing import mesh_objects, namespace_labels, outside_labels, pod_annotations
from bench.meshes.istio.policies import ROOT_NAMESPACE as NAMESPACE

__all__ = [
    "NAME",
    "NAMESPACE",
    "PODS",
    "SIDECAR",
    "TOOL",
    "accepted",
    "admin",
    "base_objects",
    "made_for",
    "mesh_objects",
    "namespace_labels",
    "outside_labels",
    "own_leftovers",
    "pod_annotations",
    "present",
    "render",
    "unfit",
    "unsynced",
    "wait_ready",
]

NAME = "istio"
TOOL = "istioctl"
SIDECAR = "istio-proxy"

_ADMIN_PORT: Final = 15000

# What istiod puts into every namespace, and marks so: the root of its certificates, and what it has revoked.
_NAMESPACE_CONFIG: Final = "istio.io/config=true"
_GATEWAY_CONTROLLERS: Final = "istio.io/"
_WEBHOOKS: Final = "admissionregistration.k8s.io/v1"
_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def made_for(things: Sequence[Object]) -> tuple[Ref, ...]:  # noqa: ARG001  # the same for every mesh
    """Nothing: istiod makes no object of a policy."""
    return ()


def base_objects(guest: str = "") -> tuple[Object, ...]:  # noqa: ARG001  # the same for every mesh
    """Nothing: a mesh without policies is what istiod makes of itself."""
    return ()


def admin(cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
    """The answer to a GET on the admin interface of the pod's sidecar. Raises DeployError where there is none.

    Through a forwarded port: four times as quick as Istio's agent started in the container, which needs some CPU of the
    sidecar's own, and always there.
    """
    who = f"the sidecar of {namespace}/{pod}"
    return page_of(cluster, pod, _ADMIN_PORT, namespace=namespace, path=path, who=who)


def present(cluster: Cluster) -> str:
    """What of Istio is on the cluster already, in words; empty if nothing is."""
    return ", ".join(_found(cluster))


def _found(cluster: Cluster) -> Iterator[str]:
    if cluster.get(Ref("v1", "Namespace", NAMESPACE)) is not None:
        yield f"namespace {NAMESPACE}"
    for deployment in cluster.list("apps/v1", "Deployment", labels="app=istiod"):
        yield str(ref_of(deployment))
    for kind in _WEBHOOK_KINDS:
        yield from (str(ref_of(one)) for one in cluster.list(_WEBHOOKS, kind) if _calls_istiod(one))
    groups = {kind.api_version.partition("/")[0] for kind in cluster.kinds()}
    own = sorted(group for group in groups if group.endswith(".istio.io"))
    if own:
        yield f"custom resources of {' '.join(own)}"


def _calls_istiod(configuration: Object) -> bool:
    services = [hook["clientConfig"].get("service", {}) for hook in configuration.get("webhooks", [])]
    return any(service.get("name", "").startswith("istiod") for service in services)


def unfit(cluster: Cluster) -> tuple[str, ...]:
    """Policies of others for the whole mesh, under which a configuration would not be what its name says."""
    modes = [one for one in _mesh_wide(cluster, "PeerAuthentication") if _mode(one) not in ("", "UNSET", "PERMISSIVE")]
    allowing = [one for one in _mesh_wide(cluster, "AuthorizationPolicy") if _action(one) == "ALLOW"]
    return (
        *(f"{ref_of(one)} has mode {_mode(one)} for the whole mesh, and so for the run's namespace" for one in modes),
        *(f"{ref_of(one)} lets only some requests pass in the whole mesh, the run's namespace too" for one in allowing),
    )


def _mesh_wide(cluster: Cluster, kind: str) -> tuple[Object, ...]:
    return cluster.list("security.istio.io/v1", kind, namespace=NAMESPACE)


def _mode(policy: Object) -> str:
    return str(((policy.get("spec") or {}).get("mtls") or {}).get("mode", ""))


def _action(policy: Object) -> str:
    return str((policy.get("spec") or {}).get("action", "ALLOW"))


def own_leftovers(cluster: Cluster) -> tuple[Ref, ...]:
    """What istiod made itself outside its namespace: its root certificate in every namespace, and where the cluster has
    the Gateway API, its classes of gateways.

    To be asked when istiod has ended: until then it makes them again.
    """
    configs = cluster.list("v1", "ConfigMap", labels=_NAMESPACE_CONFIG)
    classes = cluster.list("gateway.networking.k8s.io/v1", "GatewayClass")
    own = (one for one in classes if one["spec"]["controllerName"].startswith(_GATEWAY_CONTROLLERS))
    return tuple(ref_of(thing) for thing in (*configs, *own))
