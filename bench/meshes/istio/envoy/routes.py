"""Build the Envoy routes of an Istio sidecar: a virtual host for each service, matched by the Host header."""

from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import Application, Service, Workload
from bench.meshes.istio.naming import full_name
from bench.meshes.istio.policies import Policies
from bench.meshes.istio.routing import routes as routes_to
from bench.meshes.routing import Condition, Route

Json = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_PREVIOUS_HOSTS: Final = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_ANY_PATH: Final[Json] = {"prefix": "/"}

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
    """Build the routes from `workload` to services at `port`."""
    matching = [service for service in application.services if service.port == port]
    services = sorted(matching, key=lambda service: full_name(application, service))
    hosts = [
        _host(application, one, routes=routes_to(policies, application, caller=workload, service=one))
        for one in services
    ]
    unknown = {
        "name": "block_all",
        "domains": ["*"],
        "include_request_attempt_count": True,
        "routes": [{"name": "block_all", "match": _ANY_PATH, "direct_response": {"status": 502}}],
    }
    return {
        "name": str(port),
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1024 * 1024,
        "virtual_hosts": [*hosts, unknown],
    }


def route_to(cluster: str) -> Json:
    """Build a route's action: its cluster, without a timeout, and with Istio's default retries."""
    return {"cluster": cluster, "timeout": "0s", "max_grpc_timeout": "0s", "retry_policy": DEFAULT_RETRY}


def default_route(operation: str, route: Json) -> Json:
    """Build the route for all requests that Istio adds itself."""
    return {"name": "default", "match": _ANY_PATH, "decorator": {"operation": operation}, "route": route}


def _host(application: Application, service: Service, *, routes: Sequence[Route]) -> Json:
    name, namespace, full = service.name, application.namespace_of(service.workload), full_name(application, service)
    return {
        "name": f"{full}:{service.port}",
        "domains": [full, f"{full}.", name, f"{name}.{namespace}.svc", f"{name}.{namespace}"],
        "include_request_attempt_count": True,
        "routes": [_route(route, application) for route in routes],
    }


def _route(route: Route, application: Application) -> Json:
    operation = f"{full_name(application, route.service)}:{route.service.port}{_format_path(route.path)}"
    if not route.origin:
        return default_route(operation, route_to(route.cluster))
    return {
        "match": _match(route),
        "decorator": {"operation": operation},
        "metadata": {"filter_metadata": {"istio": {"config": route.origin}}},
        "route": route_to(route.cluster),
    }


def _format_path(path: Condition | None) -> str:
    if path is None:
        return "/*"
    return path.text if path.kind == "exact" else f"{path.text}*"


def _match(route: Route) -> Json:
    if route.path is None and not route.headers:
        return _ANY_PATH
    path = _ANY_PATH if route.path is None else {"path" if route.path.kind == "exact" else "prefix": route.path.text}
    headers = [{"name": name, "string_match": {one.kind: one.text}} for name, one in route.headers]
    return {**path, **({"headers": headers} if headers else {}), "case_sensitive": True}
