"""Model the application under test from its manifests: workloads, service accounts and calls.

Only names, labels, service accounts and ports are read, which processes on this machine can have, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Literal

from bench.application.definition import ApplicationDefinition
from bench.application.manifests import (
    KINDS,
    DeploymentManifest,
    Read,
    ServiceAccountManifest,
    ServiceManifest,
    Source,
    read_manifests,
    select_kind,
)
from bench.errors import InputError, Problem
from bench.files.yaml_source import format_suggestion, read_documents

MESH: Final = "default"  # the default name, in a mesh that has names
CLIENT: Final = "locust"
GATEWAY: Final = "gateway"

Versions = Mapping[str, str | Sequence[str]]
"""Version of each service that has several, or those of them that are deployed at once."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One process that serves at `port` (the one that clients use), or a client without a port.

    `name` is that of its service, with the version (`NAME-v2`) where several are deployed; `version` may be empty.
    `namespace` is that of its manifest; empty for the application's first one.
    """

    name: str
    version: str
    account: str
    labels: Mapping[str, str] = field(hash=False)
    port: int | None = None
    namespace: str = ""

    @property
    def app(self) -> str:
        """Name of its service, without the version."""
        return self.labels.get("app") or self.name


@dataclass(frozen=True, slots=True)
class Service:
    """A name under which `workloads` of its namespace are called, at `ports`: any of them responds, unless a mesh has
    routes."""

    name: str
    ports: tuple[int, ...]
    workloads: tuple[Workload, ...]

    @property
    def port(self) -> int:
        """The port at which it is called."""
        return self.ports[0]

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
class Request:
    """A request and the application's own status for it."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class Hop:
    """One call between two workloads."""

    caller: str
    callee: str

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}"


@dataclass(frozen=True, slots=True)
class Application:
    """An application in the versions that are deployed, and the load generator as its client.

    `namespace` is that of all that names none; `namespaces` are those of the run by those that workloads name, where
    they differ. `calls` are the known pairs of workload names, caller first; those of the load come first. `mesh` is
    the mesh's name, where meshes have names.
    """

    definition: ApplicationDefinition = field(hash=False)
    namespace: str
    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    client: Workload
    calls: tuple[tuple[str, str], ...]
    gateway: Gateway | None = None
    mesh: str = MESH
    namespaces: Mapping[str, str] = field(default_factory=dict, hash=False)

    def namespace_of(self, workload: Workload) -> str:
        """Return the namespace in which a workload, its account and its Services are."""
        return self.namespaces.get(workload.namespace, workload.namespace) or self.namespace

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def knows_calls(self) -> bool:
        """Whether it is known who calls whom; otherwise `calls` are those of the load only."""
        return self.definition.calls is not None

    @property
    def entry(self) -> str:
        """The service of the application that the load reaches first, behind the gateway if there is one."""
        return self.definition.entry_service

    @property
    def versioned(self) -> tuple[str, ...]:
        """The services of which several versions are deployed."""
        apps = [one.app for one in self.workloads]
        return tuple(app for app in self.definition.versions if apps.count(app) > 1)

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of each service of which one is deployed and others exist."""
        single = self.definition.versions.keys() - set(self.versioned)
        return {one.app: one.version for one in self.workloads if one.app in single}

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The known calls."""
        return tuple(Hop(caller, callee) for caller, callee in self.calls)

    @property
    def user_header(self) -> str:
        """The header by which services tell each other the user's name; empty without a login."""
        return self.definition.login.header if self.definition.login else ""

    def requests_of(self, app: str) -> tuple[Request, ...]:
        """Return the known requests of a service, or of the gateway; the first is the one that its callers send."""
        if app != GATEWAY or self.gateway is None:
            return self._list_requests(app)
        entry = self._list_requests(self.entry)
        return tuple(one for one in entry if self.gateway.route(one.path) is not None) or entry

    def _list_requests(self, app: str) -> tuple[Request, ...]:
        ready = self.definition.ready
        known = self.definition.endpoints.get(app, {f"GET {ready.path}": ready.status} if app == self.entry else {})
        split = ((request.partition(" "), status) for request, status in known.items())
        return tuple(Request(method, path, status) for (method, _, path), status in split)

    def usual_request(self, app: str) -> Request:
        """Return the request that callers send to a service: the first known one, else its root, as if it existed."""
        return next(iter(self.requests_of(app)), Request("GET", "/", 200))

    def path_of(self, app: str) -> str:
        """Return the path that callers request from a service."""
        return self.usual_request(app).path

    def status_of(self, name: str) -> int:
        """Return the application's own status for the usual request to the workload of that name. Raises KeyError."""
        return self.usual_request(self.workload(name).app).status

    def deploys(self, thing: Mapping[str, Any]) -> bool:
        """Check whether an object of its manifests belongs to the versions that are deployed."""
        if thing["kind"] == "Deployment":
            return any(one.labels == thing["spec"]["template"]["metadata"]["labels"] for one in self.workloads)
        names = {
            "ServiceAccount": {workload.account for workload in self.workloads},
            "Service": {service.name for service in self.services},
        }
        return thing["kind"] not in names or thing["metadata"]["name"] in names[thing["kind"]]

    def count_calls(self, answers: Iterable[tuple[Mapping[str, str], int]], *, logins: int) -> dict[Hop, int]:
        """Return how many requests a load causes on each known hop: from the number of answers to users with the same
        versions, and from that of logins, which only the entry serves."""
        counts = {hop: logins if hop.caller in (CLIENT, GATEWAY) else 0 for hop in self.hops}
        for versions, count in answers:
            for hop in self._follow_calls(self.client.name, versions):
                counts[hop] += count
        return counts

    def _follow_calls(self, caller: str, versions: Mapping[str, str]) -> Iterator[Hop]:
        """Yield the hops that one request of `caller` causes, for a user who gets these versions."""
        for hop in self.hops:
            callee = self.workload(hop.callee)
            if hop.caller == caller and versions.get(callee.app, callee.version) == callee.version:
                yield hop
                yield from self._follow_calls(hop.callee, versions)

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


