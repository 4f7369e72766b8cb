"""Read Kubernetes manifests as frozen models, strictly: nothing that a model does not have is left out silently.

The same files are applied to a cluster and translated for the local target. What exists in Kubernetes or the mesh, and
is not modelled, makes its object untranslated: a cluster applies it as it is written, and the local target refuses it.
A near miss of a known name is an error for both.

Fields of type Any affect a cluster only (images, resources, probes, volumes): their names are known, so that a misspelt
one is found, and their values are not checked.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from bench.errors import InputError, Problem
from bench.files.folders import list_manifest_files
from bench.files.objects import ADDED_METADATA, read_objects
from bench.files.validation import OBJECT_PATTERN, list_invalid_fields
from bench.files.yaml_source import Document, Loc, format_suggestion
from bench.units import format_counted

Name = Annotated[str, StringConstraints(pattern=OBJECT_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]

# The domains of Kubernetes' own API groups.
_KUBERNETES: Final = ("", "k8s.io")
_NEAR_KIND: Final = 0.9  # similarity of a misspelt kind; many real ones resemble each other (HTTPRoute, MeshHTTPRoute)


class Part(BaseModel):
    """Base of every modelled part of a manifest.

    `untranslated` names fields of Kubernetes or the mesh that meshbench does not translate: an object that has one
    needs a cluster. A key that is similar to one of them, or to a modelled one, is an error. `other_values` does the
    same for values that resemble modelled ones, such as HTTPS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)

    untranslated: ClassVar[frozenset[str]] = frozenset()
    other_values: ClassVar[frozenset[str]] = frozenset()


# Fields of `metadata` that the API server or a controller sets.
SERVER_METADATA: Final = frozenset({*ADDED_METADATA, "finalizers", "generateName"})


class Metadata(Part):
    """`metadata` of an object; labels and annotations are not checked."""

    untranslated: ClassVar[frozenset[str]] = SERVER_METADATA

    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class PolicyMetadata(Part):
    """`metadata` of a policy; annotations could turn it into a dry run, and are not translated."""

    untranslated: ClassVar[frozenset[str]] = SERVER_METADATA | {"annotations"}

    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = {}


class Manifest(Part):
    """Base of a whole object; `apiVersion` and `kind` are checked against `Kind` before."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"status"})

    api_version: str
    kind: str


M = TypeVar("M", bound=Manifest)
Read = Callable[[Path], tuple[Document, ...]]


@dataclass(frozen=True, slots=True)
class Kind(Generic[M]):
    """A kind that a configuration may have: its equivalent API versions, and its model.

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


