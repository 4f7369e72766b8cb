"""Implement `bench.meshes.cluster_protocol.ControlPlane` for Kuma, with Kuma's own tools.

`kuma_cp` describes what sidecars report, and how.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import run_of
from bench.meshes.cluster_protocol import SidecarImage, Tool
from bench.meshes.kuma.footprint import find_telemetry, read_sidecar, scale_sidecars
from bench.meshes.kuma.install import SERIES, render, wait_ready
from bench.meshes.kuma.kuma_cp import CONTROL_PLANE, admin, find_unaccepted, find_unsynced
from bench.meshes.kuma.namespacing import API_VERSION, build_mesh
from bench.meshes.kuma.naming import MESH_LABEL, ZONE
from bench.meshes.kuma.naming import ROOT_NAMESPACE as NAMESPACE
from bench.meshes.kuma.rights import rights

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

NAME = "kuma"
# The one series for which our values and policies are written; 3.0 reads neither in the same way.
TOOL = Tool(
    "kumactl",
    ("--no-config", "version"),
    (2, 14),
    "https://kuma.io/docs/2.14.x/introduction/install/",
    below=(2, 15),
)
SIDECAR = "kuma-sidecar"
GATEWAY = "kuma-gateway"
GATEWAY_KINDS: tuple[str, ...] = ("MeshGatewayInstance",)
INJECTION_LABELS: tuple[str, ...] = ("kuma.io/sidecar-injection",)
REVISIONS = False
PODS = f"app={CONTROL_PLANE}"

_GROUP: Final = ".kuma.io"
_ZONE: Final = "KUMA_MULTIZONE_ZONE_NAME"
_EXTENSIONS: Final = "apiextensions.k8s.io/v1"
_WEBHOOKS: Final = "admissionregistration.k8s.io/v1"
_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# The kinds of what the control plane stores about the whole cluster, in no namespace.
_OWN_KINDS: Final = ("Zone", "ZoneInsight", "MeshInsight", "ServiceInsight")


def base_objects(run_mesh: str = "") -> tuple[Object, ...]:
    """Return the Mesh, which the control plane does not create with meshbench's values."""
    return (build_mesh(run_mesh),)


def list_generated(objects: Sequence[Object]) -> tuple[Ref, ...]:
    """Return what the control plane creates for these objects and keeps when they are deleted.

    This is the MeshTrust of an identity's authority. It would grow if the identity were created again, with a new
    authority.
    """
    identities = (one["metadata"]["name"] for one in objects if one["kind"] == "MeshIdentity")
    return tuple(Ref(API_VERSION, "MeshTrust", name, NAMESPACE) for name in identities)


def gateway_pods(manifest: Object) -> tuple[Object, ...]:
    """Return the specs of a MeshGatewayInstance's pods: a proxy and nothing else, without an image of their own."""
    spec, replicas = manifest["spec"], int(manifest["spec"].get("replicas", 1))
    return ({"containers": [spec]},) * replicas


def namespace_labels(revision: str = "", run_mesh: str = "") -> Mapping[str, str]:  # noqa: ARG001 - no revisions
    """Return the label of a namespace that gets sidecars, and with `run_mesh` the label that names its mesh."""
    return {"kuma.io/sidecar-injection": "enabled", **({MESH_LABEL: run_mesh} if run_mesh else {})}


def outside_labels() -> Mapping[str, str]:
    """Return the label of a pod that gets no sidecar, although its namespace does."""
    return {"kuma.io/sidecar-injection": "disabled"}


def pod_annotations() -> Mapping[str, str]:
    """Return the annotation of every pod with a sidecar: two worker threads, as in Istio's sidecars.

    By default Kuma starts one for each core of the node. Connection pools and TLS sessions are per worker, so results
    of two meshes or two clusters would not be comparable.
    """
    return {"kuma.io/sidecar-proxy-concurrency": "2"}


def decision_annotations() -> Mapping[str, str]:
    """Return nothing: Kuma's sidecars have all of Envoy's statistics."""
    return {}


def sidecar_image(image: str, owner: str) -> SidecarImage:
    """Return a ContainerPatch, which Kuma reads in its own namespace only, and the annotation of a pod that names it.

    Kuma refuses a pod whose patch does not exist, so that none starts with another image.
    """
    name = f"{owner}-sidecar-image"
    patch = {
        "apiVersion": API_VERSION,
        "kind": "ContainerPatch",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"sidecarPatch": [{"op": "replace", "path": "/image", "value": json.dumps(image)}]},
    }
    return SidecarImage(image, {"kuma.io/container-patches": name}, (patch,))


def find_installed(cluster: Cluster) -> str:
    """Return a text that lists the parts of Kuma on the cluster; empty if there are none."""
    return ", ".join(_list_installed(cluster))


def _list_installed(cluster: Cluster) -> Iterator[str]:
    if cluster.get(Ref("v1", "Namespace", NAMESPACE)) is not None:
        yield f"namespace {NAMESPACE}"
    for deployment in cluster.list("apps/v1", "Deployment", labels=PODS):
        yield str(ref_of(deployment))
    for kind in _WEBHOOK_KINDS:
        yield from (str(ref_of(one)) for one in cluster.list(_WEBHOOKS, kind) if _calls_kuma(one))
    if definitions := _list_definitions(cluster):
        yield f"{len(definitions)} kinds of kuma.io"


def _calls_kuma(configuration: Object) -> bool:
    return any(hook["name"].endswith(_GROUP) for hook in configuration.get("webhooks") or ())


def _list_definitions(cluster: Cluster) -> list[Object]:
    found = cluster.list(_EXTENSIONS, "CustomResourceDefinition")
    return [one for one in found if one["metadata"]["name"].endswith(_GROUP)]


def find_mismatches(cluster: Cluster, namespace: Object) -> tuple[str, ...]:  # noqa: ARG001  # it watches all
    """Return a text for each control plane of another series, or in a zone with another name in its identities."""
    planes = cluster.list("apps/v1", "Deployment", namespace=NAMESPACE, labels=PODS)
    containers = [one for plane in planes for one in plane["spec"]["template"]["spec"]["containers"]]
    zones = {entry.get("value", "") for one in containers for entry in one.get("env") or () if entry["name"] == _ZONE}
    others = [one["image"] for one in containers if f":{SERIES}." not in one["image"]]
    return (
        *(f"it runs {image}; meshbench's policies are for Kuma {SERIES}" for image in others),
        *(f"its zone is {zone}; meshbench expects {ZONE} in identities" for zone in sorted(zones - {ZONE, ""})),
    )


def find_leftovers(cluster: Cluster, *, since: str) -> tuple[Object, ...]:
    """Return what the control plane created in no namespace: its objects about the zone, meshes and services.

    Call it after the control plane has ended: until then it creates them again. Only kinds that a run of meshbench
    installed are included, since objects of other kinds belong to an existing mesh.
    """
    ours = {one["spec"]["names"]["kind"] for one in _list_definitions(cluster) if run_of(one)}
    kinds = [kind for kind in _OWN_KINDS if kind in ours]
    found = (one for kind in kinds for one in cluster.list(API_VERSION, kind))
    return tuple(one for one in found if one["metadata"].get("creationTimestamp", since) >= since)
