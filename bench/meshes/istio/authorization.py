"""Decide on one request by Istio's policies, as their intent. Pure.

The sidecars' RBAC filters are built from the same models, independently of this module (`envoy.rbac`). Proofs send
requests to real sidecars and compare the responses with these decisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.application.model import Workload
from bench.meshes.istio.policies import AuthorizationPolicy, OperationMatch, Policies, Rule, SourceMatch, parse_pattern

Decision = Literal["allowed", "denied", "refused"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a policy sees it.

    `principal` is the peer's SPIFFE id without `spiffe://`
    (`cluster.local/ns/shop/sa/api`), or None for plaintext.
    """

    principal: str | None
    method: str
    path: str
    host: str = ""


def decide_request(policies: Policies, workload: Workload, request: Request) -> Decision:
    """Return `allowed`, `denied` (403), or `refused`, which means that the connection is closed.

    A request that a DENY policy matches is denied. Otherwise it is allowed when an ALLOW policy matches, or
    when there is none for this workload.
    """
    if policies.mode(workload) == ("STRICT" if request.principal is None else "DISABLE"):
        return "refused"
    if any(policy_matches(policy, workload, request) for policy in policies.authorization_for(workload, "DENY")):
        return "denied"
    allowing = policies.authorization_for(workload, "ALLOW")
    if not allowing or any(policy_matches(policy, workload, request) for policy in allowing):
        return "allowed"
    return "denied"


def policy_matches(policy: AuthorizationPolicy, workload: Workload, request: Request) -> bool:
    """Return whether a rule of the policy matches; without rules none does."""
    return any(rule_matches(rule, workload, request) for rule in policy.spec.rules)


def rule_matches(rule: Rule, workload: Workload, request: Request) -> bool:
    """Return whether one of `from` and one of `to` match; a missing list matches everything."""
    source = not rule.from_ or any(_source_matches(part.source, request.principal or "") for part in rule.from_)
    operation = not rule.to or any(_operation_matches(part.operation, workload, request) for part in rule.to)
    return source and operation


def _source_matches(source: SourceMatch, principal: str) -> bool:
    return (
        (not source.principals or _any_matches(source.principals, principal))
        and not _any_matches(source.not_principals, principal)
        and (not source.namespaces or _is_in_namespaces(source.namespaces, principal))
        and not _is_in_namespaces(source.not_namespaces, principal)
    )


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


def _is_in_namespaces(namespaces: Sequence[str], principal: str) -> bool:
    return any(f"/ns/{namespace}/" in principal for namespace in namespaces)
