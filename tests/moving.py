"""Manifests moved into the namespaces of a run."""

from collections.abc import Sequence
from typing import Any

from bench.files.yaml_source import Document
from bench.meshes import MESHES
from bench.meshes.rewriting import Moved, Namespaces

Object = dict[str, Any]


def move_objects(mesh: str, objects: Sequence[Object], home: str, run_mesh: str = "") -> list[Object]:
    """Return the objects of an application in `bookinfo` as a run in the namespace `home` applies them."""
    return [one.value for one in move_documents(mesh, objects, Namespaces({"bookinfo": home}, run_mesh))]


def move_documents(mesh: str, objects: Sequence[Object], names: Namespaces) -> tuple[Moved, ...]:
    """Return objects that are in no file as a run applies them."""
    return MESHES[mesh].policies.mesh_objects([Document("made.yaml", one, {(): 1}) for one in objects], names)
