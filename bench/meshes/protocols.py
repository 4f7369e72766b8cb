"""Define what a mesh is on a cluster, and the questions that show that a configuration is what its name says.

Each mesh is a module whose functions have these names and signatures; `control_planes.CONTROL_PLANES` names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from bench.k8s.client import Cluster, Object, Ref
from bench.system.cancellation import Watch


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to one sidecar, and the answer that the configuration demands.

    `caller` is the service account whose certificate asks, or None for plain text; `status` is the HTTP
    status, or 0 where the connection has to be closed without an answer. `policy` says what is shown by it.
    """

    policy: str
    workload: str
    caller: str | None
    method: str
    path: str
    status: int

    @property
    def status_through_sidecar(self) -> int:
        """What a caller behind a sidecar of its own sees: that tries a closed connection again, then gives 503."""
        if self.status == 0 and self.caller is not None:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return self.status


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """How a mesh is installed. `values` are files on top of our own, later ones win; empty texts mean the mesh's own
    choice. `kubeconfig` is the private copy, for the mesh's own tool; `equal` are files on top of all values, for what
    the run sets alike in all meshes."""

    values: tuple[Path, ...] = ()
    hub: str = ""
    tag: str = ""
    revision: str = ""
    kubeconfig: Path | None = None
    equal: tuple[Path, ...] = ()


class ControlPlane(Protocol):
    """A mesh's control plane. `TOOL` is its command-line tool, `SIDECAR` the name of the sidecar's container, `PODS`
    the labels by which its own pods are found in `NAMESPACE`.

    `guest` is the name of the run's own part of a control plane that is somebody else's, where nothing of the run may
    be for all; it is empty where the run has installed it.
    """

    NAME: str
    NAMESPACE: str
    TOOL: str
    SIDECAR: str
    PODS: str

    def render(self, options: InstallOptions) -> tuple[Object, ...]:
        """What the mesh's own tool renders, in the order in which it is to be applied."""

    def wait_ready(self, cluster: Cluster, *, timeout_s: float, watch: Watch) -> None:
        """Waits until the control plane is available and its webhook gives a pod its sidecar."""

    def present(self, cluster: Cluster) -> str:
        """What of this mesh is on the cluster already, in words; empty if nothing is."""

    def unfit(self, cluster: Cluster) -> Sequence[str]:
        """Why a mesh that others installed and rule would not be what the proofs expect, in words."""

    def namespace_labels(self, revision: str = "", guest: str = "") -> Mapping[str, str]:
        """The labels by which a namespace asks for sidecars."""

    def outside_labels(self) -> Mapping[str, str]:
        """The labels by which a pod gets no sidecar, although its namespace asks for them."""

    def pod_annotations(self) -> Mapping[str, str]:
        """What the pods of a trial say to their sidecars: the same for all meshes as far as they can."""

    def mesh_objects(self, policies: Sequence[Object], namespace: str, guest: str = "") -> tuple[Object, ...]:
        """A configuration's manifests, moved into the run's namespace, in the order in which they are to be applied."""

    def base_objects(self, guest: str = "") -> tuple[Object, ...]:
        """What the mesh needs before any policy."""

    def made_for(self, things: Sequence[Object]) -> tuple[Ref, ...]:
        """What the control plane makes for these objects, without our labels, and leaves behind when they go."""

    def unsynced(self, cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
        """Who has not acknowledged the newest configuration; empty when all have."""

    def accepted(self, cluster: Cluster, objects: Sequence[Object]) -> str:
        """Which objects with a status the control plane has not taken yet; empty when it has taken all."""

    def admin(self, cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
        """The answer to a GET on the admin interface of the pod's sidecar."""

    def own_leftovers(self, cluster: Cluster) -> tuple[Ref, ...]:
        """What the control plane made itself outside its namespace, without our labels."""
