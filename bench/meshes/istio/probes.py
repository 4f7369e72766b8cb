"""Derive probes from policies: for each rule a request that must pass, and one that must be denied.

Each expected response is evaluated with all policies, so that it is correct if policies overlap.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.application.model import GATEWAY, Application, Workload
from bench.meshes.istio.authorization import Request, decide_request, rule_matches
from bench.meshes.istio.policies import TRUST_DOMAIN, AuthorizationPolicy, PeerAuthentication, Policies, Policy, Rule
from bench.meshes.probe import Probe

_UNKNOWN_REQUESTS: Final = (
    ("DELETE", "/meshbench"),
    ("GET", "/meshbench"),
    ("POST", "/meshbench"),
    ("PUT", "/meshbench"),
)
_STATUS_DENIED: Final = 403
_STATUS_REFUSED: Final = 0


@dataclass(frozen=True, slots=True)
class _Question:
    """A possible request; `status` is the application's own response, None if it is not known."""

    caller: Workload | None
    method: str
    path: str
    status: int | None

    def request(self, application: Application, workload: Workload) -> Request:
        host = f"{workload.name}:{workload.port}"
        principal = principal_of(application, self.caller) if self.caller else None
        return Request(principal, self.method, self.path, host)


def principal_of(application: Application, workload: Workload) -> str:
    """Return Istio's name of a workload's service account in policies."""
    return f"{TRUST_DOMAIN}/ns/{application.namespace_of(workload)}/sa/{workload.account}"


def probes(policies: Policies, application: Application) -> tuple[Probe, ...]:
    """Return requests that prove each policy, workload by workload.

    A rule that no request of the application can prove (its path does not exist, another rule has the same effect) has
    no probe; `read_policies` rejects a policy without probes.
    """
    every: tuple[Policy, ...] = (*policies.peer_authentications, *policies.authorization_policies)
    return tuple(probe for policy in every for probe in policy_probes(policy, policies, application))


def policy_probes(policy: Policy, policies: Policies, application: Application) -> Iterator[Probe]:
    """Yield the probes that prove one of the policies."""
    for workload in application.protected if isinstance(policy, AuthorizationPolicy) else application.workloads:
        if not policies.applies(policy, workload):
            continue
        scene = _WorkloadPolicies(policies, application, workload)
        if isinstance(policy, PeerAuthentication):
            yield scene.plaintext(policy)
        else:
            yield from scene.authorization(policy)


@dataclass(frozen=True, slots=True)
class _WorkloadPolicies:
    """The policies at one workload, for which it builds probes."""

    policies: Policies
    application: Application
    workload: Workload

    def plaintext(self, policy: PeerAuthentication) -> Probe:
        usual = self.application.usual_request(self.workload.app)
        request = Request(None, usual.method, usual.path, f"{self.workload.name}:{self.workload.port}")
        statuses = {"allowed": usual.status, "denied": _STATUS_DENIED, "refused": _STATUS_REFUSED}
        expected = statuses[decide_request(self.policies, self.workload, request)]
        return Probe(policy.metadata.name, self.workload.name, None, usual.method, usual.path, expected)

    def authorization(self, policy: AuthorizationPolicy) -> Iterator[Probe]:
        name = policy.metadata.name
        if not policy.spec.rules:
            yield from self._first(name, (one for one in self._questions() if not self._allows(one)))
        for index, rule in enumerate(policy.spec.rules):
            label = name if len(policy.spec.rules) == 1 else f"{name} rule {index}"
            yield from self._pair(label, rule, allowing=policy.spec.action == "ALLOW")

    def _pair(self, label: str, rule: Rule, *, allowing: bool) -> Iterator[Probe]:
        """Yield one request that matches the rule and one that does not, as similar as possible."""
        inside = [one for one in self._questions() if self._matches(rule, one) and self._allows(one) == allowing]
        yield from self._first(label, inside)
        nearest = sorted(self._questions(), key=lambda one: _distance(one, inside[0])) if inside else []
        outside = (one for one in nearest if not self._matches(rule, one) and self._allows(one) != allowing)
        yield from self._first(label, outside)

    def _questions(self) -> Iterator[_Question]:
        """Yield all possible requests, those of the application itself first."""
        callers = self._callers()
        known = {(one.method, one.path): one.status for one in self.application.requests_of(self.workload.app)}
        methods = ("GET", "POST", "PUT", "DELETE")
        unknown = [(method, path) for _, path in known for method in methods if (method, path) not in known]
        for method, path in (*known, *unknown, *_UNKNOWN_REQUESTS):
            for caller in callers:
                yield _Question(caller, method, path, known.get((method, path)))

    def _callers(self) -> tuple[Workload | None, ...]:
        """Return the workload's usual callers, then all others; callers of the gateway have no identity."""
        if self.workload.name == GATEWAY:
            return (None,)
        usual = self.application.callers(self.workload.name)
        return (*usual, *(one for one in self.application.everyone if one not in usual))

    def _matches(self, rule: Rule, question: _Question) -> bool:
        return rule_matches(rule, self.workload, question.request(self.application, self.workload))

    def _allows(self, question: _Question) -> bool:
        request = question.request(self.application, self.workload)
        return decide_request(self.policies, self.workload, request) == "allowed"

    def _first(self, label: str, questions: Iterable[_Question]) -> Iterator[Probe]:
        """Yield a probe of the first question whose response is known."""
        for one in questions:
            status = one.status if self._allows(one) else _STATUS_DENIED
            if status is not None:
                yield Probe(
                    label, self.workload.name, one.caller.account if one.caller else None, one.method, one.path, status
                )
                return


def _distance(one: _Question, other: _Question) -> tuple[bool, bool]:
    """Rank another caller as nearer than another method or path."""
    return (one.method, one.path) != (other.method, other.path), one.caller != other.caller
