"""The application under test, read from its Kubernetes manifests: who runs, as whom, and who calls whom.

Only what a process on this machine can be true to is taken: names, labels, service accounts and ports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.errors import InputError, Problem
from bench.meshes.manifests import Source, of_kind, read_manifests
from bench.meshes.objects import KINDS, DeploymentManifest, ServiceAccountManifest, ServiceManifest
from bench.yamlfile import did_you_mean

NAMESPACE: Final = "bookinfo"
CLIENT: Final = "locust"

# Who calls whom. Reviews v1 shows no stars and does not ask for ratings.
_CALLS: Final = (
    (CLIENT, "productpage"),
    ("productpage", "details"),
    ("productpage", "reviews"),
    ("reviews", "ratings"),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One process that serves at `port` (the one that its clients know), or a client without a port."""

    name: str
    version: str
    account: str
    labels: Mapping[str, str] = field(hash=False)
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A name under which `workload` is called, at `port`."""

    name: str
    port: int
    workload: Workload


@dataclass(frozen=True, slots=True)
class Application:
    """Bookinfo in one namespace, with one version of reviews, and the load generator as its client.

    `calls` are pairs of workload names, caller first.
    """

    namespace: str
    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    client: Workload
    calls: tuple[tuple[str, str], ...]

    @property
    def everyone(self) -> tuple[Workload, ...]:
        """The workloads and the client: all that have an identity."""
        return (*self.workloads, self.client)

    def workload(self, name: str) -> Workload:
        """The workload of that name, or the client. Raises KeyError."""
        return {workload.name: workload for workload in self.everyone}[name]

    def callers(self, name: str) -> tuple[Workload, ...]:
        """Who calls the workload of that name when the application does its work."""
        return tuple(self.workload(caller) for caller, called in self.calls if called == name)


def read_application(folder: Path, reviews: str, *, namespace: str = NAMESPACE) -> Application:
    """Bookinfo from its manifests in `folder`, with `reviews` (v1, v2, v3) as the one version of reviews, in the
    namespace that identities and policies name.

    Services whose workload is not part of this configuration are left out. Raises InputError with all
    problems.
    """
    sources = read_manifests([folder], KINDS)
    deployments = of_kind(sources, DeploymentManifest)
    accounts = of_kind(sources, ServiceAccountManifest)
    services = of_kind(sources, ServiceManifest)
    problems = [*_account_problems(deployments, accounts), *_selector_problems(services, deployments)]
    if problems:
        raise InputError(problems)
    everyone = [_workload(source.manifest) for source in deployments]
    workloads = tuple(one for one in everyone if one.name != "reviews" or one.version == reviews)
    _require(folder, workloads, reviews)
    return Application(
        namespace=namespace,
        workloads=workloads,
        services=tuple(_services(services, workloads)),
        client=Workload(CLIENT, "v1", CLIENT, {"app": CLIENT, "version": "v1"}),
        calls=_CALLS[:-1] if reviews == "v1" else _CALLS,
    )


def _workload(deployment: DeploymentManifest) -> Workload:
    pod = deployment.spec.template
    labels = pod.metadata.labels
    port = pod.spec.containers[0].ports[0].container_port
    return Workload(labels["app"], labels["version"], pod.spec.service_account_name, labels, port)


def _services(sources: Iterable[Source[ServiceManifest]], workloads: Iterable[Workload]) -> Iterable[Service]:
    for source in sources:
        spec = source.manifest.spec
        for workload in workloads:
            if spec.selector.items() <= workload.labels.items():
                yield Service(source.manifest.metadata.name, spec.ports[0].port, workload)


def _account_problems(
    deployments: Iterable[Source[DeploymentManifest]], accounts: Iterable[Source[ServiceAccountManifest]]
) -> Iterable[Problem]:
    known = {source.manifest.metadata.name for source in accounts}
    for source in deployments:
        name = source.manifest.spec.template.spec.service_account_name
        if name not in known:
            loc = ("spec", "template", "spec", "serviceAccountName")
            yield source.problem(loc, f"no ServiceAccount {name!r}{did_you_mean(name, known)}")


def _selector_problems(
    services: Sequence[Source[ServiceManifest]], deployments: Iterable[Source[DeploymentManifest]]
) -> Iterable[Problem]:
    pods = [(source.manifest.spec.template.metadata.labels, _workload(source.manifest)) for source in deployments]
    ports = {source.manifest.spec.ports[0].port for source in services}
    for source in services:
        spec = source.manifest.spec
        if len(ports) > 1:  # a sidecar would need a listener for each
            yield source.problem(("spec", "ports", 0, "port"), "all Services must have the same port")
        selected = [workload for labels, workload in pods if spec.selector.items() <= labels.items()]
        if not selected:
            yield source.problem(("spec", "selector"), "selects no Deployment's pods")
        target = spec.ports[0].target_port or spec.ports[0].port
        if any(workload.port != target for workload in selected):
            yield source.problem(("spec", "ports", 0), f"port {target} is not the one that the pods serve")


def _require(folder: Path, workloads: Iterable[Workload], reviews: str) -> None:
    names = [workload.name for workload in workloads]
    wanted = {called for _, called in _CALLS}
    missing = sorted(wanted - set(names))
    if missing:
        where = f" in version {reviews}" if "reviews" in missing else ""
        raise InputError([Problem(str(folder), 0, "", f"no Deployment of {', '.join(missing)}{where}")])
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError([Problem(str(folder), 0, "", f"more than one Deployment of {', '.join(doubled)}")])
