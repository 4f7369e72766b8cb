"""Which share of others' manifests `meshbench validate --mesh` takes: samples and test data that a mesh publishes.

Fetch them first, for example the folder `samples` of istio/istio, and name it: `--samples istio=FOLDER`. Files that are
no manifests, such as a chart's templates, and objects of other projects do not count.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.application.manifests import KINDS, sort_documents
from bench.errors import InputError
from bench.files.folders import list_manifest_files
from bench.files.objects import ManifestReader
from bench.files.yaml_source import Document
from bench.meshes import MESHES
from bench.units import format_percent
from tests.benchmarks.figure import Figure

_CLUSTER: Final = 0.98


def figures(samples: Sequence[str]) -> Iterator[Figure]:
    """Yield for each `MESH=FOLDER` the number of objects, and the shares that a cluster and this machine take."""
    for one in samples:
        mesh, _, folder = one.partition("=")
        documents = list(_read(mesh, Path(folder)))
        manifests, _ = sort_documents(documents, {**MESHES[mesh].policies.KINDS, **KINDS})
        local = len(manifests.sources)
        cluster = local + len(manifests.untranslated)
        yield Figure(what=f"{mesh}: objects in {folder}", value=str(len(documents)))
        share = cluster / len(documents)
        yield Figure(
            what=f"{mesh}: taken for a cluster",
            value=format_percent(share),
            aim=f">= {_CLUSTER:.0%}",
            met=share >= _CLUSTER,
        )
        yield Figure(what=f"{mesh}: translated for this machine", value=format_percent(local / len(documents)))


def _read(mesh: str, folder: Path) -> Iterator[Document]:
    """Yield the objects of Kubernetes and of the mesh."""
    reader = ManifestReader()
    for file in list_manifest_files(folder):
        try:
            documents = [MESHES[mesh].policies.convert(one) for one in reader.read(file)]
        except InputError:
            continue  # no manifest: a template, or data of a program
        yield from (one for one in documents if _is_counted(one.value, MESHES[mesh].domain))


def _is_counted(value: Any, domain: str) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    group = str(value.get("apiVersion")).rpartition("/")[0]
    return "." not in group or group.endswith((domain, ".k8s.io"))
