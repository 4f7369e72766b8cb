"""Read the data path of a deployment from its sidecars' configuration and counters."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from bench.application.model import Hop
from bench.envoy import admin as proxies
from bench.envoy.config_dump import (
    EnvoyConfig,
    http_of,
    limits_of,
    load_balancing_of,
    policies_of,
    retries_of,
    route_to,
    timeout_of,
)
from bench.results.records import DataPath, EffectiveRoute, Inbound, ObservedConnections

# Requests a page of the admin interface of a workload's sidecar.
RequestPage = Callable[[str, str], Any]
Counted = TypeVar("Counted")


def read_data_path(
    outbound: Mapping[Hop, Collection[str]],
    inbound: Mapping[str, str],
    *,
    configs: Mapping[str, EnvoyConfig],
    ask: RequestPage,
    base_name: Callable[[str], str] = str,
) -> DataPath:
    """Return the effective routes of all hops and the inbounds of all workloads.

    `outbound` are the clusters in which the caller's sidecar sends requests to the callee. `inbound` is the one in
    which a workload's own sidecar passes requests on, and `configs` the sidecars' configuration, by workload.
    `base_name` gives the name in `outbound` of one of a sidecar's clusters. A hop without a route is omitted.
    """
    return DataPath(
        workers={name: proxies.workers(ask(name, proxies.WORKERS)) for name in configs},
        ways=tuple(_read_routes(outbound, configs=configs, base_name=base_name, ask=ask)),
        inbounds=tuple(_read_inbounds(inbound, configs)),
        clusters={name: len(config.clusters) for name, config in configs.items()},
    )


def _read_routes(
    outbound: Mapping[Hop, Collection[str]],
    *,
    configs: Mapping[str, EnvoyConfig],
    base_name: Callable[[str], str],
    ask: RequestPage,
) -> Iterator[EffectiveRoute]:
    callers = dict.fromkeys(hop.caller for hop in outbound)
    tls = {name: proxies.tls_by_cluster(ask(name, proxies.TLS)) for name in callers}
    http = {name: proxies.connections_by_cluster(ask(name, proxies.PROTOCOLS)) for name in callers}
    for hop, names in outbound.items():
        clusters = [one for one in configs[hop.caller].clusters if base_name(one) in names]
        seen = _merge_seen(_select(clusters, tls[hop.caller]), _select(clusters, http[hop.caller]))
        yield from _read_route(hop, clusters, config=configs[hop.caller], seen=seen)


def _select(clusters: Collection[str], counted: Mapping[str, Counted]) -> list[Counted]:
    return [counted[name] for name in clusters if name in counted]


def _read_route(
    hop: Hop, clusters: Collection[str], *, config: EnvoyConfig, seen: ObservedConnections
) -> Iterator[EffectiveRoute]:
    route = route_to(config, clusters)
    if route is not None:
        cluster = config.clusters[next(iter(clusters))]
        yield EffectiveRoute(
            caller=hop.caller,
            callee=hop.callee,
            http=http_of(cluster),
            seen=seen,
            timeout_s=timeout_of(route),
            retries=retries_of(route),
            load_balancing=load_balancing_of(cluster),
            limits=limits_of(cluster),
        )


def _merge_seen(
    tls: Collection[Mapping[str, Collection[str]]], http: Collection[Mapping[str, int]]
) -> ObservedConnections:
    versions = {version for counted in http for version, count in counted.items() if count}
    kinds = {kind: {name for one in tls for name in one.get(kind, ())} for kind in ("versions", "ciphers", "curves")}
    return ObservedConnections(
        http=tuple(sorted(versions)),
        tls=tuple(sorted(kinds["versions"])),
        ciphers=tuple(sorted(kinds["ciphers"])),
        curves=tuple(sorted(kinds["curves"])),
    )


def _read_inbounds(inbound: Mapping[str, str], configs: Mapping[str, EnvoyConfig]) -> Iterator[Inbound]:
    for name, cluster in inbound.items():
        route = route_to(configs[name], (cluster,))
        if route is not None:
            http, network = policies_of(route)
            yield Inbound(
                workload=name,
                http_policies=http,
                network_policies=network,
                timeout_s=timeout_of(route),
                retries=retries_of(route),
            )
