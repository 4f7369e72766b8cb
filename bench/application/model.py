"""Model the application under test from its manifests: workloads, service accounts and calls.

Only names, labels, service accounts and ports are read, which processes on this machine can have, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from bench.application.manifests import (
    KINDS,
    DeploymentManifest,
    ServiceAccountManifest,
    ServiceManifest,
    Source,
    read_manifests,
    select_kind,
)
from bench.errors import InputError, Problem
from bench.files.yaml_source import format_suggestion

NAMESPACE: Final = "bookinfo"
MESH: Final = "default"  # Kuma's default mesh; Istio's has no name
CLIENT: Final = "locust"
GATEWAY: Final = "gateway"

# Caller and callee. Reviews v1 shows no stars and does not call ratings.
_CALLS: Final = (
    (CLIENT, "productpage"),
    ("productpage", "details"),
    ("productpage", "reviews"),
    ("reviews", "ratings"),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One process that serves at `port` (the one that clients use), or a client without a port.

    `name` is that of its service (`reviews`), with the version (`reviews-v2`) where several are deployed.
    """

    name: str
    version: str
    account: str
    labels: Mapping[str, str] = field(hash=False)
    port: int | None = None

    @property
    def app(self) -> str:
        """Name of its service, without the version."""
        return self.labels["app"]


@dataclass(frozen=True, slots=True)
class Service:
    """A name under which `workloads` are called, at `port`: any of them responds, unless a mesh has routes."""

    name: str
    port: int
    workloads: tuple[Workload, ...]

    @property
    def workload(self) -> Workload:
        """The workload, or the first of several versions, which share one account."""
        return self.workloads[0]


@dataclass(frozen=True, slots=True)
class PathRoute:
    """Routes requests to `service` by path: this path, or those that start with it (`prefix` by letters, `parts` by
    whole parts between slashes). `origin` is the route's name in Envoy's configuration, if it has one."""

    kind: Literal["exact", "prefix", "parts"]
    path: str
    service: Service
    origin: str = ""

    def takes(self, path: str) -> bool:
        """Check whether a request with this path takes the route."""
        if self.kind == "prefix":
            return path.startswith(self.path)
        below = self.kind == "parts" and path.startswith(f"{self.path.rstrip('/')}/")
        return path == self.path or below


@dataclass(frozen=True, slots=True)
class Gateway:
    """A proxy through which the load enters the mesh, called as `service`. The first matching route counts; without one
    it responds with 404.

    `proxy` is the configuration of an Envoy that is not part of the mesh, and that calls services through a sidecar;
    `options` are its additional arguments. None where the gateway is the mesh's own proxy.
    """

    service: Service
    routes: tuple[PathRoute, ...]
    proxy: Mapping[str, Any] | None = field(default=None, hash=False)
    options: tuple[str, ...] = ()

    @property
    def http(self) -> Literal["HTTP/1.1"] | None:
        """HTTP version of the mesh's own proxy to services: that of the services. None for the sidecars' version."""
        return "HTTP/1.1" if self.proxy is None else None

    @property
    def workload(self) -> Workload:
        return self.service.workload

    def route(self, path: str) -> PathRoute | None:
        """Return the route for a path; None where there is none."""
        return next((route for route in self.routes if route.takes(path)), None)


@dataclass(frozen=True, slots=True)
class Application:
    """Bookinfo in one namespace, with one or several versions of reviews, and the load generator as its client.

    `calls` are pairs of workload names, caller first; `mesh` is the mesh's name, where meshes have names.
    """

    namespace: str
    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    client: Workload
    calls: tuple[tuple[str, str], ...]
    gateway: Gateway | None = None
    mesh: str = MESH

    @property
    def everyone(self) -> tuple[Workload, ...]:
        """All workloads with an identity: the application's, and their caller inside the mesh, the gateway or else the
        client."""
        return (*self.workloads, self.gateway.workload if self.gateway else self.client)

    @property
    def protected(self) -> tuple[Workload, ...]:
        """All workloads that policies may select: the application's and the gateway."""
        return (*self.workloads, self.gateway.workload) if self.gateway else self.workloads

    @property
    def with_sidecar(self) -> tuple[Workload, ...]:
        """All workloads with a sidecar: everyone but a gateway that is the mesh's own proxy."""
        own_proxy = self.gateway is not None and self.gateway.proxy is None
        return self.workloads if own_proxy else self.everyone

    def service(self, name: str) -> Service:
        """Return the Service of that name, or the gateway's. Raises KeyError."""
        gateway = {GATEWAY: self.gateway.service} if self.gateway else {}
        return {**{service.name: service for service in self.services}, **gateway}[name]

    def entered_by(self, gateway: Gateway) -> "Application":
        """Return the application with a client outside of the mesh, which calls the gateway."""
        if self.gateway is not None:
            return replace(self, gateway=gateway)
        inside = [(GATEWAY if caller == CLIENT else caller, called) for caller, called in self.calls]
        return replace(self, gateway=gateway, calls=((CLIENT, GATEWAY), *inside))

    def workload(self, name: str) -> Workload:
        """Return the workload of that name, or the client. Raises KeyError."""
        return {workload.name: workload for workload in (*self.everyone, self.client)}[name]

    def callers(self, name: str) -> tuple[Workload, ...]:
        """Return the callers of the workload of that name."""
        return tuple(self.workload(caller) for caller, called in self.calls if called == name)


