"""List what Istio's kinds mean that are applied as they are written: what they may change, and where they may be."""

from collections.abc import Mapping
from typing import Final

from bench.meshes.protocols import Effect
from bench.meshes.rewriting import COMMON_ATTACHED, NAMESPACE, REFERENCE, Places

EXPORTED: Final = ("VirtualService", "DestinationRule", "ServiceEntry")  # seen in all namespaces, unless they say where
_NOTHING: Final = frozenset[Effect]()
_REQUESTS: Final = frozenset[Effect]({"requests"})
_TLS: Final = frozenset[Effect]({"mutual TLS"})

EFFECTS: Final[Mapping[str, frozenset[Effect]]] = {
    "ConfigMap": _NOTHING,
    "NetworkPolicy": _REQUESTS,
    "ProxyConfig": _NOTHING,
    "Secret": _NOTHING,
    "ServiceAccount": _NOTHING,
    "Service": _NOTHING,
    "ServiceEntry": _NOTHING,
    "Telemetry": _NOTHING,
    "WorkloadEntry": _NOTHING,
    "WorkloadGroup": _NOTHING,
    "AuthorizationPolicy": _REQUESTS,
    "GRPCRoute": _REQUESTS,
    "Gateway": _REQUESTS,
    "HTTPRoute": _REQUESTS,
    "RequestAuthentication": _REQUESTS,
    "VirtualService": _REQUESTS,
    "PeerAuthentication": frozenset({*_REQUESTS, *_TLS}),
}

_EXPORT: Final[Places] = {"spec exportTo *": NAMESPACE}
ATTACHED: Final[Mapping[str, Places]] = {
    **COMMON_ATTACHED,
    **dict.fromkeys(EXPORTED, _EXPORT),
    "VirtualService": {**_EXPORT, "spec gateways *": REFERENCE},
}

# In the root namespace they apply to all workloads of the mesh, and in another to all of that one. Routes are not among
# them: their short names of services are those of their own namespace.
MOVABLE: Final = frozenset(
    {
        "AuthorizationPolicy",
        "EnvoyFilter",
        "PeerAuthentication",
        "ProxyConfig",
        "RequestAuthentication",
        "Sidecar",
        "Telemetry",
        "TrafficExtension",
        "WasmPlugin",
    }
)
