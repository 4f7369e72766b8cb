"""Build the Envoy routes of an Istio sidecar: a virtual host for each service, matched by the Host header."""

from collections.abc import Iterable
from typing import Any, Final

from bench.application.model import Application, Service
from bench.envoy.parts import STATUS_CODES
from bench.meshes.istio.naming import full_name
from bench.meshes.istio.policies import Policies
from bench.meshes.istio.route_manifests import Fault, HttpRetry, HttpRoute, Percent
from bench.meshes.istio.routing import list_routes
from bench.meshes.routing import Condition, Route

Json = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_PREVIOUS_HOSTS: Final = f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_ANY_PATH: Final[Json] = {"prefix": "/"}
_FAULT: Final = "envoy.filters.http.fault"
_BY_STATUS: Final = "retriable-status-codes"

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


def outbound_routes(policies: Policies, application: Application, *, port: int) -> Json:
    """Build the routes of every sidecar to services at `port`."""
    matching = [service for service in application.services if service.port == port]
    services = sorted(matching, key=lambda service: full_name(application, service))
    hosts = [_host(application, one, routes=list_routes(policies, application, one)) for one in services]
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


def _host(application: Application, service: Service, *, routes: Iterable[tuple[Route, HttpRoute | None]]) -> Json:
    name, namespace, full = service.name, application.namespace_of(service.workload), full_name(application, service)
    return {
        "name": f"{full}:{service.port}",
        "domains": [full, f"{full}.", name, f"{name}.{namespace}.svc", f"{name}.{namespace}"],
        "include_request_attempt_count": True,
        "routes": [_route(route, written, application, port=service.port) for route, written in routes],
    }


def _route(route: Route, written: HttpRoute | None, application: Application, *, port: int) -> Json:
    first, path = route.destinations[0], _format_path(route.path)
    operation = f"{full_name(application, first.service)}:{first.service.port}{path}"
    if written is None:
        return default_route(operation, route_to(first.cluster))
    if route.is_split:
        operation = f"{route.origin.rpartition('/')[2]}:{port}{path}"
    return {
        **({"name": written.name} if written.name else {}),
        "match": _match(route),
        "decorator": {"operation": operation},
        "metadata": {"filter_metadata": {"istio": {"config": route.origin}}},
        "route": _action(route, written),
        **({"typed_per_filter_config": {_FAULT: _fault(written.fault)}} if written.fault else {}),
    }


def _action(route: Route, written: HttpRoute) -> Json:
    """Build a route's action with what its VirtualService sets."""
    action = route_to(route.destinations[0].cluster)
    if route.is_split:
        shares = [{"name": one.cluster, "weight": one.weight} for one in route.destinations]
        action = {**_drop(action, "cluster"), "weighted_clusters": {"clusters": shares}}
    if written.timeout is not None:
        action |= {"timeout": written.timeout, "max_grpc_timeout": written.timeout}
    if written.retries is None:
        return action
    return {**_drop(action, "retry_policy"), **_retry(written.retries)}


def _drop(action: Json, name: str) -> Json:
    return {key: value for key, value in action.items() if key != name}


def _retry(retries: HttpRetry) -> Json:
    """Build a route's retry policy; none without attempts."""
    if not retries.attempts:
        return {}
    policy = {**DEFAULT_RETRY, "num_retries": retries.attempts}
    if not retries.retry_ignore_previous_hosts:
        policy = _drop(policy, "retry_host_predicate")
    if retries.retry_on is not None:
        policy |= _retry_conditions(retries.retry_on)
    if retries.per_try_timeout is not None:
        policy["per_try_timeout"] = retries.per_try_timeout
    if retries.backoff is not None:
        policy["retry_back_off"] = {"base_interval": retries.backoff}
    return {"retry_policy": policy}


def _retry_conditions(retry_on: str) -> Json:
    """Build the conditions of a retry, of which Istio takes numbers for the status codes of responses."""
    parts = [part for part in map(str.strip, retry_on.split(",")) if part]
    codes = [int(part) for part in parts if part in STATUS_CODES]
    names = [part for part in parts if part not in STATUS_CODES]
    if codes and _BY_STATUS not in names:
        names.append(_BY_STATUS)
    return {"retry_on": ",".join(names), **({"retriable_status_codes": codes} if codes else {})}


def _fault(fault: Fault) -> Json:
    settings: Json = {"@type": f"{_TYPES}.filters.http.fault.v3.HTTPFault"}
    if fault.delay is not None:
        settings["delay"] = {"fixed_delay": fault.delay.fixed_delay, "percentage": _percentage(fault.delay.percentage)}
    if fault.abort is not None:
        settings["abort"] = {"http_status": fault.abort.http_status, "percentage": _percentage(fault.abort.percentage)}
    return settings


def _percentage(percent: Percent) -> Json:
    return {"numerator": int(percent.value * 10_000), "denominator": "MILLION"}


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
