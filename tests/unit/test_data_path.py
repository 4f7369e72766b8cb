"""Data paths from sidecars' configuration and counters, of both meshes, local and real ones."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.envoy import admin as proxies
from bench.envoy.config_dump import EnvoyConfig, parse_bootstrap, parse_dump
from bench.envoy.data_path import read_data_path
from bench.files.folders import find_shipped
from bench.meshes.kuma.data_plane import DATA_PLANE
from bench.results.records import DataPath, Limits, ObservedConnections, Retries
from tests.data_paths import HOP, NO_LIMITS, read_no_counters, read_path
from tests.golden import GOLDEN, MISSING, read_recorded
from tests.policies import read_policies
from tests.sidecars import application_with, bootstrap_of

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)

MANIFESTS = {
    "istio/istio": (),
    "istio/istio-mtls": (),
    "istio/istio-policies": ("istio/policies",),
    "kuma/kuma": (),
    "kuma/kuma-mtls": ("kuma/mtls",),
    "kuma/kuma-policies": ("kuma/policies",),
    "kuma/kuma-policies-legacy": ("kuma/policies-legacy",),
}
KUMAS_LIMITS = Limits(connections=1024, pending=1024, requests=1024, retries=3)


def config_dump(configuration: str, sidecar: str) -> dict[str, Any]:
    """A recorded sidecar's configuration in the form in which Envoy answers /config_dump."""
    parts, admin = read_recorded(configuration, sidecar), "type.googleapis.com/envoy.admin.v3"
    return {
        "configs": [
            {"@type": f"{admin}.BootstrapConfigDump", "bootstrap": parts["bootstrap"]},
            {
                "@type": f"{admin}.ClustersConfigDump",
                "dynamic_active_clusters": [{"cluster": one} for one in parts["clusters"].values()],
            },
            {
                "@type": f"{admin}.ListenersConfigDump",
                "dynamic_listeners": [{"active_state": {"listener": one}} for one in parts["listeners"].values()],
            },
            {
                "@type": f"{admin}.RoutesConfigDump",
                "dynamic_route_configs": [{"route_config": one} for one in parts["routes"].values()],
            },
        ]
    }


def between(configuration: str, configs: Mapping[str, EnvoyConfig]) -> DataPath:
    """The data path from productpage into details."""
    path = read_path(configuration.partition("/")[0], configs, manifests=MANIFESTS[configuration])
    return path.model_copy(update={"inbounds": tuple(one for one in path.inbounds if one.workload == HOP.callee)})


def recorded(configuration: str) -> DataPath:
    callers = {"productpage": "productpage-v1", "details": "details-v1"}
    return between(configuration, {name: parse_dump(config_dump(configuration, at)) for name, at in callers.items()})


def ours(configuration: str) -> DataPath:
    mesh, application = configuration.partition("/")[0], application_with("v3")
    folders = [find_shipped("manifests") / folder for folder in MANIFESTS[configuration]]
    policies = read_policies(mesh, folders, application)
    built = {name: bootstrap_of(mesh, name, application, policies) for name in ("productpage", "details")}
    return between(configuration, {name: parse_bootstrap(bootstrap) for name, bootstrap in built.items()})


@needs_golden
@pytest.mark.parametrize("configuration", [name for name in MANIFESTS if name != "istio/istio-mtls"])
def test_local_sidecar_has_data_path_of_real_sidecar(configuration: str) -> None:
    """The local target's sidecars and those of a real control plane have the same data path. A real one also knows
    Services of other namespaces."""
    mine, real = ours(configuration), recorded(configuration)
    assert mine.model_copy(update={"clusters": {}}) == real.model_copy(update={"clusters": {}})
    assert mine.clusters.keys() == real.clusters.keys()
    assert all(0 < count <= real.clusters[name] for name, count in mine.clusters.items())


