"""HTTP as Kuma's sidecars handle it: connection managers, routes, retries and time-outs of its default policies."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench.meshes import kuma
from bench.meshes.application import Application, Service, Workload
from bench.meshes.kuma_names import mesh_service_kri, service_tag, service_tags
from bench.meshes.kuma_policies import Policies
from bench.meshes.routes import Way

Json = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"
_MANAGER: Final = f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER: Final[Json] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
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


def stat_name(name: str) -> str:
    """A name as Kuma writes it in statistics: `localhost_9080`."""
    return "".join(character if character.isalnum() else "_" for character in name)


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
