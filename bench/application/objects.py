"""Read an application's own objects as a cluster takes them: typed only as far as a run needs to know them.

A run needs the workloads with their labels, accounts and ports, the Services, and what of an object it cannot apply.
All other fields pass to the cluster as they are written, whose API server checks them strictly.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bench.application.definition import ApplicationDefinition
from bench.application.manifests import Read, read_folders
from bench.errors import InputError, Problem
from bench.files.objects import POD_TEMPLATES, Omission, read_objects
from bench.files.validation import list_invalid_fields
from bench.files.yaml_source import Document, Loc, format_suggestion, value_at
from bench.system.redaction import register_key, register_secret

Object = Mapping[str, Any]

# Where the pods of each kind of workload that an application may have are described.
TEMPLATES: Final[Mapping[str, Loc]] = {
    kind: POD_TEMPLATES[kind] for kind in ("Pod", "Deployment", "StatefulSet", "DaemonSet", "Job")
}
# Kinds of which an application can have none, and why.
_REPLICAS: Final = "would change the number of replicas while they are measured; hint: leave it out, and set `replicas`"
_REFUSED: Final[Mapping[str, str]] = {
    "HorizontalPodAutoscaler": _REPLICAS,
    "ScaledObject": _REPLICAS,
    "VerticalPodAutoscaler": "would restart pods while they are measured; hint: leave it out, and set `resources`",
    "CronJob": "would start pods while others are measured; hint: leave it out, or make it a Job",
    "ReplicaSet": "is no kind of workload that a run waits for; hint: make it a Deployment",
    "ReplicationController": "is no kind of workload that a run waits for; hint: make it a Deployment",
}
_OF_THE_CLUSTER: Final = (
    "is of the whole cluster, where a run makes nothing for an application; hint: apply it before the run with kubectl,"
    " and move it out of this folder"
)
_DEFAULT_ACCOUNT: Final = (
    "ServiceAccount default is in every namespace, and is not the run's; hint: give it another name, and set"
    " `serviceAccountName`"
)
CLUSTER_SCOPED: Final = frozenset(
    {
        "APIService",
        "ClusterIssuer",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "GatewayClass",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
# Kinds that are left out, and why: a run has something else in their place.
_LEFT_OUT: Final[Mapping[str, str]] = {
    "Namespace": "a run makes namespaces of its own",
    "Ingress": "it would take requests of others to the run; the load enters at the application's entry",
}
_HTTP: Final = ("http", "http2", "grpc")
_NAMED_HTTP: Final = ("http", "http2", "grpc", "grpc-web")


class _Typed(BaseModel):
    """Base of the typed part of an object; whatever else it has is the API server's matter."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ContainerPort(_Typed):
    container_port: int
    name: str | None = None


class Container(_Typed):
    name: str
    ports: tuple[ContainerPort, ...] | None = None


class PodSpec(_Typed):
    containers: tuple[Container, ...] = Field(min_length=1)
    service_account_name: str | None = None
    service_account: str | None = None

    @property
    def account(self) -> str:
        """The name of its service account; Kubernetes has one called `default` in each namespace."""
        return self.service_account_name or self.service_account or "default"

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        """The ports of all containers."""
        return tuple(port for one in self.containers for port in one.ports or ())


class PodMetadata(_Typed):
    labels: dict[str, str] | None = None


class Template(_Typed):
    metadata: PodMetadata | None = None
    spec: PodSpec


class ServicePort(_Typed):
    port: int
    name: str | None = None
    target_port: int | str | None = None
    app_protocol: str | None = None

    @property
    def is_http(self) -> bool:
        """Whether the port is declared to speak HTTP, by its protocol or the beginning of its name."""
        declared = (self.app_protocol or "").removeprefix("kubernetes.io/")
        if declared:
            return declared in (*_HTTP, "h2c")
        return (self.name or "").split("-")[0] in _NAMED_HTTP


class ServiceSpec(_Typed):
    ports: tuple[ServicePort, ...] | None = None
    selector: dict[str, str] | None = None
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"


class _Service(_Typed):
    spec: ServiceSpec


T = TypeVar("T", bound=_Typed)


