"""Implement `bench.meshes.protocols.DataPlane` for a mesh whose proxies are Envoys: all but their configuration.

docs/local-target.md lists the differences from a sidecar in a cluster, and their effect on latency. A test compares
both and fails for a difference that is not in that list.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.application.model import Gateway, Hop, Workload
from bench.envoy import admin
from bench.envoy.addresses import OutboundCapture
from bench.envoy.binary import envoy_binary
from bench.envoy.config_dump import EnvoyConfig, parse_bootstrap, parse_dump
from bench.envoy.data_path import read_data_path
from bench.envoy.wire import Wire
from bench.meshes.equalise import WORKERS
from bench.meshes.protocols import ProxyCommand, ProxyInputs, RequestPage
from bench.results.records import DataPath
from bench.scenario.model import Equal

Json = dict[str, Any]

_CONCURRENCY: Final = "--concurrency"
_SECRETS: Final = "type.googleapis.com/envoy.admin.v3.SecretsConfigDump"
_TLS_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyDataPlane:
    """Envoys with the options of the mesh's agent, and with what a mesh gives them.

    `sidecar_bootstrap` and `gateway_bootstrap` return Envoy's complete configuration from a workload or a gateway with
    the mesh's own proxy, `placement`, `policies` (of the class `own_policies`), `certificates` and `admin`, the socket
    of the admin interface. `own_cluster` is `inbound_cluster` of the protocol. `base_name` is the name of
    `Route.cluster` for one of a proxy's clusters, of which a mesh may make several.
    """

    wire: Wire
    outbound_capture: OutboundCapture
    options: tuple[str, ...]
    own_policies: type
    own_cluster: Callable[[Workload], str]
    sidecar_bootstrap: Callable[..., Json]
    gateway_bootstrap: Callable[..., Json]
    base_name: Callable[[str], str] = str
    title: str = "Envoy"
    servers: tuple[str, ...] = ("envoy",)
    upstream_header: str = "x-envoy-upstream-service-time"
    denial: str = "RBAC"

    def inbound_cluster(self, workload: Workload) -> str:
        """See `bench.meshes.protocols.DataPlane`."""
        return self.own_cluster(workload)

    def sidecar(self, workload: Workload, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        """See `bench.meshes.protocols.DataPlane`."""
        bootstrap = self.sidecar_bootstrap(workload, **self.given(inputs, admin))
        return self._command(workload, bootstrap, inputs, config)

    def gateway(self, gateway: Gateway, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        """See `bench.meshes.protocols.DataPlane`."""
        bootstrap = self.gateway_bootstrap(gateway, **self.given(inputs, admin))
        return self._command(gateway.workload, bootstrap, inputs, config)

    def given(self, inputs: ProxyInputs, admin: Path) -> dict[str, Any]:
        """Return what both functions for a proxy's configuration are given, by name."""
        assert isinstance(inputs.policies, self.own_policies)  # noqa: S101  # a mesh is given its own
        return {
            "placement": inputs.placement,
            "policies": inputs.policies,
            "certificates": inputs.certificates,
            "admin": admin,
        }

    def _command(self, workload: Workload, bootstrap: Json, inputs: ProxyInputs, config: Path) -> ProxyCommand:
        equal = equalise_bootstrap(bootstrap, inputs.equalise, own=self.inbound_cluster(workload))
        return envoy_command(equal, config, set_workers(self.options, inputs.equalise))

    def requests(self, page: RequestPage) -> dict[str, int]:
        """See `bench.meshes.protocols.DataPlane`."""
        total = Counter[str]()
        for name, count in count_requests(page).items():
            total[self.base_name(name)] += count
        return dict(total)

    def connections(self, page: RequestPage) -> dict[str, dict[str, int]]:
        """See `bench.meshes.protocols.DataPlane`."""
        total: dict[str, Counter[str]] = {}
        for name, versions in admin.connections_by_cluster(_ask(page, admin.PROTOCOLS)).items():
            total.setdefault(self.base_name(name), Counter()).update(versions)
        return {name: dict(versions) for name, versions in total.items()}

    def handshakes(self, page: RequestPage) -> dict[str, int]:
        """See `bench.meshes.protocols.DataPlane`."""
        return admin.tls_counters(_ask(page, admin.TLS))

    def decisions(self, page: RequestPage) -> dict[str, int]:
        """See `bench.meshes.protocols.DataPlane`."""
        return admin.decisions(_ask(page, admin.DECISIONS))

    def identities(self, page: RequestPage) -> tuple[str, ...]:
        """See `bench.meshes.protocols.DataPlane`."""
        return admin.identities(_ask(page, admin.CERTIFICATES))

    def configuration(self, page: RequestPage) -> str:
        """See `bench.meshes.protocols.DataPlane`. Without the section of certificates and keys: Envoy redacts the
        keys, and the rest is not used."""
        dump = _ask(page, admin.CONFIGURATION)
        kept = [section for section in dump["configs"] if section["@type"] != _SECRETS]
        return json.dumps({**dump, "configs": kept}, indent=1)

    def data_path(
        self,
        outbound: Mapping[Hop, Collection[str]],
        inbound: Mapping[str, str],
        *,
        configurations: Mapping[str, str],
        pages: Mapping[str, RequestPage],
    ) -> DataPath:
        """See `bench.meshes.protocols.DataPlane`."""
        return read_data_path(
            outbound,
            inbound,
            configs={name: _parse(text) for name, text in configurations.items()},
            base_name=self.base_name,
            ask=lambda name, path: _ask(pages[name], path),
        )


