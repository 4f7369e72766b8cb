"""What an Envoy says of itself on its admin interface, parsed: the same for every target and mesh."""

import re
from collections.abc import Mapping
from typing import Any, Final

# What has to be asked for the functions below.
CLUSTERS: Final = "/clusters?format=json"
RETRIES: Final = "/stats?format=json&filter=upstream_rq_retry$"
TLS: Final = "/stats?format=json&filter=ssl"
CERTIFICATES: Final = "/certs"
PROTOCOLS: Final = "/stats?format=json&filter=upstream_cx_http[12]_total$"
WORKERS: Final = "/stats?format=json&filter=server.concurrency$"
CONFIGURATION: Final = "/config_dump"

_PROTOCOL: Final = re.compile(r"cluster\.(.+?);?\.upstream_cx_http([12])_total")
_TLS: Final = re.compile(r"cluster\.(.+?);?\.ssl\.(versions|ciphers|curves)\.(.+)")
_VERSIONS: Final[Mapping[str, str]] = {"1": "HTTP/1.1", "2": "HTTP/2"}


def requests_by_cluster(clusters: Any, retries: Any) -> dict[str, int]:
    """Requests that a sidecar has sent on, by cluster, without its own retries: the per-host counters, which Envoy
    keeps whatever its stats matcher says, count every try. `clusters` and `retries` answer CLUSTERS and RETRIES."""
    counted = {_cluster_of(stat["name"]): int(stat["value"]) for stat in retries["stats"] if "name" in stat}
    return {name: count - counted.get(name, 0) for name, count in _tries_by_cluster(clusters).items()}


def tls_counters(stats: Any) -> dict[str, int]:
    """The `ssl.*` counters of a sidecar's listeners, from its answer to TLS."""
    return {s["name"]: int(s["value"]) for s in stats["stats"] if s.get("name", "").startswith("listener.")}


def connections_by_cluster(stats: Any) -> dict[str, dict[str, int]]:
    """Connections that a sidecar has opened, by cluster and version of HTTP, from its answer to PROTOCOLS."""
    counted: dict[str, dict[str, int]] = {}
    for stat in stats["stats"]:
        if found := _PROTOCOL.fullmatch(stat.get("name", "")):
            cluster, version = found.groups()
            counted.setdefault(cluster, {})[_VERSIONS[version]] = int(stat["value"])
    return counted


def tls_by_cluster(stats: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """What TLS agreed on for the connections that a sidecar opened: the names of `versions`, `ciphers` and `curves` by
    cluster, from its answer to TLS. Nobody's questions to the callee are among them."""
    counted: dict[str, dict[str, tuple[str, ...]]] = {}
    for stat in stats["stats"]:
        if (found := _TLS.fullmatch(stat.get("name", ""))) and int(stat["value"]):
            cluster, kind, name = found.groups()
            kinds = counted.setdefault(cluster, {})
            kinds[kind] = (*kinds.get(kind, ()), name)
    return counted


def workers(stats: Any) -> int:
    """A sidecar's worker threads, from its answer to WORKERS; 0 where it does not say."""
    return next((int(stat["value"]) for stat in stats["stats"] if stat.get("name") == "server.concurrency"), 0)


def identities(certificates: Any) -> tuple[str, ...]:
    """The SPIFFE ids in a sidecar's own certificates, each once, from its answer to CERTIFICATES. Envoy shows the
    certificates of listeners and of clusters, mostly the same."""
    chains = [entry for one in certificates["certificates"] for entry in one.get("cert_chain", ())]
    uris = [name.get("uri", "") for entry in chains for name in entry.get("subject_alt_names", ())]
    return tuple(dict.fromkeys(uri for uri in uris if uri.startswith("spiffe://")))


def moved(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """How far counters went; one that was not there before stood at zero."""
    return {name: count - before.get(name, 0) for name, count in now.items()}


def _cluster_of(stat: str) -> str:
    """The cluster in `cluster.NAME;.upstream_rq_retry`: Istio's statistics end a name with a semicolon."""
    return stat.removeprefix("cluster.").removesuffix(".upstream_rq_retry").removesuffix(";")


def _tries_by_cluster(clusters: Any) -> dict[str, int]:
    totals: dict[str, int] = {}
    for cluster in clusters["cluster_statuses"]:
        hosts = cluster.get("host_statuses", [])
        counted = [stat for host in hosts for stat in host["stats"] if stat.get("name") == "rq_total"]
        totals[cluster["name"]] = sum(int(stat.get("value", 0)) for stat in counted)
    return totals
