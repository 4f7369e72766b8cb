"""Prove from the proxies' counters that a load took its path: how many requests, in which protocols."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np

from bench.application.model import GATEWAY, Application, Hop
from bench.errors import reject_malformed
from bench.meshes.envoy_data_plane import count_requests
from bench.meshes.protocols import DataPlane, Policies, RequestPage
from bench.meshes.resolved import ResolvedConfiguration
from bench.meshes.routing import clusters_to
from bench.meshes.user_groups import UserGroup
from bench.results.records import Evidence
from bench.results.samples import Samples
from bench.verification.checks import data_plane_of
from bench.verification.evidence import (
    HopCount,
    agreement_evidence,
    counted_evidence,
    handshakes_evidence,
    protocol_evidence,
)
from bench.verification.prober import pages_of, workload_of
from bench.verification.questions import FRONT, OUTSIDE

# Requests that each proxy has sent on, or connections that it has opened by version, by cluster.
Requests = Mapping[str, Mapping[str, int]]
T = TypeVar("T")


def read_requests(data_plane: DataPlane, proxies: Mapping[str, RequestPage]) -> dict[str, dict[str, int]]:
    """Return the requests that the proxies of each workload have sent on so far, by cluster. A delegated gateway's own
    is an Envoy."""
    total: dict[str, Counter[str]] = {}
    for name, page in proxies.items():
        found = ask_proxy(name, page, count_requests if name == FRONT else data_plane.requests)
        total.setdefault(workload_of(name), Counter()).update(found)
    return {name: dict(counts) for name, counts in total.items()}


def ask_proxy(name: str, page: RequestPage, question: Callable[[RequestPage], T]) -> T:
    """Return what the proxy of a workload reports. Raises BadAnswerError for an invalid response."""
    with reject_malformed(f"the proxy of {name}"):
        return question(page)


def policies_of(configuration: ResolvedConfiguration) -> Policies:
    """Return the policies of a configuration in a mesh."""
    assert configuration.policies is not None  # noqa: S101  # only a mesh has proxies
    return configuration.policies


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


def subtract(before: Requests, now: Requests) -> dict[str, dict[str, int]]:
    """Return the requests between two readings."""
    return {
        name: {cluster: count - before.get(name, {}).get(cluster, 0) for cluster, count in counted.items()}
        for name, counted in now.items()
    }


def count_first(application: Application, counted: Requests) -> int:
    """Return the requests that the first proxy on the path has sent on: the gateway's, or that of the load."""
    entry = application.hops[0]
    name = entry.caller if entry.callee != GATEWAY else FRONT if FRONT in counted else GATEWAY
    return sum(counted[name].values())


def load_evidence(
    configuration: ResolvedConfiguration,
    proxies: Mapping[str, RequestPage],
    counted: Requests,
    *,
    requests: Mapping[Hop, int],
    errors: int,
) -> Iterator[Evidence]:
    """Yield what a load left in the sidecars. `counted` are the requests since before it, `requests` those on each hop
    as the application's calls have them."""
    counts = {hop: count_hop(configuration, hop, counted) for hop in requests}
    yield from counted_evidence(counts, requests=requests, errors=errors)
    yield from connections_evidence(configuration, proxies, [hop for hop, number in requests.items() if number])


def found_evidence(
    configuration: ResolvedConfiguration,
    proxies: Mapping[str, RequestPage],
    counted: Requests,
    *,
    entry: Hop,
    sent: int,
    errors: int,
    at_least: bool = False,
) -> Iterator[Evidence]:
    """Yield what a load of `sent` requests left in the sidecars where it is not known how many each hop had: the entry
    counted the load, or `at_least` that where clients may follow redirects, and both sides of each hop that was used
    counted as many."""
    if entry.callee == GATEWAY:
        yield from counted_evidence(
            {entry: count_hop(configuration, entry, counted)}, requests={entry: sent}, errors=errors, at_least=at_least
        )
    for group in _group_by_callees(_find_flows(configuration, counted, entry)):
        callees = dict.fromkeys(callee for flow in group for callee in flow.callees)
        callers = Counter[str]()
        for flow in group:
            callers[flow.caller] += flow.sent
        yield agreement_evidence(
            callers,
            {callee: _count_received(configuration, callee, counted) for callee in callees},
            load=(entry.caller, sent) if entry.caller in callers else None,
            errors=errors,
            at_least=at_least,
        )
    yield from connections_evidence(configuration, proxies, find_hops(configuration, counted, entry))


def find_hops(configuration: ResolvedConfiguration, counted: Requests, entry: Hop) -> tuple[Hop, ...]:
    """Return the hops that the callers' proxies have counted, and that of the entry."""
    flows = _find_flows(configuration, counted, entry)
    hops = (Hop(flow.caller, callee) for flow in flows if flow.caller != OUTSIDE for callee in flow.callees)
    return tuple(dict.fromkeys(hops))


