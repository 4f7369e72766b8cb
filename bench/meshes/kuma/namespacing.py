"""Kuma's objects of a run: the mesh itself, and a configuration's manifests moved into the run's namespace."""

import re
from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import MESH
from bench.application.model import NAMESPACE as WRITTEN
from bench.k8s.client import Object, Ref
from bench.meshes.kuma.naming import ROOT_NAMESPACE, TRUST_DOMAIN, trust_domain

API_VERSION: Final = "kuma.io/v1alpha1"
MESH_LABEL: Final = "kuma.io/mesh"  # on a policy, or on a namespace: which mesh it belongs to

# As the control plane would make it: no mutual TLS, so no permissions, and Services known by their tags. Policies
# bring a Mesh of their own, whose MeshServices are exclusive, since MeshIdentity needs that: sidecars then call
# clusters and listeners by other names, and do with a request exactly the same.
BASE_MESH: Final[Object] = {"apiVersion": API_VERSION, "kind": "Mesh", "metadata": {"name": MESH}, "spec": {}}

# Kinds that belong to no namespace.
_CLUSTER_WIDE: Final = frozenset(
    {
        "CircuitBreaker",
        "ExternalService",
        "FaultInjection",
        "HealthCheck",
        "Mesh",
        "MeshGateway",
        "MeshGatewayConfig",
        "MeshGatewayRoute",
        "ProxyTemplate",
        "RateLimit",
        "Retry",
        "Timeout",
        "TrafficLog",
        "TrafficPermission",
        "TrafficRoute",
        "TrafficTrace",
        "VirtualOutbound",
    }
)
_FIRST: Final = ("Mesh", "MeshIdentity")  # what others need: the mesh, then who is who in it
_NAMESPACE_KEYS: Final = frozenset({"namespace", "k8s.kuma.io/namespace"})
# The namespace inside a text: a SPIFFE id (/ns/bookinfo/), a service's tag (details_bookinfo_svc_9080) and a host
# (details.bookinfo.svc.cluster.local, details.bookinfo.mesh).
_IN_TEXT: Final = re.compile(rf"(?<=/ns/){WRITTEN}(?=/)|(?<=_){WRITTEN}(?=_svc(?:_|$))|(?<=\.){WRITTEN}(?=\.)")


def mesh_objects(policies: Sequence[Object], namespace: str, guest: str = "") -> tuple[Object, ...]:
    """The manifests as they are to be applied: in `namespace` where they say `bookinfo` or nothing, what others need
    first; for a `guest` in the mesh of that name."""
    moved = (_placed(policy, namespace) for policy in policies)
    return tuple(sorted((_of_guest(one, guest) if guest else one for one in moved), key=_rank))


def own_mesh(guest: str = "") -> Object:
    """The mesh without policies: ours, or a guest's own beside those of others."""
    return {**BASE_MESH, "metadata": {"name": guest or MESH}}


def mesh_label(policy: Object) -> str:
    """The mesh that a policy belongs to."""
    return str((policy["metadata"].get("labels") or {}).get(MESH_LABEL, MESH))


def made_for(things: Sequence[Object]) -> tuple[Ref, ...]:
    """What the control plane makes for these objects and leaves behind when they go: the trust in an identity's
    authority, which would still be there, and grow, when the identity is made again with an authority of its own."""
    identities = (thing["metadata"]["name"] for thing in things if thing["kind"] == "MeshIdentity")
    return tuple(Ref(API_VERSION, "MeshTrust", name, ROOT_NAMESPACE) for name in identities)


def _placed(policy: Object, namespace: str) -> Object:
    moved: Object = _moved(policy, namespace)
    if moved["kind"] not in _CLUSTER_WIDE:
        moved["metadata"]["namespace"] = moved["metadata"].get("namespace") or namespace
    return moved


def _of_guest(policy: Object, mesh: str) -> Object:
    """In a mesh of the guest's own: with its name in the identities, and with a name of its own where others have
    theirs."""
    moved: Object = _renamed(policy, mesh)
    metadata = {**moved["metadata"]}
    if moved["kind"] == "Mesh":
        metadata["name"] = mesh
    elif "namespace" not in metadata or metadata["namespace"] == ROOT_NAMESPACE:
        metadata["name"] = f"{metadata['name']}-{mesh}"
    if moved["kind"] in _CLUSTER_WIDE:
        return {**moved, "metadata": metadata, **({} if moved["kind"] == "Mesh" else {"mesh": mesh})}
    return {**moved, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), MESH_LABEL: mesh}}}


def _renamed(value: Any, mesh: str) -> Any:
    """A copy of a part of a manifest with the guest's trust domain in it."""
    if isinstance(value, dict):
        return {key: _renamed(part, mesh) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, mesh) for part in value]
    named = f"spiffe://{TRUST_DOMAIN}"
    return value.replace(named, f"spiffe://{trust_domain(mesh)}") if isinstance(value, str) else value


def _rank(thing: Object) -> int:
    return _FIRST.index(thing["kind"]) if thing["kind"] in _FIRST else len(_FIRST)


def _moved(value: Any, namespace: str) -> Any:
    """A copy of a part of a manifest with the run's namespace in it."""
    if isinstance(value, dict):
        return {key: _moved_field(key, part, namespace) for key, part in value.items()}
    if isinstance(value, list):
        return [_moved(part, namespace) for part in value]
    return _IN_TEXT.sub(namespace, value) if isinstance(value, str) else value


def _moved_field(key: str, value: Any, namespace: str) -> Any:
    return namespace if key in _NAMESPACE_KEYS and value == WRITTEN else _moved(value, namespace)
