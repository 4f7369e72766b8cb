"""Build the bootstrap and listeners of a sidecar's Envoy configuration as kuma-cp does. Pure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.application.model import MESH, Application, Service, Workload
from bench.envoy.addresses import HOST, Placement
from bench.envoy.certificates import Certificates
from bench.envoy.parts import TYPES, admin_interface
from bench.meshes.kuma.envoy.clusters import (
    build_inbound_cluster,
    build_outbound_cluster,
    identity_domain,
    server_socket,
    stat_name,
)
from bench.meshes.kuma.envoy.rbac import http_rbac_filters, network_rbac_filters
from bench.meshes.kuma.naming import inbound_cluster, inbound_tags, mesh_service_kri, service_tag, service_tags
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.routing import destinations, outbound_cluster
from bench.meshes.kuma.routing import routes as routes_to
from bench.meshes.kuma.traffic import INBOUND, Retry, Timeouts, find_retry, inbound_timeouts, outbound_timeouts
from bench.meshes.routing import Route

Json = dict[str, Any]

# The options of Kuma's agent, but with two workers. Kuma's default is one for each CPU of the node; a fixed number
# makes results of different machines comparable with each other, and with Istio's.
ENVOY_OPTIONS: Final = (
    *("--concurrency", "2"),
    *("--disable-hot-restart",),  # otherwise all Envoys of a machine share one piece of memory
    *("--drain-time-s", "30"),
    *("--drain-strategy", "immediate"),
    *("--log-level", "warning"),
)
# The ranges of internal addresses.
INTERNAL: Final[list[Json]] = [
    {"address_prefix": address, "prefix_len": length}
    for address, length in (
        ("10.0.0.0", 8),
        ("192.168.0.0", 16),
        ("172.16.0.0", 12),
        ("fc00::", 7),
        ("fd00::", 8),
        ("127.0.0.1", 32),
        ("::1", 128),
    )
]

MANAGER: Final = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER: Final[Json] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
}
_ANY_PATH: Final[Json] = {"prefix": "/"}
_ANY_PATH_NAME: Final = "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="  # Kuma's hash of that match
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
    """Return Envoy's complete configuration for a sidecar. Every destination has its own listener."""
    application = placement.application
    services = sorted(application.services, key=lambda service: service.name)
    listeners = [_outbound_listener(workload, service, placement=placement, policies=policies) for service in services]
    clusters = [
        build_outbound_cluster(
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
        clusters.append(build_inbound_cluster(policies, workload, port=placement.serving[workload.name]))
    return build_bootstrap(workload, placement, admin, listeners=listeners, clusters=clusters)


def build_bootstrap(
    workload: Workload, placement: Placement, admin: Path, *, listeners: list[Json], clusters: list[Json]
) -> Json:
    """Build a proxy's configuration, with the parts that are the same in all of Kuma's proxies."""
    return {
        "node": _node(workload, placement),
        "admin": admin_interface(admin),
        "default_regex_engine": _regex_engine(),
        "layered_runtime": _runtime(),
        "stats_config": {"stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _STATS_TAGS]},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _outbound_listener(workload: Workload, service: Service, *, placement: Placement, policies: Policies) -> Json:
    """Build the listener for requests of the workload to one service."""
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
    """Build the listener for requests to the workload: in plaintext, or in mutual TLS with permissions."""
    application, port = placement.application, placement.inbound[workload.name]
    tags = inbound_tags(application, workload, service_tags(application, workload)[0])
    listener = _listener("inbound", port, tags)
    manager = inbound_manager(policies, application, workload)
    rbac = network_rbac_filters(policies, workload, listener=stat_name(listener["name"]))
    chain: Json = {"filters": [*rbac, manager]}
    if policies.form != "plain":
        chain["transport_socket"] = server_socket(certificates.identity(workload.account), identity_domain(policies))
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
    pod = f"{workload.app}-{workload.version}.{application.namespace_of(workload)}"
    return {"id": f"{MESH}.{pod}", "cluster": service_tags(application, workload)[0]}


def _regex_engine() -> Json:
    return {
        "name": "envoy.regex_engines.google_re2",
        "typed_config": {"@type": f"{TYPES}.regex_engines.v3.GoogleRE2"},
    }


def _runtime() -> Json:
    limits = {"re2.max_program_size.error_level": str(2**32 - 1), "re2.max_program_size.warn_level": 1000}
    return {"layers": [{"name": "kuma", "static_layer": limits}]}


def outbound_manager(policies: Policies, caller: Workload, service: Service) -> Json:
    """Build the connection manager for requests from `caller` to `service`, routed by policies."""
    application = policies.application
    cluster = outbound_cluster(policies, application, service)
    every = routes_to(policies, application, caller=caller, service=service)
    timeouts, retry = outbound_timeouts(policies, caller, service), find_retry(policies, caller, service)
    tag = service_tag(application, service)
    routes = {
        "name": mesh_service_kri(application, service) if policies.exclusive else f"outbound:{tag}",
        "validate_clusters": False,
        "virtual_hosts": [_host(cluster, [_route(one, timeouts, retry) for one in every])],
    }
    return _manager(cluster, timeouts, normalize_path=True, http_filters=[ROUTER], route_config=routes)


def inbound_manager(policies: Policies, application: Application, workload: Workload) -> Json:
    """Build the connection manager for requests to `workload`; filters of policies come before the router."""
    tag, cluster = service_tags(application, workload)[0], inbound_cluster(workload)
    timeouts = inbound_timeouts(policies, workload)
    route = {"cluster": cluster, "timeout": timeouts.request, "idle_timeout": timeouts.stream_idle}
    routes = {
        "name": f"inbound:{tag}",
        "request_headers_to_remove": ["x-kuma-tags"],
        "validate_clusters": False,
        "virtual_hosts": [_host(tag, [{"match": _ANY_PATH, "route": route}])],
    }
    return _manager(
        stat_name(cluster),
        timeouts,
        http_filters=[*http_rbac_filters(policies, workload), ROUTER],
        route_config=routes,
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
        stream_idle_timeout=INBOUND.stream_idle,  # whatever the policies say: they are about routes
    )


def _manager(stat_prefix: str, timeouts: Timeouts, **settings: Any) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": stat_prefix,
            "common_http_protocol_options": {"idle_timeout": "0s"},
            "internal_address_config": {"cidr_ranges": INTERNAL},
            "request_headers_timeout": timeouts.request_headers,
            **settings,
        },
    }


def _host(name: str, routes: Iterable[Json]) -> Json:
    return {"name": name, "domains": ["*"], "routes": [*routes]}


def _route(route: Route, timeouts: Timeouts, retry: Retry) -> Json:
    (to,) = route.destinations  # weights are not translated
    return {
        "name": route.origin or _ANY_PATH_NAME,
        "match": _match(route),
        "route": {
            "cluster": to.cluster,
            "timeout": timeouts.request,
            "idle_timeout": timeouts.stream_idle,
            **build_retry(retry),
        },
    }


def build_retry(retry: Retry) -> Json:
    """Build a route's retry policy; none without retries."""
    if not retry.number:
        return {}
    policy = {
        "retry_on": ",".join(retry.conditions),
        "num_retries": retry.number,
        "per_try_timeout": retry.per_try_timeout,
        "retry_back_off": {"base_interval": retry.base_interval, "max_interval": retry.max_interval},
        "retriable_status_codes": [*retry.codes],
        "retriable_request_headers": [{"name": ":method", "string_match": {"exact": one}} for one in retry.methods],
    }
    return {"retry_policy": {name: value for name, value in policy.items() if value}}


def _match(route: Route) -> Json:
    path = _ANY_PATH if route.path is None else {"path": route.path.text}  # the only prefix that is translated is /
    headers = [{"name": name, "string_match": {one.kind: one.text}} for name, one in route.headers]
    return {**path, **({"headers": headers} if headers else {})}
