"""Prove that a deployment is what its configuration's name says, on any target.

A `Check` is a question and what its answer proves; pure functions make them, and `prove` sends the questions.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Final

from bench.application.model import GATEWAY, Application
from bench.meshes.protocols import DataPlane
from bench.meshes.resolved import ResolvedConfiguration
from bench.results.records import Evidence
from bench.verification.evidence import (
    certificate_required_evidence,
    expected_evidence,
    identity_evidence,
    mtls_evidence,
    no_proxy_evidence,
    page_evidence,
    plaintext_evidence,
    policy_evidence,
    proxied_evidence,
    response_evidence,
    routed_evidence,
    token_evidence,
    unrouted_evidence,
)
from bench.verification.prober import Prober, Topic, workload_of
from bench.verification.questions import OUTSIDE, Answer, Question

_UNKNOWN_PATH: Final = "/meshbench"  # no application serves it


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and the evidence that its answer gives."""

    question: Question
    judge: Callable[[Answer], Evidence]


def prove(prober: Prober, checks: Iterable[Check]) -> tuple[Evidence, ...]:
    """Send all questions, equal ones once, and return what the answers prove."""
    asked = tuple(checks)
    questions = tuple(dict.fromkeys(check.question for check in asked))
    answers = dict(zip(questions, prober.ask(questions), strict=True))
    return tuple(check.judge(answers[check.question]) for check in asked)


def data_plane_of(configuration: ResolvedConfiguration) -> DataPlane:
    """Return the data plane of a configuration in a mesh."""
    assert configuration.mesh is not None  # noqa: S101  # only a mesh has proxies
    return configuration.mesh.data_plane


def page_check(configuration: ResolvedConfiguration) -> Check:
    """Return the check of the page as a user gets it who has not logged in. A complete page also shows that a
    deployment is ready."""
    application, entry = configuration.application, configuration.application.calls[0]
    judge = partial(page_evidence, application.definition, configuration.groups[0])
    if "requests" in configuration.unproven:
        judge = partial(response_evidence, application.entry)
    elif configuration.outcome(*entry).needs_token:
        judge = partial(token_evidence, application.definition, data_plane_of(configuration))
    return Check(Question(*entry), judge)


def baseline_checks(application: Application) -> Iterator[Check]:
    """Yield the checks without a mesh: on each hop the service itself answers."""
    for hop in application.askable_hops:
        status = application.status_of(hop.callee)
        yield Check(Question(hop.caller, hop.callee), partial(no_proxy_evidence, hop, status))


def mesh_checks(
    configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]], omitted: Container[Topic]
) -> Iterator[Check]:
    """Yield the checks in a mesh: each hop through sidecars and in mutual TLS, plaintext from outside, every policy,
    and the routes of a gateway.

    `own` are the SPIFFE ids in the certificates of each workload's own sidecar, where the prober has not its own
    copies; `omitted` are the topics that the target is not asked about. What untranslated objects may change is not
    checked.
    """
    as_caller, application = Topic.CALLER_CERTIFICATES not in omitted, configuration.deployed
    unproven = configuration.unproven
    for hop in application.askable_hops if "requests" not in unproven else ():
        outcome = configuration.outcome(hop.caller, hop.callee)
        status = HTTPStatus.FORBIDDEN if outcome.needs_token else application.status_of(hop.callee)
        judge = partial(proxied_evidence, hop, status, data_plane_of(configuration))
        yield Check(Question(hop.caller, hop.callee), judge)
    if "mutual TLS" not in unproven:
        yield from tls_checks(configuration, own, as_caller=as_caller)
    if not unproven:
        yield from plaintext_checks(configuration)
    yield from policy_checks(configuration, as_caller=as_caller)
    if "requests" not in unproven:
        yield from route_checks(configuration)


