"""Build the bootstrap and listeners of a sidecar's Envoy configuration as istiod does. Pure.

The statistics include a few more than Istio's. They only change with a connection, a TLS handshake or a retry, never
with an ordinary request.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.application.model import Application, Workload
from bench.envoy.addresses import HOST, Placement
from bench.envoy.certificates import Certificates, Identity
from bench.envoy.parts import TYPES, admin_interface
from bench.meshes.istio.envoy.clusters import (
    BLACK_HOLE,
    black_hole_cluster,
    build_inbound_cluster,
    outbound_clusters,
    server_socket,
)
from bench.meshes.istio.envoy.jwt import jwt_filters
from bench.meshes.istio.envoy.rbac import rbac_filters
from bench.meshes.istio.envoy.routes import default_route, outbound_routes
from bench.meshes.istio.naming import CLUSTER_DOMAIN, full_name, inbound_cluster
from bench.meshes.istio.policies import TRUST_DOMAIN, Policies

Json = dict[str, Any]


# The options of Istio's agent, with two workers, since a sidecar's default CPU limit is two cores. Unlike Istio's, this
# Envoy rejects unknown fields, so that errors in the configuration are found.
ENVOY_OPTIONS: Final = (
    *("--concurrency", "2"),
    *("--disable-hot-restart",),  # otherwise all Envoys of a machine share one piece of memory
    *("--drain-time-s", "45"),
    *("--drain-strategy", "immediate"),
    *("--local-address-ip-version", "v4"),
    *("--file-flush-interval-msec", "1000"),
    *("--log-level", "warning"),
    *("--component-log-level", "misc:error"),
)

HTTP_FILTERS: Final[tuple[Json, ...]] = (
    {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.grpc_stats.v3.FilterConfig",
            "emit_filter_state": True,
            "stats_for_all_methods": False,
        },
    },
    {
        "name": "envoy.filters.http.fault",
        "typed_config": {"@type": f"{TYPES}.filters.http.fault.v3.HTTPFault"},
    },
    {
        "name": "envoy.filters.http.cors",
        "typed_config": {"@type": f"{TYPES}.filters.http.cors.v3.Cors"},
    },
    {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
    },
)

_MANAGER: Final = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_REQUEST_ID: Final = f"{TYPES}.request_id.uuid.v3.UuidRequestIdConfig"
_ISTIO_ALPN: Final = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
_ORIGINAL_DST: Final = "envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst"
_MAX_CONNECTIONS: Final = "2147483647"
_ISTIO_PATTERNS: Final[tuple[Json, ...]] = (
    {"prefix": "reporter="},
    {"prefix": "cluster_manager"},
    {"prefix": "listener_manager"},
    {"prefix": "server"},
    {"prefix": "cluster.xds-grpc"},
    {"prefix": "wasm"},
    {"suffix": "rbac.allowed"},
    {"suffix": "rbac.denied"},
    {"suffix": "shadow_allowed"},
    {"suffix": "shadow_denied"},
    {"safe_regex": {"regex": r"vhost\..*\.route\..*"}},
    {"prefix": "component"},
    {"prefix": "istio"},
)
_PROOF_PATTERNS: Final[tuple[Json, ...]] = (
    {"suffix": "ssl.handshake"},
    {"safe_regex": {"regex": r".*\.ssl\.(versions|ciphers|curves)\..*"}},
    {"suffix": "upstream_rq_retry"},
    {"safe_regex": {"regex": r".*\.upstream_cx_http[12]_total"}},
)
_TAGS: Final[tuple[tuple[str, str], ...]] = (
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
)
_DRY_RUN_TAGS: Final = (
    ("allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
    ("allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    ("deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
    ("deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
)


def sidecar_bootstrap(
    workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """Return Envoy's complete configuration for a sidecar.

    A client that serves nothing has only an outbound listener.
    """
    clusters = [
        black_hole_cluster(),
        *outbound_clusters(workload, placement=placement, policies=policies, certificates=certificates),
    ]
    listeners = [_outbound_listener(workload, placement, policies)]
    if workload.port is not None:
        clusters.append(build_inbound_cluster(workload, placement=placement, policies=policies))
        identity = certificates.identity(workload.account)
        listeners.append(_inbound_listener(workload, placement, policies=policies, identity=identity))
    return build_bootstrap(node_of(workload, placement), admin, listeners=listeners, clusters=clusters)


def build_bootstrap(node: Json, admin: Path, *, listeners: list[Json], clusters: list[Json]) -> Json:
    """Build a proxy's configuration, with the parts that are the same in all of Istio's proxies."""
    return {
        "node": node,
        "admin": admin_interface(admin),
        "stats_config": stats_config(),
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "layered_runtime": _runtime(),
        "overload_manager": _overload_manager(),
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def stats_config() -> Json:
    """Build the bootstrap's `stats_config`."""
    return {
        "use_all_default_tags": False,
        "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _TAGS],
        "stats_matcher": {"inclusion_list": {"patterns": [*_ISTIO_PATTERNS, *_PROOF_PATTERNS]}},
    }


def _outbound_port(workload: Workload, placement: Placement) -> int:
    """Return the port for all requests that the workload sends."""
    return placement.reached_by(workload.name, placement.application.services[0].name)


