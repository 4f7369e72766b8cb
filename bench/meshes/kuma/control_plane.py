"""Kuma on a cluster: the functions of `control_plane.ControlPlane`, by Kuma's own tools.

What sidecars tell, and how: `kuma_state`.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.ownership import run_of
from bench.meshes.kuma.install import SERIES, render, wait_ready
from bench.meshes.kuma.kuma_cp import CONTROL_PLANE, accepted, admin, unsynced
from bench.meshes.kuma.namespacing import API_VERSION, MESH_LABEL, made_for, mesh_objects, own_mesh
from bench.meshes.kuma.naming import ROOT_NAMESPACE as NAMESPACE
from bench.meshes.kuma.naming import ZONE

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

NAME = "kuma"
TOOL = "kumactl"
SIDECAR = "kuma-sidecar"
PODS = f"app={CONTROL_PLANE}"

_GROUP: Final = ".kuma.io"
_ZONE: Final = "KUMA_MULTIZONE_ZONE_NAME"
_EXTENSIONS: Final = "apiextensions.k8s.io/v1"
_WEBHOOKS: Final = "admissionregistration.k8s.io/v1"
_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# What the control plane keeps about the cluster as a whole, in no namespace.
_OWN_KINDS: Final = ("Zone", "ZoneInsight", "MeshInsight", "ServiceInsight")


def base_objects(guest: str = "") -> tuple[Object, ...]:
    """The mesh: by our values the control plane makes none, and a guest has one of its own."""
    return (own_mesh(guest),)


def namespace_labels(revision: str = "", guest: str = "") -> Mapping[str, str]:  # noqa: ARG001 - Kuma has no revisions
    """The label by which a namespace asks for sidecars, and for a guest the one that names its mesh."""
    return {"kuma.io/sidecar-injection": "enabled", **({MESH_LABEL: guest} if guest else {})}


def outside_labels() -> Mapping[str, str]:
    """The label by which a pod gets no sidecar, although its namespace asks for them."""
    return {"kuma.io/sidecar-injection": "disabled"}


def pod_annotations() -> Mapping[str, str]:
    """For the template of every pod with a sidecar: two worker threads, as Istio's sidecars have. By default Kuma
    starts one for each core of the node, and connection pools and TLS sessions are per worker, so that the results of
    two meshes, or of two clusters, would not compare."""
    return {"kuma.io/sidecar-proxy-concurrency": "2"}


def present(cluster: Cluster) -> str:
    """What of Kuma is on the cluster already, in words; empty if nothing is."""
    return ", ".join(_found(cluster))


def _found(cluster: Cluster) -> Iterator[str]:
    if cluster.get(Ref("v1", "Namespace", NAMESPACE)) is not None:
        yield f"namespace {NAMESPACE}"
    for deployment in cluster.list("apps/v1", "Deployment", labels=PODS):
        yield str(ref_of(deployment))
    for kind in _WEBHOOK_KINDS:
        yield from (str(ref_of(one)) for one in cluster.list(_WEBHOOKS, kind) if _calls_kuma(one))
    if definitions := _definitions(cluster):
        yield f"{len(definitions)} kinds of kuma.io"


def _calls_kuma(configuration: Object) -> bool:
    return any(hook["name"].endswith(_GROUP) for hook in configuration.get("webhooks") or ())


def _definitions(cluster: Cluster) -> list[Object]:
    found = cluster.list(_EXTENSIONS, "CustomResourceDefinition")
    return [thing for thing in found if thing["metadata"]["name"].endswith(_GROUP)]


def unfit(cluster: Cluster) -> tuple[str, ...]:
    """A control plane of another series, or in a zone with another name, whose identities are called otherwise."""
    planes = cluster.list("apps/v1", "Deployment", namespace=NAMESPACE, labels=PODS)
    containers = [one for plane in planes for one in plane["spec"]["template"]["spec"]["containers"]]
    zones = {entry.get("value", "") for one in containers for entry in one.get("env") or () if entry["name"] == _ZONE}
    others = [one["image"] for one in containers if f":{SERIES}." not in one["image"]]
    return (
        *(f"it runs {image}; meshbench's policies are for Kuma {SERIES}" for image in others),
        *(f"its zone is called {zone}; meshbench expects {ZONE} in identities" for zone in sorted(zones - {ZONE, ""})),
    )


def own_leftovers(cluster: Cluster) -> tuple[Ref, ...]:
    """What the control plane made in no namespace: what it knows of the zone, of meshes and of services.

    To be asked when it has ended: until then it makes them again. Only where a run of ours made their kinds: under
    somebody else's they are somebody else's.
    """
    ours = {thing["spec"]["names"]["kind"] for thing in _definitions(cluster) if run_of(thing)}
    kinds = [kind for kind in _OWN_KINDS if kind in ours]
    return tuple(ref_of(thing) for kind in kinds for thing in cluster.list(API_VERSION, kind))
