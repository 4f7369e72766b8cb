"""Set alike in all meshes what `equalise` names, by each mesh's own means, and prove that it is.

The common values are those that both meshes can be told on a cluster, too. TLS: version 1.3 alone; which of its
ciphers and curves is taken is Envoy's own choice, since neither mesh has a setting for the curve of mutual TLS.
Retries: none, since a retry hides an error and lengthens the tail; Istio's sidecars still try again towards their own
application when that closed a kept connection, for which Istio has no switch.

Istio has TLS and retries for its whole mesh, in the values that it is installed with; Kuma has policies for them, which
concern the namespace that they are in.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from bench.envoy.wire import Wire
from bench.errors import InputError
from bench.files.folders import shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object
from bench.results.records import DataPath, Evidence
from bench.scenario.model import Equal, Scenario

TLS: Final[Literal["TLSv1.3"]] = "TLSv1.3"
WORKERS: Final = 2
SAID: Final[Mapping[Equal, str]] = {
    "tls": "TLS 1.3 only",
    "workers": f"{WORKERS} workers in each sidecar",
    "retries": "no retries between sidecars",
}


def said(equalise: Collection[Equal]) -> str:
    """What is set alike, in words; empty for nothing."""
    return ", ".join(text for what, text in SAID.items() if what in equalise)


def wire_of(wire: Wire, equalise: Collection[Equal]) -> Wire:
    """What two sidecars of a mesh agree on then."""
    return replace(wire, tls=TLS) if "tls" in equalise else wire


def equal_evidence(path: DataPath | None, equalise: Collection[Equal]) -> Iterator[Evidence]:
    """What was to be set alike is so in the data path; nothing without a mesh."""
    if path is None:
        return
    if "tls" in equalise:
        spoken = {", ".join(way.seen.tls) or _NO_TLS for way in path.ways}
        yield _evidence("TLS", spoken, {TLS, _NO_TLS})
    if "workers" in equalise:
        yield _evidence("workers", {f"{count} in a sidecar" for count in path.workers.values()}, {_IN_EACH})
    if "retries" in equalise:
        yield _evidence("retries", {str(way.retries.number) if way.retries else _NONE for way in path.ways}, {_NONE})


_NO_TLS: Final = "no TLS"
_NONE: Final = "none between sidecars"
_IN_EACH: Final = f"{WORKERS} in a sidecar"


def _evidence(what: str, seen: Collection[str], wanted: Collection[str]) -> Evidence:
    return Evidence(
        name=f"set alike: {what}",
        subject="all sidecars",
        ok=bool(seen) and set(seen) <= set(wanted),
        expected=" or ".join(sorted(wanted)),
        seen=", ".join(sorted(seen)) or "no sidecar on a request's way",
    )


Json = dict[str, Any]

_TLS_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
_CONCURRENCY: Final = "--concurrency"


def equalised(bootstrap: Json, equalise: Collection[Equal], *, own: str) -> Json:
    """Return the bootstrap of any mesh's sidecar or gateway with TLS and retries equalised; `own` is the cluster of the
    sidecar's own application."""
    resources = bootstrap["static_resources"]
    if "retries" in equalise:
        resources = _changed(resources, "route", lambda route: _tried_once(route, own=own))
    if "tls" in equalise:
        resources = _changed(resources, "common_tls_context", _in_one_version)
    return {**bootstrap, "static_resources": resources}


def with_workers(options: Sequence[str], equalise: Collection[Equal]) -> list[str]:
    """Envoy's options, which have a number of workers, with the common one."""
    if "workers" not in equalise:
        return list(options)
    place = options.index(_CONCURRENCY) + 1
    return [*options[:place], str(WORKERS), *options[place + 1 :]]


def _tried_once(route: Json, *, own: str) -> Json:
    """What a sidecar sends to others is; towards its own application nothing changes."""
    if route.get("cluster") == own:
        return route
    return {name: part for name, part in route.items() if name != "retry_policy"}


def _in_one_version(context: Json) -> Json:
    return {**context, "tls_params": {**context.get("tls_params", {}), **_TLS_VERSIONS}}


def _changed(value: Any, key: str, change: Callable[[Json], Json]) -> Any:
    """A copy of JSON in which every object below `key` is changed."""
    if isinstance(value, dict):
        return {name: change(part) if name == key else _changed(part, key, change) for name, part in value.items()}
    return [_changed(part, key, change) for part in value] if isinstance(value, list) else value


_INSTALLED: Final[Mapping[str, Collection[Equal]]] = {"istio": ("tls", "retries")}
_APPLIED: Final[Mapping[str, Collection[Equal]]] = {"kuma": ("tls", "retries")}
_WORKERS: Final[Mapping[str, Mapping[str, str]]] = {
    "istio": {"proxy.istio.io/config": f"concurrency: {WORKERS}"},
    "kuma": {"kuma.io/sidecar-proxy-concurrency": str(WORKERS)},
}


def refuse_unequal(scenario: Scenario, *, existing_mesh: bool) -> None:
    """Raises InputError where a mesh that is there already would have to be changed."""
    meshes = {one.mesh for one in scenario.configurations}
    for mesh, installed in _INSTALLED.items():
        fixed = [what for what in scenario.equalise if what in installed]
        if existing_mesh and mesh in meshes and fixed:
            rest = ", ".join(what for what in scenario.equalise if what not in installed)
            raise InputError(
                f"equalise: {mesh} has {' and '.join(fixed)} for its whole mesh only, which --use-existing-mesh leaves"
                f" as it is; set equalise to [{rest}], or let meshbench install {mesh}"
            )


def values(mesh: str, equalise: Collection[Equal]) -> tuple[Path, ...]:
    """Files on top of all other values that the mesh is installed with."""
    return _files(mesh, [what for what in equalise if what in _INSTALLED.get(mesh, ())])


def policies(mesh: str, equalise: Collection[Equal]) -> tuple[Object, ...]:
    """What is applied like a configuration's own policies."""
    files = _files(mesh, [what for what in equalise if what in _APPLIED.get(mesh, ())])
    return tuple(document.value for file in files for document in read_documents(file))


def annotations(mesh: str, equalise: Collection[Equal]) -> Mapping[str, str]:
    """For the template of every pod with a sidecar, besides the mesh's own."""
    return _WORKERS[mesh] if "workers" in equalise else {}


def _files(mesh: str, wanted: Collection[Equal]) -> tuple[Path, ...]:
    return tuple(shipped("manifests") / mesh / f"equal-{what}.yaml" for what in sorted(wanted))
