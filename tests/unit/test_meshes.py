"""The registry of meshes: what an entry consists of, and that nothing else names a mesh."""

import re
from pathlib import Path

import pytest

import bench
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.istio import control_plane as istio
from bench.meshes.kuma import control_plane as kuma

BENCH = Path(bench.__file__).parent
# Who may name a mesh: its own folder, the registry, and the reference figures of the study.
OWN = (*(f"meshes/{name}/" for name in MESHES), "meshes/__init__.py", "report/study_2022.py")
# The type checker compares each module with the protocol.
PLANES: dict[str, ControlPlane] = {"istio": istio, "kuma": kuma}


def test_only_its_folder_and_the_registry_name_a_mesh() -> None:
    """To add or to remove a mesh is to change one folder and one entry; data of the package is searched, too."""
    names = re.compile("|".join(MESHES), re.IGNORECASE)
    files = (path for path in BENCH.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    found = [
        f"{path.relative_to(BENCH)}:{number}: {line.strip()}"
        for path in files
        if not str(path.relative_to(BENCH)).startswith(OWN)
        for number, line in enumerate(path.read_text("utf-8", errors="ignore").splitlines(), start=1)
        if names.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", MESHES)
def test_entry_has_a_control_plane_of_the_same_name(name: str) -> None:
    """The module that an entry names is the mesh's own."""
    assert CONTROL_PLANES[name] is PLANES[name]
    assert CONTROL_PLANES[name].NAME == MESHES[name].name == name
    assert MESHES[name].control_plane.startswith(f"bench.meshes.{name}.")
