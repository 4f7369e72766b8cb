"""What a scenario sets alike in all meshes, by each mesh's own means: files that ship, and annotations of pods.

Istio has TLS and retries for its whole mesh, in the values that it is installed with; Kuma has policies for them, which
concern the namespace that they are in.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from bench.equal import WORKERS
from bench.errors import InputError
from bench.scenario import Scenario
from bench.settings import Equal
from bench.shipped import shipped
from bench.targets.kubernetes.client import Object
from bench.yamlfile import read_documents

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