def route_checks(configuration: ResolvedConfiguration) -> Iterator[Check]:
    """Yield the checks of a gateway, if the load enters through one: each of its routes leads to a service, and no
    other path does; if possible, one that the application serves."""
    application, proxy = configuration.deployed, data_plane_of(configuration)
    gateway = application.gateway
    if gateway is None:
        return
    ask = partial(Question, application.client.name, GATEWAY, "GET")
    for path in dict.fromkeys(route.path for route in gateway.routes):
        yield Check(ask(path), partial(routed_evidence, path, proxy))
    served = [one.path for one in application.requests_of(application.entry) if one.method == "GET"]
    free = [path for path in (*served, _UNKNOWN_PATH) if gateway.route(path) is None]
    for path in free[:1]:
        yield Check(ask(path), partial(unrouted_evidence, path, proxy))


def tls_checks(
    configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]], *, as_caller: bool
) -> Iterator[Check]:
    """Yield a handshake for each hop, as its caller or else from outside; and one without a certificate with each
    workload, which requires one."""
    application, ids, tls = configuration.deployed, configuration.ids, configuration.wire.tls
    called = [workload for workload in application.workloads if application.find_service(workload)]
    secured = [workload.name for workload in called if configuration.is_secured(workload)]
    for hop in (hop for hop in application.askable_hops if hop.callee in secured):
        question = Question(hop.caller if as_caller else OUTSIDE, hop.callee, tls=True)
        expected = (ids[hop.caller], ids[hop.callee])
        yield Check(question, partial(mtls_evidence, hop, expected, tls=tls, own=own.get(hop.caller, ())))
    for workload in secured:
        yield Check(Question(OUTSIDE, workload, tls=True), partial(certificate_required_evidence, workload))


def plaintext_checks(configuration: ResolvedConfiguration) -> Iterator[Check]:
    """Yield plaintext requests from outside to each workload for which no probe sends them anyway, and of which the
    answer is known: a request is known, or all are refused."""
    covered = {probe.workload for probe in configuration.probes if probe.caller is None}
    application = configuration.deployed
    for workload in application.workloads:
        status = configuration.outcome(OUTSIDE, workload.name).status
        if status not in (0, HTTPStatus.FORBIDDEN) and not application.knows_requests(workload.name):
            continue
        if workload.name not in covered and status is not None and application.find_service(workload):
            yield Check(Question(OUTSIDE, workload.name), partial(plaintext_evidence, workload.name, status))


def policy_checks(configuration: ResolvedConfiguration, *, as_caller: bool) -> Iterator[Check]:
    """Yield each policy's probes: with the certificate of the service account that they name, or else through the
    sidecar of its workload; or in plaintext from outside. None where untranslated objects may change the answers."""
    if configuration.unproven:
        return
    application = configuration.deployed
    names = application.stand_ins
    for probe in configuration.probes:
        if probe.caller is not None and probe.caller not in names:
            continue  # no pod can send it
        if application.find_service(application.workload(probe.workload)) is None:
            continue  # no Service has a name by which any workload calls it
        caller = OUTSIDE if probe.caller is None else names[probe.caller]
        tls = as_caller and probe.caller is not None
        question = Question(caller, probe.workload, probe.method, probe.path, tls=tls, headers=probe.headers)
        expected = probe if as_caller else replace(probe, status=probe.status_through_sidecar)
        is_known = application.knows_requests(probe.workload)
        yield Check(question, partial(policy_evidence, expected, data_plane_of(configuration), is_known=is_known))


def scenario_checks(configuration: ResolvedConfiguration) -> Iterator[Check]:
    """Yield the requests that the scenario itself asks for, with or without a mesh."""
    for probe in configuration.scenario_probes:
        question = Question(probe.caller, probe.to, probe.method, probe.path, headers=probe.read_headers())
        yield Check(question, partial(expected_evidence, probe.subject, probe.expect))


def identity_evidences(configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]]) -> tuple[Evidence, ...]:
    """Return the evidence of the certificates of each sidecar; none where there are none."""
    return tuple(
        identity_evidence(name, names=names, expected=configuration.ids[workload_of(name)])
        for name, names in own.items()
    )
