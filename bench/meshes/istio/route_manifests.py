"""Model Istio's routing manifests, VirtualService and DestinationRule, strictly.

Features that meshbench does not translate (weights, rewrites, timeouts, faults, load balancing) are errors with file
and line, never ignored.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import Field, model_validator

from bench.application.manifests import Kind, Manifest, Name, Part, PolicyMetadata, Port, Text
from bench.files.yaml_source import Loc

MESH_GATEWAY: Final = "mesh"  # the name of all sidecars in `gateways`

# Equivalent API versions.
NETWORKING_VERSIONS: Final = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))

T = TypeVar("T")
Some = Annotated[tuple[T, ...], Field(min_length=1)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class StringMatch(Part):
    """An exact string, or a prefix."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"regex"})

    exact: Text | None = None
    prefix: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.exact is None) == (self.prefix is None):
            raise ValueError("must have one of exact and prefix")
        return self

    def matches(self, value: str) -> bool:
        """Return whether `value` fulfils the condition."""
        return value == self.exact if self.exact is not None else value.startswith(self.prefix or "")


class HttpMatch(Part):
    """Requests that have this path and all of these headers."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        [
            "name",
            "scheme",
            "method",
            "authority",
            "port",
            "sourceLabels",
            "gateways",
            "queryParams",
            "ignoreUriCase",
            "withoutHeaders",
            "sourceNamespace",
            "statPrefix",
        ]
    )

    uri: StringMatch | None = None
    headers: dict[HeaderName, StringMatch] = Field(default={})

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self.uri is None and not self.headers:
            raise ValueError("must name uri or headers; leave `match` out for every request")
        return self


class PortSelector(Part):
    number: Port


class Destination(Part):
    """A service, or its workloads with the labels of a subset."""

    host: Text
    subset: Name | None = None
    port: PortSelector | None = None


class RouteDestination(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"weight", "headers"})

    destination: Destination


class HttpRoute(Part):
    """The destination of requests that fulfil one of `match`; without `match`, of all requests."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        [
            "name",
            "redirect",
            "directResponse",
            "delegate",
            "rewrite",
            "timeout",
            "retries",
            "fault",
            "mirror",
            "mirrors",
            "mirrorPercentage",
            "corsPolicy",
            "headers",
        ]
    )

    match: tuple[HttpMatch, ...] = ()
    route: tuple[RouteDestination]

    @property
    def destination(self) -> Destination:
        return self.route[0].destination


class VirtualServiceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tls", "tcp", "exportTo"})

    hosts: Some[Text]
    gateways: tuple[Text, ...] = ()
    http: Some[HttpRoute]


class VirtualService(Manifest):
    """The routes of requests to some hosts, from sidecars or through gateways."""

    metadata: PolicyMetadata
    spec: VirtualServiceSpec

    @property
    def in_sidecars(self) -> bool:
        """Return whether the mesh's sidecars use it; without gateways only sidecars do."""
        return not self.spec.gateways or MESH_GATEWAY in self.spec.gateways

    def destinations(self) -> Iterator[tuple[Loc, Destination]]:
        """Yield each destination with its position."""
        for index, route in enumerate(self.spec.http):
            yield ("spec", "http", index, "route", 0, "destination"), route.destination


class Subset(Part):
    """The workloads of a host that have all of these labels."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"trafficPolicy"})

    name: Name
    labels: Annotated[dict[str, str], Field(min_length=1)]


class DestinationRuleSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"trafficPolicy", "exportTo", "workloadSelector"})

    host: Text
    subsets: Some[Subset]


class DestinationRule(Manifest):
    """The subsets of a service."""

    metadata: PolicyMetadata
    spec: DestinationRuleSpec


ROUTE_KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(NETWORKING_VERSIONS, model) for model in (VirtualService, DestinationRule)
}
