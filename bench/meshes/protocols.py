"""Define what a mesh is: policies, data plane and control plane, each a part behind a protocol.

`bench.meshes.MESHES` lists the meshes. The protocol of the control plane is in `bench.meshes.cluster_protocol`, since a
run on this machine must not load the client of Kubernetes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from bench.application.manifests import Kind, Manifest, Source, Untranslated
from bench.application.model import Application, Gateway, Hop, Service, Workload
from bench.envoy.addresses import OutboundCapture, Placement
from bench.envoy.certificates import Certificates
from bench.envoy.wire import Mode, Wire
from bench.errors import Problem
from bench.files.yaml_source import Document
from bench.meshes.probe import Outcome, Probe
from bench.meshes.rewriting import Moved, Namespaces, Places
from bench.meshes.routing import Route
from bench.results.records import DataPath
from bench.scenario.model import Equal

# What an object of a kind may change: the answers to requests and their paths, or whether and how TLS secures them.
Effect = Literal["requests", "mutual TLS"]
EVERY_EFFECT: Final[frozenset[Effect]] = frozenset({"requests", "mutual TLS"})

# Returns the response of one proxy to a GET of a path on the proxy's own interface.
RequestPage = Callable[[str], str]


class Policies(Protocol):
    """What the manifests of one configuration mean. Its class is the mesh's own."""

    def identities(self, application: Application) -> Mapping[str, tuple[str, ...]]:
        """Return the names (URIs) in the certificate of each service account, its SPIFFE id first.

        The mapping is empty without mutual TLS.
        """

    def mode(self, workload: Workload) -> Mode:
        """Return what the sidecar of a workload accepts."""

    def encrypts(self, application: Application, workload: Workload) -> bool:
        """Return whether sidecars use mutual TLS to a workload that takes it."""

    def routes(self, application: Application, *, caller: Workload, service: Service) -> tuple[Route, ...]:
        """Return the routes from the sidecar of `caller` to a service; the first that matches a request is used."""

    def outcome(self, application: Application, *, caller: Workload | None, workload: Workload) -> Outcome:
        """Return what the policies make of a workload's usual request, with the certificate of a caller, or in
        plaintext from outside the mesh."""

    def outbound_cluster(self, application: Application, service: Service) -> str:
        """Return the name under which a caller's sidecar counts requests to a service."""

    def probes(self, application: Application) -> tuple[Probe, ...]:
        """Return requests whose responses show that each policy is in force."""


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """The policies of one configuration.

    Objects that its application does not allow to translate are `untranslated`, and no part of `policies`. `warnings`
    are parts without an effect, such as an identity that no workload has.
    """

    policies: Policies
    untranslated: tuple[Untranslated, ...] = ()
    warnings: tuple[Problem, ...] = ()


class PolicyModel(Protocol):
    """What the manifests of a mesh mean, the same on both targets."""

    @property
    def KINDS(self) -> Mapping[str, Kind[Any]]:  # noqa: N802 - a module's constant
        """The kinds of objects that a configuration's manifests may have."""

    @property
    def EFFECTS(self) -> Mapping[str, frozenset[Effect]]:  # noqa: N802 - a module's constant
        """What untranslated objects of a kind may change; one that is missing may change everything."""

    @property
    def MOVABLE(self) -> frozenset[str]:  # noqa: N802 - a module's constant
        """The kinds whose objects of the whole mesh have a form, with the same effect on the application, for a run
        that has no mesh of its own."""

    @property
    def ATTACHED(self) -> Mapping[str, Places]:  # noqa: N802 - a module's constant
        """The places, by kind, in which an object names what it changes elsewhere: a gateway that gets its routes, the
        namespaces that see it."""

    def convert(self, document: Document) -> Document:
        """Return the object of Kubernetes for a document in a form of the mesh's own; any other as it is."""

    def is_gateway_part(self, manifest: Manifest) -> bool:
        """Return whether a manifest is of a gateway, if there is one, and not of the sidecars."""

    def read_gateway(self, manifests: Sequence[Source[Any]], application: Application) -> Gateway | None:
        """Return the gateway through which a configuration's load enters, or None without one in its manifests.

        Raises InputError with all problems.
        """

    def read_policies(self, manifests: Sequence[Source[Any]], application: Application) -> PolicyReading:
        """Return the policies of a configuration. Raises InputError with all problems that no target takes."""

    def mesh_objects(self, documents: Sequence[Document], names: Namespaces) -> tuple[Moved, ...]:
        """Return a configuration's manifests, moved into the run's namespaces, in the order to apply."""