@dataclass(frozen=True, slots=True)
class Untranslated:
    """An object that a cluster applies as it is written, and why this machine does not translate it."""

    document: Document
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of some folders: those that a model understands, and all others, each in their order."""

    sources: tuple[Source[Any], ...]
    untranslated: tuple[Untranslated, ...] = ()

    @property
    def documents(self) -> tuple[Document, ...]:
        """All objects, those that are not translated last."""
        return (*(one.document for one in self.sources), *(one.document for one in self.untranslated))

    def require_translated(self) -> tuple[Source[Any], ...]:
        """Return the objects if a model understands all of them. Raises InputError with the problems of the others."""
        if problems := [problem for one in self.untranslated for problem in one.problems]:
            raise InputError(problems)
        return self.sources


def read_manifests(
    folders: Sequence[Path],
    kinds: Mapping[str, Kind[Any]],
    *,
    namespace: str,
    others: Iterable[str] = (),
    read: Read = read_objects,
) -> Manifests:
    """Read every object of the manifests in `folders`, in the order of folders, files and documents, each file once.

    `read` may remember files that several configurations have. An object whose kind, version, fields or values exist
    outside of the models is untranslated.
    Raises InputError with all problems of all files that no target takes: a document that is no object, a kind of
    another mesh, a near miss of a known kind, field or value, a value of the wrong type, an object outside of the
    application's `namespace`, its `others` and the mesh's root, a folder without manifests, and those of
    `read_objects`.
    """
    problems: list[Problem] = []
    found: list[Source[Any] | Untranslated] = []
    for file in _list_files(folders, problems):
        try:
            documents = read(file)
        except InputError as error:
            problems += error.problems
            continue
        for document in documents:
            found += _read_document(document, kinds, problems)
    problems += _find_misplaced([one.document for one in found], kinds, (namespace, *others))
    if problems:
        raise InputError(problems)
    return _collect(found)


def sort_documents(
    documents: Iterable[Document], kinds: Mapping[str, Kind[Any]]
) -> tuple[Manifests, tuple[Problem, ...]]:
    """Sort objects without an application, whatever their namespaces, by whether a model understands them; return them
    with the problems of all others, which no target takes."""
    problems: list[Problem] = []
    found = [one for document in documents for one in _read_document(document, kinds, problems)]
    return _collect(found), tuple(problems)


def _collect(found: Sequence[Source[Any] | Untranslated]) -> Manifests:
    return Manifests(
        tuple(one for one in found if isinstance(one, Source)),
        tuple(one for one in found if isinstance(one, Untranslated)),
    )


def read_folders(folders: Sequence[Path], read: Read = read_objects) -> tuple[Document, ...]:
    """Return every object of the manifests in `folders`, in their order. Raises InputError as `read_objects`."""
    files = [file for folder in folders for file in list_manifest_files(folder)]
    return tuple(one for file in files for one in read(file))


def _find_misplaced(
    documents: Iterable[Document], kinds: Mapping[str, Kind[Any]], homes: Sequence[str]
) -> Iterator[Problem]:
    """Yield one problem for each namespace that is not the run's, at the first object in it."""
    misplaced: dict[str, list[Document]] = {}
    for document in documents:
        namespace = str(document.value["metadata"].get("namespace") or homes[0])
        if namespace not in (*homes, _root_namespace(document, kinds)):
            misplaced.setdefault(namespace, []).append(document)
    for namespace, (first, *more) in misplaced.items():
        known = dict.fromkeys(filter(None, (*homes, _root_namespace(first, kinds))))
        message = f"no workload runs in {namespace!r}{format_suggestion(namespace, known)}"
        message += f"; {format_counted(len(more), 'more object')} there, too" if more else ""
        if namespace not in {one.root_namespace for one in kinds.values()}:
            message += f"; hint: if the application is meant to be there: --set application.namespaces={namespace}"
        yield first.problem(("metadata", "namespace"), message)


def _root_namespace(document: Document, kinds: Mapping[str, Kind[Any]]) -> str:
    """Return the namespace in which an object is for the whole mesh; an unknown kind of the mesh has that of others."""
    kind = kinds.get(document.value["kind"])
    if kind is not None and _group_of(document.value["apiVersion"]) in map(_group_of, kind.api_versions):
        return kind.root_namespace
    if _domain_of(document.value["apiVersion"]) in _KUBERNETES:
        return ""
    return next((one.root_namespace for one in kinds.values() if one.root_namespace), "")


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
) -> Iterable[Source[Any] | Untranslated]:
    unfit = _check_object(document, kinds)
    if unfit is not None:
        problems.append(unfit)
        return ()
    unknown = _check_kind(document, kinds)
    if unknown is not None:
        return (Untranslated(document, (unknown,)),)
    model = kinds[document.value["kind"]].model
    try:
        # Via JSON, which allows a list for a tuple although the models are strict.
        return (Source(model.model_validate_json(json.dumps(document.value)), document),)
    except ValidationError as error:
        invalid = list_invalid_fields(error, model)
    wrong = [document.problem(one.loc, one.message) for one in invalid if not one.is_restriction]
    if wrong:
        problems += wrong
        return ()
    return (Untranslated(document, tuple(document.problem(one.loc, one.message) for one in invalid)),)


