"""What on a cluster proves that a deployment is what its configuration's name says.

A `Check` is a question and what its answer proves; pure functions make them, and `prove` asks. What is read from the
API server and from sidecars instead of asked comes in as plain values.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.meshes import MESHES, Mesh, Policies
from bench.meshes.application import NAMESPACE, Application, Workload
from bench.meshes.probe import Probe
from bench.proofs import (
    Hop,
    HopCount,
    certificate_wanted_evidence,
    counted_evidence,
    handshakes_evidence,
    identity_evidence,
    mtls_evidence,
    no_proxy_evidence,
    page_evidence,
    plain_text_evidence,
    proxied_evidence,
)
from bench.records import Evidence
from bench.targets import proxies
from bench.targets.asking import Answer, Handshake, probe_evidence
from bench.targets.kubernetes.client import Cluster
from bench.targets.kubernetes.control_plane import ControlPlane
from bench.targets.kubernetes.probing import OUTSIDE, Prober, Question

_NO_TLS = Handshake("", "", "", "")


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and what its answer proves."""

    question: Question
    judge: Callable[[Answer], Iterable[Evidence]]


@dataclass(frozen=True, slots=True)
class Meshed:
    """A configuration in a mesh: what its identities, modes and probes are. `application` is in the run's namespace;
    `policies` are as the manifests have them, for the one that is written there."""

    mesh: Mesh
    policies: Policies
    application: Application

    @property
    def ids(self) -> Mapping[str, str]:
        """The SPIFFE id of everyone, by name; empty where nobody has a certificate."""
        names = self.mesh.identities(self.policies, self.application)
        return {one.name: names[one.account][0] for one in self.application.everyone if names.get(one.account)}

    @property
    def probes(self) -> tuple[Probe, ...]:
        return self.mesh.probes(self.policies, _as_written(self.application))

    def secured(self, workload: Workload) -> bool:
        """Whether sidecars use mutual TLS to the workload."""
        return self.mesh.mode(self.policies, workload) != "DISABLE"


def read_meshed(mesh: str, folders: Sequence[Path], application: Application) -> Meshed:
    """A configuration from its folders of manifests. Raises InputError with all problems."""
    policies = MESHES[mesh].read_policies(folders, _as_written(application))
    return Meshed(MESHES[mesh], policies, application)


def prove(prober: Prober, checks: Sequence[Check]) -> tuple[Evidence, ...]:
    """Asks all, and tells what the answers prove. Raises ClusterError or DeployError where a pod cannot ask."""
    answers = prober.ask([check.question for check in checks])
    return tuple(proof for check, answer in zip(checks, answers, strict=True) for proof in check.judge(answer))


def hops_of(application: Application) -> tuple[Hop, ...]:
    """The way of a page through the application."""
    return tuple(Hop(caller, callee) for caller, callee in application.calls)


def page_check(application: Application) -> Check:
    """The page, as a user of the load gets it. Whether it is whole is also what tells that a deployment is ready."""
    reviews = application.workload("reviews").version
    question = Question(application.client.name, "productpage")
    return Check(question, lambda answer: [page_evidence(answer.page_problem(reviews))])


def baseline_checks(application: Application) -> Iterator[Check]:
    """Without a mesh: the page, and on each hop the service itself."""
    yield page_check(application)
    for hop in hops_of(application):
        yield Check(Question(hop.caller, hop.callee), partial(_direct, hop))


