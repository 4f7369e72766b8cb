"""Read the objects of manifests as `kubectl apply` takes them, and list what of a file is not applied.

A `List` is its items. What an API server has added to an object, as `kubectl get -o yaml` prints it, is left out:
another server would refuse it, or it belongs to another object. So are objects that a controller or a cluster makes by
itself, and hooks of Helm that are not for an installation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, Problem
from bench.files.yaml_source import KUBECTL, Document, format_path, read_documents, value_at
from bench.files.yaml_values import LineTree
from bench.units import format_counted, format_first

_Path = tuple[str, ...]

_TEMPLATED: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
POD_TEMPLATES: Final[Mapping[str, _Path]] = {
    "Pod": (),
    **dict.fromkeys(_TEMPLATED, ("spec", "template")),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where an object describes the pods that it is or becomes, by kind."""

_EACH: Final = "*"  # in a path: every entry of a list
# What a server sets in `metadata`.
ADDED_METADATA: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_ANNOTATIONS: Final = (
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "kubectl.kubernetes.io/last-applied-configuration",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
)
_ADDED: Final[tuple[_Path, ...]] = (
    *(("metadata", key) for key in ADDED_METADATA),
    *(("metadata", "annotations", key) for key in _ANNOTATIONS),
    ("spec", "template", "metadata", "creationTimestamp"),
    ("spec", "jobTemplate", "metadata", "creationTimestamp"),
    ("spec", "jobTemplate", "spec", "template", "metadata", "creationTimestamp"),
    ("spec", "volumeClaimTemplates", _EACH, "metadata", "creationTimestamp"),
    ("spec", "volumeClaimTemplates", _EACH, "status"),
    ("status",),
)
_JOB_LABELS: Final = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
)
# What a server chooses in the spec of an object that names nothing there.
_CHOSEN: Final[Mapping[str, tuple[_Path, ...]]] = {
    "Job": (("spec", "selector"), *(("spec", "template", "metadata", "labels", key) for key in _JOB_LABELS)),
    "PersistentVolumeClaim": (("spec", "volumeName"),),
    "Service": (
        ("spec", "clusterIP"),
        ("spec", "clusterIPs"),
        ("spec", "healthCheckNodePort"),
        ("spec", "ports", _EACH, "nodePort"),
    ),
    "ServiceAccount": (("secrets",),),
}
_HEADLESS: Final = ("None", ["None"])
_MADE_BY_CLUSTERS: Final = (("ConfigMap", "kube-root-ca.crt"), ("Service", "kubernetes"))
_TOKEN: Final = "kubernetes.io/service-account-token"  # noqa: S105  # a type
_HOOK: Final = "helm.sh/hook"
_NAMED: Final = 5
_INSTALLS: Final = frozenset({"crd-install", "pre-install", "post-install"})


@dataclass(frozen=True, slots=True)
class Omission:
    """A part of a file of manifests that is not applied, with its line, and why it is not."""

    file: str
    line: int
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what} is not applied: {self.reason}"


class ManifestReader:
    """Read files of manifests, each once, so that the same file gives the same documents.

    `labels` are by folder what its files are named in problems: where they were rendered from.
    """

    def __init__(self, labels: Mapping[Path, str] | None = None) -> None:
        self._labels = dict(labels or {})
        self._files: dict[Path, tuple[Document, ...]] = {}
        self._omissions: dict[Path, tuple[Omission, ...]] = {}

    def label(self, folder: Path, label: str) -> None:
        """Name the files of a folder in problems."""
        self._labels[folder] = label

    def read(self, file: Path) -> tuple[Document, ...]:
        """Return the objects of a file. Raises InputError as `read_documents` does."""
        if file not in self._files:
            documents = _read_file(file)
            if label := self._labels.get(file.parent):
                documents = tuple(_relabel(one, label) for one in documents)
            self._files[file], self._omissions[file] = _split(documents)
        return self._files[file]

    @property
    def omissions(self) -> tuple[Omission, ...]:
        """What of the files that were read is not applied."""
        return tuple(one for found in self._omissions.values() for one in found)


def read_objects(file: Path) -> tuple[Document, ...]:
    """Return the objects of a file of manifests. Raises InputError as `read_documents` does."""
    return ManifestReader().read(file)


def _relabel(document: Document, label: str) -> Document:
    """Name a rendered document by its source, kind and name, since there is no file to open."""
    value = document.value if isinstance(document.value, dict) else {}
    subject = [str(part) for part in (value.get("kind"), value_at(value, ("metadata", "name"))) if part]
    return Document(", ".join([label, *([" ".join(subject)] if subject else [])]), document.value, document.lines)