@dataclass(frozen=True, slots=True)
class ProxyInputs:
    """What the proxies of one deployment on this machine are configured from."""

    placement: Placement
    policies: Policies
    certificates: Certificates
    equalise: Collection[Equal] = ()


@dataclass(frozen=True, slots=True)
class ProxyCommand:
    """How one proxy is started on this machine. `configuration` is the content of its file.

    `check` is a command that only validates the file, and prints what is wrong with it; empty for a proxy without one.
    """

    configuration: str
    start: tuple[str, ...]
    check: tuple[str, ...] = ()


class DataPlane(Protocol):
    """What proxies of a mesh are given, and what they count.

    Functions that read a proxy's pages raise ValueError for a response that is invalid.
    """

    @property
    def title(self) -> str:
        """The proxy's name in messages."""

    @property
    def servers(self) -> tuple[str, ...]:
        """The proxy's names in the header `server` of responses."""

    @property
    def upstream_header(self) -> str:
        """The header, in lower case, that the proxy adds to the responses of its upstreams, and to no other."""

    @property
    def denial(self) -> str:
        """A text in the body of the proxy's own 403 of a denied request; empty where the body shows nothing."""

    @property
    def wire(self) -> Wire:
        """The protocols between two sidecars."""

    @property
    def outbound_capture(self) -> OutboundCapture:
        """How a sidecar on this machine receives the requests of its workload."""

    def sidecar(self, workload: Workload, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        """Return how the sidecar of a workload is started on this machine, whose configuration will be at `config`.

        A client that serves nothing has no inbound listener. The proxy serves its own interface by HTTP on the Unix
        socket `admin` (at most 107 bytes).
        """

    def gateway(self, gateway: Gateway, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        """Return how a gateway with the mesh's own proxy is started; see `sidecar`."""

    def inbound_cluster(self, workload: Workload) -> str:
        """Return the name under which a workload's sidecar counts the requests that it passes to the workload."""

    def requests(self, page: RequestPage) -> dict[str, int]:
        """Return the requests that a proxy has sent on so far, without its own retries, by the names of `Route.cluster`
        and `inbound_cluster`."""

    def connections(self, page: RequestPage) -> dict[str, dict[str, int]]:
        """Return the connections that a proxy has opened, by the same names and HTTP version."""

    def handshakes(self, page: RequestPage) -> dict[str, int]:
        """Return the TLS handshakes that a proxy has accepted: `ssl.versions.`, `ssl.ciphers.` and `ssl.curves.` with
        what was agreed on, after the name of the listener."""

    def decisions(self, page: RequestPage) -> dict[str, int]:
        """Return how often the filters of a proxy decided about a request, such as `rbac.denied`."""

    def identities(self, page: RequestPage) -> tuple[str, ...]:
        """Return the SPIFFE ids in a proxy's own certificates, each once."""

    def configuration(self, page: RequestPage) -> str:
        """Return the configuration that a proxy has as text, without keys, to be kept with the trial."""

    def data_path(
        self,
        outbound: Mapping[Hop, Collection[str]],
        inbound: Mapping[str, str],
        *,
        configurations: Mapping[str, str],
        pages: Mapping[str, RequestPage],
    ) -> DataPath:
        """Return what requests meet on their path.

        `outbound` are the names under which the caller's sidecar counts its requests to the callee, `inbound` the one
        under which a workload's own sidecar counts. `configurations` are those of `configuration`, or of the files with
        which proxies of this machine were started; both they and `pages` are by workload.
        """


@dataclass(frozen=True, slots=True)
class EqualSettings:
    """How a mesh sets what a scenario equalises on a cluster.

    `installed` are in the values of its installation, for the whole mesh, and `applied` are policies; each is a file
    `manifests/MESH/equal-WHAT.yaml`. `workers` are annotations of every pod with a sidecar.
    """

    installed: frozenset[Equal] = frozenset()
    applied: frozenset[Equal] = frozenset()
    workers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh: its name in scenarios, its name for people, and its parts.

    `domain` ends the groups of its kinds, the names of its webhooks and the prefixes of its labels and annotations.
    `namespace_labels` are the labels of namespaces that it reads and that are without that domain. `control_plane` is
    the name of the module with the functions of `bench.meshes.cluster_protocol.ControlPlane`.
    """

    name: str
    title: str
    domain: str
    policies: PolicyModel
    data_plane: DataPlane
    control_plane: str
    equal: EqualSettings = EqualSettings()
    namespace_labels: frozenset[str] = frozenset()

    def reads(self, key: str) -> bool:
        """Return whether a label or annotation is one of the mesh's."""
        return f"{self.domain}/" in key or key in self.namespace_labels
