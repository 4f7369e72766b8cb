"""Build Envoy's RBAC filters from Kuma's permissions, in the shape and order of kuma-cp.

With a MeshIdentity, or a MeshTrafficPermission with `from`, it is an HTTP filter, which checks each request. In the
older form it is a network filter, which checks each connection. Without mutual TLS there is neither.
"""

from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import Workload
from bench.meshes.kuma.manifests import ANY, SpiffeIdMatch, Verb
from bench.meshes.kuma.naming import builtin_id, permission_kri, service_tags
from bench.meshes.kuma.policies import Policies

Json = dict[str, Any]

_TYPES: Final = "type.googleapis.com/envoy"
_ACTION: Final = f"{_TYPES}.config.rbac.v3.Action"
_URI_SAN: Final[Json] = {
    "name": "envoy.matching.inputs.uri_san",
    "typed_config": {"@type": f"{_TYPES}.extensions.matching.common_inputs.ssl.v3.UriSanInput"},
}


def http_rbac_filters(policies: Policies, workload: Workload) -> list[Json]:
    """Build the HTTP filter of a workload: with a MeshIdentity deny before allow, and all else is denied; with `from`
    the callers that are allowed."""
    if policies.form == "builtin" and policies.callers_of(workload):
        return [_from_filter(policies, workload)]
    if policies.form != "identity":
        return []
    matcher: Json = {"on_no_match": _action("default", "deny")}
    if entries := _entries(policies, workload):
        matcher = {"matcher_list": {"matchers": entries}, **matcher}
    kind = f"{_TYPES}.extensions.filters.http.rbac.v3.RBAC"
    return [{"name": "envoy.filters.http.rbac", "typed_config": {"@type": kind, "matcher": matcher}}]


def network_rbac_filters(policies: Policies, workload: Workload, *, listener: str) -> list[Json]:
    """Build the network filter of a workload in the older form; without a permission its rules allow no caller. A
    MeshTrafficPermission takes its place."""
    if policies.form != "builtin" or policies.callers_of(workload):
        return []
    permission = policies.closest_permission(workload)
    entries: Json = {}
    if permission is not None:
        principals = [_principal(source.match.service) for source in permission.spec.sources]
        entries = {"policies": {permission.metadata.name: {"permissions": [{"any": True}], "principals": principals}}}
    kind = f"{_TYPES}.extensions.filters.network.rbac.v3.RBAC"
    settings = {"@type": kind, "rules": entries, "stat_prefix": f"{listener}."}
    return [{"name": "envoy.filters.network.rbac", "typed_config": settings}]


def _from_filter(policies: Policies, workload: Workload) -> Json:
    """Build the filter of `from`: a principal for each service that is allowed, and one for all that none names."""
    entries = [(one.target_ref.service, one.default.action) for one in policies.callers_of(workload)]
    named = [service for service in dict.fromkeys(service for service, _ in entries) if service != ANY]
    principals = [_principal(service) for service in named if _last_action(entries, service) == "Allow"]
    if _last_action(entries, ANY) == "Allow":
        others = [{"not_id": _principal(service)} for service in named]
        principals.append(others[0] if len(others) == 1 else {"and_ids": {"ids": others}} if others else {"any": True})
    permitted = {"permissions": [{"any": True}], "principals": principals}
    rules = {"policies": {"MeshTrafficPermission": permitted}} if principals else {}
    kind = f"{_TYPES}.extensions.filters.http.rbac.v3.RBAC"
    return {"name": "envoy.filters.http.rbac", "typed_config": {"@type": kind, "rules": rules}}


def _last_action(entries: Sequence[tuple[str, str]], service: str) -> str:
    return next((action for name, action in reversed(entries) if name in (service, ANY)), "Deny")


def _entries(policies: Policies, workload: Workload) -> list[Json]:
    """Build the entries once for each Service of the workload, as kuma-cp does."""
    return [
        _entry(permission_kri(policies.namespace_of(policy), policy.metadata.name), verb, match)
        for wanted in ("deny", "allow")
        for _ in service_tags(policies.application, workload)
        for policy in policies.permissions_for(workload)
        for verb, match in policy.entries()
        if verb == wanted
    ]


def _entry(name: str, verb: Verb, match: SpiffeIdMatch) -> Json:
    predicate = {"single_predicate": {"input": _URI_SAN, "value_match": {match.type.lower(): match.value}}}
    return {"predicate": predicate, "on_match": _action(name, verb)}


def _action(name: str, verb: Verb) -> Json:
    action = {"@type": _ACTION, "name": name, **({"action": "DENY"} if verb == "deny" else {})}
    return {"action": {"name": "envoy.filters.rbac.action", "typed_config": action}}


def _principal(service: str) -> Json:
    if service == ANY:
        return {"any": True}
    return {"authenticated": {"principal_name": {"exact": builtin_id(service)}}}
