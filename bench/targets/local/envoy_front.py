"""The proxy of a delegated gateway on this machine: its own configuration, with the addresses that are here. Pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.meshes.application import GATEWAY, Gateway
from bench.targets.local.placement import Placement
from bench.targets.local.ports import HOST

Json = dict[str, Any]


def front_bootstrap(gateway: Gateway, *, placement: Placement, admin: Path) -> Json:
    """Envoy's whole configuration: as the manifests have it, but for its port, for Services, which are the ports of its
    sidecar here, and for the admin interface on the Unix socket `admin`."""
    proxy: Mapping[str, Any] = gateway.proxy or {}
    opened = {"address": HOST, "port_value": placement.gateway}
    services = placement.application.services
    called: dict[str | None, Json] = {one.name: _way_out(placement, one.name) for one in services}
    resources = proxy["static_resources"]
    return {
        **proxy,
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "static_resources": {
            **resources,
            "listeners": [
                _addressed({"traffic_direction": "INBOUND", **one}, {None: opened}) for one in resources["listeners"]
            ],
            "clusters": [_addressed({**one, "type": "STATIC"}, called) for one in resources["clusters"]],
        },
    }


def _way_out(placement: Placement, service: str) -> Json:
    return {"address": HOST, "port_value": placement.reached_by(GATEWAY, service)}


def _addressed(value: Any, places: Mapping[str | None, Json]) -> Any:
    """A copy with every socket address replaced: by the name that it has, or by the one for any (None)."""
    if isinstance(value, Mapping):
        return {
            key: places.get(part["address"], places.get(None, part))
            if key == "socket_address"
            else _addressed(part, places)
            for key, part in value.items()
        }
    return [_addressed(part, places) for part in value] if isinstance(value, list) else value