@dataclass(frozen=True, slots=True)
class _Flow:
    """The requests of a caller to any of `callees`, which its proxy counts together."""

    caller: str
    callees: tuple[str, ...]
    sent: int


def _find_flows(configuration: ResolvedConfiguration, counted: Requests, entry: Hop) -> Iterator[_Flow]:
    """Yield the flows with requests, that of the entry in any case, and those that only a callee's proxy has counted,
    as from outside."""
    application, reached = configuration.deployed, set[str]()
    for caller in application.everyone:
        clusters = {
            one.cluster: tuple(workload.name for workload in one.workloads)
            for service in application.services
            for route in policies_of(configuration).routes(application, caller=caller, service=service)
            for one in route.destinations
        }
        for cluster, callees in clusters.items():
            sent = counted[caller.name].get(cluster, 0)
            if sent or (caller.name == entry.caller and entry.callee in callees):
                reached.update(callees)
                yield _Flow(caller.name, callees, sent)
    for workload in application.workloads:
        if workload.name not in reached and _count_received(configuration, workload.name, counted):
            yield _Flow(OUTSIDE, (workload.name,), 0)


def _group_by_callees(flows: Iterable[_Flow]) -> list[list[_Flow]]:
    """Group the flows that share callees: only the sums of both sides are comparable."""
    groups: list[list[_Flow]] = []
    for flow in flows:
        same = [group for group in groups if any({*flow.callees} & {*other.callees} for other in group)]
        groups = [*(group for group in groups if group not in same), [*(one for group in same for one in group), flow]]
    return groups


def connections_evidence(
    configuration: ResolvedConfiguration, proxies: Mapping[str, RequestPage], used: Iterable[Hop]
) -> Iterator[Evidence]:
    """Yield the protocol of the sidecars on each hop that the load used, and the TLS that each callee has accepted."""
    inside = [hop for hop in used if hop.callee != GATEWAY]
    data_plane = data_plane_of(configuration)
    opened = {
        caller: [ask_proxy(caller, page, data_plane.connections) for page in pages_of(caller, proxies)]
        for caller in dict.fromkeys(hop.caller for hop in inside)
    }
    for hop in inside:
        versions = Counter[str]()
        for name, counted in product(clusters_of(configuration, hop)[0], opened[hop.caller]):
            versions.update(counted.get(name, {}))
        gateway = configuration.deployed.gateway if hop.caller == GATEWAY else None
        yield protocol_evidence(hop, versions, http=(gateway and gateway.http) or configuration.wire.http)
    for callee in dict.fromkeys(hop.callee for hop in inside):
        if configuration.is_encrypted(configuration.deployed.workload(callee)):
            counters = Counter[str]()
            for page in pages_of(callee, proxies):
                counters.update(ask_proxy(callee, page, data_plane.handshakes))
            yield handshakes_evidence(callee, counters, tls=configuration.wire.tls)


def count_hop(configuration: ResolvedConfiguration, hop: Hop, counted: Requests) -> HopCount:
    """Return the requests on a hop, from those that each proxy has counted by cluster."""
    if hop.callee == GATEWAY:
        return HopCount(
            None, sum(counted[FRONT].values()) if FRONT in counted else _count_entered(configuration, counted[GATEWAY])
        )
    sent = sum(counted[hop.caller].get(cluster, 0) for cluster in clusters_of(configuration, hop)[0])
    return HopCount(sent, _count_received(configuration, hop.callee, counted))


def clusters_of(configuration: ResolvedConfiguration, hop: Hop) -> tuple[tuple[str, ...], str]:
    """Return the clusters by which requests of a hop leave the caller's sidecar (none where no route leads to the
    callee), and the callee's."""
    application = configuration.deployed
    caller, callee = application.workload(hop.caller), application.workload(hop.callee)
    service = application.called_as(callee)
    routes = policies_of(configuration).routes(application, caller=caller, service=service)
    return clusters_to(routes, callee), data_plane_of(configuration).inbound_cluster(callee)


def _count_received(configuration: ResolvedConfiguration, name: str, counted: Requests) -> int:
    return counted[name].get(data_plane_of(configuration).inbound_cluster(configuration.deployed.workload(name)), 0)


def _count_entered(configuration: ResolvedConfiguration, counted: Mapping[str, int]) -> int:
    """Return the requests that the gateway has passed on, to any service."""
    application = configuration.deployed
    clusters = (policies_of(configuration).outbound_cluster(application, one) for one in application.services)
    return sum(counted.get(cluster, 0) for cluster in clusters)
