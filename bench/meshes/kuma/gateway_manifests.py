"""Model the manifests of Kuma's built-in gateway, strictly."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from bench.application.manifests import SERVER_METADATA, Kind, Manifest, Name, Part, Port, Text
from bench.meshes.gateway_objects import GatewayPodMetadata
from bench.meshes.kuma.manifests import Labels


class GatewayMetadata(Part):
    """`metadata` of an object of the whole mesh, without a namespace."""

    untranslated: ClassVar[frozenset[str]] = SERVER_METADATA | {"annotations", "namespace"}

    name: Name
    labels: Labels = Field(default={})


class ServiceTag(Part):
    service: Text = Field(alias="kuma.io/service")


class Selector(Part):
    match: ServiceTag


class Listener(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tls", "crossMesh", "resources", "tags"})
    other_values: ClassVar[frozenset[str]] = frozenset({"HTTPS", "TCP", "TLS"})

    port: Port
    protocol: Literal["HTTP"]
    hostname: Literal["*"] = "*"


class ListenerConf(Part):
    listeners: tuple[Listener]


class MeshGatewaySpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tags"})

    selectors: tuple[Selector]
    conf: ListenerConf


class MeshGateway(Manifest):
    """A port that the gateways of a service open."""

    mesh: Literal["default"] = "default"
    metadata: GatewayMetadata
    spec: MeshGatewaySpec


class InstancePodSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"securityContext", "container"})

    service_account_name: Name


class PodTemplate(Part):
    metadata: GatewayPodMetadata
    spec: InstancePodSpec


class MeshGatewayInstanceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"serviceTemplate", "tags"})

    replicas: int = Field(default=1, ge=1, le=1)  # the local target runs one process
    service_type: Literal["ClusterIP"]
    pod_template: PodTemplate
    resources: Any = None


class InstanceAnnotations(Part):
    """The number of worker threads, as in all sidecars of a run; the default is one for each core of the node."""

    workers: Literal["2"] = Field(alias="kuma.io/sidecar-proxy-concurrency")


class InstanceMetadata(Part):
    name: Name
    namespace: Name | None = None
    labels: Labels = Field(default={})
    annotations: InstanceAnnotations


class MeshGatewayInstance(Manifest):
    """The pods of a gateway and their Service, which the control plane creates."""

    metadata: InstanceMetadata
    spec: MeshGatewayInstanceSpec


class PathMatch(Part):
    match: Literal["EXACT", "PREFIX"]
    value: Annotated[str, Field(pattern=r"^/")]


class RouteMatch(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"method", "headers", "queryParameters"})

    path: PathMatch


class Backend(Part):
    weight: int = Field(ge=1)
    destination: ServiceTag


class RouteRule(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"filters"})

    matches: Annotated[tuple[RouteMatch, ...], Field(min_length=1)]
    backends: tuple[Backend]


class HttpConf(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"hostnames"})

    rules: Annotated[tuple[RouteRule, ...], Field(min_length=1)]


class RouteConf(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tcp"})

    http: HttpConf


class MeshGatewayRouteSpec(Part):
    selectors: tuple[Selector]
    conf: RouteConf


class MeshGatewayRoute(Manifest):
    """The routes of the gateways of a service."""

    mesh: Literal["default"] = "default"
    metadata: GatewayMetadata
    spec: MeshGatewayRouteSpec


BUILTIN_KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(("kuma.io/v1alpha1",), model) for model in (MeshGateway, MeshGatewayInstance, MeshGatewayRoute)
}
