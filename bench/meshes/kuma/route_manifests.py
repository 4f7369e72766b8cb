"""Model Kuma's MeshHTTPRoute, strictly.

Features that meshbench does not translate (weights, filters, methods, queries, regular expressions) are errors with
file and line, never ignored.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import Field

from bench.application.manifests import Kind, Manifest, Name, Part, Port, Text
from bench.meshes.kuma.manifests import PolicyMetadata, TargetRef
from bench.meshes.kuma.naming import ROOT_NAMESPACE

T = TypeVar("T")
Some = Annotated[tuple[T, ...], Field(min_length=1)]

# What else a reference may lead to.
OTHER_SERVICES: Final = frozenset({"MeshExternalService", "MeshMultiZoneService", "MeshServiceSubset"})


class HeaderMatch(Part):
    type: Literal["Exact", "Prefix"] = "Exact"
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    value: Text


class PathMatch(Part):
    """An exact path, or all paths; Kuma matches any longer prefix by whole parts between slashes."""

    type: Literal["Exact", "PathPrefix"]
    value: Annotated[str, Field(pattern=r"^/")]

    @property
    def is_everything(self) -> bool:
        return self.type == "PathPrefix" and self.value == "/"


class HttpMatch(Part):
    """Requests that have this path and all of these headers."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"method", "queryParams"})

    path: PathMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()


class BackendRef(Part):
    """A reference to a MeshService."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"labels", "tags", "weight"})
    other_values: ClassVar[frozenset[str]] = OTHER_SERVICES

    kind: Literal["MeshService"]
    name: Name
    namespace: Name | None = None
    port: Port | None = None


class RouteDefault(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"filters"})

    backend_refs: tuple[BackendRef]

    @property
    def backend(self) -> BackendRef:
        return self.backend_refs[0]


class RouteRule(Part):
    matches: Some[HttpMatch]
    default: RouteDefault


class ServiceRef(Part):
    """The Service whose requests are routed."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"labels", "mesh", "proxyTypes", "tags"})
    other_values: ClassVar[frozenset[str]] = OTHER_SERVICES

    kind: Literal["MeshService"]
    name: Name
    namespace: Name | None = None
    section_name: Literal["http"] | None = None


class To(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"hostnames"})

    target_ref: ServiceRef
    rules: Some[RouteRule]


class MeshHTTPRouteSpec(Part):
    target_ref: TargetRef = TargetRef(kind="Dataplane")
    to: Some[To]


class MeshHTTPRoute(Manifest):
    """The routes from the sidecars of some callers to some Services."""

    metadata: PolicyMetadata
    spec: MeshHTTPRouteSpec


ROUTE_KINDS: Final[dict[str, Kind[Any]]] = {"MeshHTTPRoute": Kind(("kuma.io/v1alpha1",), MeshHTTPRoute, ROOT_NAMESPACE)}
