"""List what Kuma's kinds mean that are applied as they are written: what they may change, and where they belong."""

from collections.abc import Mapping
from typing import Final

from bench.meshes.protocols import EVERY_EFFECT, Effect
from bench.meshes.rewriting import COMMON_ATTACHED

_NOTHING: Final = frozenset[Effect]()
_REQUESTS: Final = frozenset[Effect]({"requests"})

EFFECTS: Final[Mapping[str, frozenset[Effect]]] = {
    "ConfigMap": _NOTHING,
    "MeshAccessLog": _NOTHING,
    "MeshExternalService": _NOTHING,
    "MeshLoadBalancingStrategy": _NOTHING,
    "MeshMetric": _NOTHING,
    "MeshPassthrough": _NOTHING,
    "MeshTrace": _NOTHING,
    "Secret": _NOTHING,
    "Service": _NOTHING,
    "ServiceAccount": _NOTHING,
    "TrafficLog": _NOTHING,
    "TrafficTrace": _NOTHING,
    "MeshCircuitBreaker": _REQUESTS,
    "MeshFaultInjection": _REQUESTS,
    "MeshHTTPRoute": _REQUESTS,
    "MeshHealthCheck": _REQUESTS,
    "MeshRateLimit": _REQUESTS,
    "MeshRetry": _REQUESTS,
    "MeshTCPRoute": _REQUESTS,
    "MeshTimeout": _REQUESTS,
    "MeshTrafficPermission": _REQUESTS,
    "MeshTLS": EVERY_EFFECT,
}

# Kinds that belong to no namespace.
CLUSTER_WIDE: Final = frozenset(
    {
        "CircuitBreaker",
        "ExternalService",
        "FaultInjection",
        "HealthCheck",
        "Mesh",
        "MeshGateway",
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

# Gateways of the Gateway API; a Mesh of a run's own has no others.
ATTACHED: Final = COMMON_ATTACHED

# Objects of one Mesh: a run next to others has a Mesh of its own, and names them after it.
MOVABLE: Final = CLUSTER_WIDE | {
    "MeshAccessLog",
    "MeshCircuitBreaker",
    "MeshExternalService",
    "MeshFaultInjection",
    "MeshHTTPRoute",
    "MeshHealthCheck",
    "MeshIdentity",
    "MeshLoadBalancingStrategy",
    "MeshMetric",
    "MeshMultiZoneService",
    "MeshPassthrough",
    "MeshProxyPatch",
    "MeshRateLimit",
    "MeshRetry",
    "MeshTCPRoute",
    "MeshTLS",
    "MeshTimeout",
    "MeshTrace",
    "MeshTrafficPermission",
    "MeshTrust",
}