def _outbound_listener(workload: Workload, placement: Placement, policies: Policies) -> Json:
    """Build the listener for what the workload sends: HTTP is routed by Host, all else is dropped."""
    port = placement.application.services[0].port
    manager = outbound_manager(policies, placement.application, workload, port=port)
    return {
        **_listener(f"0.0.0.0_{port}", _outbound_port(workload, placement), "OUTBOUND"),
        "listener_filters": [_inspector("http_inspector", "HttpInspector")],
        "filter_chains": [
            {
                "filter_chain_match": {
                    "transport_protocol": "raw_buffer",
                    "application_protocols": ["http/1.1", "h2c"],
                },
                "filters": [manager],
                "transport_socket_connect_timeout": "15s",
            }
        ],
        "default_filter_chain": {"name": "PassthroughFilterChain", "filters": [_black_hole_proxy()]},
    }


def _inbound_listener(workload: Workload, placement: Placement, *, policies: Policies, identity: Identity) -> Json:
    """Build the listener for what reaches the workload: mutual TLS, plaintext, or both, by PeerAuthentication."""
    port, mode = placement.inbound[workload.name], policies.mode(workload)
    filters = [*jwt_filters(policies, workload), *rbac_filters(policies, workload, inbound_port=port)]
    manager = inbound_manager(placement.application, workload, filters)
    plain = _chain(workload, {"transport_protocol": "raw_buffer"}, manager)
    strict = {
        **_chain(workload, {"transport_protocol": "tls"}, manager),
        "transport_socket": server_socket(identity),
    }
    match = {"transport_protocol": "tls", "application_protocols": _ISTIO_ALPN}
    chains = {
        "STRICT": [strict],
        "PERMISSIVE": [{**strict, "filter_chain_match": match}, plain],
        "DISABLE": [plain],
    }
    inspectors = (
        [] if mode == "DISABLE" else [_inspector("tls_inspector", "TlsInspector", initial_read_buffer_size=512)]
    )
    return {
        **_listener("virtualInbound", port, "INBOUND"),
        "max_connections_to_accept_per_socket_event": 1,
        "listener_filters": inspectors,
        "filter_chains": chains[mode],
    }


def _listener(name: str, port: int, direction: str) -> Json:
    return {
        "name": name,
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "traffic_direction": direction,
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
    }


def _chain(workload: Workload, match: Json, manager: Json) -> Json:
    return {"name": f"0.0.0.0_{workload.port}", "filter_chain_match": match, "filters": [manager]}


def _inspector(name: str, message: str, **settings: Any) -> Json:
    kind = f"{TYPES}.filters.listener.{name}.v3.{message}"
    return {"name": f"envoy.filters.listener.{name}", "typed_config": {"@type": kind, **settings}}


def _black_hole_proxy() -> Json:
    kind = f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"
    settings = {"@type": kind, "cluster": BLACK_HOLE, "stat_prefix": BLACK_HOLE}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": settings}


def node_of(workload: Workload, placement: Placement, kind: str = "sidecar") -> Json:
    """Build the proxy's id at its control plane; a gateway's `kind` is `router`."""
    namespace = placement.application.namespace_of(workload)
    pod = f"{workload.app}-{workload.version}.{namespace}"
    return {
        "id": f"{kind}~{HOST}~{pod}~{namespace}.{CLUSTER_DOMAIN}",
        "cluster": f"{workload.app}.{namespace}",
    }


def _runtime() -> Json:
    settings = {
        f"envoy.deprecated_features:{_ORIGINAL_DST}": True,
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
        "envoy.reloadable_features.fixed_heap_use_allocated": True,
        "envoy.reloadable_features.http_reject_path_with_fragment": False,
        "re2.max_program_size.error_level": "32768",
    }
    return {
        "layers": [
            {"name": "global config", "static_layer": settings},
            {"name": "admin", "admin_layer": {}},
        ]
    }


def _overload_manager() -> Json:
    kind = f"{TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitor = {"@type": kind, "max_active_downstream_connections": _MAX_CONNECTIONS}
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"resource_monitors": [{"name": name, "typed_config": monitor}]}


def outbound_manager(policies: Policies, application: Application, workload: Workload, *, port: int) -> Json:
    """Build the connection manager for requests from `workload` to services at `port`, routed by Host and policies."""
    return http_manager(
        f"outbound_0.0.0.0_{port};",
        route_config=outbound_routes(policies, application, port=port),
        http_filters=list(HTTP_FILTERS),
        tracing=tracing_of(application, workload),
    )


def inbound_manager(application: Application, workload: Workload, policy_filters: Sequence[Json]) -> Json:
    """Build the connection manager for requests to `workload`; filters of policies come before all others."""
    return http_manager(
        f"inbound_0.0.0.0_{workload.port};",
        route_config=_inbound_routes(application, workload),
        http_filters=[*policy_filters, *HTTP_FILTERS],
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
    """Build the inbound routes, named after the first of the workload's Services."""
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
    """Build the tracing settings: sampling without a tracer, the default of Istio."""
    tags = {
        "istio.canonical_revision": workload.version,
        "istio.canonical_service": workload.app,
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": TRUST_DOMAIN,
        "istio.namespace": application.namespace_of(workload),
    }
    return {
        "client_sampling": {"value": 100},
        "random_sampling": {"value": 1},
        "overall_sampling": {"value": 100},
        "custom_tags": [
            *(_dry_run_tag(tag, key) for tag, key in _DRY_RUN_TAGS),
            *({"tag": tag, "literal": {"value": value}} for tag, value in tags.items()),
        ],
    }


def _dry_run_tag(tag: str, key: str) -> Json:
    metadata = {"key": "envoy.filters.http.rbac", "path": [{"key": key}]}
    return {
        "tag": f"istio.authorization.dry_run.{tag}",
        "metadata": {"kind": {"request": {}}, "metadata_key": metadata},
    }
