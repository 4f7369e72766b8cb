"""Build the listeners of a sidecar's Envoy configuration, in the shape that kuma-cp gives it. Pure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.application.model import MESH, Application, Service, Workload
from bench.envoy.addresses import HOST, Placement, WaysOut
from bench.envoy.certificates import Certificates
from bench.meshes import kuma
from bench.meshes.kuma.envoy.clusters import inbound_cluster, outbound_cluster, server_socket, stat_name
from bench.meshes.kuma.envoy.rbac import http_rbac_filters, network_rbac_filters
from bench.meshes.kuma.naming import inbound_tags, mesh_service_kri, service_tag, service_tags
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.routing import destinations
from bench.meshes.routing import Way

Json = dict[str, Any]

# As Kuma's agent starts Envoy, but with two workers: Kuma gives one to each processor of the node, which two of
# a small machine also are; a fixed number keeps results of machines comparable with each other, and with Istio's.
ENVOY_OPTIONS: Final = (
    *("--concurrency", "2"),
    *("--disable-hot-restart",),  # otherwise all Envoys of a machine share one piece of memory
    *("--drain-time-s", "30"),
    *("--drain-strategy", "immediate"),
    *("--log-level", "warning"),
)
WAYS_OUT: Final[WaysOut] = "apart"

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_STATS_TAGS: Final = (
    ("name", r"^grpc\.((.+)\.)"),
    ("status", r"^grpc.*streams_closed(_([0-9]+))"),
    ("kafka_name", r"^kafka(\.(\S*[0-9]))\."),
    ("kafka_type", r"^kafka\..*\.(.*?(?=_duration|$))"),
    ("worker", r"(worker_([0-9]+)\.)"),
    ("listener", r"((.+?)\.)rbac\."),
)


def sidecar_bootstrap(
    workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
) -> Json:
    """See `bench.meshes.data_planes.Shape`. Every destination has a listener of its own."""
    application = placement.application
    services = sorted(application.services, key=lambda service: service.name)
    listeners = [_outbound_listener(workload, service, placement=placement, policies=policies) for service in services]
    clusters = [
        outbound_cluster(
            policies,
            workload,
            service,
            ports=[placement.inbound[one.name] for one in service.workloads],
            certificates=certificates,
        )
        for service in destinations(policies, application, workload)
    ]
    if workload.port is not None:
        listeners.append(_inbound_listener(workload, placement, policies=policies, certificates=certificates))
        clusters.append(inbound_cluster(workload, port=placement.serving[workload.name]))
    return whole_bootstrap(workload, placement, admin, listeners=listeners, clusters=clusters)


def whole_bootstrap(
    workload: Workload, placement: Placement, admin: Path, *, listeners: list[Json], clusters: list[Json]
) -> Json:
    """A proxy's configuration, with what is the same in all of Kuma's."""
    return {
        "node": _node(workload, placement),
        "admin": _admin(admin),
        "default_regex_engine": _regex_engine(),
        "layered_runtime": _runtime(),
        "stats_config": {"stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _STATS_TAGS]},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _outbound_listener(workload: Workload, service: Service, *, placement: Placement, policies: Policies) -> Json:
    """What the workload sends to one service."""
    application = placement.application
    if policies.exclusive:
        tags = {"kuma.io/unified-name": mesh_service_kri(application, service)}
    else:
        tags = {"kuma.io/service": service_tag(application, service)}
    return {
        **_listener("outbound", placement.outbound[workload.name, service.name], tags),
        "filter_chains": [{"filters": [outbound_manager(policies, workload, service)]}],
    }


def _inbound_listener(
    workload: Workload, placement: Placement, *, policies: Policies, certificates: Certificates
) -> Json:
    """What reaches the workload: in plain text, or over mutual TLS with permissions."""
    application, port = placement.application, placement.inbound[workload.name]
    tags = inbound_tags(application, workload, service_tags(application, workload)[0])
    listener = _listener("inbound", port, tags)
    manager = inbound_manager(application, workload, http_rbac_filters(policies, workload))
    rbac = network_rbac_filters(policies, workload, listener=stat_name(listener["name"]))
    chain: Json = {"filters": [*rbac, manager]}
    if policies.form != "plain":
        chain["transport_socket"] = server_socket(certificates.identity(workload.account), policies.form)
    return {**listener, "enable_reuse_port": True, "filter_chains": [chain]}


def _listener(direction: str, port: int, tags: object) -> Json:
    return {
        "name": f"{direction}:{HOST}:{port}",
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "traffic_direction": direction.upper(),
        "metadata": {"filter_metadata": {"io.kuma.tags": tags}},
    }


def _node(workload: Workload, placement: Placement) -> Json:
    application = placement.application
    pod = f"{workload.app}-{workload.version}.{application.namespace}"
    return {"id": f"{MESH}.{pod}", "cluster": service_tags(application, workload)[0]}


def _admin(path: Path) -> Json:
    log = {"@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
    return {
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}],
        "address": {"pipe": {"path": str(path), "mode": 0o600}},
    }


def _regex_engine() -> Json:
    return {
        "name": "envoy.regex_engines.google_re2",
        "typed_config": {"@type": f"{_TYPES}.regex_engines.v3.GoogleRE2"},
    }


def _runtime() -> Json:
    limits = {"re2.max_program_size.error_level": str(2**32 - 1), "re2.max_program_size.warn_level": 1000}
    return {"layers": [{"name": "kuma", "static_layer": limits}]}


_HTTP_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"
_MANAGER: Final = f"{_HTTP_TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER: Final[Json] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_HTTP_TYPES}.http.router.v3.Router"},
}
INTERNAL: Final = (
    ("10.0.0.0", 8),
    ("192.168.0.0", 16),
    ("172.16.0.0", 12),
    ("fc00::", 7),
    ("fd00::", 8),
    ("127.0.0.1", 32),
    ("::1", 128),
)
_EVERYTHING: Final[Json] = {"prefix": "/"}
_EVERYTHING_NAME: Final = "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="  # Kuma's hash of that match
_RETRY: Final[Json] = {
    "retry_on": "gateway-error,connect-failure,refused-stream",
    "num_retries": 5,
    "per_try_timeout": "16s",
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
}


def outbound_manager(policies: Policies, caller: Workload, service: Service) -> Json:
    """The connection manager for what `caller` sends to `service`: a listener of its own, routed as policies say."""
    application = policies.application
    cluster = kuma.outbound_cluster(policies, application, service)
    ways = kuma.ways(policies, application, caller=caller, service=service)
    tag = service_tag(application, service)
    routes = {
        "name": mesh_service_kri(application, service) if policies.exclusive else f"outbound:{tag}",
        "validate_clusters": False,
        "virtual_hosts": [_host(cluster, map(_route, ways))],
    }
    return _manager(cluster, normalize_path=True, http_filters=[_ROUTER], route_config=routes)


def inbound_manager(application: Application, workload: Workload, rbac: Sequence[Json]) -> Json:
    """The connection manager for what reaches `workload`; `rbac` filters stand before the router."""
    tag, cluster = service_tags(application, workload)[0], kuma.inbound_cluster(workload)
    route = {"cluster": cluster, "timeout": "0s", "idle_timeout": "3600s"}
    routes = {
        "name": f"inbound:{tag}",
        "request_headers_to_remove": ["x-kuma-tags"],
        "validate_clusters": False,
        "virtual_hosts": [_host(tag, [{"match": _EVERYTHING, "route": route}])],
    }
    return _manager(
        stat_name(cluster),
        http_filters=[*rbac, _ROUTER],
        route_config=routes,
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
        stream_idle_timeout="3600s",
    )


def _manager(stat_prefix: str, **settings: Any) -> Json:
    ranges = [{"address_prefix": address, "prefix_len": length} for address, length in INTERNAL]
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _MANAGER,
            "stat_prefix": stat_prefix,
            "common_http_protocol_options": {"idle_timeout": "0s"},
            "internal_address_config": {"cidr_ranges": ranges},
            "request_headers_timeout": "0s",
            **settings,
        },
    }


def _host(name: str, routes: Iterable[Json]) -> Json:
    return {"name": name, "domains": ["*"], "routes": [*routes]}


def _route(way: Way) -> Json:
    """A route with the time-outs and retries of Kuma's default policies."""
    return {
        "name": way.origin or _EVERYTHING_NAME,
        "match": _match(way),
        "route": {"cluster": way.cluster, "timeout": "15s", "idle_timeout": "1800s", "retry_policy": _RETRY},
    }


def _match(way: Way) -> Json:
    path = _EVERYTHING if way.path is None else {"path": way.path.text}  # of prefixes only the widest is translated
    headers = [{"name": name, "string_match": {one.kind: one.text}} for name, one in way.headers]
    return {**path, **({"headers": headers} if headers else {})}
