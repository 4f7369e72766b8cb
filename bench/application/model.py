"""Model the application under test from its manifests: workloads, service accounts, Services and calls."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Literal

from bench.application.definition import ApplicationDefinition
from bench.application.manifests import (
    KINDS,
    DeploymentManifest,
    Read,
    ServiceManifest,
    Source,
    read_manifests,
    select_kind,
)
from bench.application.objects import (
    ApplicationObjects,
    PodSource,
    ServicePort,
    ServiceSource,
    read_own_objects,
)
from bench.errors import InputError, Problem
from bench.files.objects import Omission, read_objects
from bench.files.yaml_source import format_suggestion

MESH: Final = "default"  # the default name, in a mesh that has names
CLIENT: Final = "locust"
GATEWAY: Final = "gateway"

Versions = Mapping[str, str | Sequence[str]]
"""Version of each service that has several, or those of them that are deployed at once."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods that serve at `port` (the one that clients use), or a client without a port.

    `name` is that of its label `app`, with the version (`NAME-v2`) where several are deployed, else that of its
    manifest; `version` may be empty. `namespace` is that of its manifest; empty for the application's first one.
    `kind` and `manifest` are those of the object that it is made from.
    """

    name: str
    version: str
    account: str
    labels: Mapping[str, str] = field(hash=False)
    port: int | None = None
    namespace: str = ""
    kind: str = "Deployment"
    manifest: str = ""

    @property
    def identity(self) -> str:
        """Its service account, with the namespace if that is not the application's first one."""
        return f"{self.namespace}/{self.account}" if self.namespace else self.account

    @property
    def app(self) -> str:
        """Name of its service, without the version."""
        return self.labels.get("app") or self.name


