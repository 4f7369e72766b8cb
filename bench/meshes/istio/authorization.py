"""Decide on one request by Istio's policies, as their intent. Pure.

The sidecars' RBAC filters are built from the same models, independently of this module (`envoy.rbac`). Proofs send
requests to real sidecars and compare the responses with these decisions.

What a policy asks for may be unknown before a run, such as the address of a caller: then None is neither true nor
false, and a decision that depends on it is unknown.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bench.application.model import Workload
from bench.meshes.istio.policies import (
    ADDRESSES,
    TOKEN,
    AuthorizationPolicy,
    Condition,
    OperationMatch,
    Policies,
    Rule,
    parse_pattern,
)

Decision = Literal["allowed", "denied", "refused", "unknown"]
Truth = bool | None

# Headers that clients and proxies set themselves.
_SET_BY_OTHERS: Final = re.compile(
    r"accept.*|connection|content-.*|host|transfer-encoding|user-agent|x-b3-.*|x-envoy-.*|x-forwarded-.*|x-request-id"
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a policy sees it.

    `principal` is the peer's SPIFFE id without `spiffe://`
    (`cluster.local/ns/shop/sa/api`), or None for plaintext. `headers` are those that it brings, in lower case, and
    `address` is that of both ends of its connection, None if it is not known. It has no token, unless it may have one.
    """

    principal: str | None
    method: str
    path: str
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    address: str | None = None
    may_have_token: bool = False


def decide_request(policies: Policies, workload: Workload, request: Request) -> Decision:
    """Return `allowed`, `denied` (403), or `refused`, which means that the connection is closed.

    A request that a DENY policy matches is denied. Otherwise it is allowed when an ALLOW policy matches, or
    when there is none for this workload. AUDIT policies decide nothing.
    """
    if policies.mode(workload) == ("STRICT" if request.principal is None else "DISABLE"):
        return "refused"

    def match_any(action: str) -> Truth:
        found = policies.authorization_for(workload, action)
        return _any(policy_matches(one, policies, workload, request) for one in found)

    allowing = match_any("ALLOW") if policies.authorization_for(workload, "ALLOW") else True
    allowed = _all((allowing, _not(match_any("DENY"))))
    return "unknown" if allowed is None else "allowed" if allowed else "denied"


def policy_matches(policy: AuthorizationPolicy, policies: Policies, workload: Workload, request: Request) -> Truth:
    """Return whether a rule of the policy matches; without rules none does."""
    home = policies.namespace_of(policy)
    return _any(rule_matches(rule, workload, request, home=home) for rule in policy.spec.rules)


def rule_matches(rule: Rule, workload: Workload, request: Request, *, home: str) -> Truth:
    """Return whether one of `from`, one of `to` and all of `when` match; a missing list matches everything. `home` is
    the namespace of the policy."""
    sources = (_all(_fulfils(one, workload, request, home=home) for one in every) for every in rule.sources())
    operations = [_operation_matches(part.operation, workload, request) for part in rule.to]
    return _all((_any(sources), not operations or any(operations)))


def _fulfils(condition: Condition, workload: Workload, request: Request, *, home: str) -> Truth:
    test = _find_test(condition, workload, request, home=home)
    wanted = _any(map(test, condition.values)) if condition.values else True
    return _all((wanted, _not(_any(map(test, condition.not_values)))))


def _find_test(condition: Condition, workload: Workload, request: Request, *, home: str) -> Callable[[str], Truth]:
    """Return the function that says whether the condition's attribute of a request has a value."""
    principal, attribute = request.principal or "", condition.attribute
    if attribute in TOKEN:
        return lambda _: None if request.may_have_token else False
    if attribute in ADDRESSES:
        return lambda value: _is_in_block(request.address, value)
    match attribute:
        case "source.principal":
            return lambda value: parse_pattern(value).matches(principal)
        case "source.namespace":
            return lambda value: _is_in_namespace(value, principal)
        case "source.account":
            return lambda value: _is_account(value, principal, home=home)
        case "destination.port":
            return lambda value: value == str(workload.port)
        case "request.headers":
            return lambda value: _has_header(condition.name[0].lower(), value, request)
        case _:
            return lambda _: None


def _is_in_block(address: str | None, block: str) -> Truth:
    network = ipaddress.ip_network(block, strict=False)
    return None if address is None else ipaddress.ip_address(address) in network


def _has_header(name: str, value: str, request: Request) -> Truth:
    if name in request.headers:
        return parse_pattern(value).matches(request.headers[name])
    return None if _SET_BY_OTHERS.fullmatch(name) else False


def _is_in_namespace(value: str, principal: str) -> bool:
    wanted = ".*".join(map(re.escape, value.split("*")))
    return re.fullmatch(f".*/ns/{wanted}/.*", principal) is not None


def _is_account(value: str, principal: str, *, home: str) -> bool:
    namespace, _, account = value.rpartition("/")
    return principal.endswith(f"/ns/{namespace or home}/sa/{account}")


def _operation_matches(operation: OperationMatch, workload: Workload, request: Request) -> bool:
    path, port = request.path.partition("?")[0], str(workload.port)
    return (
        (not operation.hosts or _any_matches(operation.hosts, request.host, ignore_case=True))
        and not _any_matches(operation.not_hosts, request.host, ignore_case=True)
        and (not operation.methods or _any_matches(operation.methods, request.method))
        and not _any_matches(operation.not_methods, request.method)
        and (not operation.paths or _any_matches(operation.paths, path))
        and not _any_matches(operation.not_paths, path)
        and (not operation.ports or port in operation.ports)
        and port not in operation.not_ports
    )


def _any_matches(values: Sequence[str], text: str, *, ignore_case: bool = False) -> bool:
    return any(parse_pattern(value).matches(text, ignore_case=ignore_case) for value in values)


def _any(truths: Iterable[Truth]) -> Truth:
    known = [*truths]
    return True if True in known else None if None in known else False


def _all(truths: Iterable[Truth]) -> Truth:
    known = [*truths]
    return False if False in known else None if None in known else True


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth
