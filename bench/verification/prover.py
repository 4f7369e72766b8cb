"""Prove one deployment through its target's prober: before its load, and after it, that the load took its path."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.application.model import GATEWAY, Hop
from bench.application.replacements import format_subject
from bench.errors import reject_malformed
from bench.meshes.resolved import UNPROBED, ResolvedConfiguration
from bench.results.records import DataPath, Evidence
from bench.results.samples import Samples
from bench.verification.checks import (
    baseline_checks,
    data_plane_of,
    identity_evidences,
    mesh_checks,
    page_check,
    policy_checks,
    prove,
    scenario_checks,
)
from bench.verification.counts import (
    Requests,
    ask_proxy,
    clusters_of,
    count_expected_requests,
    count_first,
    count_hop,
    find_hops,
    found_evidence,
    load_evidence,
    read_requests,
    subtract,
)
from bench.verification.evidence import applied_evidence, entered_evidence, pages_evidence, state_evidence
from bench.verification.prober import Prober, Topic, workload_of

SERIES: Final = 100  # pages of each user group that are requested for a proof


@dataclass
class Prover:
    """Proves that a deployment is what its configuration says."""

    prober: Prober
    configuration: ResolvedConfiguration
    _before: Requests = field(default_factory=dict)
    _decided: Mapping[str, int] = field(default_factory=dict)  # before a load
    _during_load: Mapping[str, int] = field(default_factory=dict)
    _found: tuple[Hop, ...] = ()  # by a load, where the application's calls are not known

    @property
    def is_meshed(self) -> bool:
        return self.configuration.mesh is not None

    def page(self) -> Evidence:
        """Prove the page alone."""
        (page,) = prove(self.prober, [page_check(self.configuration)])
        return page

    def prove_ready(self, pages: int) -> tuple[Evidence, ...]:
        """Prove what may take a while to be in force: the page, every policy, and the routes of each user group."""
        policies = policy_checks(self.configuration, as_caller=self._is_asked(Topic.CALLER_CERTIFICATES))
        asked = [page_check(self.configuration), *policies, *scenario_checks(self.configuration)]
        return (*prove(self.prober, asked), *self._series(pages))

    def start_counting(self) -> None:
        """Read the requests so far, which are not the load's."""
        self._before = self.prober.retry(self._read_requests) if self.is_meshed else {}
        self._decided = self.prober.retry(self._read_decisions)

    def prove(self, load: Samples | None = None, *, is_mixed: bool = False) -> tuple[Evidence, ...]:
        """Return the evidence that the deployment is what its name says; with the samples of a load also that the load
        went where it should. A mixed load has other requests than those whose calls the application knows."""
        counted: tuple[Evidence, ...] = ()
        if load is not None and self.is_meshed:  # first: every further question would be counted with it
            counted = self.prober.retry(lambda: tuple(self._load_evidence(load, is_mixed=is_mixed)))
            self._during_load = Counter(self.prober.retry(self._read_decisions)) - Counter(self._decided)
        return (*counted, *self.prober.retry(lambda: tuple(self._evidence())))

    def data_path(self, kept: Path) -> DataPath | None:
        """Return what requests met on their path; None without a mesh. The folder `kept` then has the configuration of
        each proxy."""
        return self.prober.retry(lambda: self._data_path(kept)) if self.is_meshed else None

    def _evidence(self) -> Iterator[Evidence]:
        configuration, omitted, state = self.configuration, self.prober.omitted, self.prober.read_state()
        yield from state_evidence(state, omitted, meshed=self.is_meshed)
        if not state.askable:
            return
        asked = [page_check(configuration), *scenario_checks(configuration)]
        if not self.is_meshed:
            yield from prove(self.prober, [*asked, *baseline_checks(configuration.deployed)])
            return
        own: dict[str, tuple[str, ...]] = {}
        for one in configuration.untranslated:
            yield applied_evidence(format_subject(one.document), UNPROBED, self._during_load)
        if self._is_asked(Topic.SIDECAR_CERTIFICATES) and "mutual TLS" not in configuration.unproven:
            proxies, data_plane = self.prober.proxies(), data_plane_of(configuration)
            own = {
                name: ask_proxy(name, page, data_plane.identities)
                for name, page in proxies.items()
                if workload_of(name) in configuration.ids
            }
            yield from identity_evidences(configuration, own)
        yield from prove(self.prober, [*asked, *mesh_checks(configuration, own, omitted)])
        yield from self._series(SERIES)

    def _series(self, count: int) -> Iterator[Evidence]:
        """Where routes differ by user group, yield whether each gets what is meant for it, every time. Pages that need
        a token are the load's alone, and untranslated objects may change all of them."""
        configuration, groups = self.configuration, self.configuration.groups
        definition, entry = configuration.application.definition, configuration.application.calls[0]
        hidden = "requests" in configuration.unproven or configuration.outcome(*entry).needs_token
        for group in groups if len(groups) > 1 and not hidden else ():
            yield pages_evidence(definition, group, self.prober.pages(group.user, count), count=count)

    def _load_evidence(self, load: Samples, *, is_mixed: bool) -> Iterator[Evidence]:
        counted, application = subtract(self._before, self._read_requests()), self.configuration.deployed
        errors, proxies = len(load.ok) - int(load.ok.sum()), self.prober.proxies()
        if self.configuration.unproven:
            entry, first = application.hops[0], count_first(application, counted)
            hops = find_hops(self.configuration, counted, entry)
            self._found = tuple(one for one in hops if count_hop(self.configuration, one, counted).caller_side)
            yield entered_evidence(entry, first, sent=len(load.ok), errors=errors)
        elif self.configuration.knows_counts and not is_mixed:
            requests = count_expected_requests(application, readers=self.configuration.groups, samples=load)
            yield from load_evidence(self.configuration, proxies, counted, requests=requests, errors=errors)
        else:
            entry, sent = application.hops[0], len(load.ok)
            self._found = find_hops(self.configuration, counted, entry)
            yield from found_evidence(
                self.configuration, proxies, counted, entry=entry, sent=sent, errors=errors, at_least=is_mixed
            )

    def _read_decisions(self) -> Counter[str]:
        """Return what the filters of all proxies have decided, where an object needs it that nothing proves."""
        found = Counter[str]()
        for name, page in self.prober.proxies().items() if self.configuration.untranslated else ():
            found.update(ask_proxy(name, page, data_plane_of(self.configuration).decisions))
        return found

    def _read_requests(self) -> Requests:
        return read_requests(data_plane_of(self.configuration), self.prober.proxies())

    def _data_path(self, kept: Path) -> DataPath:
        configurations = self.prober.read_configurations(kept)
        hops = self._found
        if not self.configuration.unproven:  # else the names of clusters may be others than those of known routes
            hops = hops or self.configuration.deployed.hops
        inside = [hop for hop in hops if hop.callee != GATEWAY]
        clusters = {hop: clusters_of(self.configuration, hop) for hop in inside if hop.caller in configurations}
        with reject_malformed(f"a proxy of {self.configuration.name}"):
            return data_plane_of(self.configuration).data_path(
                {hop: outbound for hop, (outbound, _) in clusters.items()},
                {hop.callee: inbound for hop, (_, inbound) in clusters.items() if hop.callee in configurations},
                configurations=configurations,
                pages=self.prober.proxies(),
            )

    def _is_asked(self, topic: Topic) -> bool:
        return topic not in self.prober.omitted
