"""Read Istio's gateway: the port that it opens and its routes, from Gateway, VirtualService and Deployment.

Istio injects the gateway's proxy into the pods of the Deployment (gateway injection).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from bench.application.manifests import Kind, Manifest, Part, PolicyMetadata, Port, Source, Text, select_kind
from bench.application.model import Application, Gateway, PathRoute, Service
from bench.errors import InputError, Problem
from bench.files.yaml_source import Loc, format_suggestion
from bench.meshes.gateway_objects import CORE_KINDS, GatewayDeployment, Proxy, find_proxies, proxy_problems
from bench.meshes.istio.naming import DOMAIN, find_service
from bench.meshes.istio.route_manifests import MESH_GATEWAY, NETWORKING_VERSIONS, HttpRoute, VirtualService
from bench.meshes.istio.routing import config_path

# The pod's labels and annotations for gateway injection.
INJECTED: Final[Mapping[str, str]] = {"sidecar.istio.io/inject": "true", "inject.istio.io/templates": "gateway"}


class ServerPort(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"targetPort"})
    other_values: ClassVar[frozenset[str]] = frozenset({"HTTP2", "HTTPS", "GRPC", "GRPC-WEB", "TCP", "TLS"})

    number: Port
    name: Text
    protocol: Literal["HTTP"]


class Server(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"tls", "bind", "defaultEndpoint", "name"})

    port: ServerPort
    hosts: tuple[Literal["*"]]


class GatewaySpec(Part):
    selector: Annotated[dict[str, str], Field(min_length=1)]
    servers: tuple[Server]


class GatewayManifest(Manifest):
    """A port that is open to clients outside of the mesh."""

    metadata: PolicyMetadata
    spec: GatewaySpec


GATEWAY_KINDS: Final[dict[str, Kind[Any]]] = {"Gateway": Kind(NETWORKING_VERSIONS, GatewayManifest), **CORE_KINDS}


def find_gateway(sources: Sequence[Source[Any]], application: Application) -> Gateway | None:
    """Return the gateway among a configuration's manifests, or None without one.

    Raises InputError with all problems: missing or mismatched parts, and routes to unknown services.
    """
    if not any(is_gateway_part(source.manifest) for source in sources):
        return None
    gateways = select_kind(sources, GatewayManifest)
    routing = [source for source in select_kind(sources, VirtualService) if is_gateway_part(source.manifest)]
    problems = [*_problems(sources, gateways, routing), *_route_problems(routing, application)]
    if problems:
        raise InputError(problems)
    (proxy,) = find_proxies(sources)
    routes = (route for source in routing for route in _read_routes(source.manifest, application))
    return Gateway(Service(proxy.service.manifest.metadata.name, (proxy.port.port,), (proxy.workload,)), tuple(routes))


def is_gateway_part(manifest: Manifest) -> bool:
    """Return whether a manifest is of the gateway, not of the sidecars."""
    if isinstance(manifest, VirtualService):
        return any(name != MESH_GATEWAY for name in manifest.spec.gateways)
    return isinstance(manifest, tuple(kind.model for kind in GATEWAY_KINDS.values()))


def _problems(
    sources: Sequence[Source[Any]],
    gateways: Sequence[Source[GatewayManifest]],
    routing: Sequence[Source[VirtualService]],
) -> Iterator[Problem]:
    yield from proxy_problems(sources, INJECTED, domain=DOMAIN)
    for extra in gateways[1:]:
        yield extra.problem(("metadata", "name"), "a configuration has one Gateway")
    for source in gateways[:1]:
        yield from _gateway_problems(source, find_proxies(sources), routing)
    known = [source.manifest.metadata.name for source in gateways]
    for virtual in routing:
        yield from _reference_problems(virtual, known)
    if not gateways:
        for deployment in select_kind(sources, GatewayDeployment):
            yield deployment.problem(("metadata", "name"), "no Gateway opens a port of these pods")


def _gateway_problems(
    source: Source[GatewayManifest], proxies: Sequence[Proxy], routing: Sequence[Source[VirtualService]]
) -> Iterator[Problem]:
    selector, port = source.manifest.spec.selector, source.manifest.spec.servers[0].port.number
    selected = [proxy for proxy in proxies if selector.items() <= proxy.labels.items()]
    if not selected:
        yield source.problem(("spec", "selector"), "selects no Deployment's pods")
    if any(proxy.port.port != port for proxy in selected):
        loc: Loc = ("spec", "servers", 0, "port", "number")
        yield source.problem(loc, f"the gateway's Service has no port {port}")
    if not routing:
        yield source.problem(("metadata", "name"), "no VirtualService names this Gateway: it would answer 404 to all")


def _reference_problems(source: Source[VirtualService], known: Sequence[str]) -> Iterator[Problem]:
    """Yield unknown gateways; one of another namespace (`other/name`) is never part of a run."""
    for index, name in enumerate(source.manifest.spec.gateways):
        if name not in (*known, MESH_GATEWAY):
            yield source.problem(("spec", "gateways", index), f"no Gateway {name!r}{format_suggestion(name, known)}")


def _route_problems(routing: Sequence[Source[VirtualService]], application: Application) -> Iterator[Problem]:
    for source in routing:
        if source.manifest.spec.hosts != ("*",):
            yield source.problem(("spec", "hosts"), "meshbench routes a gateway's requests for every host: ['*']")
        if source.manifest.in_sidecars:
            yield source.problem(
                ("spec", "gateways"), f"{MESH_GATEWAY} in addition to a gateway is not translated by meshbench"
            )
        for index, route in enumerate(source.manifest.spec.http):
            yield from _destination_problems(source, index, route, application)
            yield from _match_problems(source, index, route)
            yield from _setting_problems(source, index, route)


def _setting_problems(source: Source[VirtualService], index: int, route: HttpRoute) -> Iterator[Problem]:
    for name in ("timeout", "retries", "fault", "name"):
        if getattr(route, name) is not None:
            message = "is not translated behind a gateway"
            yield source.problem(("spec", "http", index, name), message)
    if len(route.route) > 1:
        message = "several destinations are not translated behind a gateway"
        yield source.problem(("spec", "http", index, "route"), message)


def _destination_problems(
    source: Source[VirtualService], index: int, route: HttpRoute, application: Application
) -> Iterator[Problem]:
    destination, here = route.route[0].destination, ("spec", "http", index, "route", 0, "destination")
    service = find_service(destination.host, application, namespace=application.namespace)
    if service is None:
        known = [one.name for one in application.services]
        message = f"there is no service {destination.host!r}{format_suggestion(destination.host, known)}"
        yield source.problem((*here, "host"), message)
    elif destination.port is not None and destination.port.number != service.port:
        yield source.problem((*here, "port", "number"), f"{service.name} has no port {destination.port.number}")
    if destination.subset is not None:
        message = f"subset {destination.subset!r} is not translated behind a gateway; hint: route to the service"
        yield source.problem((*here, "subset"), message)


def _match_problems(source: Source[VirtualService], index: int, route: HttpRoute) -> Iterator[Problem]:
    for position, match in enumerate(route.match):
        if match.headers:
            loc = ("spec", "http", index, "match", position, "headers")
            yield source.problem(loc, "a gateway's routes by header are not translated by meshbench")


def _read_routes(virtual: VirtualService, application: Application) -> Iterator[PathRoute]:
    """Yield a route for each match, as istiod builds them."""
    origin = config_path(application.namespace, virtual)
    for route in virtual.spec.http:
        service = find_service(route.route[0].destination.host, application, namespace=application.namespace)
        assert service is not None  # noqa: S101  # hosts are checked first
        paths = [match.uri for match in route.match if match.uri]
        for uri in paths:
            kind: Literal["exact", "prefix"] = "exact" if uri.exact is not None else "prefix"
            yield PathRoute(kind, uri.exact or uri.prefix or "", service, origin)
        if not paths:
            yield PathRoute("prefix", "/", service, origin)
