"""Read Kuma's Universal form, `type: MeshTrafficPermission`, as the object of Kubernetes that means the same."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from bench.application.model import MESH
from bench.files.yaml_source import Document, Loc
from bench.meshes.kuma.kinds import CLUSTER_WIDE
from bench.meshes.kuma.namespacing import API_VERSION
from bench.meshes.kuma.naming import MESH_LABEL, ROOT_NAMESPACE

_HEAD: Final = ("type", "name", "mesh", "labels", "spec", "creationTime", "modificationTime")


def convert(document: Document) -> Document:
    """Return the object for a document in the Universal form, with the lines of its keys; any other as it is.

    Policies are then in Kuma's own namespace, where they apply to the whole mesh. What has no `spec` in the Universal
    form, such as a Mesh, has its keys there.
    """
    value = document.value
    if not isinstance(value, dict) or "apiVersion" in value or not isinstance(value.get("type"), str):
        return document
    rest = {key: part for key, part in value.items() if key not in _HEAD}
    made: dict[str, Any] = {"apiVersion": API_VERSION, "kind": value["type"], "metadata": _make_metadata(value)}
    if value["type"] in CLUSTER_WIDE - {"Mesh"}:
        made["mesh"] = value.get("mesh", MESH)
    made["spec"] = value.get("spec", rest)
    return Document(document.file, made, dict(_move_lines(document)))


def _make_metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": value["name"]} if "name" in value else {}
    labels = dict(value.get("labels") or {})
    if value["type"] in CLUSTER_WIDE:
        return {**named, **({"labels": labels} if labels else {})}
    return {**named, "namespace": ROOT_NAMESPACE, "labels": {MESH_LABEL: value.get("mesh", MESH), **labels}}


def _move_lines(document: Document) -> Iterator[tuple[Loc, int]]:
    """Yield the line of each field of the object."""
    first, has_spec = document.line_of(()), "spec" in document.value
    for key, source in (("apiVersion", "type"), ("kind", "type"), ("metadata", "name"), ("spec", "type")):
        yield (key,), document.line_of((source,))
    for loc, line in document.lines.items():
        match loc:
            case ():
                yield (), first
            case ("name", *_) | ("labels", *_):
                yield ("metadata", *loc), line
            case ("spec", *_):
                yield loc, line
            case (other, *_) if other not in _HEAD and not has_spec:
                yield ("spec", *loc), line
            case ("mesh",):
                yield loc, line
