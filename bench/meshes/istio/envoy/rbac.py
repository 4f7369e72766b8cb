"""Build Envoy's RBAC filters from Istio's AuthorizationPolicies, in the shape and order of istiod.

One HTTP filter holds all DENY policies of a workload, the next all ALLOW policies: one entry per rule, named
`ns[NAMESPACE]-policy[NAME]-rule[NUMBER]`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bench.application.model import Workload
from bench.meshes.istio.policies import AuthorizationPolicy, OperationMatch, Policies, Rule, SourceMatch, parse_pattern

Json = dict[str, Any]

_RBAC_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_NEVER: Final[Json] = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
_UNUSED_PORT: Final = 0


def rbac_filters(policies: Policies, workload: Workload, *, inbound_port: int) -> list[Json]:
    """Build the HTTP filters of one workload: DENY before ALLOW, none without a policy.

    `inbound_port` is the port at which the sidecar listens for the workload's port. Policies name the latter, and Envoy
    compares the port of the connection.
    """
    filters = []
    for action in ("DENY", "ALLOW"):
        authorization = policies.authorization_for(workload, action)
        if authorization:
            ports = {str(workload.port): inbound_port}
            filters.append(_filter(action, _entries(policies, authorization, ports)))
    return filters


def _filter(action: str, entries: Json) -> Json:
    rules = {"policies": entries} if action == "ALLOW" else {"action": action, "policies": entries}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": _RBAC_TYPE,
            "rules": rules,
            "shadow_rules_stat_prefix": "istio_dry_run_allow_",  # whatever the action: istiod does so too
        },
    }


def _entries(policies: Policies, authorization: Iterable[AuthorizationPolicy], ports: dict[str, int]) -> Json:
    entries: Json = {}
    for policy in authorization:
        name = f"ns[{policies.namespace_of(policy)}]-policy[{policy.metadata.name}]"
        entries |= {f"{name}-rule[{index}]": _rule(rule, ports) for index, rule in enumerate(policy.spec.rules)}
        if not policy.spec.rules:
            entries[f"{name}-rule[0]"] = _NEVER
    return entries


def _rule(rule: Rule, ports: dict[str, int]) -> Json:
    operations = [_operation(part.operation, ports) for part in rule.to] or [[{"any": True}]]
    sources = [_source(part.source) for part in rule.from_] or [[{"any": True}]]
    return {
        "permissions": [{"and_rules": {"rules": rules}} for rules in operations],
        "principals": [{"and_ids": {"ids": ids}} for ids in sources],
    }


def _operation(operation: OperationMatch, ports: dict[str, int]) -> list[Json]:
    def port(value: str) -> Json:
        return {"destination_port": ports.get(value, _UNUSED_PORT)}

    return [
        *_permission(operation.hosts, operation.not_hosts, _host),
        *_permission(operation.methods, operation.not_methods, _method),
        *_permission(operation.paths, operation.not_paths, _path),
        *_permission(operation.ports, operation.not_ports, port),
    ]


def _source(source: SourceMatch) -> list[Json]:
    return [
        *_principal(source.principals, source.not_principals, _identity),
        *_principal(source.namespaces, source.not_namespaces, _namespace),
    ]


def _permission(values: Sequence[str], not_values: Sequence[str], translate: Callable[[str], Json]) -> list[Json]:
    wanted, unwanted = ([translate(value) for value in some] for some in (values, not_values))
    return [
        *([{"or_rules": {"rules": wanted}}] if wanted else []),
        *([{"not_rule": {"or_rules": {"rules": unwanted}}}] if unwanted else []),
    ]


def _principal(values: Sequence[str], not_values: Sequence[str], translate: Callable[[str], Json]) -> list[Json]:
    wanted, unwanted = ([translate(value) for value in some] for some in (values, not_values))
    return [
        *([{"or_ids": {"ids": wanted}}] if wanted else []),
        *([{"not_id": {"or_ids": {"ids": unwanted}}}] if unwanted else []),
    ]


def _method(value: str) -> Json:
    return {"header": _header(":method", value)}


def _host(value: str) -> Json:
    header = _header(":authority", value)
    if "string_match" in header:
        header["string_match"]["ignore_case"] = True
    return {"header": header}


def _header(name: str, value: str) -> Json:
    pattern = parse_pattern(value)
    if pattern.kind == "present":
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": pattern.string_match()}


def _path(value: str) -> Json:
    return {"url_path": {"path": parse_pattern(value).string_match()}}


def _identity(value: str) -> Json:
    return {"authenticated": {"principal_name": parse_pattern(value).string_match(after="spiffe://")}}


def _namespace(value: str) -> Json:
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": f".*/ns/{value}/.*"}}}}
