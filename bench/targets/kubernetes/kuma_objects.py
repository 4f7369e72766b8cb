"""Kuma's objects of a run: the mesh itself, and a configuration's manifests moved into the run's namespace."""

import re
from collections.abc import Sequence
from typing import Any, Final

from bench.meshes.application import NAMESPACE as WRITTEN
from bench.meshes.kuma_names import MESH, ROOT_NAMESPACE
from bench.targets.kubernetes.client import Object, Ref

API_VERSION: Final = "kuma.io/v1alpha1"

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


def mesh_objects(policies: Sequence[Object], namespace: str) -> tuple[Object, ...]:
    """The manifests as they are to be applied: in `namespace` where they say `bookinfo` or nothing, what others need
    first."""
    return tuple(sorted((_placed(policy, namespace) for policy in policies), key=_rank))


def made_for(things: Sequence[Object]) -> tuple[Ref, ...]:
    """What the control plane makes for these objects and leaves behind when they go: the trust in an identity's
    authority, which would still be there, and grow, when the identity is made again with an authority of its own."""
    identities = (thing["metadata"]["name"] for thing in things if thing["kind"] == "MeshIdentity")
    return tuple(Ref(API_VERSION, "MeshTrust", name, ROOT_NAMESPACE) for name in identities)


def _placed(policy: Object, namespace: str) -> Object:
    moved: Object = _moved(policy, namespace)
    if moved["kind"] not in _CLUSTER_WIDE:
        moved["metadata"].setdefault("namespace", namespace)
    return moved


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
