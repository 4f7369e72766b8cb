"""Equalise TLS, workers and retries in all meshes, with each mesh's own settings, and prove that they are equal.

Only values are used that every mesh can also set on a cluster; `EqualSettings` of a mesh says how.

- TLS: version 1.3 only. The proxy chooses cipher and curve, since not every mesh has a setting for the curve.
- Retries: none, since a retry hides an error and lengthens the tail. A sidecar may still retry a request to its own
  application on a kept connection that the application has closed, where the mesh has no setting for that.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from bench.application.manifests import Read
from bench.envoy.wire import Wire
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.files.yaml_source import Document, read_documents
from bench.meshes.protocols import Mesh
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


def reject_unequal(scenario: Scenario, meshes: Mapping[str, Mesh], *, existing_mesh: bool) -> None:
    """Raise InputError if an existing mesh would have to be changed."""
    for mesh in {one.mesh: meshes[one.mesh] for one in scenario.configurations if one.mesh in meshes}.values():
        fixed = [what for what in scenario.equalise if what in mesh.equal.installed]
        if existing_mesh and fixed:
            rest = ", ".join(what for what in scenario.equalise if what not in mesh.equal.installed)
            raise InputError(
                f"equalise: {mesh.name} sets {' and '.join(fixed)} for its whole mesh only, and --use-existing-mesh"
                f" never changes it; hint: set equalise to [{rest}], or let meshbench install {mesh.name}"
            )


def installation_values(mesh: Mesh, equalise: Collection[Equal]) -> tuple[Path, ...]:
    """Return the files to add on top of all other installation values of the mesh."""
    return _files(mesh, mesh.equal.installed.intersection(equalise))


def policy_objects(mesh: Mesh, equalise: Collection[Equal], read: Read = read_documents) -> tuple[Document, ...]:
    """Return the objects to apply like a configuration's own policies."""
    files = _files(mesh, mesh.equal.applied.intersection(equalise))
    return tuple(document for file in files for document in read(file))


def worker_annotations(mesh: Mesh, equalise: Collection[Equal]) -> Mapping[str, str]:
    """Return the annotations for every pod with a sidecar, in addition to the mesh's own."""
    return mesh.equal.workers if "workers" in equalise else {}


def _files(mesh: Mesh, wanted: Collection[Equal]) -> tuple[Path, ...]:
    return tuple(find_shipped("manifests") / mesh.name / f"equal-{what}.yaml" for what in sorted(wanted))
