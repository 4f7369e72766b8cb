"""Derive probes from policies: for each rule a request that must pass, and one that must be denied.

Each expected response is evaluated with all policies, so that it is correct if policies overlap.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from bench.application.model import GATEWAY, Application, Workload
from bench.meshes.istio.authorization import Decision, Request, Truth, decide_request, rule_matches
from bench.meshes.istio.policies import (
    TOKEN,
    TRUST_DOMAIN,
    AuthorizationPolicy,
    JwtRule,
    PeerAuthentication,
    Policies,
    Policy,
    RequestAuthentication,
    Rule,
)
from bench.meshes.probe import Outcome, Probe

_UNKNOWN_REQUESTS: Final = (
    ("DELETE", "/meshbench"),
    ("GET", "/meshbench"),
    ("POST", "/meshbench"),
    ("PUT", "/meshbench"),
)
_INVALID: Final = "meshbench"  # as a token
_STATUSES: Final[Mapping[Decision, int]] = {"denied": 403, "refused": 0}


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
    every: tuple[Policy, ...] = (
        *policies.peer_authentications,
        *policies.request_authentications,
        *policies.authorization_policies,
    )
    return tuple(probe for policy in every for probe in policy_probes(policy, policies, application))


def find_outcome(policies: Policies, application: Application, caller: Workload | None, workload: Workload) -> Outcome:
    """Return what the policies make of the workload's usual request: with the caller's certificate, or in plaintext."""
    request = _make_usual_request(application, caller, workload)
    decision = decide_request(policies, workload, request)
    bringing_one = decide_request(policies, workload, replace(request, may_have_token=True))
    own = application.usual_request(workload.app).status
    status = None if decision == "unknown" else _STATUSES.get(decision, own)
    return Outcome(status, needs_token=decision == "denied" and bringing_one == "unknown")


def is_denied_at(
    policies: Policies, application: Application, caller: Workload | None, workload: Workload, address: str
) -> bool:
    """Return whether the workload's usual request is denied because both ends of the connection have this address."""
    request = _make_usual_request(application, caller, workload)
    with_address = decide_request(policies, workload, replace(request, address=address))
    return with_address == "denied" and decide_request(policies, workload, request) == "unknown"


def _make_usual_request(application: Application, caller: Workload | None, workload: Workload) -> Request:
    usual = application.usual_request(workload.app)
    return _Question(caller, usual.method, usual.path, usual.status).request(application, workload)


def policy_probes(policy: Policy, policies: Policies, application: Application) -> Iterator[Probe]:
    """Yield the probes that prove one of the policies."""
    for workload in application.workloads if isinstance(policy, PeerAuthentication) else application.protected:
        if not policies.applies(policy, workload):
            continue
        scene = _WorkloadPolicies(policies, application, workload)
        match policy:
            case PeerAuthentication():
                yield from scene.plaintext(policy)
            case RequestAuthentication():
                yield from scene.invalid_token(policy)
            case AuthorizationPolicy():
                yield from scene.authorization(policy)


@dataclass(frozen=True, slots=True)
class _WorkloadPolicies:
    """The policies at one workload, for which it builds probes."""

    policies: Policies
    application: Application
    workload: Workload

    def plaintext(self, policy: PeerAuthentication) -> Iterator[Probe]:
        usual = self.application.usual_request(self.workload.app)
        expected = find_outcome(self.policies, self.application, None, self.workload).status
        if expected is not None:
            yield Probe(policy.metadata.name, self.workload.name, None, usual.method, usual.path, expected)

    def invalid_token(self, policy: RequestAuthentication) -> Iterator[Probe]:
        """Yield a request with an invalid token, where one is looked for in a header: it is rejected by its form."""
        headers = [_find_token_header(rule) for rule in policy.spec.jwt_rules]
        caller = next((one for one in self._callers() if self._is_connected(one)), None)
        for header in [one for one in headers if one][:1]:
            usual = self.application.usual_request(self.workload.app)
            account = caller.account if caller else None
            name, status = policy.metadata.name, HTTPStatus.UNAUTHORIZED
            yield Probe(name, self.workload.name, account, usual.method, usual.path, status, headers=(header,))

    def _is_connected(self, caller: Workload | None) -> bool:
        request = _make_usual_request(self.application, caller, self.workload)
        return decide_request(self.policies, self.workload, request) != "refused"

    def authorization(self, policy: AuthorizationPolicy) -> Iterator[Probe]:
        name, home = policy.metadata.name, self.policies.namespace_of(policy)
        if policy.spec.action == "AUDIT":  # no response shows it
            return
        if not policy.spec.rules:
            yield from self._first(name, (one for one in self._questions() if self._decide(one) != "allowed"))
        for index, rule in enumerate(policy.spec.rules):
            label = name if len(policy.spec.rules) == 1 else f"{name} rule {index}"
            yield from self._pair(label, rule, home=home, allowing=policy.spec.action == "ALLOW")

    def _pair(self, label: str, rule: Rule, *, home: str, allowing: bool) -> Iterator[Probe]:
        """Yield one request that matches the rule and one that does not, as similar as possible. A rule that only some
        unknown request may match has the latter alone."""
        matching, other = ("allowed", "denied") if allowing else ("denied", "allowed")
        asked = [(one, self._match(rule, one, home=home)) for one in self._questions()]
        inside = [one for one, truth in asked if truth is True and self._decide(one) == matching]
        yield from self._first(label, inside)
        outside = [one for one, truth in asked if truth is False and self._decide(one) == other]
        if inside:
            yield from self._first(label, sorted(outside, key=lambda one: _distance(one, inside[0])))
        elif rule.attributes & TOKEN or any(truth is None for _, truth in asked):
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

    def _match(self, rule: Rule, question: _Question, *, home: str) -> Truth:
        return rule_matches(rule, self.workload, question.request(self.application, self.workload), home=home)

    def _decide(self, question: _Question) -> Decision:
        return decide_request(self.policies, self.workload, question.request(self.application, self.workload))

    def _first(self, label: str, questions: Iterable[_Question]) -> Iterator[Probe]:
        """Yield a probe of the first question whose response is known."""
        for one in questions:
            decision = self._decide(one)
            status = one.status if decision == "allowed" else _STATUSES.get(decision)
            if status is not None:
                yield Probe(
                    label, self.workload.name, one.caller.identity if one.caller else None, one.method, one.path, status
                )
                return


def _find_token_header(rule: JwtRule) -> tuple[str, str] | None:
    """Return a header with a text that is no token, where the issuer's tokens are in headers."""
    if rule.from_headers:
        return rule.from_headers[0].name, f"{rule.from_headers[0].prefix}{_INVALID}"
    return None if rule.from_params or rule.from_cookies else ("Authorization", f"Bearer {_INVALID}")


def _distance(one: _Question, other: _Question) -> tuple[bool, bool]:
    """Rank another caller as nearer than another method or path."""
    return (one.method, one.path) != (other.method, other.path), one.caller != other.caller
