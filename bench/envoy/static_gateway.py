"""Read and rewrite the proxy of a delegated gateway: a plain Envoy with its complete configuration in a ConfigMap.

Envoy validates the configuration. This module reads only what a run needs: the port that it opens, the paths that it
routes, and the Services that it calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from bench.application.manifests import Manifest, Metadata, Source
from bench.application.model import GATEWAY, Application, Gateway, PathRoute
from bench.envoy.addresses import HOST, Placement
from bench.errors import InputError, Problem
from bench.files.yaml_source import Document, Loc, format_suggestion, parse_documents

CONFIGURATION: Final = "envoy.yaml"
_MATCHES: Final[dict[str, Literal["exact", "prefix"]]] = {"path": "exact", "prefix": "prefix"}

Json = dict[str, Any]


class ConfigMapManifest(Manifest):
    metadata: Metadata
    data: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProxyConfiguration:
    """Envoy's configuration as data, with its lines in the file."""

    document: Document

    @property
    def value(self) -> Json:
        value: Json = self.document.value
        return value

    def addresses(self) -> Iterator[tuple[Loc, Json]]:
        """Yield each socket address with its position."""
        for loc, address in _find_key(self.value, "socket_address"):
            if isinstance(address, dict) and {"address", "port_value"} <= address.keys():
                yield loc, address

    def routes(self, application: Application) -> tuple[PathRoute, ...]:
        """Return the paths that it routes by `path` or `prefix`."""
        return tuple(found for _, found in self._routes(application) if isinstance(found, PathRoute))

    def problems(self, application: Application, port: int) -> Iterator[Problem]:
        """Yield unknown services, routes that cannot be translated, and a port without a listener."""
        services = {service.name: service for service in application.services}
        for loc, address in self.addresses():
            name, service = str(address["address"]), services.get(str(address["address"]))
            if loc[:2] != ("static_resources", "clusters"):
                continue
            if service is None:
                yield self.document.problem(loc, f"there is no service {name!r}{format_suggestion(name, services)}")
            elif address["port_value"] != service.port:
                yield self.document.problem(loc, f"{name} has no port {address['port_value']}")
        if not any(loc[0] == "admin" for loc, _ in self.addresses()):
            yield self.document.problem(("admin",), "must have an address with a port, from which a run reads counters")
        if not any(self._is_open(loc, address, port) for loc, address in self.addresses()):
            yield self.document.problem(("static_resources", "listeners"), f"no listener at port {port}")
        yield from (problem for _, problem in self._routes(application) if isinstance(problem, Problem))

    def _is_open(self, loc: Loc, address: Json, port: int) -> bool:
        return loc[:2] == ("static_resources", "listeners") and address["port_value"] == port

    def _routes(self, application: Application) -> Iterator[tuple[Loc, PathRoute | Problem]]:
        for loc, routes in _find_key(self.value, "routes"):
            for index, route in enumerate(routes if isinstance(routes, list) else ()):
                here = (*loc, index)
                yield here, self._route(here, route, application)

    def _route(self, loc: Loc, route: Json, application: Application) -> PathRoute | Problem:
        services = {service.name: service for service in application.services}
        cluster = (route.get("route") or {}).get("cluster")
        kind = next((key for key in _MATCHES if key in (route.get("match") or {})), None)
        if cluster not in services:
            known = format_suggestion(str(cluster), services)
            return self.document.problem((*loc, "route"), f"must name a cluster with the name of a service{known}")
        if kind is None:
            return self.document.problem((*loc, "match"), "must have path or prefix")
        return PathRoute(_MATCHES[kind], route["match"][kind], services[cluster])


def read_proxy_configuration(sources: Sequence[Source[ConfigMapManifest]]) -> ProxyConfiguration | None:
    """Return the configuration in a gateway's ConfigMap, or None without one. Raises InputError for invalid YAML."""
    for source in sources:
        if CONFIGURATION in source.manifest.data:
            return ProxyConfiguration(_parse(source))
    return None


def _parse(source: Source[ConfigMapManifest]) -> Document:
    """Parse the configuration with its lines in the file; a block of text begins on the line after its key."""
    document = source.document
    first = document.line_of(("data", CONFIGURATION))
    try:
        (parsed,) = parse_documents(source.manifest.data[CONFIGURATION], file=document.file)
    except InputError as error:
        raise InputError(
            [Problem(one.file, one.line + first, one.path, one.message) for one in error.problems]
        ) from None
    return Document(parsed.file, parsed.value, {loc: line + first for loc, line in parsed.lines.items()})


def _find_key(value: Any, key: str, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """Yield each value of a key at any depth, with its position."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        if name == key:
            yield (*loc, name), part
        yield from _find_key(part, key, (*loc, name))


def front_bootstrap(gateway: Gateway, *, placement: Placement, admin: Path) -> Json:
    """Return Envoy's complete configuration for a delegated gateway on loopback.

    It is that of the manifests, except for its port, for Services, which are ports of its sidecar here, and for the
    admin interface on the Unix socket `admin`.
    """
    proxy: Mapping[str, Any] = gateway.proxy or {}
    opened = {"address": HOST, "port_value": placement.gateway}
    services = placement.application.services
    called: dict[str | None, Json] = {one.name: _outbound_address(placement, one.name) for one in services}
    resources = proxy["static_resources"]
    return {
        **proxy,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "static_resources": {
            **resources,
            "listeners": [
                _replace_addresses({"traffic_direction": "INBOUND", **one}, {None: opened})
                for one in resources["listeners"]
            ],
            "clusters": [_replace_addresses({**one, "type": "STATIC"}, called) for one in resources["clusters"]],
        },
    }


def _outbound_address(placement: Placement, service: str) -> Json:
    return {"address": HOST, "port_value": placement.reached_by(GATEWAY, service)}


def _replace_addresses(value: Any, targets: Mapping[str | None, Json]) -> Any:
    """Return a copy with each socket address replaced by the target of its name, or by the default target (None)."""
    if isinstance(value, Mapping):
        return {
            key: targets.get(part["address"], targets.get(None, part))
            if key == "socket_address"
            else _replace_addresses(part, targets)
            for key, part in value.items()
        }
    return [_replace_addresses(part, targets) for part in value] if isinstance(value, list) else value
