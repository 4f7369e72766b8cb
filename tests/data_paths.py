"""Data paths of a deployment, for tests: read from sidecars' configuration, or invented."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.application.model import Hop
from bench.envoy.config_dump import EnvoyConfig
from bench.envoy.data_path import RequestPage, read_data_path
from bench.files.folders import find_shipped
from bench.meshes import MESHES
from bench.results.records import DataPath, EffectiveRoute, Inbound, Limits, ObservedConnections, Retries
from tests.policies import read_policies
from tests.sidecars import application_with

HOP = Hop("productpage", "details")
NO_LIMITS = Limits(connections=None, pending=None, requests=None, retries=None)


def read_no_counters(name: str, page: str) -> Any:
    """Return the statistics of a sidecar without requests."""
    return {"stats": []}


def read_path(
    mesh: str, configs: Mapping[str, EnvoyConfig], *, manifests: Sequence[str] = (), ask: RequestPage = read_no_counters
) -> DataPath:
    """Return the data path from productpage to details, and into the workloads of `configs`."""
    data_plane, application = MESHES[mesh].data_plane, application_with("v3")
    policies = read_policies(mesh, [find_shipped("manifests") / folder for folder in manifests], application)
    outbound = {HOP: (policies.outbound_cluster(application, application.service("details")),)}
    inbound = {name: data_plane.inbound_cluster(application.workload(name)) for name in configs}
    return read_data_path(outbound, inbound, configs=configs, ask=ask)


def make_data_path(*, tls: str = "", retries: int = 0, workers: int = 2, http: str = "HTTP/1.1") -> DataPath:
    """Return one hop with these properties; every TLS version has its own cipher and curve."""
    seen = ObservedConnections(
        http=(http,),
        tls=(tls,) if tls else (),
        ciphers=(f"cipher of {tls}",) if tls else (),
        curves=(f"curve of {tls}",) if tls else (),
    )
    tried = Retries(number=retries, conditions=("5xx",), per_try_timeout_s=16.0, backoff_s=(0.025, 0.25))
    way = EffectiveRoute(
        caller=HOP.caller,
        callee=HOP.callee,
        http=http,
        seen=seen,
        timeout_s=15.0 if retries else None,
        retries=tried if retries else None,
        load_balancing="ROUND_ROBIN",
        limits=NO_LIMITS,
    )
    policies = 1 if tls else None
    inbound = Inbound(workload="details", http_policies=policies, network_policies=None, timeout_s=None, retries=None)
    return DataPath(workers={"productpage": workers}, ways=(way,), inbounds=(inbound,))
