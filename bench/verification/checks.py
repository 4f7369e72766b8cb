"""Prove on a cluster that a deployment is what its configuration's name says.

A `Check` is a question and what its answer proves; pure functions make them, and `prove` sends the questions. What is
read from the API server and from sidecars comes in as plain values.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.application.model import GATEWAY, MESH, NAMESPACE, Application, Hop, Workload
from bench.envoy.wire import Wire
from bench.meshes import MESHES
from bench.meshes.equalise import equalise_wire
from bench.meshes.probe import Probe
from bench.meshes.protocols import Mesh, Policies
from bench.meshes.routing import clusters_to
from bench.meshes.user_groups import UserGroup, user_groups_of
from bench.results.records import Evidence
from bench.scenario.model import Equal
from bench.verification.evidence import (
    HopCount,
    certificate_required_evidence,
    counted_evidence,
    handshakes_evidence,
    identity_evidence,
    mtls_evidence,
    no_proxy_evidence,
    page_evidence,
    plaintext_evidence,
    proxied_evidence,
)
from bench.verification.prober import OUTSIDE, Prober, Question
from bench.verification.questions import FRONT, Answer, Handshake, RouteQuestion, probe_evidence, route_questions

_NO_TLS = Handshake("", "", "", "")


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and the evidence that its answer gives."""

    question: Question
    judge: Callable[[Answer], Iterable[Evidence]]


@dataclass(frozen=True, slots=True)
class Meshed:
    """A configuration in a mesh, with its identities, modes and probes. `application` is in the run's namespace;
    `policies` are as the manifests have them, for the application that is written there; `equalise` is the
    scenario's."""

    mesh: Mesh
    policies: Policies
    application: Application
    equalise: tuple[Equal, ...] = ()

    @property
    def wire(self) -> Wire:
        """The TLS settings that its sidecars agree on."""
        return equalise_wire(self.mesh.data_plane.wire, self.equalise)

    @property
    def ids(self) -> Mapping[str, str]:
        """The SPIFFE ids by workload name; empty where no workload has a certificate."""
        names = self.policies.identities(self.application)
        return {one.name: names[one.account][0] for one in self.application.everyone if names.get(one.account)}

    @property
    def probes(self) -> tuple[Probe, ...]:
        return self.policies.probes(_with_manifest_names(self.application))

    @property
    def readers(self) -> tuple[UserGroup, ...]:
        return user_groups_of(self.policies, self.application)

    def is_secured(self, workload: Workload) -> bool:
        """Return whether sidecars use mutual TLS to the workload; the gateway's caller is outside of the mesh."""
        return workload.name != GATEWAY and self.policies.mode(workload) != "DISABLE"


def read_meshed(mesh: str, folders: Sequence[Path], application: Application) -> Meshed:
    """Read a configuration from its folders of manifests. Raises InputError with all problems."""
    policies = MESHES[mesh].policies.read_policies(folders, _with_manifest_names(application))
    return Meshed(MESHES[mesh], policies, application)


def prove(prober: Prober, checks: Sequence[Check]) -> tuple[Evidence, ...]:
    """Send all questions, and return what the answers prove. Raises ClusterError or DeployError where a pod cannot
    ask."""
    answers = prober.ask([check.question for check in checks])
    return tuple(proof for check, answer in zip(checks, answers, strict=True) for proof in check.judge(answer))


def hops_of(application: Application) -> tuple[Hop, ...]:
    """Return the hops of a page through the application."""
    return tuple(Hop(caller, callee) for caller, callee in application.calls)


def page_check(application: Application, readers: Sequence[UserGroup]) -> Check:
    """Return the check of the page as a user gets it who has not logged in. A complete page also shows that a
    deployment is ready."""
    reviews = readers[0].reviews
    question = Question(*application.calls[0])
    return Check(question, lambda answer: [page_evidence(answer.page_problem(reviews))])


def baseline_checks(application: Application) -> Iterator[Check]:
    """Yield the checks without a mesh: the page, and on each hop the service itself."""
    yield page_check(application, user_groups_of(None, application))
    for hop in hops_of(application):
        yield Check(Question(hop.caller, hop.callee), partial(_judge_direct, hop))