def mesh_checks(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """In a mesh: the page, each hop through sidecars and in mutual TLS, plain text from outside, and every policy.

    `own` are the SPIFFE ids in the certificates of each workload's own sidecar, as `own_ids` reads them.
    """
    yield page_check(meshed.application)
    for hop in hops_of(meshed.application):
        yield Check(Question(hop.caller, hop.callee), partial(_proxied, hop))
    yield from tls_checks(meshed, own)
    yield from plain_text_checks(meshed)
    yield from policy_checks(meshed)


def tls_checks(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """A handshake from outside with each callee: which certificate it shows, and that it wants one."""
    hops = hops_of(meshed.application)
    for callee in dict.fromkeys(hop.callee for hop in hops):
        if meshed.secured(meshed.application.workload(callee)):
            callers = [hop for hop in hops if hop.callee == callee]
            yield Check(Question(OUTSIDE, callee, tls=True), partial(_handshake, meshed, own, callers))


def plain_text_checks(meshed: Meshed) -> Iterator[Check]:
    """Plain text from outside to each workload for which no probe asks this anyway."""
    asked = {probe.workload for probe in meshed.probes if probe.caller is None}
    for workload in meshed.application.workloads:
        if workload.name not in asked:
            allowed = meshed.mesh.mode(meshed.policies, workload) != "STRICT"
            yield Check(Question(OUTSIDE, workload.name), partial(_plain_text, workload.name, allowed))


def policy_checks(meshed: Meshed) -> Iterator[Check]:
    """Each policy's probes: asked by the service account that they name, or in plain text from outside."""
    names = {workload.account: workload.name for workload in meshed.application.everyone}
    for probe in meshed.probes:
        caller = OUTSIDE if probe.caller is None else names[probe.caller]
        seen = replace(probe, status=probe.status_through_sidecar)
        yield Check(Question(caller, probe.workload, probe.method, probe.path), partial(_policy, seen))


def identity_evidences(meshed: Meshed, own: Mapping[str, Sequence[str]]) -> tuple[Evidence, ...]:
    """The certificates of everybody's own sidecar; none where nobody has one."""
    return tuple(identity_evidence(name, names=own[name], expected=spiffe) for name, spiffe in meshed.ids.items())


def load_evidence(
    meshed: Meshed, counts: Mapping[Hop, HopCount], tls: Mapping[str, Mapping[str, int]], *, requests: int, errors: int
) -> Iterator[Evidence]:
    """What the load left in the sidecars. `counts` is how far they moved during it, `tls` the callees' counters."""
    yield from counted_evidence(counts, requests=requests, errors=errors)
    for callee, stats in tls.items():
        if meshed.secured(meshed.application.workload(callee)):
            yield handshakes_evidence(callee, stats, tls=meshed.mesh.WIRE.tls)


def hop_counts(meshed: Meshed, totals: Mapping[str, Mapping[str, int]]) -> dict[Hop, HopCount]:
    """Requests on each hop, from those that everybody's sidecar counted by cluster."""
    return {hop: _count(meshed, hop, totals) for hop in hops_of(meshed.application)}


def counts_moved(before: Mapping[Hop, HopCount], now: Mapping[Hop, HopCount]) -> dict[Hop, HopCount]:
    """How far the counts went between two readings."""
    return {
        hop: HopCount(count.caller_side - before[hop].caller_side, count.callee_side - before[hop].callee_side)
        for hop, count in now.items()
    }


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The sidecars of one deployment; `pods` are the names of the pods, by workload."""

    plane: ControlPlane
    cluster: Cluster
    namespace: str
    pods: Mapping[str, str]

    def requests(self) -> dict[str, dict[str, int]]:
        """Requests that each has sent on so far, by cluster."""
        return {
            name: proxies.requests_by_cluster(self._ask(name, proxies.CLUSTERS), self._ask(name, proxies.RETRIES))
            for name in self.pods
        }

    def tls(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """The TLS counters of some."""
        return {name: proxies.tls_counters(self._ask(name, proxies.TLS)) for name in names}

    def own_ids(self) -> dict[str, tuple[str, ...]]:
        """The SPIFFE ids in each one's certificates."""
        return {name: proxies.identities(self._ask(name, proxies.CERTIFICATES)) for name in self.pods}

    def _ask(self, name: str, path: str) -> Any:
        return json.loads(self.plane.admin(self.cluster, self.pods[name], path, namespace=self.namespace))


def _as_written(application: Application) -> Application:
    """The same in the namespace that manifests name."""
    return replace(application, namespace=NAMESPACE)


def _direct(hop: Hop, answer: Answer) -> Iterator[Evidence]:
    yield no_proxy_evidence(hop, status=answer.status, headers=answer.headers)


def _proxied(hop: Hop, answer: Answer) -> Iterator[Evidence]:
    yield proxied_evidence(hop, status=answer.status, headers=answer.headers)


def _plain_text(workload: str, allowed: bool, answer: Answer) -> Iterator[Evidence]:
    yield plain_text_evidence(workload, status=answer.status, told=answer.told, allowed=allowed)


def _policy(probe: Probe, answer: Answer) -> Iterator[Evidence]:
    yield probe_evidence(probe, answer)


def _handshake(
    meshed: Meshed, own: Mapping[str, Sequence[str]], hops: Sequence[Hop], answer: Answer
) -> Iterator[Evidence]:
    agreed = answer.handshake or _NO_TLS
    for hop in hops:
        wanted = (meshed.ids[hop.caller], meshed.ids[hop.callee])
        yield mtls_evidence(
            hop,
            version=agreed.version,
            cipher=agreed.cipher,
            ids=(_best(own[hop.caller], wanted[0]), agreed.peer),
            expected_ids=wanted,
            tls=meshed.mesh.WIRE.tls,
        )
    yield certificate_wanted_evidence(hops[0].callee, status=answer.status, told=answer.told)


def _best(names: Sequence[str], wanted: str) -> str:
    """The name that is wanted if it is among them, else the first, which shows what is wrong."""
    return wanted if wanted in names else next(iter(names), "")


def _count(meshed: Meshed, hop: Hop, totals: Mapping[str, Mapping[str, int]]) -> HopCount:
    service = next(one for one in meshed.application.services if one.workload.name == hop.callee)
    outbound = meshed.mesh.outbound_cluster(meshed.policies, meshed.application, service)
    inbound = meshed.mesh.inbound_cluster(service.workload)
    return HopCount(totals[hop.caller].get(outbound, 0), totals[hop.callee].get(inbound, 0))