@dataclass(frozen=True, slots=True)
class Service:
    """A name under which `workloads` of its namespace are called, at `ports`: any of them responds, unless a mesh has
    routes. The first port is the one that the load or its other callers use."""

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
    the mesh's name, where meshes have names. `left_out` are objects of its manifests that no run applies, and
    `local_obstacles` what of them processes cannot have.
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
    left_out: tuple[Omission, ...] = ()
    local_obstacles: tuple[Problem, ...] = ()

    def namespace_of(self, workload: Workload) -> str:
        """Return the namespace in which a workload, its account and its Services are."""
        return self.namespaces.get(workload.namespace, workload.namespace) or self.namespace

    @property
    def spaces(self) -> tuple[str, ...]:
        """All namespaces of the application, the first one first."""
        others = (self.namespaces.get(one, one) for one in (self.definition.namespaces or ())[1:])
        return tuple(dict.fromkeys((self.namespace, *others)))

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
        ready, names = self.definition.ready, {app, *self._names_of(app)}
        at_entry = {f"GET {ready.path}": ready.status} if self.entry in names else {}
        found = (self.definition.endpoints[name] for name in sorted(names) if name in self.definition.endpoints)
        known = at_entry | next(found, {}) | at_entry  # the load's request first, whatever else the entry answers
        split = ((request.partition(" "), status) for request, status in known.items())
        return tuple(Request(method, path, status) for (method, _, path), status in split)

    def _names_of(self, app: str) -> Iterator[str]:
        """Yield the names of the Services by which the workloads of an app are called."""
        yield from (one.name for one in self.services if any(workload.app == app for workload in one.workloads))

    def knows_requests(self, name: str) -> bool:
        """Return whether a request and the application's own status for it are known for the workload of that name."""
        return bool(self.requests_of(self.workload(name).app))

    def usual_request(self, app: str) -> Request:
        """Return the request that callers send to a service: the first known one, else its root, as if it existed."""
        return next(iter(self.requests_of(app)), Request("GET", "/", 200))

    def path_of(self, app: str) -> str:
        """Return the path that callers request from a service."""
        return self.usual_request(app).path

    def status_of(self, name: str) -> int | None:
        """Return the application's own status for the usual request to the workload of that name, None where no request
        is known. Raises KeyError."""
        return self.usual_request(self.workload(name).app).status if self.knows_requests(name) else None

    def deploys(self, thing: Mapping[str, Any]) -> bool:
        """Check whether an object of its manifests belongs to the versions that are deployed."""
        if not self.definition.versions:
            return True
        if thing["kind"] == "Deployment":
            return self.find_workload(thing) is not None
        names = {
            "ServiceAccount": {workload.account for workload in self.workloads},
            "Service": {service.name for service in self.services},
        }
        return thing["kind"] not in names or thing["metadata"]["name"] in names[thing["kind"]]

    def find_workload(self, thing: Mapping[str, Any]) -> Workload | None:
        """Return the workload that an object becomes; None for other objects, Jobs, and versions that are not
        deployed."""
        metadata = thing["metadata"]
        key = thing["kind"], metadata["name"], metadata.get("namespace") or self.namespace
        known = {(one.kind, one.manifest, self.namespace_of(one)): one for one in self.workloads}
        return known.get(key)

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
    def stand_ins(self) -> Mapping[str, str]:
        """The workloads with an identity, by that, for which another pod can stand in: a DaemonSet's controller would
        take a pod with its labels for one of its own, and delete it."""
        return {one.identity: one.name for one in self.everyone if one.kind != "DaemonSet"}

    @property
    def askable_hops(self) -> tuple[Hop, ...]:
        """The known calls of workloads for which another pod can stand in, and of the load."""
        return tuple(one for one in self.hops if self.workload(one.caller).kind != "DaemonSet")

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

    @property
    def front(self) -> Service:
        """The Service that the load calls: the gateway's, or else the entry."""
        return self.gateway.service if self.gateway else self.service(self.entry)

    def find_service(self, workload: Workload, *, own: bool = False) -> Service | None:
        """Return the Service by which the workload is called: that of its app, else the entry, else any that selects
        it; with `own` rather the one of its name, which selects no other version. None where there is none."""
        if self.gateway is not None and workload.name == GATEWAY:
            return self.gateway.service
        selecting = [one for one in self.services if workload in one.workloads]
        wanted = (*((workload.name,) if own else ()), workload.app, self.entry, *(one.name for one in selecting))
        return next((one for name in wanted for one in selecting if one.name == name), None)

    def called_as(self, workload: Workload, *, own: bool = False) -> Service:
        """Return the Service of `find_service` for a workload that has one. Raises KeyError."""
        service = self.find_service(workload, own=own)
        if service is None:
            raise KeyError(f"no Service selects {workload.name}")
        return service

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
    read: Read = read_objects,
) -> Application:
    """Read an application from its manifests, with `versions` in place of the default ones, in the namespace that
    identities and policies name: the first of its own by default.

    With several versions each has its own Service in addition, whose selector names the version. Services whose
    workload is not part of this configuration are left out. Raises InputError with all problems.
    """
    chosen = choose_versions(definition, versions or {})
    objects = read_own_objects(definition, read=read)
    several = not definition.versions or any(len(some) > 1 for some in chosen.values())
    services = [one for one in objects.services if several or "version" not in (one.spec.selector or {})]
    definition = _settle(definition, objects, services)
    services.sort(key=lambda one: one.name != definition.entry_service)
    everyone = [_make_workload(one, services, definition) for one in objects.serving]
    deployed = [one for one in everyone if one.version in chosen.get(one.app, (one.version,))]
    _require_deployed(definition, deployed, services, chosen)
    workloads = _name_workloads(deployed)
    application = Application(
        definition=definition,
        namespace=namespace or definition.home,
        workloads=workloads,
        services=tuple(_make_services(services, workloads, definition)),
        client=Workload(CLIENT, "v1", CLIENT, {"app": CLIENT, "version": "v1"}),
        calls=(),
        left_out=objects.left_out,
        local_obstacles=tuple(_find_local_obstacles(definition, read)) if definition.local else (),
    )
    return replace(application, calls=tuple(_list_calls(application)))


