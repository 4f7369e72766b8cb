"""HTTP as Istio's sidecars handle it: connection managers, filters in their order, routes, retries."""

from collections.abc import Sequence
from typing import Any, Final

from bench.meshes.application import Application, Service, Workload
from bench.meshes.istio import cluster_to, full_name, inbound_cluster
from bench.meshes.istio_policies import TRUST_DOMAIN

Json = dict[str, Any]

BLACK_HOLE: Final = "BlackHoleCluster"

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_MANAGER: Final = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_REQUEST_ID: Final = f"{_TYPES}.request_id.uuid.v3.UuidRequestIdConfig"
_PREVIOUS_HOSTS: Final = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"

_FILTERS: Final[tuple[Json, ...]] = (
    {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.grpc_stats.v3.FilterConfig",
            "emit_filter_state": True,
            "stats_for_all_methods": False,
        },
    },
    {
        "name": "envoy.filters.http.fault",
        "typed_config": {"@type": f"{_TYPES}.filters.http.fault.v3.HTTPFault"},
    },
    {
        "name": "envoy.filters.http.cors",
        "typed_config": {"@type": f"{_TYPES}.filters.http.cors.v3.Cors"},
    },
    {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
    },
)
_DEFAULT_RETRY: Final[Json] = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": _PREVIOUS_HOSTS},
        }
    ],
    "host_selection_retry_max_attempts": "5",
}
_DRY_RUN_TAGS: Final = (
    ("allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
    ("allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    ("deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
    ("deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
)


def outbound_manager(application: Application, workload: Workload, *, port: int) -> Json:
    """The connection manager for what `workload` sends to services at `port`: routed by Host."""
    return _manager(
        f"outbound_0.0.0.0_{port};",
        route_config=_outbound_routes(application, port),
        http_filters=list(_FILTERS),
        tracing=_tracing(application, workload),
    )


def inbound_manager(application: Application, workload: Workload, rbac: Sequence[Json]) -> Json:
    """The connection manager for what reaches `workload`; `rbac` filters stand before all others."""
    return _manager(
        f"inbound_0.0.0.0_{workload.port};",
        route_config=_inbound_routes(application, workload),
        http_filters=[*rbac, *_FILTERS],
        tracing=_tracing(application, workload),
        server_name="istio-envoy",
        forward_client_cert_details="APPEND_FORWARD",
        set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
    )


def _manager(stat_prefix: str, **settings: Any) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _MANAGER,
            "stat_prefix": stat_prefix,
            "use_remote_address": False,
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "proxy_100_continue": True,
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "request_id_extension": {"typed_config": {"@type": _REQUEST_ID, "use_request_id_for_trace_sampling": True}},
            **settings,
        },
    }


def _outbound_routes(application: Application, port: int) -> Json:
    services = sorted(application.services, key=lambda service: service.name)
    return {
        "name": str(port),
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1024 * 1024,
        "virtual_hosts": [
            *(_service_host(application, service) for service in services if service.port == port),
            {
                "name": "block_all",
                "domains": ["*"],
                "include_request_attempt_count": True,
                "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
            },
        ],
    }


def _service_host(application: Application, service: Service) -> Json:
    name, namespace, full = service.name, application.namespace, full_name(application, service)
    route = {
        "cluster": cluster_to(application, service),
        "timeout": "0s",
        "max_grpc_timeout": "0s",
        "retry_policy": _DEFAULT_RETRY,
    }
    return {
        "name": f"{full}:{service.port}",
        "domains": [full, f"{full}.", name, f"{name}.{namespace}.svc", f"{name}.{namespace}"],
        "include_request_attempt_count": True,
        "routes": [_route(f"{full}:{service.port}/*", route)],
    }


def _inbound_routes(application: Application, workload: Workload) -> Json:
    service = next(service for service in application.services if service.workload == workload)
    cluster = inbound_cluster(workload)
    route = {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
    }
    operation = f"{full_name(application, service)}:{service.port}/*"
    host = {"name": f"inbound|http|{service.port}", "domains": ["*"], "routes": [_route(operation, route)]}
    return {"name": cluster, "validate_clusters": False, "virtual_hosts": [host]}


def _route(operation: str, route: Json) -> Json:
    return {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": operation},
        "route": route,
    }


def _tracing(application: Application, workload: Workload) -> Json:
    """Each request is sampled or not, although no tracer takes the spans: as by default in Istio."""
    named = {
        "istio.canonical_revision": workload.version,
        "istio.canonical_service": workload.name,
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": TRUST_DOMAIN,
        "istio.namespace": application.namespace,
    }
    return {
        "client_sampling": {"value": 100},
        "random_sampling": {"value": 1},
        "overall_sampling": {"value": 100},
        "custom_tags": [
            *(_dry_run_tag(tag, key) for tag, key in _DRY_RUN_TAGS),
            *({"tag": tag, "literal": {"value": value}} for tag, value in named.items()),
        ],
    }


def _dry_run_tag(tag: str, key: str) -> Json:
    place = {"key": "envoy.filters.http.rbac", "path": [{"key": key}]}
    return {
        "tag": f"istio.authorization.dry_run.{tag}",
        "metadata": {"kind": {"request": {}}, "metadata_key": place},
    }
