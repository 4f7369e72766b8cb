"""Where a sidecar sends requests: to its peers' sidecars, to its own application, or nowhere."""

from typing import Any, Final

from bench.meshes import istio
from bench.meshes.application import Application, Service, Workload
from bench.meshes.istio_policies import Policies
from bench.targets.local.certificates import Certificates
from bench.targets.local.envoy_istio_http import BLACK_HOLE
from bench.targets.local.envoy_istio_tls import TLS_ENDPOINT, client_sockets
from bench.targets.local.placement import Placement
from bench.targets.local.ports import HOST

Json = dict[str, Any]

_CONNECT_TIMEOUT: Final = "10s"
_NO_LIMIT: Final = 2**32 - 1
_UNBROKEN: Final[Json] = {
    "thresholds": [
        {
            "max_connections": _NO_LIMIT,
            "max_pending_requests": _NO_LIMIT,
            "max_requests": _NO_LIMIT,
            "max_retries": _NO_LIMIT,
        }
    ]
}
# The address from which Istio's sidecars call their own application.
_OWN_ADDRESS: Final = "127.0.0.6"


def outbound_cluster(
    caller: Workload,
    service: Service,
    *,
    placement: Placement,
    policies: Policies,
    certificates: Certificates,
) -> Json:
    """Requests of `caller` to a service: HTTP/1.1, least requests, mutual TLS unless the peer has none."""
    application, callee = placement.application, service.workload
    full = istio.full_name(application, service)
    secured = policies.mode(callee) != "DISABLE"
    return {
        **_cluster(istio.cluster_to(application, service), application, [service]),
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {}},
        "transport_socket_matches": client_sockets(
            certificates.identity(caller.account),
            peer=certificates.spiffe_id(callee.account),
            sni=f"outbound_.{service.port}_._.{full}",
        ),
        "load_assignment": _endpoint(
            istio.cluster_to(application, service), placement.inbound[callee.name], secured=secured
        ),
    }


def inbound_cluster(workload: Workload, *, placement: Placement) -> Json:
    """Requests to the sidecar's own application."""
    application = placement.application
    name = istio.inbound_cluster(workload)
    services = [service for service in application.services if service.workload == workload]
    return {
        **_cluster(name, application, sorted(services, key=lambda service: service.name)),
        "type": "STATIC",
        "common_lb_config": {},
        "upstream_bind_config": {"source_address": {"address": _OWN_ADDRESS, "port_value": 0}},
        "load_assignment": _endpoint(name, placement.serving[workload.name], secured=False),
    }


def black_hole_cluster() -> Json:
    """Where requests end that no service takes."""
    return {
        "name": BLACK_HOLE,
        "alt_stat_name": f"{BLACK_HOLE};",
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
    }


def _cluster(name: str, application: Application, services: list[Service]) -> Json:
    described = [
        {"name": service.name, "namespace": application.namespace, "host": istio.full_name(application, service)}
        for service in services
    ]
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": _UNBROKEN,
        "metadata": {"filter_metadata": {"istio": {"services": described}}},
    }


def _endpoint(cluster: str, port: int, *, secured: bool) -> Json:
    endpoint: Json = {
        "endpoint": {"address": {"socket_address": {"address": HOST, "port_value": port}}},
    }
    if secured:
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": TLS_ENDPOINT}}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}