def choose_versions(definition: ApplicationDefinition, versions: Versions) -> dict[str, tuple[str, ...]]:
    """Return the versions to deploy of each service that has several: the chosen ones, or else the default."""
    given = {app: versions.get(app, one.default) for app, one in definition.versions.items()}
    return {app: (one,) if isinstance(one, str) else tuple(one) for app, one in given.items()}


def _settle(
    definition: ApplicationDefinition, objects: ApplicationObjects, services: Iterable[ServiceSource]
) -> ApplicationDefinition:
    """Return the definition with its namespaces and its entry, which is by default the only port of the only Service.
    Raises InputError for an entry that is no Service, or where it is not clear which one is meant."""
    services = tuple(services)
    selecting = [one for one in services if any(map(one.selects, objects.serving))]
    known = [f"{one.name}:{port.port}" for one in selecting for port in one.ports]
    entry = definition.entry or (known[0] if len(known) == 1 else None)
    if entry in known:
        return definition.model_copy(update={"entry": entry, "namespaces": objects.namespaces})
    named = next((one for one in services if one.name == definition.entry_service), None)
    if named is not None and named not in selecting:
        labels = ", ".join(f"{key}={value}" for key, value in (named.spec.selector or {}).items())
        message = f"the Service {named.name} selects no pods: no workload has the labels {labels or '(it names none)'}"
    elif entry is not None:
        message = f"no Service {entry}{format_suggestion(entry, known)}"
    elif known:
        message = f"is missing; name where the load enters: {', '.join(known)}"
    else:
        message = "is missing, and no Service with a port selects pods of a workload"
    raise InputError([Problem(str(definition.file), 0, "entry", message)])


def _order_ports(service: ServiceSource, definition: ApplicationDefinition) -> tuple[ServicePort, ...]:
    """Return the ports of a Service, first that of the entry, then those that speak HTTP, each in their order."""
    entry = definition.entry
    return tuple(sorted(service.ports, key=lambda one: (f"{service.name}:{one.port}" != entry, not one.is_http)))


def _make_workload(pods: PodSource, services: Iterable[ServiceSource], definition: ApplicationDefinition) -> Workload:
    """Return the workload of an object; it serves at the port to which the first Service that selects it sends
    requests, or else at its first one."""
    labels, spec = pods.labels, pods.template.spec
    numbers = {port.name: port.container_port for port in spec.ports if port.name}
    port = spec.ports[0].container_port if spec.ports else None
    called = (ports[0] for one in services if one.selects(pods) and (ports := _order_ports(one, definition)))
    if first := next(called, None):
        target = first.target_port or first.port
        port = target if isinstance(target, int) else numbers.get(target, port)
    version = labels.get("version", "")
    return Workload(pods.app, version, spec.account, labels, port, pods.namespace, pods.kind, pods.name)


def _name_workloads(workloads: Sequence[Workload]) -> tuple[Workload, ...]:
    """Return the workloads, each with the first of its names that no other workload could have: its app, its app and
    version, the name of its manifest, also with kind and namespace."""
    taken = Counter(name for one in workloads for name in dict.fromkeys(_list_names(one)))
    return tuple(
        replace(one, name=next((name for name in _list_names(one) if taken[name] == 1), [*_list_names(one)][-1]))
        for one in workloads
    )


def _list_names(one: Workload) -> Iterator[str]:
    yield one.name
    yield f"{one.app}-{one.version}" if one.version else one.manifest
    yield one.manifest
    yield f"{one.manifest}-{one.kind.lower()}"
    yield "-".join(filter(None, (one.manifest, one.kind.lower(), one.namespace)))


