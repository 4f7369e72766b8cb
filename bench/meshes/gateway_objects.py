"""Model the core objects of a gateway, ServiceAccount, Service and Deployment, and how they fit together.

What is specific to a mesh is in the mesh's package.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field, model_validator

from bench.application.manifests import (
    Kind,
    LabelSelector,
    Manifest,
    Manifests,
    Metadata,
    Name,
    Part,
    PodSpec,
    ServiceAccountManifest,
    ServiceManifest,
    ServicePort,
    Source,
    Untranslated,
    select_kind,
)
from bench.application.model import GATEWAY, Workload
from bench.errors import Problem
from bench.files.yaml_source import format_suggestion


class GatewayPodMetadata(Part):
    """Labels and annotations of a gateway's pod; a run finds it by the label `app: gateway`."""

    labels: dict[str, str]
    annotations: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> "GatewayPodMetadata":
        if self.labels.get("app") != GATEWAY or "version" not in self.labels:
            raise ValueError(f"needs the labels app, which is {GATEWAY!r}, and version")
        return self

    def mesh_settings(self, domain: str) -> Mapping[str, str]:
        """Return the labels and annotations that the mesh of this domain reads."""
        every = {**self.labels, **self.annotations}
        return {key: value for key, value in every.items() if f"{domain}/" in key}


class GatewayTemplate(Part):
    metadata: GatewayPodMetadata
    spec: PodSpec


class GatewayDeploymentSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"strategy", "minReadySeconds"})

    replicas: int = Field(default=1, ge=1, le=1)  # the local target runs one process
    selector: LabelSelector
    template: GatewayTemplate


class GatewayDeployment(Manifest):
    """The pods through which the load enters."""

    metadata: Metadata
    spec: GatewayDeploymentSpec

    @property
    def pod(self) -> GatewayTemplate:
        return self.spec.template


CORE_KINDS: Final[dict[str, Kind[Any]]] = {
    "Service": Kind(("v1",), ServiceManifest),
    "ServiceAccount": Kind(("v1",), ServiceAccountManifest),
    "Deployment": Kind(("apps/v1",), GatewayDeployment),
}


# Kinds that are of a gateway only where there is one.
_SUPPORTING: Final = ("ConfigMap", "Service", "ServiceAccount")


def separate_supporting(manifests: Manifests, is_gateway_part: Callable[[Manifest], bool]) -> Manifests:
    """Return the manifests in which Services, accounts and ConfigMaps without a gateway are untranslated: they are of
    something else, such as a server that decides about requests."""
    parts = [one for one in manifests.sources if is_gateway_part(one.manifest)]
    if not parts or any(one.manifest.kind not in _SUPPORTING for one in parts):
        return manifests
    kept = tuple(one for one in manifests.sources if not any(one is part for part in parts))
    left = tuple(
        Untranslated(one.document, (one.problem(("kind",), f"no gateway has this {one.manifest.kind}"),))
        for one in parts
    )
    return Manifests(kept, (*manifests.untranslated, *left))


@dataclass(frozen=True, slots=True)
class Proxy:
    """A gateway's Deployment and its one Service."""

    deployment: Source[GatewayDeployment]
    service: Source[ServiceManifest]

    @property
    def port(self) -> ServicePort:
        return self.service.manifest.spec.ports[0]

    @property
    def container_port(self) -> int:
        """Return the port at which the pod listens."""
        return self.port.target_port or self.port.port

    @property
    def labels(self) -> Mapping[str, str]:
        return self.deployment.manifest.pod.metadata.labels

    @property
    def workload(self) -> Workload:
        account: Name = self.deployment.manifest.pod.spec.service_account_name
        return Workload(GATEWAY, self.labels["version"], account, self.labels, self.container_port)


def find_proxies(sources: Sequence[Source[Any]]) -> tuple[Proxy, ...]:
    """Return the gateways' Deployments that have a Service; at most one if `proxy_problems` finds nothing."""
    return tuple(
        Proxy(deployment, service)
        for deployment in select_kind(sources, GatewayDeployment)
        for service in select_kind(sources, ServiceManifest)
        if _selects(service, deployment)
    )


def proxy_problems(sources: Sequence[Source[Any]], wanted: Mapping[str, str], *, domain: str) -> Iterator[Problem]:
    """Yield the problems of the core objects; `wanted` are the exact labels and annotations for the mesh of this
    domain."""
    deployments = select_kind(sources, GatewayDeployment)
    for extra in deployments[1:]:
        first = deployments[0].document
        where = f"{first.file}:{first.line_of(('metadata', 'name'))}"
        yield extra.problem(
            ("metadata", "name"), f"a configuration has one gateway, which is already defined in {where}"
        )
    for deployment in deployments[:1]:
        yield from _deployment_problems(deployment, sources, wanted, domain=domain)
    services = select_kind(sources, ServiceManifest)
    for service in services:
        yield from _service_problems(service, deployments)
    for service in services[1:]:
        yield service.problem(("metadata", "name"), "a gateway has one Service")


def _deployment_problems(
    source: Source[GatewayDeployment], sources: Sequence[Source[Any]], wanted: Mapping[str, str], *, domain: str
) -> Iterator[Problem]:
    pod = source.manifest.pod
    if pod.metadata.mesh_settings(domain) != wanted:
        settings = ", ".join(f"{key}: {value}" for key, value in wanted.items())
        yield source.problem(
            ("spec", "template", "metadata"), f"must have exactly these settings of the mesh: {settings}"
        )
    yield from account_problems(source, "template", pod.spec.service_account_name, sources)
    if not any(_selects(service, source) for service in select_kind(sources, ServiceManifest)):
        yield source.problem(("spec", "template", "metadata", "labels"), "no Service selects these pods")


def account_problems(
    source: Source[Any], template: str, name: Name, sources: Sequence[Source[Any]]
) -> Iterator[Problem]:
    """Yield the problem of a pod template whose service account is not among the manifests."""
    accounts = {account.manifest.metadata.name for account in select_kind(sources, ServiceAccountManifest)}
    if name not in accounts:
        loc = ("spec", template, "spec", "serviceAccountName")
        yield source.problem(loc, f"no ServiceAccount {name!r}{format_suggestion(name, accounts)}")


def _service_problems(
    source: Source[ServiceManifest], deployments: Sequence[Source[GatewayDeployment]]
) -> Iterator[Problem]:
    selected = [deployment for deployment in deployments if _selects(source, deployment)]
    if not selected:
        yield source.problem(("spec", "selector"), "selects no Deployment's pods")
    port = source.manifest.spec.ports[0]
    target = port.target_port or port.port
    for deployment in selected:
        if deployment.manifest.pod.spec.containers[0].ports[0].container_port != target:
            yield source.problem(("spec", "ports", 0), f"port {target} is not the one that the pods serve")


def _selects(service: Source[ServiceManifest], deployment: Source[GatewayDeployment]) -> bool:
    return service.manifest.spec.selector.items() <= deployment.manifest.pod.metadata.labels.items()
