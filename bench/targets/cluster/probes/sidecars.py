"""Read what sidecars and a delegated gateway's Envoy report: counters, configuration, data path."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.application.model import GATEWAY, Application
from bench.errors import BadAnswerError
from bench.k8s.client import Cluster
from bench.k8s.pod_page import fetch_page
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.envoy_data_plane import count_requests
from bench.meshes.protocols import DataPlane, RequestPage
from bench.results.records import DataPath
from bench.results.store import make_file_name, write_text
from bench.verification.checks import Meshed, clusters_of, hops_of
from bench.verification.questions import FRONT

Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The sidecars of one deployment; `pods` are the names of the pods, by workload."""

    plane: ControlPlane
    cluster: Cluster
    namespace: str
    pods: Mapping[str, str]

    @property
    def data_plane(self) -> DataPlane:
        """Return the data plane of the mesh."""
        return MESHES[self.plane.NAME].data_plane

    def requests(self) -> dict[str, dict[str, int]]:
        """Return the requests that each has sent on so far, by cluster."""
        return {name: self.read(name, self.data_plane.requests) for name in self.pods}

    def tls(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return the TLS counters of these workloads' sidecars."""
        return {name: self.read(name, self.data_plane.handshakes) for name in names}

    def own_ids(self) -> dict[str, tuple[str, ...]]:
        """Return the SPIFFE ids in each sidecar's certificates."""
        return {name: self.read(name, self.data_plane.identities) for name in self.pods}

    def request_page(self, name: str, path: str) -> str:
        """Return the response of a workload's sidecar on its own interface."""
        return self.plane.admin(self.cluster, self.pods[name], path, namespace=self.namespace)

    def read(self, name: str, question: Callable[[RequestPage], Answered]) -> Answered:
        """Return what a workload's sidecar reports. Raises BadAnswerError for an invalid response."""
        try:
            return question(partial(self.request_page, name))
        except ValueError as error:
            raise BadAnswerError(f"the sidecar of {self.pods[name]}: {error}") from error


def front_requests(application: Application, sidecars: Sidecars) -> dict[str, dict[str, int]]:
    """Return the requests that a delegated gateway's proxy, an Envoy, has sent on so far, by cluster, under its name;
    empty where there is none. Raises DeployError where it does not answer on the admin interface of its
    configuration."""
    gateway = application.gateway
    if gateway is None or gateway.proxy is None:
        return {}
    port, pod = gateway.proxy["admin"]["address"]["socket_address"]["port_value"], sidecars.pods[GATEWAY]
    who = f"the proxy of {sidecars.namespace}/{pod}"

    def request_page(path: str) -> str:
        return fetch_page(sidecars.cluster, pod, port, namespace=sidecars.namespace, path=path, who=who)

    try:
        return {FRONT: count_requests(request_page)}
    except ValueError as error:
        raise BadAnswerError(f"{who}: {error}") from error


def read_sidecars_path(meshed: Meshed, sidecars: Sidecars, kept: Path) -> DataPath:
    """Read the data path, from each sidecar's configuration, which is written into the folder `kept`, and from its
    counters. Raises DeployError where one does not answer."""
    configurations = {name: sidecars.read(name, sidecars.data_plane.configuration) for name in sidecars.pods}
    kept.mkdir(exist_ok=True)
    for name, configuration in configurations.items():
        write_text(kept / make_file_name(f"{name}.json"), configuration)
    inside = (hop for hop in hops_of(meshed.application) if hop.caller in sidecars.pods and hop.callee != GATEWAY)
    clusters = {hop: clusters_of(meshed, hop) for hop in inside}
    try:
        return sidecars.data_plane.data_path(
            {hop: outbound for hop, (outbound, _) in clusters.items()},
            {hop.callee: inbound for hop, (_, inbound) in clusters.items() if hop.callee in sidecars.pods},
            configurations=configurations,
            pages={name: partial(sidecars.request_page, name) for name in sidecars.pods},
        )
    except ValueError as error:
        raise BadAnswerError(f"a sidecar of {sidecars.namespace}: {error}") from error
