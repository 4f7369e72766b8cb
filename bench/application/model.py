"""Model the application under test, read from its manifests: its workloads, their accounts, and who calls whom.

Only what a process on this machine can be true to is taken: names, labels, service accounts and ports.
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
    of_kind,
    read_manifests,
)
from bench.errors import InputError, Problem
from bench.files.yaml_source import did_you_mean

NAMESPACE: Final = "bookinfo"
MESH: Final = "default"  # the one that Kuma has by itself; Istio's has no name
CLIENT: Final = "locust"
GATEWAY: Final = "gateway"

# Who calls whom. Reviews v1 shows no stars and does not ask for ratings.
_CALLS: Final = (
    (CLIENT, "productpage"),
    ("productpage", "details"),
    ("productpage", "reviews"),
    ("reviews", "ratings"),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One process that serves at `port` (the one that its clients know), or a client without a port.

    `name` is that of its part of the application (`reviews`), with the version (`reviews-v2`) where several are there.
    """

    name: str
    version: str
    account: str
    labels: Mapping[str, str] = field(hash=False)
    port: int | None = None

    @property
    def app(self) -> str:
        """Its part of the application, whatever the version."""
        return self.labels["app"]


@dataclass(frozen=True, slots=True)
class Service:
    """A name under which `workloads` are called, at `port`: any of them answers, unless a mesh routes."""

    name: str
    port: int
    workloads: tuple[Workload, ...]

    @property
    def workload(self) -> Workload:
        """The workload; of several versions the first, whose account is that of all."""
        return self.workloads[0]


@dataclass(frozen=True, slots=True)
class PathRoute:
    """Requests with this path, or whose path begins with it (letter by letter, or as whole parts between slashes), go
    to `service`. `origin` says where it is written, as far as that is in Envoy's configuration."""

    kind: Literal["exact", "prefix", "parts"]
    path: str
    service: Service
    origin: str = ""

    def takes(self, path: str) -> bool:
        """Whether a request with this path is meant."""
        if self.kind == "prefix":
            return path.startswith(self.path)
        below = self.kind == "parts" and path.startswith(f"{self.path.rstrip('/')}/")
        return path == self.path or below


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the load enters the mesh: a proxy of its own, called as `service`. The first route that takes a path
    counts; for a path that none takes it answers 404 itself.

    `proxy` is the configuration of an Envoy that is no part of the mesh, and calls services through a sidecar as any
    workload does, and `options` is what it is started with besides; None where the proxy itself is the mesh's.
    """

    service: Service
    routes: tuple[PathRoute, ...]
    proxy: Mapping[str, Any] | None = field(default=None, hash=False)
    options: tuple[str, ...] = ()

    @property
    def http(self) -> Literal["HTTP/1.1"] | None:
        """What the mesh's own proxy speaks to services: what they speak themselves. None for the sidecars' version."""
        return "HTTP/1.1" if self.proxy is None else None

    @property
    def workload(self) -> Workload:
        return self.service.workload

    def route(self, path: str) -> PathRoute | None:
        """The route that takes a path."""
        return next((route for route in self.routes if route.takes(path)), None)


@dataclass(frozen=True, slots=True)
class Application:
    """Bookinfo in one namespace, with one or several versions of reviews, and the load generator as its client.

    `calls` are pairs of workload names, caller first; `mesh` is the name of the mesh, where meshes have names.
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
        """The workloads and who calls them from inside the mesh, the gateway or else the client: all that have an
        identity."""
        return (*self.workloads, self.gateway.workload if self.gateway else self.client)

    @property
    def protected(self) -> tuple[Workload, ...]:
        """Those that policies can concern: the workloads, and the gateway before them."""
        return (*self.workloads, self.gateway.workload) if self.gateway else self.workloads

    @property
    def with_sidecar(self) -> tuple[Workload, ...]:
        """Those whose calls a sidecar takes: everyone but a gateway that is the mesh's own proxy."""
        own_proxy = self.gateway is not None and self.gateway.proxy is None
        return self.workloads if own_proxy else self.everyone

    def service(self, name: str) -> Service:
        """The Service of that name, or the gateway's. Raises KeyError."""
        gateway = {GATEWAY: self.gateway.service} if self.gateway else {}
        return {**{service.name: service for service in self.services}, **gateway}[name]

    def entered_by(self, gateway: Gateway) -> "Application":
        """The same where the client is outside of the mesh and calls the gateway."""
        if self.gateway is not None:
            return replace(self, gateway=gateway)
        inside = [(GATEWAY if caller == CLIENT else caller, called) for caller, called in self.calls]
        return replace(self, gateway=gateway, calls=((CLIENT, GATEWAY), *inside))

    def workload(self, name: str) -> Workload:
        """The workload of that name, or the client. Raises KeyError."""
        return {workload.name: workload for workload in (*self.everyone, self.client)}[name]

    def callers(self, name: str) -> tuple[Workload, ...]:
        """Who calls the workload of that name when the application does its work."""
        return tuple(self.workload(caller) for caller, called in self.calls if called == name)


