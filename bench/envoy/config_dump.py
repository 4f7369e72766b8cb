"""Read what an Envoy's configuration does with requests to a cluster, from a bootstrap or a /config_dump. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.results.records import Limits, Retries

Json = dict[str, Any]

_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MANAGER: Final = "http_connection_manager.v3.HttpConnectionManager"
_RBAC: Final = "filters.{tier}.rbac.v3.RBAC"

# Envoy's defaults.
_TIMEOUT_S: Final = 15.0
_RETRIES: Final = 1
_BACKOFF_S: Final = 0.025
_LONGEST_BACKOFF: Final = 10  # times the first
_LIMITS: Final = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3}
_NO_LIMIT: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """Clusters and routes by name; routes inside listeners are not among `routes`."""

    listeners: tuple[Json, ...]
    clusters: Mapping[str, Json]
    routes: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Route:
    """A route to a cluster: its action, and the filters of both tiers that a request passes first."""

    action: Json
    network_filters: tuple[Json, ...]
    http_filters: tuple[Json, ...]


def parse_bootstrap(bootstrap: Json) -> EnvoyConfig:
    """Parse a bootstrap, in which all resources are static."""
    resources = bootstrap["static_resources"]
    return EnvoyConfig(tuple(resources["listeners"]), {one["name"]: one for one in resources["clusters"]}, {})


def parse_dump(dump: Json) -> EnvoyConfig:
    """Parse an Envoy's response to /config_dump, with its static and dynamic resources."""
    sections = {section["@type"].rpartition(".")[2]: section for section in dump["configs"]}
    listeners = sections.get("ListenersConfigDump", {})
    active = [one["active_state"] for one in listeners.get("dynamic_listeners", ()) if "active_state" in one]
    return EnvoyConfig(
        tuple(one["listener"] for one in (*listeners.get("static_listeners", ()), *active)),
        _index_by_name(
            sections.get("ClustersConfigDump", {}), "cluster", ("static_clusters", "dynamic_active_clusters")
        ),
        _index_by_name(
            sections.get("RoutesConfigDump", {}), "route_config", ("static_route_configs", "dynamic_route_configs")
        ),
    )


def _index_by_name(section: Json, kind: str, parts: Collection[str]) -> dict[str, Json]:
    found = (entry[kind] for part in parts for entry in section.get(part, ()) if kind in entry)
    return {one["name"]: one for one in found if "name" in one}


def route_to(config: EnvoyConfig, clusters: Collection[str]) -> Route | None:
    """Return the first route to one of the clusters; inbound and outbound clusters have different names."""
    return next(_routes_to(config, clusters), None)


def _routes_to(config: EnvoyConfig, clusters: Collection[str]) -> Iterator[Route]:
    for chain in _chains(config):
        for manager in (one["typed_config"] for one in chain["filters"] if _has_type(one, _MANAGER)):
            for action in _actions(config, manager):
                if not _targets(action).isdisjoint(clusters):
                    yield Route(action, tuple(chain["filters"]), tuple(manager.get("http_filters", ())))


def _chains(config: EnvoyConfig) -> Iterator[Json]:
    for listener in config.listeners:
        yield from (chain for chain in listener.get("filter_chains", ()) if chain.get("filters"))


def _has_type(entry: Json, message: str) -> bool:
    return str(entry.get("typed_config", {}).get("@type", "")).endswith(message)


def _actions(config: EnvoyConfig, manager: Json) -> Iterator[Json]:
    name = manager.get("rds", {}).get("route_config_name", "")
    routes = manager.get("route_config") or config.routes.get(name, {})
    for host in routes.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            if "route" in route:
                yield {"retry_policy": host.get("retry_policy"), **route["route"]}


def _targets(action: Json) -> set[str]:
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    return {action.get("cluster", ""), *(one["name"] for one in weighted)}


def timeout_of(route: Route) -> float | None:
    """Return the timeout of a response in seconds; None without a timeout."""
    return _seconds(route.action.get("timeout"), _TIMEOUT_S) or None


def retries_of(route: Route) -> Retries | None:
    """Return how a failed request is retried; None without retries."""
    policy = route.action.get("retry_policy") or {}
    number = int(policy.get("num_retries", _RETRIES))
    if not policy.get("retry_on") or not number:
        return None
    backoff = policy.get("retry_back_off", {})
    first_s = _seconds(backoff.get("base_interval"), _BACKOFF_S)
    return Retries(
        number=number,
        conditions=tuple(policy["retry_on"].split(",")),
        per_try_timeout_s=_seconds(policy.get("per_try_timeout"), 0.0) or None,
        backoff_s=(first_s, _seconds(backoff.get("max_interval"), _LONGEST_BACKOFF * first_s)),
    )


def policies_of(route: Route) -> tuple[int | None, int | None]:
    """Count the entries in the RBAC filters before a route, by HTTP and network tier; None without such a filter."""
    return _entries(route.http_filters, "http"), _entries(route.network_filters, "network")


def _entries(filters: Collection[Json], tier: str) -> int | None:
    found = [one["typed_config"] for one in filters if _has_type(one, _RBAC.format(tier=tier))]
    return sum(map(_count_entries, found)) if found else None


def _count_entries(rbac: Json) -> int:
    """Count policies and matchers; newer permissions are matchers."""
    matchers = rbac.get("matcher", {}).get("matcher_list", {}).get("matchers", ())
    return len(rbac.get("rules", {}).get("policies", {})) + len(matchers)


def http_of(cluster: Json) -> str:
    """Return the HTTP version of requests to a cluster."""
    options = cluster.get("typed_extension_protocol_options", {}).get(_HTTP, {})
    if "use_downstream_protocol_config" in options:
        return "as the caller"
    explicit = options.get("explicit_http_config", cluster)
    return "HTTP/2" if "http2_protocol_options" in explicit else "HTTP/1.1"


def load_balancing_of(cluster: Json) -> str:
    """Return Envoy's name of the load-balancing policy."""
    return str(cluster.get("lb_policy", "ROUND_ROBIN"))


def limits_of(cluster: Json) -> Limits:
    """Return the circuit breaker for requests of default priority."""
    thresholds = cluster.get("circuit_breakers", {}).get("thresholds", ())
    threshold: Json = next((one for one in thresholds if one.get("priority", "DEFAULT") == "DEFAULT"), {})
    found = {name: int(threshold.get(name, default)) for name, default in _LIMITS.items()}
    connections, pending, requests, retries = (None if n >= _NO_LIMIT else n for n in found.values())
    return Limits(connections=connections, pending=pending, requests=requests, retries=retries)


def _seconds(duration: str | None, default: float) -> float:
    """Return the seconds in a duration of Envoy's JSON, which is always in seconds: `0.025s`."""
    return default if duration is None else float(duration.removesuffix("s"))
