"""Prove that a deployment is what its configuration's name says, on any target.

A `Check` is a question and what its answer proves; pure functions make them, and `prove` sends the questions.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.application.model import GATEWAY, Application, Hop
from bench.meshes.probe import Probe
from bench.meshes.resolved import ResolvedConfiguration
from bench.results.records import Evidence
from bench.verification.evidence import (
    alone_evidence,
    certificate_required_evidence,
    identity_evidence,
    mtls_evidence,
    no_proxy_evidence,
    no_sidecar_evidence,
    page_evidence,
    plaintext_evidence,
    proxied_evidence,
    restarts_evidence,
    sidecars_evidence,
    synced_evidence,
    unhooked_evidence,
    unlabelled_evidence,
)
from bench.verification.prober import OUTSIDE, Prober, Question, State, Topic
from bench.verification.questions import Answer, Handshake, RouteQuestion, probe_evidence, route_questions

_NO_TLS = Handshake("", "", "", "")


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and the evidence that its answer gives."""

    question: Question
    judge: Callable[[Answer], Iterable[Evidence]]


def prove(prober: Prober, checks: Iterable[Check]) -> tuple[Evidence, ...]:
    """Send all questions, equal ones once, and return what the answers prove."""
    asked = tuple(checks)
    questions = tuple(dict.fromkeys(check.question for check in asked))
    answers = dict(zip(questions, prober.ask(questions), strict=True))
    return tuple(proof for check in asked for proof in check.judge(answers[check.question]))


def hops_of(application: Application) -> tuple[Hop, ...]:
    """Return the hops of a page through the application."""
    return tuple(Hop(caller, callee) for caller, callee in application.calls)


def page_check(configuration: ResolvedConfiguration) -> Check:
    """Return the check of the page as a user gets it who has not logged in. A complete page also shows that a
    deployment is ready."""
    application, versions = configuration.application, configuration.groups[0].versions

    def judge(answer: Answer) -> Iterator[Evidence]:
        yield page_evidence(application.entry, answer.find_problem(application.definition, versions))

    return Check(Question(*application.calls[0]), judge)


def baseline_checks(application: Application) -> Iterator[Check]:
    """Yield the checks without a mesh: on each hop the service itself answers."""
    for hop in hops_of(application):
        yield Check(Question(hop.caller, hop.callee), partial(_judge_direct, hop))


def mesh_checks(
    configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]], omitted: Container[Topic]
) -> Iterator[Check]:
    """Yield the checks in a mesh: each hop through sidecars and in mutual TLS, plaintext from outside, every policy,
    and the routes of a gateway.

    `own` are the SPIFFE ids in the certificates of each workload's own sidecar, where the prober has not its own
    copies; `omitted` are the topics that the target is not asked about.
    """
    as_caller = Topic.CALLER_CERTIFICATES not in omitted
    for hop in hops_of(configuration.deployed):
        yield Check(Question(hop.caller, hop.callee), partial(_judge_proxied, hop))
    yield from tls_checks(configuration, own, as_caller=as_caller)
    yield from plaintext_checks(configuration)
    yield from policy_checks(configuration, as_caller=as_caller)
    yield from route_checks(configuration.deployed)


def route_checks(application: Application) -> Iterator[Check]:
    """Yield the checks of a gateway, if the load enters through one: each of its routes leads to a service, and no
    other path does."""
    for route in route_questions(application):
        yield Check(Question(application.client.name, GATEWAY, path=route.path), partial(_judge_route, route))


def tls_checks(
    configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]], *, as_caller: bool
) -> Iterator[Check]:
    """Yield a handshake for each hop, as its caller or else from outside; and one without a certificate with each
    callee, which requires one."""
    secured = [
        hop
        for hop in hops_of(configuration.deployed)
        if configuration.is_secured(configuration.deployed.workload(hop.callee))
    ]
    for hop in secured:
        question = Question(hop.caller if as_caller else OUTSIDE, hop.callee, tls=True)
        yield Check(question, partial(_judge_handshake, configuration, own.get(hop.caller, ()), hop))
    for callee in dict.fromkeys(hop.callee for hop in secured):
        yield Check(Question(OUTSIDE, callee, tls=True), partial(_judge_refusal, callee))


