"""What a mesh is told to write down about every request, as its control plane's own objects say: that costs latency,
and is no part of a mesh as it comes. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from bench.findings import CheckResult
from bench.targets.kubernetes.client import Object
from bench.yamlfile import generated_documents

WHAT: Final = "telemetry"
_HINT: Final = "leave it out of --mesh-values, unless it is what you want to measure"
_COSTS: Final = ", which costs latency and CPU that the mesh alone does not"
_SAMPLING: Final = "PILOT_TRACE_SAMPLING"
_DEFAULT_SAMPLING: Final = 1.0  # percent, where tracing is on and nobody says more


def examine_telemetry(mesh: str, objects: Iterable[Object]) -> tuple[CheckResult, ...]:
    """A doubt for each; the report's heading has it, too."""
    things = tuple(objects)
    detail = (*_access_logs(things), *_traces(things)) if mesh == "istio" else ()
    return tuple(CheckResult(WHAT, "warning", f"{mesh}: {one}", _HINT) for one in detail)


def _access_logs(things: Iterable[Object]) -> Iterator[str]:
    for settings in _mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("accessLogging") or ()
        if where := settings.get("accessLogFile") or ", ".join(providers):
            yield f"sidecars log every request ({where}){_COSTS}"


def _traces(things: tuple[Object, ...]) -> Iterator[str]:
    for settings in _mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("tracing") or ()
        if settings.get("enableTracing") or providers:
            tracing = (settings.get("defaultConfig") or {}).get("tracing") or {}
            share = float(tracing.get("sampling") or _sampling(things))
            yield f"sidecars trace {share:g} % of all requests{_COSTS}"


def _mesh_settings(things: Iterable[Object]) -> Iterator[dict[str, Any]]:
    """Istio's mesh configuration is YAML in a ConfigMap, one for each revision."""
    for thing in things:
        if thing["kind"] == "ConfigMap" and "mesh" in (thing.get("data") or {}):
            yield from generated_documents(thing["data"]["mesh"])


def _sampling(things: Iterable[Object]) -> float:
    """Percent, as istiod's environment says."""
    deployments = (thing for thing in things if thing["kind"] == "Deployment")
    containers = (one for thing in deployments for one in thing["spec"]["template"]["spec"]["containers"])
    entries = (entry for one in containers for entry in one.get("env") or () if entry["name"] == _SAMPLING)
    return next((float(entry["value"]) for entry in entries if entry.get("value")), _DEFAULT_SAMPLING)
