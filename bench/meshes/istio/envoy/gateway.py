"""Build a gateway's Envoy configuration as istiod does. Pure."""

from pathlib import Path
from typing import Any, Final

from bench.application.model import Application, Gateway, PathRoute
from bench.envoy.addresses import HOST, Placement
from bench.envoy.certificates import Certificates
from bench.meshes.istio.envoy.clusters import black_hole_cluster, outbound_clusters
from bench.meshes.istio.envoy.jwt import jwt_filters
from bench.meshes.istio.envoy.listeners import HTTP_FILTERS, build_bootstrap, http_manager, node_of, tracing_of
from bench.meshes.istio.envoy.rbac import rbac_filters
from bench.meshes.istio.envoy.routes import route_to
from bench.meshes.istio.naming import cluster_to, full_name
from bench.meshes.istio.policies import Policies

Json = dict[str, Any]

_CLIENT_CERTIFICATE: Final = {"subject": True, "cert": True, "dns": True, "uri": True}


def gateway_bootstrap(
    gateway: Gateway, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """Return Envoy's complete configuration for a gateway.

    It has a cluster for every service, like a sidecar.
    """
    clusters = outbound_clusters(gateway.workload, placement=placement, policies=policies, certificates=certificates)
    listener = _listener(gateway, placement, policies=policies)
    node = node_of(gateway.workload, placement, "router")
    return build_bootstrap(node, admin, listeners=[listener], clusters=[black_hole_cluster(), *clusters])


def _listener(gateway: Gateway, placement: Placement, *, policies: Policies) -> Json:
    """Build the listener for plain HTTP from outside the mesh, with the policies of the gateway's pods."""
    application, port = placement.application, gateway.workload.port
    tokens = jwt_filters(policies, gateway.workload, clear_route_cache=True)
    rbac = rbac_filters(policies, gateway.workload, inbound_port=placement.gateway)
    manager = http_manager(
        f"outbound_0.0.0.0_{port};",
        route_config=_routes(gateway, application),
        http_filters=[*tokens, *rbac, *HTTP_FILTERS],
        tracing=tracing_of(application, gateway.workload),
        server_name="istio-envoy",
        use_remote_address=True,
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details=_CLIENT_CERTIFICATE,
        http_protocol_options={},
    )
    return {
        "name": f"0.0.0.0_{port}",
        "address": {"socket_address": {"address": HOST, "port_value": placement.gateway}},
        "traffic_direction": "OUTBOUND",
        "max_connections_to_accept_per_socket_event": 1,
        "filter_chains": [{"filters": [manager], "transport_socket_connect_timeout": "15s"}],
    }


def _routes(gateway: Gateway, application: Application) -> Json:
    port = gateway.service.port
    host = {
        "name": f"*:{port}",
        "domains": ["*"],
        "include_request_attempt_count": True,
        "routes": [_route(route, application) for route in gateway.routes],
    }
    return {
        "name": f"http.{port}",
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1024 * 1024,
        "virtual_hosts": [host],
    }


def _route(route: PathRoute, application: Application) -> Json:
    kind = "path" if route.kind == "exact" else "prefix"
    operation = f"{full_name(application, route.service)}:{route.service.port}{route.path}"
    return {
        "match": {kind: route.path, "case_sensitive": True},
        "decorator": {"operation": operation if route.kind == "exact" else f"{operation}*"},
        "metadata": {"filter_metadata": {"istio": {"config": route.origin}}},
        "route": route_to(cluster_to(application, route.service)),
    }
