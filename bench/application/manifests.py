"""Read Kubernetes manifests as frozen models, strictly: an unknown field is an error with its line.

The same files are applied to a cluster and translated for the local target. A field that only the cluster supports
would make the two differ silently; so every field is either modelled or rejected.

Fields of type Any affect a cluster only (images, resources, probes, volumes): their names are known, so that a misspelt
one is found, and their values are not checked.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from bench.errors import InputError, Problem
from bench.files.folders import list_manifest_files
from bench.files.validation import OBJECT_PATTERN, list_invalid_fields
from bench.files.yaml_source import Document, Loc, format_suggestion, read_documents

Name = Annotated[str, StringConstraints(pattern=OBJECT_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]

# The domains of Kubernetes' own API groups.
_KUBERNETES: Final = ("", "k8s.io")


class Part(BaseModel):
    """Base of every modelled part of a manifest.

    `untranslated` names fields of Kubernetes or the mesh that meshbench does not translate; their message differs from
    that of a misspelt field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)

    untranslated: ClassVar[frozenset[str]] = frozenset()


class Metadata(Part):
    """`metadata` of an object; labels and annotations are not checked."""

    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class PolicyMetadata(Part):
    """`metadata` of a policy; annotations could turn it into a dry run, and are rejected."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"annotations"})

    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}


class Manifest(Part):
    """Base of a whole object; `apiVersion` and `kind` are checked against `Kind` before."""

    api_version: str
    kind: str


M = TypeVar("M", bound=Manifest)
Read = Callable[[Path], tuple[Document, ...]]


@dataclass(frozen=True, slots=True)
class Kind(Generic[M]):
    """A kind that can be read: its equivalent API versions, and its model.

    `root_namespace` is the namespace in which an object of this kind is for the whole mesh; empty where none is.
    """

    api_versions: tuple[str, ...]
    model: type[M]
    root_namespace: str = ""


@dataclass(frozen=True, slots=True)
class Source(Generic[M]):
    """A manifest and its document in a file."""

    manifest: M
    document: Document

    def problem(self, loc: Loc, message: str) -> Problem:
        """Return `message` as a problem of the field at `loc`, in the file's spelling (`matchLabels`)."""
        return self.document.problem(loc, message)


def read_manifests(
    folders: Sequence[Path], kinds: Mapping[str, Kind[Any]], *, namespace: str, read: Read = read_documents
) -> tuple[Source[Any], ...]:
    """Read every object of the manifests in `folders`, in the order of folders, files and documents, each file once.

    `read` may remember files that several configurations have.
    Raises InputError with all problems of all files: an unknown kind, API version, field or value, an object outside
    of the application's `namespace` and the mesh's root, a folder without manifests, and those of `read_documents`.
    """
    problems: list[Problem] = []
    sources: list[Source[Any]] = []
    for file in _list_files(folders, problems):
        try:
            documents = read(file)
        except InputError as error:
            problems += error.problems
            continue
        for document in documents:
            sources += _read_document(document, kinds, problems)
    problems += (problem for source in sources for problem in _find_misplaced(source, kinds, namespace))
    if problems:
        raise InputError(problems)
    return tuple(sources)


def read_folders(folders: Sequence[Path], read: Read = read_documents) -> tuple[Document, ...]:
    """Return every object of the manifests in `folders`, in their order. Raises InputError as `read_documents`."""
    files = [file for folder in folders for file in list_manifest_files(folder)]
    return tuple(one for file in files for one in read(file) if one.value is not None)


def _find_misplaced(source: Source[Any], kinds: Mapping[str, Kind[Any]], home: str) -> Iterator[Problem]:
    """Yield a problem for an object in a namespace that is not the run's."""
    known = list(filter(None, (home, kinds[source.manifest.kind].root_namespace)))
    namespace = source.document.value["metadata"].get("namespace") or home
    if namespace not in known:
        yield source.problem(
            ("metadata", "namespace"), f"no workload runs in {namespace!r}{format_suggestion(namespace, known)}"
        )


def select_kind(sources: Iterable[Source[Any]], model: type[M]) -> tuple[Source[M], ...]:
    """Return the manifests of one kind, in their order."""
    return tuple(source for source in sources if isinstance(source.manifest, model))


