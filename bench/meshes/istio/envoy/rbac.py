"""Build Envoy's RBAC filters from Istio's AuthorizationPolicies, in the shape and order of istiod.

One HTTP filter holds all AUDIT policies of a workload, the next all DENY policies, the last all ALLOW policies: one
entry per rule, named `ns[NAMESPACE]-policy[NAME]-rule[NUMBER]`. A condition (`when`) on the caller or the request is
part of each principal, one on the destination part of each permission.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bench.application.model import Workload
from bench.meshes.istio.envoy.jwt import FILTER as JWT_FILTER
from bench.meshes.istio.envoy.jwt import PAYLOAD
from bench.meshes.istio.policies import (
    TOKEN,
    Attribute,
    AuthorizationPolicy,
    Condition,
    OperationMatch,
    Policies,
    Rule,
    When,
    parse_pattern,
)

Json = dict[str, Any]

_RBAC_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_NEVER: Final[Json] = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
_UNUSED_PORT: Final = 0
_ACTIONS: Final = {"AUDIT": "LOG", "DENY": "DENY", "ALLOW": "ALLOW"}  # in the order of the filters
_CLAIMS: Final[Mapping[Attribute, str]] = {"request.auth.audiences": "aud", "request.auth.presenter": "azp"}
_ANY_TEXT: Final[Json] = {"safe_regex": {"regex": ".+"}}


def rbac_filters(policies: Policies, workload: Workload, *, inbound_port: int) -> list[Json]:
    """Build the HTTP filters of one workload: AUDIT before DENY before ALLOW, none without a policy.

    `inbound_port` is the port at which the sidecar listens for the workload's port. Policies name the latter, and Envoy
    compares the port of the connection.
    """
    filters = []
    for action in _ACTIONS:
        authorization = policies.authorization_for(workload, action)
        if authorization:
            ports = {str(workload.port): inbound_port}
            filters.append(_filter(action, _entries(policies, authorization, ports)))
    return filters


def _filter(action: str, entries: Json) -> Json:
    rules = {"policies": entries} if action == "ALLOW" else {"action": _ACTIONS[action], "policies": entries}
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
        home = policies.namespace_of(policy)
        rules = (_rule(rule, ports, home=home) for rule in policy.spec.rules)
        entries |= {f"{name}-rule[{index}]": rule for index, rule in enumerate(rules)}
        if not policy.spec.rules:
            entries[f"{name}-rule[0]"] = _NEVER
    return entries


def _rule(rule: Rule, ports: dict[str, int], *, home: str) -> Json:
    common = [one for when in rule.when for one in _destination(when, ports)]
    operations = [[*_operation(part.operation, ports), *common] for part in rule.to] or [common]
    sources = [[one for each in every for one in _source(each, home)] for every in rule.sources()]
    return {
        "permissions": [{"and_rules": {"rules": rules or [{"any": True}]}} for rules in operations],
        "principals": [{"and_ids": {"ids": ids or [{"any": True}]}} for ids in sources],
    }


def _destination(when: When, ports: dict[str, int]) -> list[Json]:
    """Build the permissions of a condition on the destination; one on anything else has none."""
    builders: dict[Attribute, Callable[[str], Json]] = {
        "destination.ip": lambda value: {"destination_ip": _cidr(value)},
        "destination.port": lambda value: _port(value, ports),
        "connection.sni": lambda value: {"requested_server_name": parse_pattern(value).string_match()},
    }
    build = builders.get(when.condition.attribute)
    return _permission(when.values, when.not_values, build) if build else []


def _port(value: str, ports: Mapping[str, int]) -> Json:
    return {"destination_port": ports.get(value, _UNUSED_PORT)}


def _operation(operation: OperationMatch, ports: dict[str, int]) -> list[Json]:
    def port(value: str) -> Json:
        return _port(value, ports)

    return [
        *_permission(operation.hosts, operation.not_hosts, _host),
        *_permission(operation.methods, operation.not_methods, _method),
        *_permission(operation.paths, operation.not_paths, _path),
        *_permission(operation.ports, operation.not_ports, port),
    ]


def _source(condition: Condition, home: str) -> list[Json]:
    """Build the principals of a condition; one on the destination has none. `home` is the namespace of the policy."""
    attribute = condition.attribute
    if attribute in TOKEN:
        every = ((condition.values, False), (condition.not_values, True))
        found = [(_token(condition, values), negated) for values, negated in every if values]
        return [{"not_id": one} if negated else one for one, negated in found]
    builders: dict[Attribute, Callable[[str], Json]] = {
        "source.principal": _identity,
        "source.account": lambda value: _account(value, home),
        "source.namespace": _namespace,
        "source.ip": lambda value: {"direct_remote_ip": _cidr(value)},
        "remote.ip": lambda value: {"remote_ip": _cidr(value)},
        "request.headers": lambda value: {"header": _header(condition.name[0], value)},
    }
    build = builders.get(attribute)
    return _principal(condition.values, condition.not_values, build) if build else []


def _token(condition: Condition, values: Sequence[str]) -> Json:
    """Build the principal of tokens with one of the values."""
    if condition.attribute == "request.auth.principal":
        every = [_token_principal(value) for value in values]
        return every[0] if len(every) == 1 else {"or_ids": {"ids": every}}
    claim = condition.name or (_CLAIMS[condition.attribute],)
    matches = [{"string_match": parse_pattern(value).string_match()} for value in values]
    one: Json = matches[0] if len(matches) == 1 else {"or_match": {"value_matchers": matches}}
    return _metadata(claim, {"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}})


def _token_principal(value: str) -> Json:
    """Build the principal of one ISSUER/SUBJECT; the issuer may have slashes of its own."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        matches = (_ANY_TEXT, _ANY_TEXT)
    elif not slash:
        pattern = parse_pattern(value)
        issued: Json = _ANY_TEXT if pattern.kind == "suffix" else pattern.string_match()
        subjects = {"prefix": _ANY_TEXT, "suffix": pattern.string_match(), "exact": {"exact": ""}}
        matches = (issued, subjects[pattern.kind])
    else:
        matches = (parse_pattern(issuer).string_match(), parse_pattern(subject).string_match())
    ids = [_metadata((claim,), {"string_match": match}) for claim, match in zip(("iss", "sub"), matches, strict=True)]
    return {"and_ids": {"ids": ids}}


def _metadata(claim: Sequence[str], value: Json) -> Json:
    path = [{"key": key} for key in (PAYLOAD, *claim)]
    return {"metadata": {"filter": JWT_FILTER, "path": path, "value": value}}


def _cidr(value: str) -> Json:
    block = ipaddress.ip_interface(value)
    return {"address_prefix": str(block.ip), "prefix_len": block.network.prefixlen}


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
    return _by_regex(f".*/ns/{value.replace('*', '.*')}/.*")


def _account(value: str, home: str) -> Json:
    namespace, _, account = value.rpartition("/")
    return _by_regex(f"spiffe://.+/ns/{namespace or home}/(.+/|)sa/{account}(/.+)?")


def _by_regex(regex: str) -> Json:
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": regex}}}}
