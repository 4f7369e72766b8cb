"""HTTP as Istio's sidecars handle it: connection managers, filters in their order, routes, retries."""

from collections.abc import Sequence
from typing import Any, Final

from bench.meshes.application import Application, Workload
from bench.meshes.istio_names import full_name, inbound_cluster
from bench.meshes.istio_policies import TRUST_DOMAIN, Policies
from bench.targets.local.envoy_istio_routes import default_route, outbound_routes

Json = dict[str, Any]

BLACK_HOLE: Final = "BlackHoleCluster"

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_MANAGER: Final = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_REQUEST_ID: Final = f"{_TYPES}.request_id.uuid.v3.UuidRequestIdConfig"

HTTP_FILTERS: Final[tuple[Json, ...]] = (
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
_DRY_RUN_TAGS: Final = (
    ("allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
    ("allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    ("deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
    ("deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
)


def outbound_manager(policies: Policies, application: Application, workload: Workload, *, port: int) -> Json:
    """The connection manager for what `workload` sends to services at `port`: routed by Host, and as policies say."""
    return http_manager(
        f"outbound_0.0.0.0_{port};",
        route_config=outbound_routes(policies, application, workload, port=port),
        http_filters=list(HTTP_FILTERS),
        tracing=tracing_of(application, workload),
    )


def inbound_manager(application: Application, workload: Workload, rbac: Sequence[Json]) -> Json:
    """The connection manager for what reaches `workload`; `rbac` filters stand before all others."""
    return http_manager(
        f"inbound_0.0.0.0_{workload.port};",
        route_config=_inbound_routes(application, workload),
        http_filters=[*rbac, *HTTP_FILTERS],
        tracing=tracing_of(application, workload),
        server_name="istio-envoy",
        forward_client_cert_details="APPEND_FORWARD",
        set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
    )


def http_manager(stat_prefix: str, **settings: Any) -> Json:
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


def _inbound_routes(application: Application, workload: Workload) -> Json:
    """Named after the first of the workload's Services."""
    named = {full_name(application, one): one for one in application.services if workload in one.workloads}
    service = named[min(named)]
    cluster = inbound_cluster(workload)
    route = {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
    }
    operation = f"{full_name(application, service)}:{service.port}/*"
    host = {"name": f"inbound|http|{service.port}", "domains": ["*"], "routes": [default_route(operation, route)]}
    return {"name": cluster, "validate_clusters": False, "virtual_hosts": [host]}


def tracing_of(application: Application, workload: Workload) -> Json:
    """Each request is sampled or not, although no tracer takes the spans: as by default in Istio."""
    named = {
        "istio.canonical_revision": workload.version,
        "istio.canonical_service": workload.app,
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
