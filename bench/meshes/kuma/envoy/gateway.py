"""Build a built-in gateway's Envoy configuration as kuma-cp does. Pure."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.application.model import Gateway, PathRoute
from bench.envoy.addresses import HOST, Placement
from bench.envoy.certificates import Certificates
from bench.envoy.parts import TYPES
from bench.meshes.kuma.envoy.clusters import gateway_cluster
from bench.meshes.kuma.envoy.listeners import INTERNAL, MANAGER, ROUTER, build_bootstrap, build_retry
from bench.meshes.kuma.naming import ZONE, service_tags
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.routing import outbound_cluster
from bench.meshes.kuma.traffic import Retry

Json = dict[str, Any]

_GZIP: Final[Json] = {
    "name": "gzip-compress",
    "typed_config": {
        "@type": f"{TYPES}.filters.http.compressor.v3.Compressor",
        "compressor_library": {
            "name": "gzip",
            "typed_config": {"@type": f"{TYPES}.compression.gzip.compressor.v3.Gzip"},
        },
        "response_direction_config": {"disable_on_etag_header": True},
    },
}
_RATE_LIMIT: Final[Json] = {
    "name": "envoy.filters.http.local_ratelimit",
    "typed_config": {
        "@type": f"{TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "rate_limit",
    },
}
_INSPECTOR: Final[Json] = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": f"{TYPES}.filters.listener.tls_inspector.v3.TlsInspector"},
}


def gateway_bootstrap(
    gateway: Gateway, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """Return Envoy's complete configuration for a built-in gateway.

    It has clusters for the services of its routes.
    """
    services = dict.fromkeys(route.service for route in gateway.routes)
    clusters = [
        gateway_cluster(
            policies,
            gateway.workload,
            service,
            ports=[placement.inbound[workload.name] for workload in service.workloads],
            certificates=certificates,
        )
        for service in services
    ]
    listener = _listener(gateway, placement, policies=policies)
    return build_bootstrap(gateway.workload, placement, admin, listeners=[listener], clusters=clusters)


def _listener(gateway: Gateway, placement: Placement, *, policies: Policies) -> Json:
    """Build the listener for plain HTTP from outside the mesh."""
    name = f"{gateway.service.name}:HTTP:{gateway.service.port}"
    manager = {
        "@type": MANAGER,
        "stat_prefix": _tag(gateway, placement),
        "server_name": "Kuma Gateway",
        "common_http_protocol_options": {"idle_timeout": "300s", "headers_with_underscores_action": "REJECT_REQUEST"},
        "http2_protocol_options": {
            "allow_connect": True,
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
        "internal_address_config": {"cidr_ranges": INTERNAL},
        "http_filters": [_RATE_LIMIT, _GZIP, ROUTER],
        "merge_slashes": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "request_headers_timeout": "0.500s",
        "stream_idle_timeout": "5s",
        "use_remote_address": True,
        "route_config": _routes(f"{name}:*", gateway, placement=placement, policies=policies),
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": HOST, "port_value": placement.gateway}},
        "traffic_direction": "INBOUND",
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": 32768,
        "listener_filters": [_INSPECTOR],
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes(name: str, gateway: Gateway, *, placement: Placement, policies: Policies) -> Json:
    """Build the routes in Kuma's order: exact paths before prefixes, longer ones before shorter."""
    matches = [(match, route) for route in gateway.routes for match in _matches(route)]
    ordered = sorted(matches, key=lambda one: ("path" not in one[0], -len(next(iter(one[0].values())))))
    tag = _tag(gateway, placement)
    routes = [_route(match, outbound_cluster(policies, placement.application, r.service), tag) for match, r in ordered]
    return {
        "name": name,
        "ignore_port_in_host_matching": True,
        "request_headers_to_remove": ["x-kuma-tags"],
        "validate_clusters": False,
        "virtual_hosts": [{"name": "*", "domains": ["*"], "routes": routes}],
    }


def _matches(route: PathRoute) -> Iterator[Json]:
    """Yield the matches of a route; a prefix of whole parts matches the path itself and all paths below it."""
    if route.path != "/" or route.kind == "exact":
        yield {"path": route.path}
    if route.kind != "exact":
        yield {"prefix": f"{route.path.rstrip('/')}/"}


def _route(match: Json, cluster: str, tag: str) -> Json:
    header = {"header": {"key": "x-kuma-tags", "value": f"&kuma.io/service={tag}&&kuma.io/zone={ZONE}&"}}
    return {
        "match": match,
        "route": {
            "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
            "timeout": "15s",
            "idle_timeout": "5s",
            **build_retry(Retry()),
            "weighted_clusters": {"clusters": [{"name": cluster, "weight": 1, "request_headers_to_add": [header]}]},
        },
    }


def _tag(gateway: Gateway, placement: Placement) -> str:
    return service_tags(placement.application, gateway.workload)[0]
