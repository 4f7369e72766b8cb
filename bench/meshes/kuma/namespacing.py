"""Build Kuma's objects of a run: the Mesh, and a configuration's manifests moved into the run's namespace."""

import re
from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import MESH
from bench.application.model import NAMESPACE as APPLICATION
from bench.k8s.client import Object, Ref
from bench.meshes.kuma.naming import MESH_LABEL, ROOT_NAMESPACE, TRUST_DOMAIN, trust_domain

API_VERSION: Final = "kuma.io/v1alpha1"

# The control plane's default: no mutual TLS, so no permissions, and Services by their tags. Policies include their own
# Mesh with exclusive MeshServices, which MeshIdentity needs: sidecars then have other names of clusters and listeners,
# and handle requests in exactly the same way.
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
_FIRST: Final = ("Mesh", "MeshIdentity")  # needed by others: the mesh, then its identities
_NAMESPACE_KEYS: Final = frozenset({"namespace", "k8s.kuma.io/namespace"})
# The namespace inside a text: a SPIFFE id (/ns/bookinfo/), a service's tag (details_bookinfo_svc_9080) and a host
# (details.bookinfo.svc.cluster.local, details.bookinfo.mesh).
_IN_TEXT: Final = re.compile(
    rf"(?<=/ns/){APPLICATION}(?=/)|(?<=_){APPLICATION}(?=_svc(?:_|$))|(?<=\.){APPLICATION}(?=\.)"
)


def mesh_objects(policies: Sequence[Object], namespace: str, run_mesh: str = "") -> tuple[Object, ...]:
    """Return the manifests in the order to apply, moved into `namespace` if they name `bookinfo` or none.

    With `run_mesh` they are also moved into the mesh of that name.
    """
    moved = (_move_policy(policy, namespace) for policy in policies)
    return tuple(sorted((_move_to_mesh(one, run_mesh) if run_mesh else one for one in moved), key=_rank))


def build_mesh(run_mesh: str = "") -> Object:
    """Return the Mesh without policies: the default one, or the run's own next to existing ones."""
    return {**BASE_MESH, "metadata": {"name": run_mesh or MESH}}


def mesh_label(policy: Object) -> str:
    """Return the mesh of a policy."""
    return str((policy["metadata"].get("labels") or {}).get(MESH_LABEL, MESH))


def list_generated(objects: Sequence[Object]) -> tuple[Ref, ...]:
    """Return what the control plane creates for these objects and keeps when they are deleted.

    This is the MeshTrust of an identity's authority. It would grow if the identity were created again, with a new
    authority.
    """
    identities = (one["metadata"]["name"] for one in objects if one["kind"] == "MeshIdentity")
    return tuple(Ref(API_VERSION, "MeshTrust", name, ROOT_NAMESPACE) for name in identities)


def _move_policy(policy: Object, namespace: str) -> Object:
    moved: Object = _replace_namespace(policy, namespace)
    if moved["kind"] not in _CLUSTER_WIDE:
        moved["metadata"]["namespace"] = moved["metadata"].get("namespace") or namespace
    return moved


def _move_to_mesh(policy: Object, mesh: str) -> Object:
    """Move a policy into another mesh: with its name in identities, and with a unique name outside a namespace."""
    moved: Object = _replace_trust_domain(policy, mesh)
    metadata = {**moved["metadata"]}
    if moved["kind"] == "Mesh":
        metadata["name"] = mesh
    elif "namespace" not in metadata or metadata["namespace"] == ROOT_NAMESPACE:
        metadata["name"] = f"{metadata['name']}-{mesh}"
    if moved["kind"] in _CLUSTER_WIDE:
        return {**moved, "metadata": metadata, **({} if moved["kind"] == "Mesh" else {"mesh": mesh})}
    return {**moved, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), MESH_LABEL: mesh}}}


def _replace_trust_domain(value: Any, mesh: str) -> Any:
    """Return a copy of a part of a manifest with the trust domain of another mesh."""
    if isinstance(value, dict):
        return {key: _replace_trust_domain(part, mesh) for key, part in value.items()}
    if isinstance(value, list):
        return [_replace_trust_domain(part, mesh) for part in value]
    default = f"spiffe://{TRUST_DOMAIN}"
    return value.replace(default, f"spiffe://{trust_domain(mesh)}") if isinstance(value, str) else value


def _rank(policy: Object) -> int:
    return _FIRST.index(policy["kind"]) if policy["kind"] in _FIRST else len(_FIRST)


def _replace_namespace(value: Any, namespace: str) -> Any:
    """Return a copy of a part of a manifest with the run's namespace."""
    if isinstance(value, dict):
        return {key: _replace_field(key, part, namespace) for key, part in value.items()}
    if isinstance(value, list):
        return [_replace_namespace(part, namespace) for part in value]
    return _IN_TEXT.sub(namespace, value) if isinstance(value, str) else value


def _replace_field(key: str, value: Any, namespace: str) -> Any:
    return namespace if key in _NAMESPACE_KEYS and value == APPLICATION else _replace_namespace(value, namespace)
