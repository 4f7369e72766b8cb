"""Replace or add objects of the application in one configuration: two builds of it are then one scenario. Pure.

A folder of a configuration may hold policies of its mesh, a gateway, and objects of the application. An object of the
kind and name of one of the application's takes its place. Any other of a core kind is added where the folder is of core
kinds alone and has no gateway; otherwise it is left to the mesh, whose gateway it may be part of.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.application.manifests import KINDS, Read, read_folders
from bench.application.model import GATEWAY
from bench.errors import InputError, Problem
from bench.files.folders import list_manifest_files
from bench.files.objects import read_objects
from bench.files.yaml_source import Document, value_at

# Kinds that a configuration can add: those of the application, and what its pods mount.
_ADDED: Final[Mapping[str, str]] = {**{kind: one.api_versions[0] for kind, one in KINDS.items()}, "ConfigMap": "v1"}
_REFUSED: Final[Mapping[str, str]] = {
    "Secret": "only the application's own manifests may have Secrets; hint: use a ConfigMap with test data",
}
_MAP_FIELDS: Final = ("apiVersion", "kind", "metadata", "data", "binaryData", "immutable")


@dataclass(frozen=True, slots=True)
class Replacement:
    """An object of the application in one configuration; `replaced` is None where it is added."""

    document: Document
    replaced: Document | None = None

    @property
    def subject(self) -> str:
        """Kind and name: `Deployment web`."""
        return format_subject(self.document)


def format_subject(document: Document) -> str:
    """Format kind and name of an object."""
    return f"{document.value['kind']} {document.value['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class OwnObjects:
    """What the folders of one configuration hold for the application, and how everything else is read from files."""

    replacements: tuple[Replacement, ...]
    folder: Path
    read: Read

    def read_rest(self, file: Path) -> tuple[Document, ...]:
        """Read a file of the folders without the application's objects."""
        own = [one.document for one in self.replacements]
        return tuple(one for one in self.read(file) if not any(one is known for known in own))

    def read_application(self, file: Path) -> tuple[Document, ...]:
        """Read a file of the application with the replacements in place; the last one has the additions, too."""
        places = {id(one.replaced): one.document for one in self.replacements if one.replaced is not None}
        kept = tuple(places.get(id(one), one) for one in self.read(file))
        return (*kept, *self._list_added(file))

    def _list_added(self, file: Path) -> Iterator[Document]:
        if file == list_manifest_files(self.folder)[-1]:
            yield from (one.document for one in self.replacements if one.replaced is None and _is_read(one.document))

    @property
    def rest(self) -> tuple[Document, ...]:
        """The additions that nothing but the cluster reads."""
        return tuple(one.document for one in self.replacements if one.replaced is None and not _is_read(one.document))


def find_own_objects(folders: Sequence[Path], folder: Path, *, namespace: str, read: Read = read_objects) -> OwnObjects:
    """Find the application's objects in the folders of a configuration. `folder` is that of the application, and
    `namespace` the one of objects that name none. `read` has to return the same documents for the same file.

    Raises InputError for an object that is there twice, and for kinds that a configuration cannot have.
    """
    known = {_identify(one, namespace): one for one in read_folders([folder], read) if _is_object(one)}
    found: list[Replacement] = []
    problems: list[Problem] = []
    for one in folders:
        documents = [document for document in read_folders([one], read) if _is_object(document)]
        adds = all(map(_is_core, documents)) and not any(map(_is_gateway, documents))
        for document in documents:
            replaced = known.get(_identify(document, namespace))
            if replaced is not None or (adds and document.value["kind"] not in _REFUSED):
                problems += _find_problems(document, namespace)
                found.append(Replacement(document, replaced))
            elif adds:
                kind = document.value["kind"]
                problems.append(document.problem(("kind",), f"{kind} is not supported: {_REFUSED[kind]}"))
    problems += _find_doubled(found, namespace)
    if problems:
        raise InputError(problems)
    return OwnObjects(tuple(found), folder, read)


def _find_problems(document: Document, namespace: str) -> Iterator[Problem]:
    """Yield the problems of an object that no model reads."""
    if document.value["kind"] != "ConfigMap":
        return
    if document.value.get("apiVersion") != "v1":
        yield document.problem(("apiVersion",), "must be v1")
    unknown = [key for key in document.value if key not in _MAP_FIELDS]
    yield from (document.problem((key,), "is no field of a ConfigMap") for key in unknown)
    if document.value["metadata"].get("namespace", namespace) != namespace:
        yield document.problem(("metadata", "namespace"), f"the application is in {namespace}")


def _find_doubled(found: Iterable[Replacement], namespace: str) -> Iterator[Problem]:
    first: dict[tuple[str, str, str], Document] = {}
    for one in found:
        known = first.setdefault(_identify(one.document, namespace), one.document)
        if known is not one.document:
            where = f"{known.file}:{known.line_of(('metadata', 'name'))}"
            yield one.document.problem(("metadata", "name"), f"{one.subject} is already in {where}")


def _is_object(document: Document) -> bool:
    """Whether a document is an object with a kind and a name; what it is otherwise, readers of manifests report."""
    value = document.value
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return isinstance(metadata, dict) and isinstance(value.get("kind"), str) and isinstance(metadata.get("name"), str)


def _identify(document: Document, namespace: str) -> tuple[str, str, str]:
    metadata: Mapping[str, Any] = document.value["metadata"]
    return document.value["kind"], str(metadata.get("namespace") or namespace), metadata["name"]


def _is_core(document: Document) -> bool:
    return document.value["kind"] in (*_ADDED, *_REFUSED)


def _is_read(document: Document) -> bool:
    return document.value["kind"] in KINDS


def _is_gateway(document: Document) -> bool:
    """Whether an object is a gateway's Deployment, whose pods have the label `app: gateway`."""
    labels = value_at(document.value, ("spec", "template", "metadata", "labels"))
    return isinstance(labels, dict) and labels.get("app") == GATEWAY
