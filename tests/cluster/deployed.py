"""Bookinfo in a mesh on the lab, deployed with the parts of a run, for tests of those parts."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.application.model import Application
from bench.files.folders import list_manifest_files
from bench.files.yaml_source import read_documents
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.ownership import COMPONENT, Owner
from bench.k8s.wait import Pods, wait_for, wait_for_rollout
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.protocols import DataPlane, RequestPage
from bench.meshes.resolved import ResolvedConfiguration
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.application_manifests import application_objects
from bench.targets.cluster.probes.pods import (
    find_callers,
    is_probe_ready,
    outside_objects,
    pod_name,
    probe_objects,
)
from bench.targets.cluster.probes.prober import ClusterProber
from bench.verification.checks import data_plane_of, identity_evidences, mesh_checks, page_check, prove
from bench.verification.counts import read_requests
from tests.cluster.lab_images import BOOKINFO
from tests.moving import move_bookinfo, move_objects
from tests.sidecars import configuration_with

LOAD_IMAGE: Final = "locustio/locust:2.47.0"
_READY_S: Final = 240.0


@dataclass(frozen=True)
class Deployed:
    """Bookinfo in the mesh, and its probe pods. `sidecars` are the pods by workload; `first` are the requests that were
    counted before any probe."""

    owner: Owner
    plane: ControlPlane
    configuration: ResolvedConfiguration
    prober: ClusterProber
    sidecars: Mapping[str, str]
    policies: tuple[Object, ...]
    first: Mapping[str, Mapping[str, int]]

    @property
    def application(self) -> Application:
        return self.configuration.deployed

    @property
    def data_plane(self) -> DataPlane:
        return data_plane_of(self.configuration)

    @property
    def namespace(self) -> str:
        return self.application.namespace

    @property
    def spaces(self) -> tuple[str, str]:
        """The namespaces of the application and of the probe pods outside the mesh."""
        return self.namespace, f"{self.namespace}-outside"

    @property
    def cluster(self) -> Cluster:
        return self.owner.cluster

    @property
    def proxies(self) -> Mapping[str, RequestPage]:
        """The admin interfaces of the sidecars; the client's is that of its probe pod."""
        ask = partial(self.plane.admin, self.cluster, namespace=self.namespace)
        return {workload: partial(ask, pod) for workload, pod in self.sidecars.items()}

    def identities(self) -> dict[str, tuple[str, ...]]:
        """The SPIFFE ids in each sidecar's certificates."""
        return {name: self.data_plane.identities(page) for name, page in self.proxies.items()}

    def pods(self) -> tuple[Object, ...]:
        return self.cluster.list("v1", "Pod", namespace=self.namespace)

    def unsynced(self) -> str:
        return self.plane.find_unsynced(self.cluster, self.namespace, [pod["metadata"]["name"] for pod in self.pods()])

    def apply(self, api_version: str, kind: str, spec: Any) -> Ref:
        """Apply a manifest of the mesh's configuration with a random name."""
        metadata = {"name": f"t-{secrets.token_hex(3)}", "namespace": self.namespace}
        self.owner.apply({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}, "policy")
        return Ref(api_version, kind, metadata["name"], self.namespace)


def deploy(owner: Owner, plane: ControlPlane, folder: Path) -> Deployed:
    """Deploy Bookinfo with reviews v3 and the policies of a folder, in the order of a run: policies, then pods."""
    configuration = configuration_with(plane.NAME, folder, namespace=f"{owner.run_id}-{secrets.token_hex(2)}")
    application = configuration.deployed
    outside = f"{application.namespace}-outside"
    apply_namespace(owner, application.namespace, **plane.namespace_labels())
    apply_namespace(owner, outside)
    policies = tuple(move_objects(plane.NAME, read_manifests(folder), application.namespace))
    owner.apply_all(policies, "policy")
    wait_until_empty(lambda: plane.find_unaccepted(owner.cluster, policies))
    pods = _start(owner, plane, configuration, outside)
    workloads = {name.partition("-")[0]: name for name in pods if not name.startswith("probe-")}
    sidecars = {**workloads, "locust": pod_name("locust")}
    wait_until_empty(lambda: plane.find_unsynced(owner.cluster, application.namespace, pods))
    prober = ClusterProber(owner.cluster, application, outside, plane)
    deployed = Deployed(owner, plane, configuration, prober, sidecars, policies, {})
    return replace(deployed, first=read_requests(deployed.data_plane, deployed.proxies))


def _start(owner: Owner, plane: ControlPlane, configuration: ResolvedConfiguration, outside: str) -> list[str]:
    """Start Bookinfo's four pods and the probe pods; return their names once all are ready and before any request."""
    application, cluster = configuration.deployed, owner.cluster
    images, annotations = {"bookinfo": BOOKINFO}, plane.pod_annotations()
    things = application_objects(application, move_bookinfo(application), images=images, annotations=annotations)
    owner.apply_all(things, "application")
    owner.apply_all(
        probe_objects(application, find_callers(application, configuration.probes), image=LOAD_IMAGE), "probe"
    )
    owner.apply_all(outside_objects(outside, image=LOAD_IMAGE), "probe")
    names = [one["metadata"]["name"] for one in things if one["kind"] == "Deployment"]
    wait_for_rollout(cluster, application.namespace, names, timeout_s=_READY_S, watch=owner.watch)
    probes = Pods(application.namespace, labels=f"{COMPONENT}=probe")
    wait_for(cluster, probes, lambda pods: all(map(is_probe_ready, pods)), timeout_s=_READY_S, watch=owner.watch)
    return [pod["metadata"]["name"] for pod in cluster.list("v1", "Pod", namespace=application.namespace)]


def read_manifests(folder: Path) -> list[Object]:
    """Return the objects of a folder of manifests."""
    documents = [one for file in list_manifest_files(folder) for one in read_documents(file)]
    return [one.value for one in documents if one.value is not None]


def apply_namespace(owner: Owner, name: str, **labels: str) -> None:
    metadata = {"name": name, "labels": labels}
    owner.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "application")


def wait_until_empty(check: Any, *, timeout_s: float = 120) -> None:
    """Wait until `check` returns nothing."""
    last: list[Any] = []

    def ends() -> bool:
        last[:] = [check()]
        return not last[0]

    assert wait_until(ends, timeout_s=timeout_s, watch=CancelToken(), poll_s=0.5), last


def find_failed_proofs(deployed: Deployed, own: dict[str, tuple[str, ...]]) -> list[Any]:
    """Return the proofs that do not hold. `own` are the names in the sidecars' certificates."""
    configuration = deployed.configuration
    proofs = (
        *prove(
            deployed.prober,
            [page_check(configuration), *mesh_checks(configuration, own, deployed.prober.omitted)],
        ),
        *identity_evidences(configuration, own),
    )
    assert len(proofs) > 15
    return [proof for proof in proofs if not proof.ok]


def list_mesh_objects(cluster: Cluster, mesh: str) -> set[str]:
    """Return every object of the cluster that belongs to a mesh, by its own name, kind, group or namespace."""
    kinds = [kind for kind in cluster.kinds() if "list" in kind.verbs and kind.kind != "Event"]
    found = {f"{one.api_version} {one.kind}" for one in kinds if mesh in one.api_version}
    for kind in kinds:
        for thing in cluster.list(kind.api_version, kind.kind):
            names = f"{kind.kind} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"
            found |= {names} if mesh in names else set()
    return found