def plaintext_checks(configuration: ResolvedConfiguration) -> Iterator[Check]:
    """Yield plaintext requests from outside to each workload for which no probe sends them anyway."""
    covered = {probe.workload for probe in configuration.probes if probe.caller is None}
    for workload in configuration.deployed.workloads:
        if workload.name not in covered:
            allowed = configuration.mode(workload) != "STRICT"
            yield Check(Question(OUTSIDE, workload.name), partial(_judge_plaintext, workload.name, allowed))


def policy_checks(configuration: ResolvedConfiguration, *, as_caller: bool) -> Iterator[Check]:
    """Yield each policy's probes: with the certificate of the service account that they name, or else through the
    sidecar of its workload; or in plaintext from outside."""
    names = {workload.account: workload.name for workload in configuration.deployed.everyone}
    for probe in configuration.probes:
        caller = OUTSIDE if probe.caller is None else names[probe.caller]
        question = Question(
            caller, probe.workload, probe.method, probe.path, tls=as_caller and probe.caller is not None
        )
        expected = probe if as_caller else replace(probe, status=probe.status_through_sidecar)
        yield Check(question, partial(_judge_policy, expected))


def identity_evidences(configuration: ResolvedConfiguration, own: Mapping[str, Sequence[str]]) -> tuple[Evidence, ...]:
    """Return the evidence of the certificates of each sidecar; none where there are none."""
    return tuple(
        identity_evidence(name, names=own[name], expected=spiffe) for name, spiffe in configuration.ids.items()
    )


def state_evidence(state: State, omitted: Container[Topic], *, meshed: bool) -> Iterator[Evidence]:
    """Yield the evidence of what a target reports of a deployment, without the topics that do not apply to it."""
    for mesh, found in state.others.items():
        yield alone_evidence(mesh, found)
    if not meshed:
        if Topic.NAMESPACE not in omitted:
            yield unlabelled_evidence(state.namespace, state.labels)
            yield unhooked_evidence(state.namespace, state.webhooks)
        yield no_sidecar_evidence(state.running)
    if Topic.PODS not in omitted:
        if meshed:
            yield sidecars_evidence(state.sidecar, state.missing, pods=state.pods)
        yield restarts_evidence(state.restarts)
    if meshed and state.askable and Topic.SYNCED not in omitted:
        yield synced_evidence(state.unsynced)


def _judge_direct(hop: Hop, answer: Answer) -> Iterator[Evidence]:
    yield no_proxy_evidence(hop, status=answer.status, headers=answer.headers)


def _judge_proxied(hop: Hop, answer: Answer) -> Iterator[Evidence]:
    yield proxied_evidence(hop, status=answer.status, headers=answer.headers)


def _judge_plaintext(workload: str, allowed: bool, answer: Answer) -> Iterator[Evidence]:
    yield plaintext_evidence(workload, status=answer.status, detail=answer.detail, allowed=allowed)


def _judge_policy(probe: Probe, answer: Answer) -> Iterator[Evidence]:
    yield probe_evidence(probe, answer)


def _judge_route(question: RouteQuestion, answer: Answer) -> Iterator[Evidence]:
    yield question.judge(answer)


def _judge_handshake(
    configuration: ResolvedConfiguration, own: Sequence[str], hop: Hop, answer: Answer
) -> Iterator[Evidence]:
    agreed = answer.handshake or _NO_TLS
    wanted = (configuration.ids[hop.caller], configuration.ids[hop.callee])
    yield mtls_evidence(
        hop,
        version=agreed.version,
        cipher=agreed.cipher,
        ids=(agreed.own or _pick_name(own, wanted[0]), agreed.peer),
        expected_ids=wanted,
        tls=configuration.wire.tls,
    )


def _judge_refusal(callee: str, answer: Answer) -> Iterator[Evidence]:
    yield certificate_required_evidence(callee, status=answer.status, detail=answer.detail)


def _pick_name(names: Sequence[str], wanted: str) -> str:
    """Return the name that is wanted if it is among them, else the first, which shows what is wrong."""
    return wanted if wanted in names else next(iter(names), "")
