"""Read what sidecars and a delegated gateway's Envoy report: counters, configuration, data path."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.application.model import GATEWAY, Application
from bench.envoy import admin as proxies
from bench.envoy.config_dump import parse_dump
from bench.envoy.data_path import read_data_path
from bench.errors import BadAnswerError
from bench.k8s.client import Cluster
from bench.k8s.pod_page import fetch_page
from bench.meshes.protocols import ControlPlane
from bench.results.records import DataPath
from bench.results.store import make_file_name, write_text
from bench.verification.checks import Meshed, clusters_of, hops_of
from bench.verification.questions import FRONT

_SECRETS: Final = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The sidecars of one deployment; `pods` are the names of the pods, by workload."""

    plane: ControlPlane
    cluster: Cluster
    namespace: str
    pods: Mapping[str, str]

    def requests(self) -> dict[str, dict[str, int]]:
        """Return the requests that each has sent on so far, by cluster."""
        return {
            name: proxies.requests_by_cluster(self.ask(name, proxies.CLUSTERS), self.ask(name, proxies.RETRIES))
            for name in self.pods
        }

    def tls(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return the TLS counters of these workloads' sidecars."""
        return {name: proxies.tls_counters(self.ask(name, proxies.TLS)) for name in names}

    def own_ids(self) -> dict[str, tuple[str, ...]]:
        """Return the SPIFFE ids in each sidecar's certificates."""
        return {name: proxies.identities(self.ask(name, proxies.CERTIFICATES)) for name in self.pods}

    def ask(self, name: str, path: str) -> Any:
        """Return the answer of a workload's sidecar on its admin interface."""
        answer = self.plane.admin(self.cluster, self.pods[name], path, namespace=self.namespace)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"the sidecar of {self.pods[name]} answers {path} with invalid JSON") from error


def front_requests(application: Application, sidecars: Sidecars) -> dict[str, dict[str, int]]:
    """Return the requests that a delegated gateway's proxy has sent on so far, by cluster, under its name; empty where
    there is none. Raises DeployError where it does not answer on the admin interface of its configuration."""
    gateway = application.gateway
    if gateway is None or gateway.proxy is None:
        return {}
    port, pod = gateway.proxy["admin"]["address"]["socket_address"]["port_value"], sidecars.pods[GATEWAY]

    def ask(path: str) -> Any:
        who = f"the proxy of {sidecars.namespace}/{pod}"
        return json.loads(fetch_page(sidecars.cluster, pod, port, namespace=sidecars.namespace, path=path, who=who))

    return {FRONT: proxies.requests_by_cluster(ask(proxies.CLUSTERS), ask(proxies.RETRIES))}


def read_sidecars_path(meshed: Meshed, sidecars: Sidecars, kept: Path) -> DataPath:
    """Read the data path, from each sidecar's configuration, which is written into the folder `kept`, and from its
    counters. Raises DeployError where one does not answer."""
    dumps = {name: without_secrets(sidecars.ask(name, proxies.CONFIGURATION)) for name in sidecars.pods}
    kept.mkdir(exist_ok=True)
    for name, dump in dumps.items():
        write_text(kept / make_file_name(f"{name}.json"), json.dumps(dump, indent=1))
    inside = (hop for hop in hops_of(meshed.application) if hop.caller in dumps and hop.callee != GATEWAY)
    clusters = {hop: clusters_of(meshed, hop) for hop in inside}
    return read_data_path(
        {hop: outbound for hop, (outbound, _) in clusters.items()},
        {hop.callee: inbound for hop, (_, inbound) in clusters.items() if hop.callee in dumps},
        configs={name: parse_dump(dump) for name, dump in dumps.items()},
        ask=sidecars.ask,
    )


def without_secrets(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its section of certificates and keys: Envoy redacts the keys, and the rest is not
    used."""
    return {**dump, "configs": [section for section in dump["configs"] if section["@type"] != _SECRETS]}
