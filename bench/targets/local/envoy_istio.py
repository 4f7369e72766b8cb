"""One sidecar's Envoy configuration, in the shape that Istio's control plane gives it. Pure."""

from pathlib import Path
from typing import Any, Final

from bench.meshes.application import Workload
from bench.meshes.istio_names import CLUSTER_DOMAIN
from bench.meshes.istio_policies import Policies
from bench.meshes.istio_rbac import rbac_filters
from bench.targets.local.calls import Identity
from bench.targets.local.certificates import Certificates
from bench.targets.local.envoy_istio_clusters import black_hole_cluster, inbound_cluster, outbound_clusters
from bench.targets.local.envoy_istio_http import BLACK_HOLE, inbound_manager, outbound_manager
from bench.targets.local.envoy_istio_stats import stats_config
from bench.targets.local.envoy_istio_tls import server_socket
from bench.targets.local.placement import Placement, WaysOut
from bench.targets.local.ports import HOST

Json = dict[str, Any]

# As Istio's agent starts Envoy; two workers, since a sidecar's default CPU limit is two cores. Unknown fields
# are not forgiven here: what Istio sends is its business, what we write is ours.
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

WAYS_OUT: Final[WaysOut] = "shared"

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_ISTIO_ALPN: Final = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
_ORIGINAL_DST: Final = "envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst"
_MANY: Final = "2147483647"


def sidecar_bootstrap(
    workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """See `bench.targets.local.envoy.Shape`. A client that serves nothing has an outbound listener only."""
    clusters = [
        black_hole_cluster(),
        *outbound_clusters(workload, placement=placement, policies=policies, certificates=certificates),
    ]
    listeners = [_outbound_listener(workload, placement, policies)]
    if workload.port is not None:
        clusters.append(inbound_cluster(workload, placement=placement))
        identity = certificates.identity(workload.account)
        listeners.append(_inbound_listener(workload, placement, policies=policies, identity=identity))
    return whole_bootstrap(node_of(workload, placement), admin, listeners=listeners, clusters=clusters)


def whole_bootstrap(node: Json, admin: Path, *, listeners: list[Json], clusters: list[Json]) -> Json:
    """A proxy's configuration, with what is the same in all of Istio's."""
    return {
        "node": node,
        "admin": _admin(admin),
        "stats_config": stats_config(),
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "layered_runtime": _runtime(),
        "overload_manager": _overload_manager(),
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _way_out(workload: Workload, placement: Placement) -> int:
    """The one port for all that the workload sends."""
    return placement.reached_by(workload.name, placement.application.services[0].name)


def _outbound_listener(workload: Workload, placement: Placement, policies: Policies) -> Json:
    """What the workload sends: HTTP is routed by Host, all else goes nowhere."""
    port = placement.application.services[0].port
    manager = outbound_manager(policies, placement.application, workload, port=port)
    return {
        **_listener(f"0.0.0.0_{port}", _way_out(workload, placement), "OUTBOUND"),
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
    """What reaches the workload: over mutual TLS, in plain text, or both, as PeerAuthentication says."""
    port, mode = placement.inbound[workload.name], policies.mode(workload)
    rbac = rbac_filters(policies, workload, inbound_port=port)
    manager = inbound_manager(placement.application, workload, rbac)
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
    kind = f"{_TYPES}.filters.listener.{name}.v3.{message}"
    return {"name": f"envoy.filters.listener.{name}", "typed_config": {"@type": kind, **settings}}


def _black_hole_proxy() -> Json:
    kind = f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy"
    settings = {"@type": kind, "cluster": BLACK_HOLE, "stat_prefix": BLACK_HOLE}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": settings}


def node_of(workload: Workload, placement: Placement, kind: str = "sidecar") -> Json:
    """Who the proxy is to its control plane; a gateway's `kind` is `router`."""
    namespace = placement.application.namespace
    pod = f"{workload.app}-{workload.version}.{namespace}"
    return {
        "id": f"{kind}~{HOST}~{pod}~{namespace}.{CLUSTER_DOMAIN}",
        "cluster": f"{workload.app}.{namespace}",
    }


def _admin(path: Path) -> Json:
    log = {"@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
    return {
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
        "address": {"pipe": {"path": str(path), "mode": 0o600}},
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
    kind = f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitor = {"@type": kind, "max_active_downstream_connections": _MANY}
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"resource_monitors": [{"name": name, "typed_config": monitor}]}
