"""Define the questions of proofs on every target: requests, answers, routes, the pages of user groups."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.application.definition import ApplicationDefinition
from bench.application.model import Application, Hop
from bench.meshes.probe import Probe
from bench.meshes.user_groups import UserGroup
from bench.results.records import Evidence
from bench.results.samples import Samples
from bench.verification.evidence import policy_evidence, routed_evidence, unrouted_evidence

FRONT: Final = "gateway-front"  # the proxy of a delegated gateway; its sidecar has the gateway's name
SERIES: Final = 100  # pages of each user group that are requested for a proof

_UNKNOWN_PATH: Final = "/meshbench"  # no application serves it
_CLOSED: Final = "connection closed without a response"
_ERRORS: Final[Mapping[str, str]] = {
    "ConnectionResetError": _CLOSED,
    "RemoteDisconnected": _CLOSED,
    "BrokenPipeError": _CLOSED,
    "SSLEOFError": _CLOSED,
    "ConnectionRefusedError": "connection refused",
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of a TLS handshake, and both SPIFFE ids: the client's own and the peer's; empty for none."""

    version: str
    cipher: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; without one `status` is 0 and `refused` has the reason."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    handshake: Handshake | None = None
    refused: str = field(default="")

    @property
    def detail(self) -> str:
        """Return the text for evidence: `200`, `403 RBAC: access denied`, `connection refused`."""
        text = self.body[:40].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return self.refused or f"{self.status} {text}".strip()

    def find_problem(self, definition: ApplicationDefinition, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with it for a user who gets these versions of services; None when it is complete."""
        return self.detail if self.status != definition.ready.status else definition.check_answer(self.body, versions)


def format_error(kind: str, message: str, *, timeout_s: float) -> str:
    """Return why there was no response, from the name of Python's exception and its message."""
    if kind == "TimeoutError":
        return f"no response within {timeout_s:.0f} s"
    return _ERRORS.get(kind, f"{kind}: {message}")


def probe_evidence(probe: Probe, answer: Answer) -> Evidence:
    """Return the evidence of a policy from the answer to its probe."""
    return policy_evidence(
        probe.policy,
        f"{probe.method} {probe.path} at {probe.workload} as {probe.caller or 'no identity, in plaintext'}",
        expected=probe.status,
        status=answer.status,
        detail=answer.detail,
    )


@dataclass(frozen=True, slots=True)
class RouteQuestion:
    """A path to request from the gateway; `routed`: whether it has a route."""

    path: str
    routed: bool

    def judge(self, answer: Answer) -> Evidence:
        """Return the evidence from the answer."""
        evidence = routed_evidence if self.routed else unrouted_evidence
        return evidence(self.path, status=answer.status, headers=answer.headers)


def route_questions(application: Application) -> Iterator[RouteQuestion]:
    """Yield the path of every route of the gateway, if there is one, and one without a route, if there is one: if
    possible, one that the application serves."""
    gateway = application.gateway
    if gateway is None:
        return
    for path in dict.fromkeys(route.path for route in gateway.routes):
        yield RouteQuestion(path, routed=True)
    served = [one.path for one in application.requests_of(application.entry) if one.method == "GET"]
    free = [path for path in (*served, _UNKNOWN_PATH) if gateway.route(path) is None]
    if free:
        yield RouteQuestion(free[0], routed=False)


def pages_evidence(
    definition: ApplicationDefinition, group: UserGroup, answers: Sequence[Answer], *, count: int = SERIES
) -> Evidence:
    """Prove that each of `count` pages shows the versions of this user group."""
    problems = [problem for answer in answers if (problem := answer.find_problem(definition, group.versions))]
    right = len(answers) - len(problems)
    return Evidence(
        name="pages",
        subject=group.request,
        ok=right == count and not problems,
        expected=f"{count} of {count} with {group.title}",
        seen=f"{right} of {count} with {group.title}" + (f"; {problems[0]}" if problems else ""),
        about="responses",
    )


def count_expected_requests(
    application: Application, *, readers: Sequence[UserGroup], samples: Samples
) -> dict[Hop, int]:
    """Return how many requests a load causes on each known hop, by the names of its own requests."""
    numbers = np.bincount(samples.name, minlength=len(samples.names)).tolist()
    counted = dict(zip(samples.names, numbers, strict=True))
    login = application.definition.login
    logins = counted.pop(login.requests, 0) if login else 0
    groups = {group.request: group for group in readers}
    answers = [(groups.get(name, readers[0]).versions, count) for name, count in counted.items()]
    return application.count_calls(answers, logins=logins)
