"""Prove and load one configuration on this machine: its processes on loopback."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

from bench.application.model import GATEWAY, PATHS, Hop
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Certificates, Identity
from bench.errors import DeployError
from bench.load.generator import LoadOutcome, LoadSpec, Progress
from bench.meshes import MESHES
from bench.meshes.envoy_data_plane import count_requests
from bench.meshes.probe import Probe
from bench.meshes.protocols import DataPlane, RequestPage
from bench.meshes.routing import clusters_to
from bench.meshes.user_groups import UserGroup
from bench.results.records import DataPath, Evidence
from bench.system.cancellation import CancelToken
from bench.system.processes import Launcher, Process
from bench.targets.local.locust import start_load
from bench.targets.local.prober import call, query_admin, request_pages
from bench.targets.local.sidecars import Sidecars
from bench.verification.evidence import (
    HopCount,
    counted_evidence,
    handshakes_evidence,
    mtls_evidence,
    no_proxy_evidence,
    no_sidecar_evidence,
    page_evidence,
    plaintext_evidence,
    protocol_evidence,
    proxied_evidence,
)
from bench.verification.questions import (
    FRONT,
    SERIES,
    Answer,
    count_expected_requests,
    pages_evidence,
    probe_evidence,
    route_questions,
)

Answered = TypeVar("Answered")


@dataclass
class LocalDeployment:
    """A deployed configuration; `sidecars` is None without a mesh, `groups` are the user groups of its load, `home` is
    an empty folder for the load generator."""

    mesh: str
    placement: Placement
    groups: tuple[UserGroup, ...]
    sidecars: Sidecars | None
    processes: tuple[Process, ...]
    launcher: Launcher
    watch: CancelToken
    spec: LoadSpec
    home: Path
    _counted: dict[Hop, HopCount] = field(default_factory=dict)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Return the path of a page through the application."""
        return tuple(Hop(caller, callee) for caller, callee in self.placement.application.calls)

    def page(self) -> str | None:
        """Return what is wrong with the page of a user; None when it is complete."""
        return self.ask(self.hops[0]).page_problem(self.groups[0].reviews)

    def ask(self, hop: Hop) -> Answer:
        """Send one request on a hop, on its caller's path; to the callee's own Service where it has one."""
        port = self.placement.reached_by(hop.caller, hop.callee)
        return call(port, "GET", self._path(hop.callee), host=self.placement.host_of(hop.callee))

    def _path(self, callee: str) -> str:
        return PATHS[self.placement.application.workload(callee).app]

    def restarts(self) -> tuple[str, ...]:
        """Return the processes that ended by themselves: nothing restarts them here."""
        return tuple(
            f"{process.name} ({process.describe_failure()}) ended" for process in self.processes if not process.running
        )

    def images(self) -> dict[str, str]:
        """Return nothing: processes have no images."""
        return {}

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Run the generator; see `bench.targets.Deployment`."""
        self._counted = self._counts()
        load = start_load(self.launcher, self.spec, draft, watch=self.watch, under_test=self.processes, home=self.home)
        return load.run(watch=self.watch, show=show, kept=kept)

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # a deployment with ended processes cannot be proven; they are reported as restarts
        if self.sidecars is None:
            return (page_evidence(self.page()), *self._baseline_evidence())
        # the counters of the load come first: every further question would be counted with it
        counted = self._load_evidence(self.sidecars, load) if load is not None and load.countable else ()
        return (*counted, page_evidence(self.page()), *self._series(), *self._mesh_evidence(self.sidecars))

    def _series(self) -> Iterator[Evidence]:
        """Prove the pages of each user group, where routes distinguish several."""
        entry = self.hops[0]
        port, host = self.placement.reached_by(entry.caller, entry.callee), self.placement.host_of(entry.callee)
        for group in self.groups if len(self.groups) > 1 else ():
            yield pages_evidence(group, request_pages(port, host=host, user=group.user, count=SERIES))

    def data_path(self, draft: Path) -> DataPath | None:  # noqa: ARG002  # stored when the sidecars were started
        """See `bench.targets.Deployment`."""
        sidecars, application = self.sidecars, self.placement.application
        if sidecars is None:
            return None
        admins = {one.name: sidecars.admins[one.name] for one in application.everyone}
        return sidecars.data_plane.data_path(
            {hop: self._clusters_to(hop, sidecars) for hop in self.hops if hop.caller in admins},
            {name: self._data_plane.inbound_cluster(application.workload(name)) for name in self.placement.inbound},
            configurations={name: sidecars.configuration(name) for name in admins},
            pages={name: partial(_query_admin, admin) for name, admin in admins.items()},
        )

    def _baseline_evidence(self) -> tuple[Evidence, ...]:
        sidecars = [process.name for process in self.processes if process.role == "sidecar"]
        answers = {hop: self.ask(hop) for hop in self.hops}
        return (
            no_sidecar_evidence(sidecars),
            *(no_proxy_evidence(hop, status=a.status, headers=a.headers) for hop, a in answers.items()),
        )

    def _mesh_evidence(self, sidecars: Sidecars) -> tuple[Evidence, ...]:
        answers = {hop: self.ask(hop) for hop in self.hops}
        probes = sidecars.policies.probes(self.placement.application)
        proven = {probe.workload for probe in probes if probe.caller is None}
        return (
            *(proxied_evidence(hop, status=a.status, headers=a.headers) for hop, a in answers.items()),
            *(self._handshake(hop, sidecars) for hop in self.hops if self._secured(hop, sidecars)),
            *(self._plain_text(name, sidecars) for name in self.placement.inbound if name not in proven),
            *(self._probe(probe, sidecars.certificates) for probe in probes),
            *self._gateway_evidence(),
        )

    def _gateway_evidence(self) -> Iterator[Evidence]:
        """Prove that every route of the gateway leads to a service, and no other path does."""
        gateway = self.placement.application.gateway
        for question in route_questions(gateway) if gateway else ():
            host = self.placement.host_of(GATEWAY)
            yield question.judge(call(self.placement.gateway, "GET", question.path, host=host))

    @property
    def _data_plane(self) -> DataPlane:
        return MESHES[self.mesh].data_plane

    def _secured(self, hop: Hop, sidecars: Sidecars) -> bool:
        """Return whether sidecars use mutual TLS on a hop; the gateway's caller is outside of the mesh."""
        callee = self.placement.application.workload(hop.callee)
        return hop.callee != GATEWAY and sidecars.policies.mode(callee) != "DISABLE"

    def _handshake(self, hop: Hop, sidecars: Sidecars) -> Evidence:
        certificates = sidecars.certificates
        caller, callee = (self.placement.application.workload(name) for name in (hop.caller, hop.callee))
        identity = certificates.identity(caller.account)
        agreed = self._at_sidecar(hop.callee, "GET", self._path(hop.callee), identity=identity).handshake
        return mtls_evidence(
            hop,
            version=agreed.version if agreed else "",
            cipher=agreed.cipher if agreed else "",
            ids=(agreed.own, agreed.peer) if agreed else ("", ""),
            expected_ids=(certificates.spiffe_id(caller.account), certificates.spiffe_id(callee.account)),
            tls=sidecars.certificates.wire.tls,
        )

    def _plain_text(self, name: str, sidecars: Sidecars) -> Evidence:
        answer = self._at_sidecar(name, "GET", self._path(name), identity=None)
        mode = sidecars.policies.mode(self.placement.application.workload(name))
        return plaintext_evidence(name, status=answer.status, detail=answer.detail, allowed=mode != "STRICT")

    def _probe(self, probe: Probe, certificates: Certificates) -> Evidence:
        identity = None if probe.caller is None else certificates.identity(probe.caller)
        answer = self._at_sidecar(probe.workload, probe.method, probe.path, identity=identity)
        return probe_evidence(probe, answer)

    def _at_sidecar(self, callee: str, method: str, path: str, *, identity: Identity | None) -> Answer:
        """Send a request directly to the callee's sidecar: with a certificate, or in plaintext."""
        port = self.placement.gateway if callee == GATEWAY else self.placement.inbound[callee]
        return call(port, method, path, host=self.placement.host_of(callee), identity=identity)

    def _load_evidence(self, sidecars: Sidecars, load: LoadOutcome) -> tuple[Evidence, ...]:
        before, now = self._counted, self._counts()
        counts = {hop: now[hop].since(before[hop]) for hop in self.hops}
        ok = load.samples.ok
        errors = len(ok) - int(ok.sum())
        expected = count_expected_requests(
            self.hops, self.placement.application, readers=self.groups, samples=load.samples
        )
        used = [hop for hop in self.hops if expected[hop]]
        secured = dict.fromkeys(hop.callee for hop in used if self._secured(hop, sidecars))
        return (
            *counted_evidence(counts, requests=expected, errors=errors),
            *(self._protocol(hop, sidecars) for hop in used if hop.callee != GATEWAY),
            *(self._handshakes(callee, sidecars) for callee in secured),
        )

    def _protocol(self, hop: Hop, sidecars: Sidecars) -> Evidence:
        opened = _read(sidecars.admins[hop.caller], self._data_plane.connections)
        counted = Counter[str]()
        for cluster in self._clusters_to(hop, sidecars):
            counted.update(opened.get(cluster, {}))
        gateway = self.placement.application.gateway
        own = gateway.http if gateway and hop.caller == GATEWAY else None
        return protocol_evidence(hop, counted, http=own or self._data_plane.wire.http)

    def _handshakes(self, callee: str, sidecars: Sidecars) -> Evidence:
        counters = _read(sidecars.admins[callee], self._data_plane.handshakes)
        return handshakes_evidence(callee, counters, tls=sidecars.certificates.wire.tls)

    def _clusters_to(self, hop: Hop, sidecars: Sidecars) -> tuple[str, ...]:
        """Return the clusters in which the caller's sidecar counts its requests to the callee; none without a route."""
        application = self.placement.application
        caller, callee = application.workload(hop.caller), application.workload(hop.callee)
        service = application.service(callee.app)
        return clusters_to(sidecars.policies.routes(application, caller=caller, service=service), callee)

    def _counts(self) -> dict[Hop, HopCount]:
        """Return the requests so far on each hop, by the clusters of both its sidecars. Empty without a mesh."""
        if self.sidecars is None:
            return {}
        totals = {name: _read(admin, self._counter(name)) for name, admin in self.sidecars.admins.items()}
        return {hop: self._count(hop, totals, sidecars=self.sidecars) for hop in self.hops}

    def _counter(self, name: str) -> Callable[[RequestPage], dict[str, int]]:
        """Return how the requests of a proxy are counted; a delegated gateway's is an Envoy in every mesh."""
        return count_requests if name == FRONT else self._data_plane.requests

    def _count(self, hop: Hop, totals: Mapping[str, Mapping[str, int]], *, sidecars: Sidecars) -> HopCount:
        if hop.callee == GATEWAY:
            return HopCount(None, sum(totals[sidecars.front].values()))
        inbound = self._data_plane.inbound_cluster(self.placement.application.workload(hop.callee))
        return HopCount(
            caller_side=sum(totals[hop.caller].get(cluster, 0) for cluster in self._clusters_to(hop, sidecars)),
            callee_side=totals[hop.callee].get(inbound, 0),
        )


def _query_admin(admin: Path, query: str) -> str:
    """Query a proxy's own interface. Raises DeployError where it does not respond."""
    try:
        return query_admin(admin, query)
    except (OSError, HTTPException, ValueError) as error:
        raise DeployError(f"{admin.stem}-sidecar does not respond on its admin socket: {error}") from error


def _read(admin: Path, question: Callable[[RequestPage], Answered]) -> Answered:
    """Return what a proxy reports. Raises DeployError where it does not respond, or not as a proxy of the mesh."""
    try:
        return question(partial(_query_admin, admin))
    except ValueError as error:
        raise DeployError(f"{admin.stem}-sidecar does not respond on its admin socket: {error}") from error