def read_application(folder: Path, reviews: str | Sequence[str], *, namespace: str = NAMESPACE) -> Application:
    """Read Bookinfo from its manifests in `folder`, with `reviews` (v1, v2, v3, or several of them), in the namespace
    that identities and policies name.

    With several versions each has its own Service in addition, whose selector names the version. Services whose
    workload is not part of this configuration are left out. Raises InputError with all problems.
    """
    versions = (reviews,) if isinstance(reviews, str) else tuple(reviews)
    sources = read_manifests([folder], KINDS, namespace=namespace)
    deployments = select_kind(sources, DeploymentManifest)
    accounts = select_kind(sources, ServiceAccountManifest)
    services = _select_services(select_kind(sources, ServiceManifest), versions)
    problems = [*_check_accounts(deployments, accounts), *_check_selectors(services, deployments)]
    if problems:
        raise InputError(problems)
    everyone = [_make_workload(source.manifest) for source in deployments]
    chosen = [one for one in everyone if one.app != "reviews" or one.version in versions]
    _require_deployments(folder, chosen, versions)
    workloads = tuple(_name_versions(chosen))
    return Application(
        namespace=namespace,
        workloads=workloads,
        services=tuple(_make_services(services, workloads)),
        client=Workload(CLIENT, "v1", CLIENT, {"app": CLIENT, "version": "v1"}),
        calls=tuple(_list_calls(workloads)),
    )


def _name_versions(workloads: Sequence[Workload]) -> Iterable[Workload]:
    """Yield the workloads, with the version in the name where an app has several."""
    apps = [one.app for one in workloads]
    for one in workloads:
        yield replace(one, name=f"{one.app}-{one.version}") if apps.count(one.app) > 1 else one


def _list_calls(workloads: Iterable[Workload]) -> Iterable[tuple[str, str]]:
    """Yield pairs of workload names, caller first."""
    named: dict[str, list[str]] = {CLIENT: [CLIENT]}
    for one in workloads:
        named.setdefault(one.app, []).append(one.name)
    silent = {one.name for one in workloads if (one.app, one.version) == ("reviews", "v1")}
    for caller, called in _CALLS:
        yield from product((name for name in named[caller] if name not in silent), named[called])


def _make_workload(deployment: DeploymentManifest) -> Workload:
    pod = deployment.spec.template
    labels = pod.metadata.labels
    port = pod.spec.containers[0].ports[0].container_port
    return Workload(labels["app"], labels["version"], pod.spec.service_account_name, labels, port)


def _select_services(
    services: Sequence[Source[ServiceManifest]], versions: Sequence[str]
) -> tuple[Source[ServiceManifest], ...]:
    """Leave out the Services of single versions where only one is deployed."""
    return tuple(one for one in services if len(versions) > 1 or "version" not in one.manifest.spec.selector)


def _make_services(sources: Iterable[Source[ServiceManifest]], workloads: Iterable[Workload]) -> Iterable[Service]:
    for source in sources:
        spec = source.manifest.spec
        selected = tuple(one for one in workloads if spec.selector.items() <= one.labels.items())
        if selected:
            yield Service(source.manifest.metadata.name, spec.ports[0].port, selected)


def _check_accounts(
    deployments: Iterable[Source[DeploymentManifest]], accounts: Iterable[Source[ServiceAccountManifest]]
) -> Iterable[Problem]:
    known = {source.manifest.metadata.name for source in accounts}
    for source in deployments:
        name = source.manifest.spec.template.spec.service_account_name
        if name not in known:
            loc = ("spec", "template", "spec", "serviceAccountName")
            yield source.problem(loc, f"no ServiceAccount {name!r}{format_suggestion(name, known)}")


def _check_selectors(
    services: Sequence[Source[ServiceManifest]], deployments: Iterable[Source[DeploymentManifest]]
) -> Iterable[Problem]:
    pods = [(source.manifest.spec.template.metadata.labels, _make_workload(source.manifest)) for source in deployments]
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
            yield source.problem(("spec", "ports", 0), f"port {target} is not the port of the pods")


def _require_deployments(folder: Path, workloads: Iterable[Workload], reviews: Sequence[str]) -> None:
    there = [(workload.app, workload.version) for workload in workloads]
    apps = [app for app, _ in there]
    missing = sorted({called for _, called in _CALLS} - {*apps, "reviews"})
    missing += [f"reviews in version {version}" for version in reviews if ("reviews", version) not in there]
    if missing:
        raise InputError([Problem(str(folder), 0, "", f"no Deployment of {', '.join(missing)}")])
    doubled = sorted(
        {app for app, version in there if there.count((app, version)) > 1 or _has_mixed_versions(app, apps)}
    )
    if doubled:
        raise InputError([Problem(str(folder), 0, "", f"more than one Deployment of {', '.join(doubled)}")])


def _has_mixed_versions(app: str, apps: Sequence[str]) -> bool:
    """Check whether an app other than reviews has several versions."""
    return app != "reviews" and apps.count(app) > 1


# Bookinfo's status for (method, path): the first of each is the one that clients request.
ENDPOINTS: Final[Mapping[str, Mapping[tuple[str, str], int]]] = {
    "productpage": {("GET", "/productpage"): 200, ("POST", "/login"): 302, ("GET", "/health"): 200},
    "details": {("GET", "/details/0"): 200, ("GET", "/health"): 200},
    "reviews": {("GET", "/reviews/0"): 200, ("GET", "/health"): 200},
    "ratings": {("GET", "/ratings/0"): 200, ("GET", "/health"): 200},
    "gateway": {("GET", "/productpage"): 200, ("POST", "/login"): 302},
}


# A path of each workload with status 200, for proofs.
PATHS: Final[Mapping[str, str]] = {
    "productpage": "/productpage",
    "details": "/details/0",
    "reviews": "/reviews/0",
    "ratings": "/ratings/0",
    "gateway": "/productpage",
}


@dataclass(frozen=True, slots=True)
class Hop:
    """One call between two workloads."""

    caller: str
    callee: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}"
