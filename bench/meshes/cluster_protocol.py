"""Define what a mesh is on a cluster: its control plane.

Each control plane is a module whose functions have the names and signatures of `ControlPlane`; `Mesh.control_plane`
names it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.k8s.client import Cluster, Object, Ref
from bench.meshes.rights import Rights
from bench.system.cancellation import CancelToken


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """The options of a mesh's installation.

    `values` are files on top of meshbench's own, and later files override earlier ones. Empty strings mean the mesh's
    default. `kubeconfig` is the private copy for the mesh's own tool. `equal` are files on top of all values, with
    the settings that the run equalises in all meshes.
    """

    values: tuple[Path, ...] = ()
    hub: str = ""
    tag: str = ""
    revision: str = ""
    kubeconfig: Path | None = None
    equal: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """The command-line tool of a mesh: the arguments that make it print its version, the oldest (major, minor) that
    serves, where to get it, and the first that serves no more."""

    name: str
    version_argv: tuple[str, ...]
    oldest: tuple[int, int]
    source: str
    below: tuple[int, int] | None = None

    @property
    def wanted(self) -> str:
        until = f"before {self.below[0]}.{self.below[1]}" if self.below else "or later"
        return f"{self.name} {self.oldest[0]}.{self.oldest[1]} {until}"


@dataclass(frozen=True, slots=True)
class SidecarSpec:
    """What an injected sidecar requests, as quantities of `cpu` and `memory`, and the images that come with it."""

    requests: Mapping[str, str | float] = field(default_factory=dict)
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SidecarImage:
    """How a trial's sidecars get an image of their own: the reference that they will have, annotations of every pod
    with a sidecar, and objects that have to exist before the pods."""

    image: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    objects: tuple[Object, ...] = ()


ScaleRequests = Callable[[Mapping[str, str | float]], Mapping[str, str]]
"""Makes other requests of a container's requests, by `cpu` and `memory`."""


class ControlPlane(Protocol):
    """A mesh's control plane on a cluster.

    `TOOL` is its command-line tool, `SIDECAR` the name of the sidecar's container, and `PODS` the label selector of its
    own pods in `NAMESPACE`. `GATEWAY` is the container of a gateway whose pods the control plane makes from manifests
    of `GATEWAY_KINDS`; both are empty where it makes none. By `INJECTION_LABELS` a namespace requests sidecars, or to
    be part of the mesh without them. `REVISIONS` is whether several control
    planes can be installed side by side, each under a revision's name.

    `run_mesh` names the part of a mesh that belongs to the run, or to one of several configurations, in which no object
    may affect the whole mesh; see `bench.meshes.rewriting.Namespaces`.
    """

    NAME: str
    NAMESPACE: str
    TOOL: Tool
    SIDECAR: str
    GATEWAY: str
    GATEWAY_KINDS: tuple[str, ...]
    PODS: str
    INJECTION_LABELS: tuple[str, ...]
    REVISIONS: bool

    def rights(self, revision: str = "") -> Rights:
        """Return what the mesh needs to be allowed, in addition to what every run needs."""

    def read_sidecar(self, objects: Iterable[Object]) -> SidecarSpec:
        """Return the sidecar that the control plane with these objects injects; empty where they do not define it."""

    def scale_sidecars(self, objects: Sequence[Object], scale: ScaleRequests) -> tuple[Object, ...]:
        """Return the control plane's objects with the requests of its sidecars as `scale` makes them."""

    def gateway_pods(self, manifest: Object) -> tuple[Object, ...]:
        """Return the specs of the pods that the control plane makes from a manifest of `GATEWAY_KINDS`; their image is
        the sidecars'."""

    def find_telemetry(self, objects: Sequence[Object]) -> Iterable[str]:
        """Return the telemetry settings in the control plane's objects that cost latency, as texts."""

    def render(self, options: InstallOptions) -> tuple[Object, ...]:
        """Return the objects that the mesh's own tool renders, in the order to apply."""

    def wait_ready(self, cluster: Cluster, *, timeout_s: float, watch: CancelToken) -> None:
        """Wait until the control plane is available and its webhook injects sidecars."""

    def find_installed(self, cluster: Cluster) -> str:
        """Return a text that lists the parts of this mesh on the cluster; empty if there are none."""

    def find_mismatches(self, cluster: Cluster, namespace: Object) -> Sequence[str]:
        """Return the reasons why an existing mesh is not what the proofs expect in a namespace like this, as texts."""

    def namespace_labels(self, revision: str = "", run_mesh: str = "") -> Mapping[str, str]:
        """Return the labels of a namespace that gets sidecars."""

    def outside_labels(self) -> Mapping[str, str]:
        """Return the labels of a pod that gets no sidecar, although its namespace does."""

    def decision_annotations(self) -> Mapping[str, str]:
        """Return the annotations of every pod with a sidecar, in addition to or in place of those of
        `pod_annotations`, with which it counts what its filters decide about requests."""

    def pod_annotations(self) -> Mapping[str, str]:
        """Return the sidecar settings of a trial's pods, the same for all meshes as far as possible."""

    def sidecar_image(self, image: str, owner: str) -> SidecarImage | None:
        """Return how sidecars get this image, with names that begin with the configuration's `owner`; None where the
        mesh sets the image for all sidecars only."""

    def base_objects(self, run_mesh: str = "") -> tuple[Object, ...]:
        """Return the objects that the mesh needs before any policy."""

    def list_generated(self, objects: Sequence[Object]) -> tuple[Ref, ...]:
        """Return what the control plane creates for these objects, unlabelled, and keeps when they are deleted."""

    def find_unsynced(self, cluster: Cluster, namespace: str, pods: Sequence[str]) -> str:
        """Return which sidecars have not acknowledged the latest configuration, as text; empty if all have."""

    def find_unaccepted(self, cluster: Cluster, objects: Sequence[Object]) -> str:
        """Return which objects the control plane has not accepted yet, as text; empty if it has accepted all."""

    def admin(self, cluster: Cluster, pod: str, path: str, *, namespace: str) -> str:
        """Return the response to a GET on the admin interface of the pod's sidecar."""

    def find_leftovers(self, cluster: Cluster, *, since: str) -> tuple[Object, ...]:
        """Return what the control plane created itself outside its namespace, without the run's labels. `since` is when
        the first of its own objects was created, as API servers write it: what is older has another owner."""