def _read_file(file: Path) -> tuple[Document, ...]:
    try:
        return read_documents(file, KUBECTL)
    except InputError as error:
        if not _is_template(file):
            raise
        hint = "has {{ }}, so that it is a template; hint: render it first, such as with 'helm template'"
        raise InputError([Problem(str(file), error.problems[0].line, "", hint)]) from None


def _is_template(file: Path) -> bool:
    try:
        return "{{" in file.read_bytes()[: KUBECTL.size].decode("utf-8", errors="replace")
    except OSError:
        return False  # the first error says why it cannot be read


def _split(documents: tuple[Document, ...]) -> tuple[tuple[Document, ...], tuple[Omission, ...]]:
    """Return the objects of documents, and what of them is not applied: one omission for each reason."""
    objects: list[Document] = []
    left_out: dict[str, list[Document]] = {}
    added: list[tuple[Document, tuple[_Path, ...]]] = []
    for one in (item for document in documents for item in _expand(document)):
        if reason := _find_reason(one.value):
            left_out.setdefault(reason, []).append(one)
            continue
        paths = tuple(_list_added(one.value))
        objects.append(Document(one.file, _remove(one.value, paths), one.lines) if paths else one)
        if shown := tuple(path for path in paths if _EACH in path or value_at(one.value, path)):
            added.append((one, shown))
    omissions = [_name_objects(found, reason) for reason, found in left_out.items()]
    return tuple(objects), (*omissions, *([_summarise(added)] if added else []))


def _name_objects(objects: list[Document], reason: str) -> Omission:
    names = [f"{one.value.get('kind')} {one.value['metadata'].get('name')}" for one in objects]
    what = f"{'each of ' if len(names) > 1 else ''}{format_first(names, _NAMED)}"
    return Omission(objects[0].file, objects[0].line_of(("metadata",)), what, reason)


def _expand(document: Document) -> Iterator[Document]:
    """Yield the items of a `List`, also in one of a kind such as `ServiceList`; nothing for an empty document."""
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if value is None:
        return
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list)):
        yield document
        return
    single = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")} if kind != "List" else {}
    lines = document.lines.list_entries("items") if isinstance(document.lines, LineTree) else ()
    for item, own in zip(value["items"], lines, strict=True):
        whole = {**single, **item} if isinstance(item, dict) else item
        yield from _expand(Document(document.file, whole, own))


def _find_reason(value: Any) -> str:
    """Return why an object is not applied; empty where it is."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(metadata, dict):
        return ""
    hooks = value_at(metadata, ("annotations", _HOOK))
    if isinstance(hooks, str) and not _INSTALLS.intersection(one.strip() for one in hooks.split(",")):
        return f"a Helm hook for {hooks}"
    owners = metadata.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return f"{owner.get('kind')} {owner.get('name')} makes it"
    is_made = (value.get("kind"), metadata.get("name")) in _MADE_BY_CLUSTERS or value.get("type") == _TOKEN
    return "a cluster makes it by itself" if is_made else ""


def _list_added(value: Any) -> Iterator[_Path]:
    """Yield the paths of what a server has added to an object."""
    if not isinstance(value, dict):
        return
    yield from (path for path in _ADDED if _has(value, path))
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and metadata.get("uid"):
        for path in _CHOSEN.get(str(value.get("kind")), ()):
            if _has(value, path) and value_at(value, path) not in _HEADLESS:
                yield path


def _has(value: Any, path: _Path) -> bool:
    """Check whether a value has a field, or one of the entries of a list has it."""
    for place, key in enumerate(path):
        if key == _EACH and isinstance(value, list):
            return any(_has(one, path[place + 1 :]) for one in value)
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True


def _remove(value: Any, paths: tuple[_Path, ...]) -> Any:
    """Return a copy without these fields, and without annotations where none is left."""
    for path in paths:
        value = _remove_one(value, path)
    if value_at(value, ("metadata", "annotations")) == {}:
        value = _remove_one(value, ("metadata", "annotations"))
    return value


def _remove_one(value: Any, path: _Path) -> Any:
    key, rest = path[0], path[1:]
    if key == _EACH and isinstance(value, list):
        return [_remove_one(one, rest) for one in value]
    if not isinstance(value, dict) or key not in value:
        return value
    if not rest:
        return {name: child for name, child in value.items() if name != key}
    return {**value, key: _remove_one(value[key], rest)}


def _summarise(added: list[tuple[Document, tuple[_Path, ...]]]) -> Omission:
    """Return what servers have added to the objects of one file as one omission."""
    first, paths = added[0]
    names = dict.fromkeys(format_path(path).replace(f".{_EACH}", "[]") for _, found in added for path in found)
    what = f"what a server has added to {format_counted(len(added), 'object')} ({', '.join(names)})"
    return Omission(first.file, first.line_of(paths[0]), what, "another server would refuse it")