def _check_object(document: Document, kinds: Mapping[str, Kind[Any]]) -> Problem | None:
    """Return why no target takes a document: it is no object, or of another mesh, or its kind is a near miss."""
    value = document.value
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("apiVersion", "kind")):
        return document.problem((), "is not a Kubernetes object; kind, apiVersion and metadata are required")
    kind, version = value["kind"], value["apiVersion"]
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return document.problem(("metadata", "name"), "is missing; every object needs a name")
    wanted = {_domain_of(group) for one in kinds.values() for group in one.api_versions}.difference(_KUBERNETES)
    if wanted and _domain_of(version) not in (*wanted, *_KUBERNETES):
        message = f"{version} is not of this configuration's mesh, whose kinds are of {' and '.join(sorted(wanted))}"
        return document.problem(("apiVersion",), message)
    if not kinds:
        message = f"a configuration without a mesh takes no {kind}; hint: name a mesh, or leave it out"
        return document.problem(("kind",), message)
    if kind not in kinds and get_close_matches(kind, kinds, n=1, cutoff=_NEAR_KIND):
        return document.problem(("kind",), f"unknown kind {kind!r}{format_suggestion(kind, kinds)}")
    return None


def _check_kind(document: Document, kinds: Mapping[str, Kind[Any]]) -> Problem | None:
    """Return why no model reads an object of this kind and version; None where one does."""
    kind, version = document.value["kind"], document.value["apiVersion"]
    if kind not in kinds:
        return document.problem(("kind",), f"{kind} is not translated for this machine")
    known = kinds[kind]
    if version not in known.api_versions:
        near = format_suggestion(version, known.api_versions)
        return document.problem(("apiVersion",), f"unknown apiVersion {version!r} of {kind}{near}")
    return None


def _group_of(version: str) -> str:
    """Return the group of an API version; empty for that of the core."""
    return version.rpartition("/")[0]


def _domain_of(version: object) -> str:
    """Return the domain of an API version's group, `example.io` of `policy.example.io/v1`; empty without one."""
    group = str(version).rpartition("/")[0]
    return ".".join(group.split(".")[-2:]) if "." in group else ""


class ServicePort(Part):
    """One port of a Service; without a declared protocol a mesh may treat HTTP as TCP."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"nodePort"})
    other_values: ClassVar[frozenset[str]] = frozenset({"http2", "https", "grpc", "tcp", "tls", "UDP", "SCTP"})

    name: Text | None = None
    port: Port
    target_port: Port | None = None
    app_protocol: Literal["http"] | None = None
    protocol: Literal["TCP"] = "TCP"


class ServiceSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset(
        {
            "allocateLoadBalancerNodePorts",
            "clusterIP",
            "clusterIPs",
            "externalIPs",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "publishNotReadyAddresses",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        }
    )

    ports: tuple[ServicePort]
    selector: dict[str, str]
    type: Literal["ClusterIP"] = "ClusterIP"


class ServiceManifest(Manifest):
    metadata: Metadata
    spec: ServiceSpec


class ServiceAccountManifest(Manifest):
    untranslated: ClassVar[frozenset[str]] = frozenset({"imagePullSecrets", "secrets"})

    metadata: Metadata
    automount_service_account_token: bool = False


class ContainerPort(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"hostIP", "hostPort"})

    container_port: Port
    name: Text | None = None
    protocol: Literal["TCP"] = "TCP"


class Container(Part):
    """The one container of a pod, with the one port that it serves."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        {
            "envFrom",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "stdin",
            "stdinOnce",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "tty",
            "volumeDevices",
            "workingDir",
        }
    )

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
    untranslated: ClassVar[frozenset[str]] = frozenset(
        {
            "activeDeadlineSeconds",
            "dnsConfig",
            "dnsPolicy",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostNetwork",
            "hostPID",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "imagePullSecrets",
            "initContainers",
            "nodeName",
            "nodeSelector",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "resourceClaims",
            "resources",
            "restartPolicy",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "serviceAccount",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "subdomain",
            "tolerations",
        }
    )

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
    untranslated: ClassVar[frozenset[str]] = frozenset({"paused"})

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
