"""Every object of a run is in a namespace of its own, or is refused before anything starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.application.model import read_application
from bench.errors import InputError
from bench.files.folders import find_shipped, list_manifest_files
from bench.files.yaml_source import read_documents
from bench.meshes import MESHES
from bench.meshes.control_planes import CONTROL_PLANES

MANIFESTS = find_shipped("manifests")
BOOKINFO = read_application(MANIFESTS / "bookinfo", "v3")
ROOTS = {"istio": "istio-system", "kuma": "kuma-system"}
POLICIES = ("PeerAuthentication", "AuthorizationPolicy", "MeshIdentity", "MeshTrafficPermission")


def shipped_objects() -> Iterator[Any]:
    """Every object of every shipped folder of policies and gateways, with its mesh."""
    for mesh in ROOTS:
        for folder in sorted(path for path in (MANIFESTS / mesh).iterdir() if path.is_dir()):
            for file in list_manifest_files(folder):
                for number, document in enumerate(read_documents(file)):
                    name = f"{mesh}/{folder.name}/{document.value['kind']}-{document.value['metadata']['name']}"
                    yield pytest.param(mesh, folder, (file.name, number), id=name)


def moved(folder: Path, copy: Path, place: tuple[str, int], namespace: str | None) -> str:
    """A copy of the manifests in which one object has this namespace, and the kind of the object."""
    kind = ""
    for file in list_manifest_files(folder):
        documents = [document.value for document in read_documents(file)]
        if file.name == place[0]:
            documents[place[1]]["metadata"]["namespace"] = namespace
            kind = documents[place[1]]["kind"]
        (copy / file.name).write_text(yaml.safe_dump_all(documents, sort_keys=False), "utf-8")
    return kind


def problems(mesh: str, folder: Path) -> list[str]:
    """The errors of reading gateway and policies of a folder, by field."""
    try:
        gateway = MESHES[mesh].policies.read_gateway([folder], BOOKINFO)
        MESHES[mesh].policies.read_policies([folder], BOOKINFO.entered_by(gateway) if gateway else BOOKINFO)
    except InputError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize("namespace", ["production", "kube-system"])
@pytest.mark.parametrize(("mesh", "folder", "place"), [*shipped_objects()])
def test_refuses_object_in_a_foreign_namespace(
    mesh: str, folder: Path, place: tuple[str, int], namespace: str, tmp_path: Path
) -> None:
    """A Service, a Gateway or a policy of any kind would change what is there."""
    moved(folder, tmp_path, place, namespace)
    assert [problem for problem in problems(mesh, tmp_path) if problem.startswith("metadata.namespace: ")]


@pytest.mark.parametrize(("mesh", "folder", "place"), [*shipped_objects()])
def test_only_policies_may_be_for_the_whole_mesh(
    mesh: str, folder: Path, place: tuple[str, int], tmp_path: Path
) -> None:
    """A Deployment or a Service in the control plane's namespace is refused."""
    kind = moved(folder, tmp_path, place, ROOTS[mesh])
    refused = any(problem.startswith("metadata.namespace: ") for problem in problems(mesh, tmp_path))
    assert refused is (kind not in POLICIES)


@pytest.mark.parametrize("namespace", ["bookinfo", None])
@pytest.mark.parametrize(
    ("mesh", "folder", "place"),
    [param for param in shipped_objects() if param.values[0] == "istio"],
)
def test_application_namespace_becomes_the_runs(
    mesh: str, folder: Path, place: tuple[str, int], namespace: str | None, tmp_path: Path
) -> None:
    """Also if the manifest names none."""
    moved(folder, tmp_path, place, namespace)
    assert problems(mesh, tmp_path) == problems(mesh, folder)
    written = [one.value for file in list_manifest_files(tmp_path) for one in read_documents(file)]
    placed = CONTROL_PLANES[mesh].mesh_objects(written, "bookinfo-7f3a", "")
    assert {thing["metadata"]["namespace"] for thing in placed} <= {"bookinfo-7f3a", ROOTS[mesh]}
