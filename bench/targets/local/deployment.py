"""One configuration on this machine: processes on loopback, ready, provable, loadable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from bench.errors import DeployError
from bench.load.generator import LoadOrder, LoadOutcome, Progress
from bench.meshes import MESHES, Mesh
from bench.meshes.probe import Probe
from bench.processes import Launcher, Process
from bench.proofs import (
    Hop,
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
from bench.records import Evidence
from bench.scenario import Load as LoadSettings
from bench.targets import proxies
from bench.targets.asking import PATHS, Answer, probe_evidence
from bench.targets.local.calls import Identity, admin_json, call
from bench.targets.local.certificates import Certificates
from bench.targets.local.generator import start_load
from bench.targets.local.placement import Placement
from bench.targets.local.sidecars import Sidecars
from bench.waiting import Watch


@dataclass
class LocalDeployment:
    """A configuration that is up; `sidecars` is None without a mesh."""

    mesh: str
    placement: Placement
    sidecars: Sidecars | None
    processes: tuple[Process, ...]
    launcher: Launcher
    watch: Watch
    settings: LoadSettings
    locustfile: Path
    seed: int
    _counted: dict[Hop, HopCount] = field(default_factory=dict)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The way of a page through the application."""
        return tuple(Hop(caller, callee) for caller, callee in self.placement.application.calls)

    @property
    def reviews(self) -> str:
        return self.placement.application.workload("reviews").version

    def page(self) -> str | None:
        """What is wrong with the page as a user gets it; None when it is whole."""
        return self.ask(Hop("locust", "productpage")).page_problem(self.reviews)

    def ask(self, hop: Hop) -> Answer:
        """One request on a hop, the way its caller goes."""
        port = self.placement.reached_by(hop.caller, hop.callee)
        return call(port, "GET", PATHS[hop.callee], host=self.placement.host_of(hop.callee))

    def restarts(self) -> tuple[str, ...]:
        """Processes that ended although nobody ended them: nothing restarts them here."""
        return tuple(f"{process.name} ({process.last_words()})" for process in self.processes if not process.running)

    def images(self) -> dict[str, str]:
        """Processes have none."""
        return {}

    def load(
        self, draft: Path, *, show: Callable[[Progress], None], kept: Callable[[LoadOutcome], None]
    ) -> LoadOutcome:
        """Runs the generator; see `bench.targets.Deployment`."""
        self._counted = self._counts()
        load = start_load(self.launcher, self._order(), draft, watch=self.watch, under_test=self.processes)
        return load.run(watch=self.watch, show=show, kept=kept)

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        """See `bench.targets.Deployment`."""
        if load is not None and self.restarts():
            return ()  # what fell apart under the load proves nothing more; that it did is told by itself
        if self.sidecars is None:
            return (page_evidence(self.page()), *self._baseline_evidence())
        # first what the load left: every further question would be counted with it
        whole = load if load is not None and not load.generator.problem else None
        counted = self._load_evidence(self.sidecars, whole) if whole is not None else ()
        return (*counted, page_evidence(self.page()), *self._mesh_evidence(self.sidecars))

    def _order(self) -> LoadOrder:
        return LoadOrder(
            address=f"127.0.0.1:{self.placement.reached_by('locust', 'productpage')}",
            virtual_host=self.placement.host_of("productpage"),
            locustfile=self.locustfile,
            reviews=self.reviews,
            users=self.settings.users,
            think_time_s=self.settings.think_time_s,
            rate_per_s=self.settings.rate_per_s,
            warmup_s=self.settings.warmup_s,
            duration_s=self.settings.duration_s,
            seed=self.seed,
            workers=self.settings.workers,
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
            *(self._handshake(hop, sidecars.certificates) for hop in self.hops if self._secured(hop, sidecars)),
            *(self._plain_text(name, sidecars) for name in self.placement.inbound if name not in shown),
            *(self._probe(probe, sidecars.certificates) for probe in asked),
        )

    @property
    def _rules(self) -> Mesh:
        """What the mesh says of itself."""
        return MESHES[self.mesh]

    def _secured(self, hop: Hop, sidecars: Sidecars) -> bool:
        """Whether sidecars use mutual TLS on a hop."""
        callee = self.placement.application.workload(hop.callee)
        return self._rules.mode(sidecars.policies, callee) != "DISABLE"

    def _handshake(self, hop: Hop, certificates: Certificates) -> Evidence:
        caller, callee = (self.placement.application.workload(name) for name in (hop.caller, hop.callee))
        identity = certificates.identity(caller.account)
        agreed = self._at_sidecar(hop.callee, "GET", PATHS[hop.callee], identity=identity).handshake
        return mtls_evidence(
            hop,
            version=agreed.version if agreed else "",
            cipher=agreed.cipher if agreed else "",
            ids=(agreed.own, agreed.peer) if agreed else ("", ""),
            expected_ids=(certificates.spiffe_id(caller.account), certificates.spiffe_id(callee.account)),
            tls=self._rules.WIRE.tls,
        )

    def _plain_text(self, name: str, sidecars: Sidecars) -> Evidence:
        answer = self._at_sidecar(name, "GET", PATHS[name], identity=None)
        mode = self._rules.mode(sidecars.policies, self.placement.application.workload(name))
        return plain_text_evidence(name, status=answer.status, told=answer.told, allowed=mode != "STRICT")

    def _probe(self, probe: Probe, certificates: Certificates) -> Evidence:
        identity = None if probe.caller is None else certificates.identity(probe.caller)
        answer = self._at_sidecar(probe.workload, probe.method, probe.path, identity=identity)
        return probe_evidence(probe, answer)

    def _at_sidecar(self, callee: str, method: str, path: str, *, identity: Identity | None) -> Answer:
        """A request straight to the callee's sidecar: with a certificate, or in plain text."""
        port = self.placement.inbound[callee]
        return call(port, method, path, host=self.placement.host_of(callee), identity=identity)

    def _load_evidence(self, sidecars: Sidecars, load: LoadOutcome) -> tuple[Evidence, ...]:
        before, now = self._counted, self._counts()
        moved = {
            hop: HopCount(
                now[hop].caller_side - before[hop].caller_side, now[hop].callee_side - before[hop].callee_side
            )
            for hop in self.hops
        }
        good = load.samples.ok
        errors = len(good) - int(good.sum())
        secured = dict.fromkeys(hop.callee for hop in self.hops if self._secured(hop, sidecars))
        return (
            *counted_evidence(moved, requests=len(good), errors=errors),
            *(self._protocol(hop, sidecars) for hop in self.hops),
            *(self._handshakes(callee, sidecars) for callee in secured),
        )

    def _protocol(self, hop: Hop, sidecars: Sidecars) -> Evidence:
        opened = proxies.connections_by_cluster(_asked(sidecars.admins[hop.caller], proxies.PROTOCOLS))
        return protocol_evidence(hop, opened.get(self._cluster_to(hop, sidecars), {}), http=self._rules.WIRE.http)

    def _handshakes(self, callee: str, sidecars: Sidecars) -> Evidence:
        counters = proxies.tls_counters(_asked(sidecars.admins[callee], proxies.TLS))
        return handshakes_evidence(callee, counters, tls=self._rules.WIRE.tls)

    def _cluster_to(self, hop: Hop, sidecars: Sidecars) -> str:
        application = self.placement.application
        service = next(service for service in application.services if service.name == hop.callee)
        return self._rules.outbound_cluster(sidecars.policies, application, service)

    def _counts(self) -> dict[Hop, HopCount]:
        """Requests so far on each hop, by the clusters of both its sidecars. Empty without a mesh."""
        if self.sidecars is None:
            return {}
        totals = {name: _requests_by_cluster(path) for name, path in self.sidecars.admins.items()}
        return {hop: self._count(hop, totals, sidecars=self.sidecars) for hop in self.hops}

    def _count(self, hop: Hop, totals: Mapping[str, Mapping[str, int]], *, sidecars: Sidecars) -> HopCount:
        inbound = self._rules.inbound_cluster(self.placement.application.workload(hop.callee))
        return HopCount(
            caller_side=totals[hop.caller].get(self._cluster_to(hop, sidecars), 0),
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