@needs_golden
def test_reads_data_path_of_real_istio_sidecar() -> None:
    """HTTP/1.1, two retries, no timeout, least requests, no limits; retries towards the application on a reset."""
    (way,) = recorded("istio/istio").ways
    assert (way.http, way.timeout_s, way.load_balancing, way.limits) == ("HTTP/1.1", None, "LEAST_REQUEST", NO_LIMITS)
    conditions = ("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes")
    assert way.retries == Retries(number=2, conditions=conditions, per_try_timeout_s=None, backoff_s=(0.025, 0.25))
    (inbound,) = recorded("istio/istio").inbounds
    assert inbound.retries is not None
    assert (inbound.retries.number, inbound.retries.conditions) == (2, ("reset-before-request",))


@needs_golden
def test_reads_data_path_of_real_kuma_sidecar() -> None:
    """HTTP/2, five retries with pauses and a timeout for each try, 15 s for a response, round robin, limits."""
    (way,) = recorded("kuma/kuma-policies").ways
    assert (way.http, way.timeout_s, way.load_balancing, way.limits) == ("HTTP/2", 15.0, "ROUND_ROBIN", KUMAS_LIMITS)
    conditions = ("gateway-error", "connect-failure", "refused-stream")
    assert way.retries == Retries(number=5, conditions=conditions, per_try_timeout_s=16.0, backoff_s=(0.025, 0.25))
    (inbound,) = recorded("kuma/kuma-policies").inbounds
    assert (inbound.timeout_s, inbound.retries) == (None, None)


@needs_golden
@pytest.mark.parametrize(
    ("configuration", "http", "network"),
    [
        ("istio/istio", None, None),
        ("istio/istio-mtls", None, None),
        ("istio/istio-policies", 2, None),
        ("kuma/kuma", None, None),
        ("kuma/kuma-mtls", 1, None),
        ("kuma/kuma-policies", 1, None),
        ("kuma/kuma-policies-legacy", None, 1),
    ],
)
def test_counts_policies_by_layer(configuration: str, http: int | None, network: int | None) -> None:
    """An RBAC filter of HTTP or of the network with its entries, or none; filters of other ports do not count."""
    (inbound,) = recorded(configuration).inbounds
    assert (inbound.http_policies, inbound.network_policies) == (http, network)


COUNTED = {
    proxies.TLS: {
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.ssl.versions.TLSv1.3": 4,
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.ssl.versions.TLSv1.2": 0,
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.ssl.ciphers.TLS_AES_128_GCM_SHA256": 4,
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.ssl.curves.X25519MLKEM768": 4,
        "cluster.outbound|9080||ratings.bookinfo.svc.cluster.local;.ssl.versions.TLSv1.2": 1,
        "listener.0.0.0.0_15006.ssl.versions.TLSv1.2": 3,
    },
    proxies.PROTOCOLS: {
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.upstream_cx_http1_total": 2,
        "cluster.outbound|9080||details.bookinfo.svc.cluster.local;.upstream_cx_http2_total": 0,
    },
    proxies.WORKERS: {"server.concurrency": 2},
}


def counting(name: str, page: str) -> Any:
    return {"stats": [{"name": stat, "value": value} for stat, value in COUNTED[page].items()]}


def test_counts_only_requests_to_the_callee() -> None:
    """Other clusters, the listeners' counts of the prober's questions, and counters at zero are left out."""
    application = application_with("v3")
    policies = read_policies("istio", [], application)
    configs = {
        name: parse_bootstrap(bootstrap_of("istio", name, application, policies)) for name in ("productpage", "details")
    }
    path = read_path("istio", configs, ask=counting)
    assert path.ways[0].seen == ObservedConnections(
        http=("HTTP/1.1",), tls=("TLSv1.3",), ciphers=("TLS_AES_128_GCM_SHA256",), curves=("X25519MLKEM768",)
    )
    assert path.workers == {"productpage": 2, "details": 2}