@dataclass(frozen=True, slots=True)
class Named:
    """An object with its name; `namespace` is empty for the application's first one."""

    document: Document
    namespace: str

    @property
    def kind(self) -> str:
        return str(self.document.value["kind"])

    @property
    def name(self) -> str:
        return str(self.document.value["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class PodSource(Named):
    """An object that becomes pods."""

    template: Template

    @property
    def app(self) -> str:
        """The label `app` of its pods, else its own name."""
        return self.labels.get("app") or self.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its pods."""
        return (self.template.metadata.labels if self.template.metadata else None) or {}


@dataclass(frozen=True, slots=True)
class ServiceSource(Named):
    """A Service; without a selector it selects no pods."""

    spec: ServiceSpec

    @property
    def ports(self) -> tuple[ServicePort, ...]:
        return self.spec.ports or ()

    def selects(self, pods: PodSource) -> bool:
        """Return whether it sends requests to these pods."""
        selector = self.spec.selector or {}
        return bool(selector) and self.namespace == pods.namespace and selector.items() <= pods.labels.items()


@dataclass(frozen=True, slots=True)
class ApplicationObjects:
    """The objects of an application's manifests. `documents` are all that a cluster can apply, in their order, and
    `namespaces` those that they may name, the first one for those that name none."""

    documents: tuple[Document, ...]
    pods: tuple[PodSource, ...]
    services: tuple[ServiceSource, ...]
    namespaces: tuple[str, ...]
    left_out: tuple[Omission, ...] = ()

    @property
    def serving(self) -> tuple[PodSource, ...]:
        """The workloads that are there under the load: all but Jobs, which complete before."""
        return tuple(one for one in self.pods if one.kind != "Job")


def find_left_out(document: Document) -> Omission | None:
    """Return why an object of an application is not applied; None for one that is."""
    kind, reason = document.value["kind"], _LEFT_OUT.get(document.value["kind"])
    if reason is None:
        return None
    return Omission(document.file, document.line_of(("kind",)), f"{kind} {document.value['metadata']['name']}", reason)


def read_own_objects(definition: ApplicationDefinition, *, read: Read = read_objects) -> ApplicationObjects:
    """Read the objects of an application's manifests, and register the values of its Secrets, so that no log or record
    of a run shows one.

    Raises InputError with all problems of all files: what is no object, a kind that a run cannot have, an object in a
    namespace that is not the application's, the same object twice, an account that is in no manifest.
    """
    every = read_folders([definition.folder], read)
    if not every:
        raise InputError([Problem(str(definition.folder), 0, "", "has no manifests")])
    problems = [problem for one in every if (problem := _find_problem(one))]
    if problems:
        raise InputError(problems)
    register_secrets(every)
    left_out = tuple(found for one in every if (found := find_left_out(one)))
    documents = tuple(one for one in every if find_left_out(one) is None)
    namespaces = definition.namespaces or _list_namespaces(documents)
    problems += _find_misplaced(documents, namespaces)
    problems += _find_doubled(documents, namespaces[0])
    pods, services = list[PodSource](), list[ServiceSource]()
    for one in documents:
        namespace = _namespace_of(one, namespaces[0])
        loc = TEMPLATES.get(one.value["kind"])
        if loc is not None and (template := _type(one, loc, Template, problems)):
            pods.append(PodSource(one, namespace, template))
        elif one.value["kind"] == "Service" and (service := _type(one, (), _Service, problems)):
            services.append(ServiceSource(one, namespace, service.spec))
    problems += _find_missing_accounts(pods, documents, namespaces[0])
    if problems:
        raise InputError(problems)
    return ApplicationObjects(documents, tuple(pods), tuple(services), tuple(namespaces), left_out)


def register_secrets(documents: Iterable[Document]) -> None:
    """Register the values of the Secrets among objects, so that no log or record of a run shows one."""
    for one in documents:
        if one.value["kind"] == "Secret":
            _register_values(one.value)


def _register_values(secret: Object) -> None:
    """Register the values of a Secret in every form in which a program may print them."""
    for value in _list_texts(secret.get("stringData")):
        _register(value)
    for encoded in _list_texts(secret.get("data")):
        register_secret(encoded)
        with suppress(ValueError):  # the API server reports what is no base64, and text that is no UTF-8 is in no log
            _register(base64.b64decode(encoded, validate=False).decode("utf-8"))


def _register(value: str) -> None:
    if "PRIVATE KEY" in value:
        register_key(value)
        return
    register_secret(value)
    with suppress(ValueError, RecursionError):  # only the credentials of registries are JSON
        for text in _list_texts(json.loads(value)):
            register_secret(text)


def _list_texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _list_texts(part)


def list_apps(definition: ApplicationDefinition) -> tuple[str, ...]:
    """Return the names of what an application deploys, which `images` may have. Raises InputError."""
    return tuple(dict.fromkeys(one.app for one in read_own_objects(definition).pods))


def _find_problem(document: Document) -> Problem | None:
    """Return why a document is no object that a run can apply; None for one that is."""
    value = document.value
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("apiVersion", "kind")):
        return document.problem((), "is not a Kubernetes object; kind, apiVersion and metadata are required")
    metadata, kind = value.get("metadata"), value["kind"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return document.problem(("metadata", "name"), "is missing; every object needs a name")
    if kind in _REFUSED:
        return document.problem(("kind",), f"{kind} {metadata['name']} {_REFUSED[kind]}")
    if (kind, metadata["name"]) == ("ServiceAccount", "default"):
        return document.problem(("metadata", "name"), _DEFAULT_ACCOUNT)
    if kind in CLUSTER_SCOPED:
        return document.problem(("kind",), f"{kind} {metadata['name']} {_OF_THE_CLUSTER}")
    return None


def _list_namespaces(documents: Iterable[Document]) -> tuple[str, ...]:
    """Return the namespaces that objects name, first `default` where one names none."""
    named = [str(one.value["metadata"].get("namespace") or "") for one in documents]
    return tuple(dict.fromkeys(one or "default" for one in sorted(named, key=bool))) or ("default",)


def _namespace_of(document: Document, home: str) -> str:
    namespace = str(document.value["metadata"].get("namespace") or "")
    return "" if namespace == home else namespace


def _find_misplaced(documents: Iterable[Document], namespaces: Sequence[str]) -> Iterator[Problem]:
    for one in documents:
        namespace = one.value["metadata"].get("namespace") or namespaces[0]
        if namespace not in namespaces:
            known = f"{namespace!r} is none of the application's namespaces ({', '.join(namespaces)})"
            yield one.problem(("metadata", "namespace"), f"{known}; hint: add it to `application.namespaces`")


def _find_doubled(documents: Iterable[Document], home: str) -> Iterator[Problem]:
    first: dict[tuple[str, str, str], Document] = {}
    for one in documents:
        value = one.value
        group = value["apiVersion"].rpartition("/")[0]
        key = f"{value['kind']}.{group}", _namespace_of(one, home), value["metadata"]["name"]
        known = first.setdefault(key, one)
        if known is not one:
            where = f"{known.file}:{known.line_of(('metadata', 'name'))}"
            yield one.problem(("metadata", "name"), f"{value['kind']} {key[2]} is already in {where}")


def _type(document: Document, loc: Loc, model: type[T], problems: list[Problem]) -> T | None:
    try:
        return model.model_validate(value_at(document.value, loc))
    except ValidationError as error:
        invalid = list_invalid_fields(error, model)
        problems += [document.problem((*loc, *one.loc), one.message) for one in invalid]
        return None


def _find_missing_accounts(pods: Iterable[PodSource], documents: Iterable[Document], home: str) -> Iterator[Problem]:
    """Yield the workloads whose account is in no manifest: a run's namespaces are new, so that it would not exist."""
    known = {
        (_namespace_of(one, home), one.value["metadata"]["name"])
        for one in documents
        if one.value["kind"] == "ServiceAccount"
    }
    for one in pods:
        account = one.template.spec.account
        if account != "default" and (one.namespace, account) not in known:
            names = [name for namespace, name in known if namespace == one.namespace]
            loc = (*TEMPLATES[one.kind], "spec", "serviceAccountName")
            yield one.document.problem(loc, f"no ServiceAccount {account!r}{format_suggestion(account, names)}")