def envoy_command(bootstrap: Json, config: Path, options: Sequence[str]) -> ProxyCommand:
    """Return how an Envoy is started on this machine with a configuration."""
    start = (str(envoy_binary()), "--config-path", str(config), *options)
    return ProxyCommand(json.dumps(bootstrap, indent=1), start, check=(*start, "--mode", "validate"))


def count_requests(page: RequestPage) -> dict[str, int]:
    """Return the requests that an Envoy has sent on so far, by cluster."""
    return admin.requests_by_cluster(_ask(page, admin.CLUSTERS), _ask(page, admin.RETRIES))


def _ask(page: RequestPage, path: str) -> Any:
    try:
        return json.loads(page(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"GET {path}: invalid JSON") from error


def _parse(configuration: str) -> EnvoyConfig:
    """Parse a bootstrap, or a response to /config_dump."""
    parsed = json.loads(configuration)
    return parse_bootstrap(parsed) if "static_resources" in parsed else parse_dump(parsed)


def equalise_bootstrap(bootstrap: Json, equalise: Collection[Equal], *, own: str) -> Json:
    """Return the bootstrap of any mesh's sidecar or gateway with TLS and retries equalised.

    `own` is the cluster of the sidecar's own application.
    """
    resources = bootstrap["static_resources"]
    if "retries" in equalise:
        resources = _change_below(resources, "route", lambda route: _drop_retries(route, own=own))
    if "tls" in equalise:
        resources = _change_below(resources, "common_tls_context", _set_tls_version)
    return {**bootstrap, "static_resources": resources}


def set_workers(options: Sequence[str], equalise: Collection[Equal]) -> list[str]:
    """Return Envoy's options, which include a number of workers, with the equalised number."""
    if "workers" not in equalise:
        return list(options)
    index = options.index(_CONCURRENCY) + 1
    return [*options[:index], str(WORKERS), *options[index + 1 :]]


def _drop_retries(route: Json, *, own: str) -> Json:
    """Remove retries from a route to another sidecar; a route to the sidecar's own application stays."""
    if route.get("cluster") == own:
        return route
    return {name: part for name, part in route.items() if name != "retry_policy"}


def _set_tls_version(context: Json) -> Json:
    return {**context, "tls_params": {**context.get("tls_params", {}), **_TLS_VERSIONS}}


def _change_below(value: Any, key: str, change: Callable[[Json], Json]) -> Any:
    """Return a copy of JSON in which every object below `key` is changed."""
    if isinstance(value, dict):
        return {name: change(part) if name == key else _change_below(part, key, change) for name, part in value.items()}
    return [_change_below(part, key, change) for part in value] if isinstance(value, list) else value
