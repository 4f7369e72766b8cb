"""One configuration on this machine: processes on loopback, ready, provable, loadable."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from bench.application.model import GATEWAY, PATHS, Hop
from bench.envoy import admin as proxies
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Certificates, Identity
from bench.envoy.config_dump import of_bootstrap
from bench.envoy.data_path import read_data_path
from bench.errors import DeployError
from bench.load.generator import LoadOrder, LoadOutcome, Progress
from bench.meshes import MESHES, Mesh
from bench.meshes.protocols import Probe
from bench.meshes.resolved import Reader
from bench.meshes.routing import clusters_to
from bench.results.records import DataPath, Evidence
from bench.system.cancellation import Watch
from bench.system.processes import Launcher, Process
from bench.targets.local.locust import start_load
from bench.targets.local.prober import admin_json, ask_for_pages, call
from bench.targets.local.sidecars import Sidecars
from bench.verification.evidence import (
    HopCount,
    counted_evidence,
    handshakes_evidence,
    mtls_evidence,
    no_proxy_evidence,
    no_sidecar_evidence,
    page_evidence,
    plain_text_evidence,
    protocol_evidence,
    proxied_evidence,
)
from bench.verification.questions import SERIES, Answer, pages_evidence, probe_evidence, requests_on, route_questions


@dataclass
class LocalDeployment:
    """A configuration that is up; `sidecars` is None without a mesh, `readers` are those of its load, `home` is an
    empty folder for the load generator."""

    mesh: str
    placement: Placement
    readers: tuple[Reader, ...]
    sidecars: Sidecars | None
    processes: tuple[Process, ...]
    launcher: Launcher
    watch: Watch
    order: LoadOrder
    home: Path
    _counted: dict[Hop, HopCount] = field(default_factory=dict)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The way of a page through the application."""
        return tuple(Hop(caller, callee) for caller, callee in self.placement.application.calls)

    def page(self) -> str | None:
        """What is wrong with the page as a user gets it; None when it is whole."""
        return self.ask(self.hops[0]).page_problem(self.readers[0].reviews)

    def ask(self, hop: Hop) -> Answer:
        """One request on a hop, the way its caller goes; to the callee's own Service where it has one."""
        port = self.placement.reached_by(hop.caller, hop.callee)
        return call(port, "GET", self._path(hop.callee), host=self.placement.host_of(hop.callee))

    def _path(self, callee: str) -> str:
        return PATHS[self.placement.application.workload(callee).app]

    def restarts(self) -> tuple[str, ...]:
        """Processes that ended although nobody ended them: nothing restarts them here."""
        return tuple(
            f"{process.name} ({process.last_words()}) ended" for process in self.processes if not process.running
        )

    def images(self) -> dict[str, str]:
        """Processes have none."""
        return {}

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Runs the generator; see `bench.targets.Deployment`."""
        self._counted = self._counts()
        load = start_load(self.launcher, self.order, draft, watch=self.watch, under_test=self.processes, home=self.home)
        return load.run(watch=self.watch, show=show, kept=kept)

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # what fell apart under the load proves nothing more; that it did is told by itself
        if self.sidecars is None:
            return (page_evidence(self.page()), *self._baseline_evidence())
        # first what the load left: every further question would be counted with it
        counted = self._load_evidence(self.sidecars, load) if load is not None and load.countable else ()
        return (*counted, page_evidence(self.page()), *self._series(), *self._mesh_evidence(self.sidecars))

    def _series(self) -> Iterator[Evidence]:
        """Where routes tell readers apart, each gets what is meant for it, every time."""
        entry = self.hops[0]
        port, host = self.placement.reached_by(entry.caller, entry.callee), self.placement.host_of(entry.callee)
        for reader in self.readers if len(self.readers) > 1 else ():
            yield pages_evidence(reader, ask_for_pages(port, host=host, user=reader.user, count=SERIES))

    def data_path(self, draft: Path) -> DataPath | None:  # noqa: ARG002  # there since the sidecars were started
        """See `bench.targets.Deployment`."""
        sidecars, application = self.sidecars, self.placement.application
        if sidecars is None:
            return None
        admins = {one.name: sidecars.admins[one.name] for one in application.everyone}
        return read_data_path(
            {hop: self._clusters_to(hop, sidecars) for hop in self.hops if hop.caller in admins},
            {name: self._rules.inbound_cluster(application.workload(name)) for name in self.placement.inbound},
            configs={name: of_bootstrap(sidecars.configuration(name)) for name in admins},
            ask=lambda name, page: _asked(admins[name], page),
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
        asked = self._rules.probes(sidecars.policies, self.placement.application)
        shown = {probe.workload for probe in asked if probe.caller is None}
        return (
            *(proxied_evidence(hop, status=a.status, headers=a.headers) for hop, a in answers.items()),
            *(self._handshake(hop, sidecars) for hop in self.hops if self._secured(hop, sidecars)),
            *(self._plain_text(name, sidecars) for name in self.placement.inbound if name not in shown),
            *(self._probe(probe, sidecars.certificates) for probe in asked),
            *self._gateway_evidence(),
        )

    def _gateway_evidence(self) -> Iterator[Evidence]:
        """Every route of the gateway leads to a service, and no other path does."""
        gateway = self.placement.application.gateway
        for question in route_questions(gateway) if gateway else ():
            host = self.placement.host_of(GATEWAY)
            yield question.judge(call(self.placement.gateway, "GET", question.path, host=host))

    @property
    def _rules(self) -> Mesh:
        """What the mesh says of itself."""
        return MESHES[self.mesh]

    def _secured(self, hop: Hop, sidecars: Sidecars) -> bool:
        """Whether sidecars use mutual TLS on a hop; who calls the gateway is outside of the mesh."""
        callee = self.placement.application.workload(hop.callee)
        return hop.callee != GATEWAY and self._rules.mode(sidecars.policies, callee) != "DISABLE"

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
        mode = self._rules.mode(sidecars.policies, self.placement.application.workload(name))
        return plain_text_evidence(name, status=answer.status, told=answer.told, allowed=mode != "STRICT")

    def _probe(self, probe: Probe, certificates: Certificates) -> Evidence:
        identity = None if probe.caller is None else certificates.identity(probe.caller)
        answer = self._at_sidecar(probe.workload, probe.method, probe.path, identity=identity)
        return probe_evidence(probe, answer)

    def _at_sidecar(self, callee: str, method: str, path: str, *, identity: Identity | None) -> Answer:
        """A request straight to the callee's sidecar: with a certificate, or in plain text."""
        port = self.placement.gateway if callee == GATEWAY else self.placement.inbound[callee]
        return call(port, method, path, host=self.placement.host_of(callee), identity=identity)

    def _load_evidence(self, sidecars: Sidecars, load: LoadOutcome) -> tuple[Evidence, ...]:
        before, now = self._counted, self._counts()
        moved = {hop: now[hop].since(before[hop]) for hop in self.hops}
        good = load.samples.ok
        errors = len(good) - int(good.sum())
        expected = requests_on(self.hops, self.placement.application, readers=self.readers, samples=load.samples)
        gone = [hop for hop in self.hops if expected[hop]]
        secured = dict.fromkeys(hop.callee for hop in gone if self._secured(hop, sidecars))
        return (
            *counted_evidence(moved, requests=expected, errors=errors),
            *(self._protocol(hop, sidecars) for hop in gone if hop.callee != GATEWAY),
            *(self._handshakes(callee, sidecars) for callee in secured),
        )

    def _protocol(self, hop: Hop, sidecars: Sidecars) -> Evidence:
        opened = proxies.connections_by_cluster(_asked(sidecars.admins[hop.caller], proxies.PROTOCOLS))
        counted = Counter[str]()
        for cluster in self._clusters_to(hop, sidecars):
            counted.update(opened.get(cluster, {}))
        gateway = self.placement.application.gateway
        own = gateway.http if gateway and hop.caller == GATEWAY else None
        return protocol_evidence(hop, counted, http=own or self._rules.WIRE.http)

    def _handshakes(self, callee: str, sidecars: Sidecars) -> Evidence:
        counters = proxies.tls_counters(_asked(sidecars.admins[callee], proxies.TLS))
        return handshakes_evidence(callee, counters, tls=sidecars.certificates.wire.tls)

    def _clusters_to(self, hop: Hop, sidecars: Sidecars) -> tuple[str, ...]:
        """The clusters in which the caller's sidecar counts what it sends to the callee; none without a route to it."""
        application = self.placement.application
        caller, callee = application.workload(hop.caller), application.workload(hop.callee)
        service = application.service(callee.app)
        return clusters_to(self._rules.ways(sidecars.policies, application, caller=caller, service=service), callee)

    def _counts(self) -> dict[Hop, HopCount]:
        """Requests so far on each hop, by the clusters of both its sidecars. Empty without a mesh."""
        if self.sidecars is None:
            return {}
        totals = {name: _requests_by_cluster(path) for name, path in self.sidecars.admins.items()}
        return {hop: self._count(hop, totals, sidecars=self.sidecars) for hop in self.hops}

    def _count(self, hop: Hop, totals: Mapping[str, Mapping[str, int]], *, sidecars: Sidecars) -> HopCount:
        if hop.callee == GATEWAY:
            return HopCount(None, sum(totals[sidecars.front].values()))
        inbound = self._rules.inbound_cluster(self.placement.application.workload(hop.callee))
        return HopCount(
            caller_side=sum(totals[hop.caller].get(cluster, 0) for cluster in self._clusters_to(hop, sidecars)),
            callee_side=totals[hop.callee].get(inbound, 0),
        )


def _asked(admin: Path, query: str) -> Any:
    """What a sidecar says on its admin socket. Raises DeployError where it does not answer."""
    try:
        return admin_json(admin, query)
    except (OSError, HTTPException, ValueError) as error:
        raise DeployError(f"{admin.stem}-sidecar does not answer on its admin socket: {error}") from error


def _requests_by_cluster(admin: Path) -> dict[str, int]:
    """Requests that a sidecar has sent on, by cluster."""
    return proxies.requests_by_cluster(_asked(admin, proxies.CLUSTERS), _asked(admin, proxies.RETRIES))
