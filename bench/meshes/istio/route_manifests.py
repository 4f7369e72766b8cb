"""Istio's routing as it is written: VirtualService and DestinationRule, strict models.

What Istio knows and meshbench does not translate (weights, rewrites, time-outs, faults, load balancing) is an error
with file and line, never passed over.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import Field, model_validator

from bench.application.manifests import Kind, Manifest, Name, Part, PolicyMetadata, Port, Text
from bench.files.yaml_source import Loc

MESH_GATEWAY: Final = "mesh"  # what `gateways` calls the sidecars

T = TypeVar("T")
Some = Annotated[tuple[T, ...], Field(min_length=1)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class StringMatch(Part):
    """One string, or all that begin with it."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"regex"})

    exact: Text | None = None
    prefix: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.exact is None) == (self.prefix is None):
            raise ValueError("must have one of exact and prefix")
        return self

    def matches(self, value: str) -> bool:
        """Whether `value` is meant."""
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
    def _say_something(self) -> Self:
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
    """Where the requests go that one of `match` means; without `match`, all."""

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
    """Where requests to some hosts go: those of sidecars, or those that enter through gateways."""

    metadata: PolicyMetadata
    spec: VirtualServiceSpec

    @property
    def in_sidecars(self) -> bool:
        """Whether the mesh's sidecars obey it; without gateways they do, and nobody else."""
        return not self.spec.gateways or MESH_GATEWAY in self.spec.gateways

    def destinations(self) -> Iterator[tuple[Loc, Destination]]:
        """Every destination, and where it is written."""
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


_GROUP: Final = "networking.istio.io"
_VERSIONS: Final = tuple(f"{_GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha3"))  # all mean the same
ROUTE_KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(_VERSIONS, model) for model in (VirtualService, DestinationRule)
}