def _list_files(folders: Sequence[Path], problems: list[Problem]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        files = list_manifest_files(folder)
        if not files:
            reason = "has no manifests" if folder.is_dir() else "is not a folder of manifests"
            problems.append(Problem(str(folder), 0, "", reason))
        found += files
    return list(dict.fromkeys(found))


def _read_document(
    document: Document, kinds: Mapping[str, Kind[Any]], problems: list[Problem]
) -> Iterable[Source[Any]]:
    if document.value is None:  # nothing between two separators
        return ()
    unfit = _check_kind(document, kinds)
    if unfit is not None:
        problems.append(unfit)
        return ()
    model = kinds[document.value["kind"]].model
    try:
        # Via JSON, which allows a list for a tuple although the models are strict.
        return (Source(model.model_validate_json(json.dumps(document.value)), document),)
    except ValidationError as error:
        problems += [document.problem(one.loc, one.message) for one in list_invalid_fields(error, model)]
        return ()


def _check_kind(document: Document, kinds: Mapping[str, Kind[Any]]) -> Problem | None:
    """Return the problem of `kind` or `apiVersion`; None where both are known."""
    value = document.value
    if not isinstance(value, dict):
        return document.problem((), "is not a Kubernetes object; kind, apiVersion and metadata are required")
    kind, version = value.get("kind"), value.get("apiVersion")
    wanted = {_domain_of(group) for one in kinds.values() for group in one.api_versions}.difference(_KUBERNETES)
    if wanted and _domain_of(version) not in (*wanted, *_KUBERNETES):
        message = f"{version} is not of this configuration's mesh, whose kinds are of {' and '.join(sorted(wanted))}"
        return document.problem(("apiVersion",), message)
    if not kinds:
        message = f"a configuration without a mesh takes no {kind}; hint: name a mesh, or leave it out"
        return document.problem(("kind",), message)
    if not isinstance(kind, str) or kind not in kinds:
        return document.problem(("kind",), f"unknown kind {kind!r}{format_suggestion(str(kind), kinds)}")
    if version not in kinds[kind].api_versions:
        known = format_suggestion(str(version), kinds[kind].api_versions)
        return document.problem(("apiVersion",), f"unknown apiVersion {version!r} of {kind}{known}")
    return None


def _domain_of(version: object) -> str:
    """Return the domain of an API version's group, `example.io` of `policy.example.io/v1`; empty without one."""
    group = str(version).rpartition("/")[0]
    return ".".join(group.split(".")[-2:]) if "." in group else ""


class ServicePort(Part):
    """One port of a Service; without a declared protocol a mesh may treat HTTP as TCP."""

    name: Text | None = None
    port: Port
    target_port: Port | None = None
    app_protocol: Literal["http"] | None = None
    protocol: Literal["TCP"] = "TCP"


class ServiceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"clusterIP", "externalName", "externalIPs", "sessionAffinity"})

    ports: tuple[ServicePort]
    selector: dict[str, str]
    type: Literal["ClusterIP"] = "ClusterIP"


class ServiceManifest(Manifest):
    metadata: Metadata
    spec: ServiceSpec


class ServiceAccountManifest(Manifest):
    metadata: Metadata
    automount_service_account_token: bool = False


class ContainerPort(Part):
    container_port: Port
    name: Text | None = None
    protocol: Literal["TCP"] = "TCP"


class Container(Part):
    """The one container of a pod, with the one port that it serves."""

    name: Name
    image: Text
    ports: tuple[ContainerPort]
    image_pull_policy: Any = None
    command: Any = None
    args: Any = None
    env: Any = None
    resources: Any = None
    security_context: Any = None
    volume_mounts: Any = None
    startup_probe: Any = None
    readiness_probe: Any = None
    liveness_probe: Any = None
    lifecycle: Any = None


class PodMetadata(Part):
    """Labels and annotations of a pod; those that would change its sidecar are rejected.

    `app` and `version` name the workload, here as in a mesh's telemetry.
    """

    labels: dict[str, str]
    annotations: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> "PodMetadata":
        missing = {"app", "version"} - self.labels.keys()
        if missing:
            raise ValueError(f"lacks the label {' and '.join(sorted(missing))}")
        return self


class PodSpec(Part):
    containers: tuple[Container]
    service_account_name: Name
    security_context: Any = None
    volumes: Any = None
    affinity: Any = None
    topology_spread_constraints: Any = None
    termination_grace_period_seconds: Any = None
    automount_service_account_token: Any = None
    enable_service_links: Any = None


class Template(Part):
    metadata: PodMetadata
    spec: PodSpec


class LabelSelector(Part):
    """The labels that an object must have; expressions are not supported."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"matchExpressions"})

    match_labels: dict[str, str]

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Check whether an object with these labels is selected."""
        return self.match_labels.items() <= labels.items()


class DeploymentSpec(Part):
    replicas: Literal[1] = 1  # the local target runs one process of each
    selector: LabelSelector
    template: Template
    strategy: Any = None
    revision_history_limit: Any = None
    progress_deadline_seconds: Any = None
    min_ready_seconds: Any = None


class DeploymentManifest(Manifest):
    metadata: Metadata
    spec: DeploymentSpec


KINDS: Final[dict[str, Kind[Any]]] = {
    "Service": Kind(("v1",), ServiceManifest),
    "ServiceAccount": Kind(("v1",), ServiceAccountManifest),
    "Deployment": Kind(("apps/v1",), DeploymentManifest),
}
