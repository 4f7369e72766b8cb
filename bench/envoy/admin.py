"""Parse the pages of Envoy's admin interface, the same for every target and mesh."""

import re
from collections.abc import Mapping
from typing import Any, Final

# The pages that the functions below parse.
CLUSTERS: Final = "/clusters?format=json"
RETRIES: Final = "/stats?format=json&filter=upstream_rq_retry$"
TLS: Final = "/stats?format=json&filter=ssl"
DECISIONS: Final = "/stats?format=json&filter=[.](rbac|jwt_authn|fault|http_local_rate_limit|ext_authz)[.]"
CERTIFICATES: Final = "/certs"
PROTOCOLS: Final = "/stats?format=json&filter=upstream_cx_http[12]_total$"
WORKERS: Final = "/stats?format=json&filter=server.concurrency$"
CONFIGURATION: Final = "/config_dump"

_PROTOCOL: Final = re.compile(r"cluster\.(.+?);?\.upstream_cx_http([12])_total")
_DECISION: Final = re.compile(r".+[.]((?:rbac|jwt_authn|fault|http_local_rate_limit|ext_authz)[.](?!upstream_)[a-z_]+)")
_TLS: Final = re.compile(r"cluster\.(.+?);?\.ssl\.(versions|ciphers|curves)\.(.+)")
_VERSIONS: Final[Mapping[str, str]] = {"1": "HTTP/1.1", "2": "HTTP/2"}


def requests_by_cluster(clusters: Any, retries: Any) -> dict[str, int]:
    """Return the requests that a sidecar has sent, by cluster, without its own retries.

    The per-host counters, which Envoy keeps whatever its stats matcher is, also count retries. `clusters` and `retries`
    are the responses to CLUSTERS and RETRIES.
    """
    counted = {_cluster_of(stat["name"]): int(stat["value"]) for stat in retries["stats"] if "name" in stat}
    return {name: count - counted.get(name, 0) for name, count in _tries_by_cluster(clusters).items()}


def decisions(stats: Any) -> dict[str, int]:
    """Return what a sidecar's filters decided about requests, such as `rbac.denied`, from its response to DECISIONS."""
    counted: dict[str, int] = {}
    for stat in stats["stats"]:
        if found := _DECISION.fullmatch(stat.get("name", "")):
            counted[found[1]] = counted.get(found[1], 0) + int(stat["value"])
    return counted


def tls_counters(stats: Any) -> dict[str, int]:
    """Return the `ssl.*` counters of a sidecar's listeners, from its response to TLS."""
    return {s["name"]: int(s["value"]) for s in stats["stats"] if s.get("name", "").startswith("listener.")}


def connections_by_cluster(stats: Any) -> dict[str, dict[str, int]]:
    """Return the connections that a sidecar has opened, by cluster and HTTP version, from its response to PROTOCOLS."""
    counted: dict[str, dict[str, int]] = {}
    for stat in stats["stats"]:
        if found := _PROTOCOL.fullmatch(stat.get("name", "")):
            cluster, version = found.groups()
            counted.setdefault(cluster, {})[_VERSIONS[version]] = int(stat["value"])
    return counted


def tls_by_cluster(stats: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the `versions`, `ciphers` and `curves` of TLS on the connections that a sidecar opened, by cluster.

    They are from its response to TLS. Probes of the callee are not among them.
    """
    counted: dict[str, dict[str, tuple[str, ...]]] = {}
    for stat in stats["stats"]:
        if (found := _TLS.fullmatch(stat.get("name", ""))) and int(stat["value"]):
            cluster, kind, name = found.groups()
            kinds = counted.setdefault(cluster, {})
            kinds[kind] = (*kinds.get(kind, ()), name)
    return counted


def workers(stats: Any) -> int:
    """Return a sidecar's number of worker threads, from its response to WORKERS; 0 if it is missing."""
    return next((int(stat["value"]) for stat in stats["stats"] if stat.get("name") == "server.concurrency"), 0)


def identities(certificates: Any) -> tuple[str, ...]:
    """Return the SPIFFE ids in a sidecar's own certificates, each once, from its response to CERTIFICATES.

    Envoy lists the certificates of listeners and of clusters, which are mostly the same.
    """
    chains = [entry for one in certificates["certificates"] for entry in one.get("cert_chain", ())]
    uris = [name.get("uri", "") for entry in chains for name in entry.get("subject_alt_names", ())]
    return tuple(dict.fromkeys(uri for uri in uris if uri.startswith("spiffe://")))


def _cluster_of(stat: str) -> str:
    """Return the cluster in `cluster.NAME;.upstream_rq_retry`; a stats tag may end a name with a semicolon."""
    return stat.removeprefix("cluster.").removesuffix(".upstream_rq_retry").removesuffix(";")


def _tries_by_cluster(clusters: Any) -> dict[str, int]:
    totals: dict[str, int] = {}
    for cluster in clusters["cluster_statuses"]:
        hosts = cluster.get("host_statuses", [])
        counted = [stat for host in hosts for stat in host["stats"] if stat.get("name") == "rq_total"]
        totals[cluster["name"]] = sum(int(stat.get("value", 0)) for stat in counted)
    return totals