def config_with(action: dict[str, Any], cluster: dict[str, Any]) -> EnvoyConfig:
    """One outbound route to `c`, and one inbound."""
    manager = {
        "@type": "type.googleapis.com/http_connection_manager.v3.HttpConnectionManager",
        "route_config": {"virtual_hosts": [{"routes": [{"redirect": {}}, {"route": action}]}]},
    }
    chains = [{}, {"filters": [{"name": "other"}, {"name": "manager", "typed_config": manager}]}]
    listeners = [{"filter_chains": chains}]
    return EnvoyConfig(tuple(listeners), {"c": cluster}, {})


def read(action: dict[str, Any], cluster: dict[str, Any]) -> DataPath:
    configs = {name: config_with(action, cluster) for name in ("productpage", "details")}
    return read_data_path({HOP: ("c",)}, {"details": "c"}, configs=configs, ask=read_no_counters)


def test_missing_settings_are_envoys_defaults() -> None:
    """Fifteen seconds, no retries, round robin, HTTP/1.1 and Envoy's own limits."""
    (way,) = read({"cluster": "c"}, {}).ways
    assert (way.http, way.timeout_s, way.retries) == ("HTTP/1.1", 15.0, None)
    assert (way.load_balancing, way.limits) == ("ROUND_ROBIN", KUMAS_LIMITS)


def test_retry_policy_without_a_number_retries_once() -> None:
    """Envoy's default number of retries is one, its longest pause ten times the first; zero is no retry."""
    policy = {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.5s"}}
    (way,) = read({"cluster": "c", "retry_policy": policy}, {}).ways
    assert way.retries == Retries(number=1, conditions=("5xx",), per_try_timeout_s=None, backoff_s=(0.5, 5.0))
    assert read({"cluster": "c", "retry_policy": {**policy, "num_retries": 0}}, {}).ways[0].retries is None


def test_matches_cluster_with_kumas_hash() -> None:
    """Kuma appends a hash to a cluster's name for each route; a name of another form is another cluster."""
    for name, ways in (("c-0123456789abcdef", 1), ("c-0123456789abcdeg", 0), ("c-d", 0)):
        config = replace(config_with({"cluster": name}, {}), clusters={name: {}})
        path = read_data_path(
            {HOP: ("c",)}, {}, configs={"productpage": config}, ask=read_no_counters, base_name=DATA_PLANE.base_name
        )
        assert len(path.ways) == ways


def test_counts_of_kumas_hashed_clusters_are_summed() -> None:
    """What a gateway counts for each route to a service is counted under the service's name, with what has no hash."""
    names = {"c-0123456789abcdef": 2, "c-fedcba9876543210": 3, "c": 4, "c-d": 5}
    counted = {name: [{"stats": [{"name": "rq_total", "value": n}]}] for name, n in names.items()}
    hosts = [{"name": name, "host_statuses": statuses} for name, statuses in counted.items()]
    opened = [{"name": f"cluster.{name}.upstream_cx_http2_total", "value": n} for name, n in names.items()]
    pages: dict[str, Any] = {
        proxies.CLUSTERS: {"cluster_statuses": hosts},
        proxies.RETRIES: {"stats": []},
        proxies.PROTOCOLS: {"stats": opened},
    }
    assert DATA_PLANE.requests(lambda path: json.dumps(pages[path])) == {"c": 9, "c-d": 5}
    connections = DATA_PLANE.connections(lambda path: json.dumps(pages[path]))
    assert connections == {"c": {"HTTP/2": 9}, "c-d": {"HTTP/2": 5}}


def test_weighted_route_leads_to_each_cluster() -> None:
    """A weighted route counts for each of its clusters; a route to another host for none."""
    weighted = {"weighted_clusters": {"clusters": [{"name": "other"}, {"name": "c"}]}, "timeout": "3s"}
    assert read(weighted, {}).ways[0].timeout_s == 3.0
    assert read({"cluster": "elsewhere"}, {}).ways == ()
    assert read({"cluster": "elsewhere"}, {}).inbounds == ()
