"""Equalise TLS, workers and retries in all meshes, with each mesh's own settings, and prove that they are equal.

Only values are used that both meshes can also set on a cluster.

- TLS: version 1.3 only. Envoy chooses the cipher and curve, since neither mesh has a setting for the curve.
- Retries: none, since a retry hides an error and lengthens the tail. Istio's sidecars still retry a request to their
  own application on a kept connection that the application has closed; Istio has no setting for that.

Istio sets TLS and retries for its whole mesh, in its installation values. Kuma has policies for them, which apply to
their own namespace.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from bench.envoy.wire import Wire
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.results.records import DataPath, Evidence
from bench.scenario.model import Equal, Scenario

TLS: Final[Literal["TLSv1.3"]] = "TLSv1.3"
WORKERS: Final = 2
LABELS: Final[Mapping[Equal, str]] = {
    "tls": "TLS 1.3 only",
    "workers": f"{WORKERS} workers in each sidecar",
    "retries": "no retries between sidecars",
}

_NO_TLS: Final = "no TLS"
_NONE: Final = "none between sidecars"
_IN_EACH: Final = f"{WORKERS} in a sidecar"
_TLS_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_CONCURRENCY: Final = "--concurrency"
# How each mesh sets a value on a cluster: when it is installed, with policies, or in annotations of pods.
_INSTALLED: Final[Mapping[str, Collection[Equal]]] = {"istio": ("tls", "retries")}
_APPLIED: Final[Mapping[str, Collection[Equal]]] = {"kuma": ("tls", "retries")}
_WORKERS: Final[Mapping[str, Mapping[str, str]]] = {
    "istio": {"proxy.istio.io/config": f"concurrency: {WORKERS}"},
    "kuma": {"kuma.io/sidecar-proxy-concurrency": str(WORKERS)},
}

Json = dict[str, Any]


def format_equalised(equalise: Collection[Equal]) -> str:
    """Return what is equalised as text; empty for nothing."""
    return ", ".join(text for what, text in LABELS.items() if what in equalise)


def equalise_wire(wire: Wire, equalise: Collection[Equal]) -> Wire:
    """Return the wire between two sidecars of a mesh after equalising."""
    return replace(wire, tls=TLS) if "tls" in equalise else wire


def equal_evidence(path: DataPath | None, equalise: Collection[Equal]) -> Iterator[Evidence]:
    """Yield evidence that the data path has the equalised values; nothing without a mesh."""
    if path is None:
        return
    if "tls" in equalise:
        versions = {", ".join(route.seen.tls) or _NO_TLS for route in path.ways}
        yield _make_evidence("TLS", versions, {TLS, _NO_TLS})
    if "workers" in equalise:
        yield _make_evidence("workers", {f"{count} in a sidecar" for count in path.workers.values()}, {_IN_EACH})
    if "retries" in equalise:
        numbers = {str(route.retries.number) if route.retries else _NONE for route in path.ways}
        yield _make_evidence("retries", numbers, {_NONE})


def _make_evidence(what: str, seen: Collection[str], wanted: Collection[str]) -> Evidence:
    return Evidence(
        name=f"set alike: {what}",
        subject="all sidecars",
        ok=bool(seen) and set(seen) <= set(wanted),
        expected=" or ".join(sorted(wanted)),
        seen=", ".join(sorted(seen)) or "no sidecar on a request's path",
    )


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


def reject_unequal(scenario: Scenario, *, existing_mesh: bool) -> None:
    """Raise InputError if an existing mesh would have to be changed."""
    meshes = {one.mesh for one in scenario.configurations}
    for mesh, installed in _INSTALLED.items():
        fixed = [what for what in scenario.equalise if what in installed]
        if existing_mesh and mesh in meshes and fixed:
            rest = ", ".join(what for what in scenario.equalise if what not in installed)
            raise InputError(
                f"equalise: {mesh} sets {' and '.join(fixed)} for its whole mesh only, and --use-existing-mesh never"
                f" changes it; hint: set equalise to [{rest}], or let meshbench install {mesh}"
            )


def installation_values(mesh: str, equalise: Collection[Equal]) -> tuple[Path, ...]:
    """Return the files to add on top of all other installation values of the mesh."""
    return _files(mesh, [what for what in equalise if what in _INSTALLED.get(mesh, ())])


def policy_objects(mesh: str, equalise: Collection[Equal]) -> tuple[Json, ...]:
    """Return the objects to apply like a configuration's own policies."""
    files = _files(mesh, [what for what in equalise if what in _APPLIED.get(mesh, ())])
    return tuple(document.value for file in files for document in read_documents(file))


def worker_annotations(mesh: str, equalise: Collection[Equal]) -> Mapping[str, str]:
    """Return the annotations for every pod with a sidecar, in addition to the mesh's own."""
    return _WORKERS[mesh] if "workers" in equalise else {}


def _files(mesh: str, wanted: Collection[Equal]) -> tuple[Path, ...]:
    return tuple(find_shipped("manifests") / mesh / f"equal-{what}.yaml" for what in sorted(wanted))