def mesh_checks(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """Yield the checks in a mesh: the page, each hop through sidecars and in mutual TLS, plaintext from outside, and
    every policy.

    `own` are the SPIFFE ids in the certificates of each workload's own sidecar, as `own_ids` reads them.
    """
    yield page_check(meshed.application, meshed.readers)
    for hop in hops_of(meshed.application):
        yield Check(Question(hop.caller, hop.callee), partial(_judge_proxied, hop))
    yield from tls_checks(meshed, own)
    yield from plaintext_checks(meshed)
    yield from policy_checks(meshed)
    yield from route_checks(meshed.application)


def route_checks(application: Application) -> Iterator[Check]:
    """Yield the checks of a gateway, if the load enters through one: each of its routes leads to a service, and no
    other path does."""
    for route in route_questions(application.gateway) if application.gateway else ():
        yield Check(Question(application.client.name, GATEWAY, path=route.path), partial(_judge_route, route))


def tls_checks(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """Yield a handshake from outside with each callee: which certificate it shows, and that it requires one."""
    hops = hops_of(meshed.application)
    for callee in dict.fromkeys(hop.callee for hop in hops):
        if meshed.is_secured(meshed.application.workload(callee)):
            callers = [hop for hop in hops if hop.callee == callee]
            yield Check(Question(OUTSIDE, callee, tls=True), partial(_judge_handshake, meshed, own, callers))


def plaintext_checks(meshed: Meshed) -> Iterator[Check]:
    """Yield plaintext requests from outside to each workload for which no probe sends them anyway."""
    covered = {probe.workload for probe in meshed.probes if probe.caller is None}
    for workload in meshed.application.workloads:
        if workload.name not in covered:
            allowed = meshed.policies.mode(workload) != "STRICT"
            yield Check(Question(OUTSIDE, workload.name), partial(_judge_plaintext, workload.name, allowed))


def policy_checks(meshed: Meshed) -> Iterator[Check]:
    """Yield each policy's probes: sent with the service account that they name, or in plaintext from outside."""
    names = {workload.account: workload.name for workload in meshed.application.everyone}
    for probe in meshed.probes:
        caller = OUTSIDE if probe.caller is None else names[probe.caller]
        through_sidecar = replace(probe, status=probe.status_through_sidecar)
        yield Check(Question(caller, probe.workload, probe.method, probe.path), partial(_judge_policy, through_sidecar))


def identity_evidences(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> tuple[Evidence, ...]:
    """Return the evidence of the certificates of each sidecar; none where there are none."""
    return tuple(identity_evidence(name, names=own[name], expected=spiffe) for name, spiffe in meshed.ids.items())


def load_evidence(
    meshed: Meshed,
    counts: Mapping[Hop, HopCount],
    tls: Mapping[str, Mapping[str, int]],
    *,
    requests: Mapping[Hop, int],
    errors: int,
) -> Iterator[Evidence]:
    """Yield what the load left in the sidecars. `counts` are the differences of their counters, `tls` are the counters
    of the callees that it reached, `requests` the requests on each hop."""
    yield from counted_evidence(counts, requests=requests, errors=errors)
    for callee, stats in tls.items():
        if meshed.is_secured(meshed.application.workload(callee)):
            yield handshakes_evidence(callee, stats, tls=meshed.wire.tls)


def hop_counts(meshed: Meshed, totals: Mapping[str, Mapping[str, int]]) -> dict[Hop, HopCount]:
    """Return the requests on each hop, from those that each sidecar counted by cluster."""
    return {hop: _count_hop(meshed, hop, totals) for hop in hops_of(meshed.application)}


def subtract_counts(before: Mapping[Hop, HopCount], now: Mapping[Hop, HopCount]) -> dict[Hop, HopCount]:
    """Return the differences of the counts between two readings."""
    return {hop: count.since(before[hop]) for hop, count in now.items()}


def clusters_of(meshed: Meshed, hop: Hop) -> tuple[tuple[str, ...], str]:
    """Return the clusters by which requests of a hop leave the caller's sidecar (none where no route leads to the
    callee), and the callee's."""
    application = meshed.application
    caller, callee = application.workload(hop.caller), application.workload(hop.callee)
    service = application.service(callee.app)
    ways = meshed.policies.routes(application, caller=caller, service=service)
    return clusters_to(ways, callee), meshed.mesh.data_plane.inbound_cluster(callee)


def _with_manifest_names(application: Application) -> Application:
    """Return the same application in the namespace and the mesh that manifests name."""
    return replace(application, namespace=NAMESPACE, mesh=MESH)


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
    meshed: Meshed, own: Mapping[str, Sequence[str]], hops: Sequence[Hop], answer: Answer
) -> Iterator[Evidence]:
    agreed = answer.handshake or _NO_TLS
    for hop in hops:
        wanted = (meshed.ids[hop.caller], meshed.ids[hop.callee])
        yield mtls_evidence(
            hop,
            version=agreed.version,
            cipher=agreed.cipher,
            ids=(_pick_name(own[hop.caller], wanted[0]), agreed.peer),
            expected_ids=wanted,
            tls=meshed.wire.tls,
        )
    yield certificate_required_evidence(hops[0].callee, status=answer.status, detail=answer.detail)


def _pick_name(names: Sequence[str], wanted: str) -> str:
    """Return the name that is wanted if it is among them, else the first, which shows what is wrong."""
    return wanted if wanted in names else next(iter(names), "")


def _count_hop(meshed: Meshed, hop: Hop, totals: Mapping[str, Mapping[str, int]]) -> HopCount:
    if hop.callee == GATEWAY:
        return HopCount(
            None, sum(totals[FRONT].values()) if FRONT in totals else _count_entered(meshed, totals[GATEWAY])
        )
    outbound, inbound = clusters_of(meshed, hop)
    sent = sum(_count_sent(totals[hop.caller], cluster) for cluster in outbound)
    return HopCount(sent, totals[hop.callee].get(inbound, 0))


def _count_entered(meshed: Meshed, totals: Mapping[str, int]) -> int:
    """Return the requests that the gateway has passed on, to any service."""
    application = meshed.application
    clusters = (meshed.policies.outbound_cluster(application, one) for one in application.services)
    return sum(_count_sent(totals, cluster) for cluster in clusters)


def _count_sent(totals: Mapping[str, int], cluster: str) -> int:
    """Return the requests to a cluster; Kuma's gateways add a hash to its name for each route."""
    named = re.compile(rf"{re.escape(cluster)}(-[0-9a-f]{{16}})?")
    return sum(count for name, count in totals.items() if named.fullmatch(name))