def _make_services(
    sources: Iterable[ServiceSource], workloads: Iterable[Workload], definition: ApplicationDefinition
) -> Iterator[Service]:
    """Yield the Services with a port that select workloads. Raises InputError for two of one name."""
    known = dict[str, ServiceSource]()
    for source in sources:
        selector = source.spec.selector or {}
        selected = tuple(
            one for one in workloads if one.namespace == source.namespace and selector.items() <= one.labels.items()
        )
        if not (selector and selected and source.ports):
            continue
        if known.setdefault(source.name, source) is not source:
            message = f"Services of two namespaces are called {source.name}, which a run cannot tell apart; rename one"
            raise InputError([source.document.problem(("metadata", "name"), message)])
        yield Service(source.name, tuple(one.port for one in _order_ports(source, definition)), selected)


def _list_calls(application: Application) -> Iterator[tuple[str, str]]:
    """Yield pairs of workload names, caller first: the load's calls, then those of each service in their order."""
    definition = application.definition
    silent = {
        one.name
        for one in application.workloads
        if one.app in definition.versions and one.version in definition.versions[one.app].without_calls
    }
    for caller, callees in {CLIENT: (definition.entry_service,), **(definition.calls or {})}.items():
        callers = (CLIENT,) if caller == CLIENT else _find_called(application, caller)
        for called in callees:
            yield from product((name for name in callers if name not in silent), _find_called(application, called))


def _find_called(application: Application, name: str) -> tuple[str, ...]:
    """Return the names of the workloads that are called by this name, of a Service or of an app."""
    behind = next((one.workloads for one in application.services if one.name == name), ())
    return tuple(one.name for one in application.workloads if one.app == name or one in behind)


def _require_deployed(
    definition: ApplicationDefinition,
    workloads: Sequence[Workload],
    services: Iterable[ServiceSource],
    versions: Mapping[str, Sequence[str]],
) -> None:
    """Raise InputError for services that the definition names and no manifest has, and versions without a workload."""
    there = [(workload.app, workload.version) for workload in workloads]
    known = {*(app for app, _ in there), *(one.name for one in services), *versions}
    missing = [one for one in definition.services if one not in known]
    missing += [f"{app} in version {one}" for app, some in versions.items() for one in some if (app, one) not in there]
    if missing:
        near = format_suggestion(missing[0], known) if len(missing) == 1 and not versions else ""
        raise InputError([Problem(str(definition.folder), 0, "", f"no workload of {', '.join(missing)}{near}")])


def _find_local_obstacles(definition: ApplicationDefinition, read: Read) -> Iterator[Problem]:
    """Yield what of an application with a program processes of this machine cannot have. Raises InputError for what no
    target takes, such as a near miss of a known field."""
    manifests = read_manifests([definition.folder], KINDS, namespace=definition.home, read=read)
    yield from (problem for one in manifests.untranslated for problem in one.problems)
    services = select_kind(manifests.sources, ServiceManifest)
    deployments = select_kind(manifests.sources, DeploymentManifest)
    yield from _check_selectors(services, deployments)
    apps = [one.manifest.spec.template.metadata.labels for one in deployments]
    for source, labels in zip(deployments, apps, strict=True):
        if apps.count(labels) > 1:
            yield source.problem(("metadata", "name"), "another Deployment has the same labels")


def _check_selectors(
    services: Sequence[Source[ServiceManifest]], deployments: Iterable[Source[DeploymentManifest]]
) -> Iterable[Problem]:
    ports = {source.manifest.spec.ports[0].port for source in services}
    pods = [source.manifest.spec.template for source in deployments]
    for source in services:
        spec = source.manifest.spec
        if len(ports) > 1:  # a sidecar would need a listener for each
            yield source.problem(("spec", "ports", 0, "port"), "all Services must have the same port")
        selected = [one.spec for one in pods if spec.selector.items() <= one.metadata.labels.items()]
        if not selected:
            yield source.problem(("spec", "selector"), "selects no Deployment's pods")
        target = spec.ports[0].target_port or spec.ports[0].port
        if any(one.containers[0].ports[0].container_port != target for one in selected):
            yield source.problem(("spec", "ports", 0), f"port {target} is not the port of the pods")