def read_application(
    definition: ApplicationDefinition,
    versions: Versions | None = None,
    *,
    namespace: str = "",
    read: Read = read_documents,
) -> Application:
    """Read an application from its manifests, with `versions` in place of the default ones, in the namespace that
    identities and policies name: the first of its own by default.

    With several versions each has its own Service in addition, whose selector names the version. Services whose
    workload is not part of this configuration are left out. Raises InputError with all problems.
    """
    chosen = choose_versions(definition, versions or {})
    home = namespace or definition.home
    sources = read_manifests([definition.folder], KINDS, namespace=home, read=read).require_translated()
    deployments = select_kind(sources, DeploymentManifest)
    accounts = select_kind(sources, ServiceAccountManifest)
    services = _select_services(select_kind(sources, ServiceManifest), several=any(len(v) > 1 for v in chosen.values()))
    definition = _settle_entry(definition, services)
    problems = [
        *_check_accounts(deployments, accounts),
        *_check_selectors(services, deployments),
        *_check_entry(definition, services),
    ]
    if problems:
        raise InputError(problems)
    everyone = [_make_workload(source.manifest) for source in deployments]
    deployed = [one for one in everyone if one.version in chosen.get(one.app, (one.version,))]
    _require_deployments(definition, deployed, chosen)
    workloads = tuple(_name_versions(deployed))
    return Application(
        definition=definition,
        namespace=home,
        workloads=workloads,
        services=tuple(_make_services(services, workloads)),
        client=Workload(CLIENT, "v1", CLIENT, {"app": CLIENT, "version": "v1"}),
        calls=tuple(_list_calls(definition, workloads)),
    )


def choose_versions(definition: ApplicationDefinition, versions: Versions) -> dict[str, tuple[str, ...]]:
    """Return the versions to deploy of each service that has several: the chosen ones, or else the default."""
    given = {app: versions.get(app, one.default) for app, one in definition.versions.items()}
    return {app: (one,) if isinstance(one, str) else tuple(one) for app, one in given.items()}


def _name_versions(workloads: Sequence[Workload]) -> Iterable[Workload]:
    """Yield the workloads, with the version in the name where an app has several."""
    apps = [one.app for one in workloads]
    for one in workloads:
        yield replace(one, name=f"{one.app}-{one.version}") if apps.count(one.app) > 1 else one


