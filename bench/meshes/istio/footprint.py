"""Read what Istio's control plane is configured to cost: its sidecars, and telemetry of every request. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bench.files.yaml_source import parse_generated
from bench.k8s.client import Object
from bench.meshes.cluster_protocol import ScaleRequests, SidecarSpec

_COSTS: Final = ", which costs latency and CPU that the mesh alone does not"
_SAMPLING: Final = "PILOT_TRACE_SAMPLING"
_DEFAULT_SAMPLING: Final = 1.0  # percent, where tracing is on and its share is not set


def read_sidecar(objects: Iterable[Object]) -> SidecarSpec:
    """Read the values that istiod makes sidecars from, which are JSON in a ConfigMap."""
    for thing in objects:
        if _is_injector(thing):
            values: dict[str, Any] = json.loads(thing["data"]["values"])["global"]
            proxy = values.get("proxy") or {}
            image = proxy.get("image") or "proxyv2"
            full = image if "/" in image else f"{values['hub']}/{image}:{values['tag']}"
            return SidecarSpec((proxy.get("resources") or {}).get("requests") or {}, (full,))
    return SidecarSpec()


def scale_sidecars(objects: Sequence[Object], scale: ScaleRequests) -> tuple[Object, ...]:
    """Return the objects with scaled requests in the values that istiod makes sidecars from."""
    return tuple(_scale_values(one, scale) if _is_injector(one) else one for one in objects)


def _is_injector(thing: Object) -> bool:
    return bool(thing["kind"] == "ConfigMap") and str(thing["metadata"]["name"]).startswith("istio-sidecar-injector")


def _scale_values(thing: Object, scale: ScaleRequests) -> Object:
    values = json.loads(thing["data"]["values"])
    resources = (values["global"].get("proxy") or {}).get("resources") or {}
    if resources.get("requests"):
        resources["requests"] = dict(scale(resources["requests"]))
    return {**thing, "data": {**thing["data"], "values": json.dumps(values)}}


def find_telemetry(objects: Sequence[Object]) -> Iterator[str]:
    """Yield access logs and traces of requests."""
    yield from _access_logs(objects)
    yield from _traces(objects)


def _access_logs(things: Iterable[Object]) -> Iterator[str]:
    for settings in list_mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("accessLogging") or ()
        if where := settings.get("accessLogFile") or ", ".join(providers):
            yield f"sidecars log every request ({where}){_COSTS}"


def _traces(things: Sequence[Object]) -> Iterator[str]:
    for settings in list_mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("tracing") or ()
        if settings.get("enableTracing") or providers:
            tracing = (settings.get("defaultConfig") or {}).get("tracing") or {}
            share = float(tracing.get("sampling") or _sampling(things))
            yield f"sidecars trace {share:g} % of all requests{_COSTS}"


def list_mesh_settings(things: Iterable[Object]) -> Iterator[dict[str, Any]]:
    """Yield Istio's mesh configuration: YAML in a ConfigMap, one for each revision."""
    for thing in things:
        if thing["kind"] == "ConfigMap" and "mesh" in (thing.get("data") or {}):
            yield from (one for one in parse_generated(thing["data"]["mesh"]) if isinstance(one, dict))


def _sampling(things: Iterable[Object]) -> float:
    """Return the percentage in istiod's environment."""
    deployments = (thing for thing in things if thing["kind"] == "Deployment")
    containers = (one for thing in deployments for one in thing["spec"]["template"]["spec"]["containers"])
    entries = (entry for one in containers for entry in one.get("env") or () if entry["name"] == _SAMPLING)
    return next((float(entry["value"]) for entry in entries if entry.get("value")), _DEFAULT_SAMPLING)
