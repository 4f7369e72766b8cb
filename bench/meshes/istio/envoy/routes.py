"""Where an Istio sidecar sends requests, as Envoy's routes: a virtual host for each service, told apart by Host."""

from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import Application, Service, Workload
from bench.meshes.istio.naming import full_name
from bench.meshes.istio.policies import Policies
from bench.meshes.istio.routing import ways as ways_to
from bench.meshes.routing import Condition, Way

Json = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_PREVIOUS_HOSTS: Final = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_EVERYTHING: Final[Json] = {"prefix": "/"}

DEFAULT_RETRY: Final[Json] = {
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


def outbound_routes(policies: Policies, application: Application, workload: Workload, *, port: int) -> Json:
    """The routes of what `workload` sends to services at `port`."""
    there = [service for service in application.services if service.port == port]
    services = sorted(there, key=lambda service: full_name(application, service))
    hosts = [
        _host(application, one, ways=ways_to(policies, application, caller=workload, service=one)) for one in services
    ]
    nobody = {
        "name": "block_all",
        "domains": ["*"],
        "include_request_attempt_count": True,
        "routes": [{"name": "block_all", "match": _EVERYTHING, "direct_response": {"status": 502}}],
    }
    return {
        "name": str(port),
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1024 * 1024,
        "virtual_hosts": [*hosts, nobody],
    }


def route_to(cluster: str) -> Json:
    """The part of a route that says where to: no time-out, and Istio's own retries."""
    return {"cluster": cluster, "timeout": "0s", "max_grpc_timeout": "0s", "retry_policy": DEFAULT_RETRY}


def default_route(operation: str, route: Json) -> Json:
    """The route that Istio makes itself, for every request."""
    return {"name": "default", "match": _EVERYTHING, "decorator": {"operation": operation}, "route": route}


def _host(application: Application, service: Service, *, ways: Sequence[Way]) -> Json:
    name, namespace, full = service.name, application.namespace, full_name(application, service)
    return {
        "name": f"{full}:{service.port}",
        "domains": [full, f"{full}.", name, f"{name}.{namespace}.svc", f"{name}.{namespace}"],
        "include_request_attempt_count": True,
        "routes": [_route(way, application) for way in ways],
    }


def _route(way: Way, application: Application) -> Json:
    operation = f"{full_name(application, way.service)}:{way.service.port}{_asked(way.path)}"
    if not way.origin:
        return default_route(operation, route_to(way.cluster))
    return {
        "match": _match(way),
        "decorator": {"operation": operation},
        "metadata": {"filter_metadata": {"istio": {"config": way.origin}}},
        "route": route_to(way.cluster),
    }


def _asked(path: Condition | None) -> str:
    if path is None:
        return "/*"
    return path.text if path.kind == "exact" else f"{path.text}*"


def _match(way: Way) -> Json:
    if way.path is None and not way.headers:
        return _EVERYTHING
    path = _EVERYTHING if way.path is None else {"path" if way.path.kind == "exact" else "prefix": way.path.text}
    headers = [{"name": name, "string_match": {one.kind: one.text}} for name, one in way.headers]
    return {**path, **({"headers": headers} if headers else {}), "case_sensitive": True}