def _list_calls(definition: ApplicationDefinition, workloads: Iterable[Workload]) -> Iterable[tuple[str, str]]:
    """Yield pairs of workload names, caller first: the load's calls, then those of each service in their order."""
    named: dict[str, list[str]] = {CLIENT: [CLIENT]}
    silent = set[str]()
    for one in workloads:
        named.setdefault(one.app, []).append(one.name)
        if one.app in definition.versions and one.version in definition.versions[one.app].without_calls:
            silent.add(one.name)
    for caller, callees in {CLIENT: (definition.entry_service,), **(definition.calls or {})}.items():
        for called in callees:
            yield from product((name for name in named[caller] if name not in silent), named[called])


def _make_workload(deployment: DeploymentManifest) -> Workload:
    pod = deployment.spec.template
    labels = pod.metadata.labels
    port = pod.spec.containers[0].ports[0].container_port
    namespace = deployment.metadata.namespace or ""
    return Workload(labels["app"], labels["version"], pod.spec.service_account_name, labels, port, namespace)


def _select_services(
    services: Sequence[Source[ServiceManifest]], *, several: bool
) -> tuple[Source[ServiceManifest], ...]:
    """Leave out the Services of single versions where only one of each service is deployed."""
    return tuple(one for one in services if several or "version" not in one.manifest.spec.selector)


def _make_services(sources: Iterable[Source[ServiceManifest]], workloads: Iterable[Workload]) -> Iterable[Service]:
    for source in sources:
        spec = source.manifest.spec
        selected = tuple(one for one in workloads if spec.selector.items() <= one.labels.items())
        if selected:
            yield Service(source.manifest.metadata.name, tuple(one.port for one in spec.ports), selected)


def _check_accounts(
    deployments: Iterable[Source[DeploymentManifest]], accounts: Iterable[Source[ServiceAccountManifest]]
) -> Iterable[Problem]:
    known = {source.manifest.metadata.name for source in accounts}
    for source in deployments:
        name = source.manifest.spec.template.spec.service_account_name
        if name not in known:
            loc = ("spec", "template", "spec", "serviceAccountName")
            yield source.problem(loc, f"no ServiceAccount {name!r}{format_suggestion(name, known)}")


def _list_entries(services: Iterable[Source[ServiceManifest]]) -> tuple[str, ...]:
    return tuple(f"{one.manifest.metadata.name}:{port.port}" for one in services for port in one.manifest.spec.ports)


def _settle_entry(
    definition: ApplicationDefinition, services: Iterable[Source[ServiceManifest]]
) -> ApplicationDefinition:
    """Return the definition with its entry, by default the only port of the only Service. Raises InputError."""
    known = _list_entries(services)
    if definition.entry is not None:
        return definition
    if len(known) == 1:
        return definition.model_copy(update={"entry": known[0]})
    message = f"is missing; name where the load enters: {', '.join(known)}" if known else "there is no Service to enter"
    raise InputError([Problem(str(definition.file), 0, "entry", message)])


def _check_entry(definition: ApplicationDefinition, services: Iterable[Source[ServiceManifest]]) -> Iterator[Problem]:
    known = _list_entries(services)
    if definition.entry is not None and definition.entry not in known:
        message = f"no Service {definition.entry}{format_suggestion(definition.entry, known)}"
        yield Problem(str(definition.file), 0, "entry", message)


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


def _require_deployments(
    definition: ApplicationDefinition, workloads: Sequence[Workload], versions: Mapping[str, Sequence[str]]
) -> None:
    there = [(workload.app, workload.version) for workload in workloads]
    apps = [app for app, _ in there]
    missing = sorted({*definition.services} - {*apps, *versions})
    missing += [f"{app} in version {one}" for app, some in versions.items() for one in some if (app, one) not in there]
    if missing:
        raise InputError([Problem(str(definition.folder), 0, "", f"no Deployment of {', '.join(missing)}")])
    doubled = sorted(
        {app for app, one in there if there.count((app, one)) > 1 or (apps.count(app) > 1 and app not in versions)}
    )
    if doubled:
        raise InputError([Problem(str(definition.folder), 0, "", f"more than one Deployment of {', '.join(doubled)}")])
