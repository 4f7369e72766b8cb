"""Manifests moved into the namespaces of a run."""

from collections.abc import Sequence
from typing import Any

from bench.application.manifests import read_folders
from bench.application.model import Application
from bench.files.yaml_source import Document
from bench.meshes import MESHES
from bench.meshes.application_names import move_application
from bench.meshes.rewriting import Moved, Namespaces

Object = dict[str, Any]


def move_objects(mesh: str, objects: Sequence[Object], home: str, run_mesh: str = "") -> list[Object]:
    """Return the objects of an application in `bookinfo` as a run in the namespace `home` applies them."""
    return [one.value for one in move_documents(mesh, objects, Namespaces({"bookinfo": home}, run_mesh))]


def move_bookinfo(application: Application) -> tuple[Object, ...]:
    """Return the application's own objects in the namespace that it has in a run."""
    definition = application.definition
    names, documents = Namespaces({definition.home: application.namespace}), read_folders([definition.folder])
    return tuple(one.value for one in move_application(application, documents, names))


def move_documents(mesh: str, objects: Sequence[Object], names: Namespaces) -> tuple[Moved, ...]:
    """Return objects that are in no file as a run applies them."""
    return MESHES[mesh].policies.mesh_objects([Document("made.yaml", one, {(): 1}) for one in objects], names)