def read_application(folder: Path, reviews: str | Sequence[str], *, namespace: str = NAMESPACE) -> Application:
    """Bookinfo from its manifests in `folder`, with `reviews` (v1, v2, v3, or several of them), in the namespace that
    identities and policies name.

    With several versions each has a Service of its own besides, whose selector names the version. Services whose
    workload is not part of this configuration are left out. Raises InputError with all problems.
    """
    versions = (reviews,) if isinstance(reviews, str) else tuple(reviews)
    sources = read_manifests([folder], KINDS, namespace=namespace)
    deployments = of_kind(sources, DeploymentManifest)
    accounts = of_kind(sources, ServiceAccountManifest)
    services = _wanted(of_kind(sources, ServiceManifest), versions)
    problems = [*_account_problems(deployments, accounts), *_selector_problems(services, deployments)]
    if problems:
        raise InputError(problems)
    everyone = [_workload(source.manifest) for source in deployments]
    chosen = [one for one in everyone if one.app != "reviews" or one.version in versions]
    _require(folder, chosen, versions)
    workloads = tuple(_named(chosen))
    return Application(
        namespace=namespace,
        workloads=workloads,
        services=tuple(_services(services, workloads)),
        client=Workload(CLIENT, "v1", CLIENT, {"app": CLIENT, "version": "v1"}),
        calls=tuple(_calls(workloads)),
    )


def _named(workloads: Sequence[Workload]) -> Iterable[Workload]:
    """With the version in the name where several are there."""
    apps = [one.app for one in workloads]
    for one in workloads:
        yield replace(one, name=f"{one.app}-{one.version}") if apps.count(one.app) > 1 else one


def _calls(workloads: Iterable[Workload]) -> Iterable[tuple[str, str]]:
    """Who calls whom, by the workloads' names."""
    named: dict[str, list[str]] = {CLIENT: [CLIENT]}
    for one in workloads:
        named.setdefault(one.app, []).append(one.name)
    silent = {one.name for one in workloads if (one.app, one.version) == ("reviews", "v1")}
    for caller, called in _CALLS:
        yield from product((name for name in named[caller] if name not in silent), named[called])


def _workload(deployment: DeploymentManifest) -> Workload:
    pod = deployment.spec.template
    labels = pod.metadata.labels
    port = pod.spec.containers[0].ports[0].container_port
    return Workload(labels["app"], labels["version"], pod.spec.service_account_name, labels, port)


def _wanted(
    services: Sequence[Source[ServiceManifest]], versions: Sequence[str]
) -> tuple[Source[ServiceManifest], ...]:
    """Leave out the Services of single versions where only one is there."""
    return tuple(one for one in services if len(versions) > 1 or "version" not in one.manifest.spec.selector)


def _services(sources: Iterable[Source[ServiceManifest]], workloads: Iterable[Workload]) -> Iterable[Service]:
    for source in sources:
        spec = source.manifest.spec
        selected = tuple(one for one in workloads if spec.selector.items() <= one.labels.items())
        if selected:
            yield Service(source.manifest.metadata.name, spec.ports[0].port, selected)


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


def _require(folder: Path, workloads: Iterable[Workload], reviews: Sequence[str]) -> None:
    there = [(workload.app, workload.version) for workload in workloads]
    apps = [app for app, _ in there]
    missing = sorted({called for _, called in _CALLS} - {*apps, "reviews"})
    missing += [f"reviews in version {version}" for version in reviews if ("reviews", version) not in there]
    if missing:
        raise InputError([Problem(str(folder), 0, "", f"no Deployment of {', '.join(missing)}")])
    doubled = sorted({app for app, version in there if there.count((app, version)) > 1 or _mixed(app, apps)})
    if doubled:
        raise InputError([Problem(str(folder), 0, "", f"more than one Deployment of {', '.join(doubled)}")])


def _mixed(app: str, apps: Sequence[str]) -> bool:
    """Whether several versions are there of what has only one."""
    return app != "reviews" and apps.count(app) > 1


# What Bookinfo answers to (method, path): the first of each is what its clients ask.
ENDPOINTS: Final[Mapping[str, Mapping[tuple[str, str], int]]] = {
    "productpage": {("GET", "/productpage"): 200, ("POST", "/login"): 302, ("GET", "/health"): 200},
    "details": {("GET", "/details/0"): 200, ("GET", "/health"): 200},
    "reviews": {("GET", "/reviews/0"): 200, ("GET", "/health"): 200},
    "ratings": {("GET", "/ratings/0"): 200, ("GET", "/health"): 200},
    "gateway": {("GET", "/productpage"): 200, ("POST", "/login"): 302},
}


# What each workload answers with 200, for proofs.
PATHS: Final[Mapping[str, str]] = {
    "productpage": "/productpage",
    "details": "/details/0",
    "reviews": "/reviews/0",
    "ratings": "/ratings/0",
    "gateway": "/productpage",
}


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a page's way through the application."""

    caller: str
    callee: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}"
