"""Resolve Istio's routes of an application, and find routes that cannot work. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.application.manifests import Source, select_kind
from bench.application.model import Application, Service, Workload
from bench.envoy.wire import Mode
from bench.errors import Problem
from bench.files.yaml_source import Loc, format_suggestion
from bench.meshes.istio.naming import cluster_to, find_service, find_services, is_wildcard
from bench.meshes.istio.policies import Policies, Routing
from bench.meshes.istio.route_manifests import (
    DestinationRule,
    HttpMatch,
    HttpRoute,
    RouteDestination,
    StringMatch,
    Subset,
    TrafficPolicy,
    VirtualService,
)
from bench.meshes.problems import Obstacle
from bench.meshes.routing import Condition, Destination, Route, is_provable

_NO_TRAFFIC_POLICY: Final = TrafficPolicy()


def routes(
    policies: Policies,
    application: Application,
    *,
    caller: Workload,  # noqa: ARG001  # a VirtualService applies to all callers
    service: Service,
) -> tuple[Route, ...]:
    """Return the routes of every sidecar to a service: those of its VirtualService, or one to any of its workloads."""
    return tuple(route for route, _ in list_routes(policies, application, service))


def list_routes(
    policies: Policies, application: Application, service: Service
) -> Iterator[tuple[Route, HttpRoute | None]]:
    """Yield the routes to a service, each with what its VirtualService has of it, if there is one."""
    virtual = virtual_service_of(policies, application, service)
    if virtual is None:
        yield Route((Destination(cluster_to(application, service), service, service.workloads),)), None
    else:
        yield from _resolve_routes(virtual, policies, application)


def virtual_service_of(policies: Policies, application: Application, service: Service) -> VirtualService | None:
    """Return the VirtualService that sidecars use for a service."""
    routing = (one for one in policies.virtual_services if one.in_sidecars)
    return next((one for one in routing if service in _find_services(one, policies, application)), None)


def destination_rule_of(policies: Policies, application: Application, service: Service) -> DestinationRule | None:
    """Return the DestinationRule of a service, whose host is the closest to its name; istiod merges no others."""
    rules = policies.destination_rules
    near = (one for one in rules if service in services_of(one.spec.host, one, policies, application))
    return max(near, key=lambda one: (not is_wildcard(one.spec.host), len(one.spec.host)), default=None)


def traffic_policy_of(
    policies: Policies, application: Application, service: Service, subset: Subset | None = None
) -> TrafficPolicy:
    """Return how requests to a service, or a subset of it, are sent."""
    rule = destination_rule_of(policies, application, service)
    policy = rule.spec.traffic_policy if rule is not None else _NO_TRAFFIC_POLICY
    return policy.override(subset.traffic_policy) if subset is not None else policy


def subsets_of(policies: Policies, application: Application, service: Service) -> Mapping[str, Subset]:
    """Return the subsets of a service, by name."""
    rule = destination_rule_of(policies, application, service)
    return {subset.name: subset for subset in rule.spec.subsets} if rule is not None else {}


def workloads_of(service: Service, subset: Subset) -> tuple[Workload, ...]:
    """Return the workloads of a service in a subset."""
    return tuple(one for one in service.workloads if subset.labels.items() <= one.labels.items())


def service_of(host: str, manifest: Routing, policies: Policies, application: Application) -> Service | None:
    """Return the Service of a host that a manifest names."""
    return find_service(host, application, namespace=policies.namespace, within=policies.namespace_of(manifest))


def services_of(host: str, manifest: Routing, policies: Policies, application: Application) -> tuple[Service, ...]:
    """Return the Services of a host that a manifest names, in a DestinationRule several of a wildcard."""
    if isinstance(manifest, DestinationRule):
        within = policies.namespace_of(manifest)
        return find_services(host, application, namespace=policies.namespace, within=within)
    found = service_of(host, manifest, policies, application)
    return (found,) if found else ()


def config_path(namespace: str, manifest: VirtualService | DestinationRule) -> str:
    """Return the name of a manifest in Envoy's configuration."""
    kind = "virtual-service" if isinstance(manifest, VirtualService) else "destination-rule"
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{manifest.metadata.name}"


def route_obstacles(sources: Sequence[Source[Any]], policies: Policies, application: Application) -> Iterator[Obstacle]:
    """Yield routes to unknown services and conflicting routes."""
    virtual, rules = select_kind(sources, VirtualService), select_kind(sources, DestinationRule)
    every: tuple[Source[Any], ...] = (*virtual, *rules)
    for one in every:
        yield from ((one, problem) for problem in _host_problems(one, policies, application))
    yield from _conflict_obstacles(every, policies, application)
    for rule in rules:
        yield from ((rule, problem) for problem in _tls_problems(rule, policies, application))
    for source in virtual:
        yield from ((source, problem) for problem in _destination_problems(source, policies, application))


def _find_services(virtual: VirtualService, policies: Policies, application: Application) -> list[Service]:
    """Return the Services of its hosts."""
    found = (service_of(host, virtual, policies, application) for host in virtual.spec.hosts)
    return [service for service in found if service is not None]


def _resolve_routes(
    virtual: VirtualService, policies: Policies, application: Application
) -> Iterator[tuple[Route, HttpRoute]]:
    origin = config_path(policies.namespace_of(virtual), virtual)
    for route in virtual.spec.http:
        targets = tuple(_target(one, virtual, policies, application) for one in route.used)
        aborts = route.fault is not None and route.fault.abort is not None
        for match in route.match or (None,):
            yield Route(targets, *_conditions(match), origin, answers=aborts), route


def _target(
    route: RouteDestination, virtual: VirtualService, policies: Policies, application: Application
) -> Destination:
    service, name = service_of(route.destination.host, virtual, policies, application), route.destination.subset
    assert service is not None  # noqa: S101  # hosts are checked first
    if name is None:
        return Destination(cluster_to(application, service), service, service.workloads, route.weight)
    subset = subsets_of(policies, application, service).get(name)
    workloads = workloads_of(service, subset) if subset is not None else ()
    return Destination(cluster_to(application, service, name), service, workloads, route.weight)


def _conditions(match: HttpMatch | None) -> tuple[Condition | None, tuple[tuple[str, Condition], ...]]:
    if match is None:
        return None, ()
    headers = tuple((name, _condition(value)) for name, value in sorted(match.headers.items()))
    return (None if match.uri is None else _condition(match.uri)), headers


def _condition(match: StringMatch) -> Condition:
    if match.exact is not None:
        return Condition("exact", match.exact)
    return Condition("prefix", match.prefix or "")


def _list_hosts(source: Source[VirtualService] | Source[DestinationRule]) -> Iterator[tuple[Loc, str]]:
    """Yield the hosts of a manifest with their positions."""
    manifest = source.manifest
    if isinstance(manifest, DestinationRule):
        yield ("spec", "host"), manifest.spec.host
    else:
        yield from ((("spec", "hosts", index), host) for index, host in enumerate(manifest.spec.hosts))


def _host_problems(source: Source[Any], policies: Policies, application: Application) -> Iterator[Problem]:
    known = [service.name for service in application.services]
    hosts = list(_list_hosts(source))
    if isinstance(source.manifest, VirtualService):
        hosts += [((*loc, "host"), to.host) for loc, to in source.manifest.destinations()]
    for loc, host in hosts:
        if not services_of(host, source.manifest, policies, application):
            yield source.problem(loc, f"there is no service {host!r}{format_suggestion(host, known)}")


def _conflict_obstacles(
    sources: Sequence[Source[Any]], policies: Policies, application: Application
) -> Iterator[Obstacle]:
    """Yield manifests with the same kind and service as another; only a cluster decides which one is used."""
    seen: dict[tuple[str, Service | str], Source[Any]] = {}
    for source in sources:
        for loc, host in _list_hosts(source):
            service = service_of(host, source.manifest, policies, application)
            first = seen.setdefault((source.manifest.kind, service or host), source)
            if first is not source:
                where = f"{first.document.file}:{first.document.line_of(())}"
                yield source, source.problem(loc, f"the {source.manifest.kind} in {where} is for the same host")


def _destination_problems(
    source: Source[VirtualService], policies: Policies, application: Application
) -> Iterator[Problem]:
    for loc, to in source.manifest.destinations():
        service = service_of(to.host, source.manifest, policies, application)
        if service is None:
            continue
        if to.port is not None and to.port.number != service.port:
            yield source.problem((*loc, "port", "number"), f"{service.name} has port {service.port} only")
        if to.subset is not None and (message := _subset_problem(to.subset, service, policies, application)):
            yield source.problem((*loc, "subset"), message)


def _tls_problems(source: Source[DestinationRule], policies: Policies, application: Application) -> Iterator[Problem]:
    """Yield a TLS mode of callers that a callee's sidecar refuses."""
    tls = source.manifest.spec.traffic_policy.tls
    if tls is None:
        return
    unfit: Mode = "STRICT" if tls.mode == "DISABLE" else "DISABLE"
    for service in services_of(source.manifest.spec.host, source.manifest, policies, application):
        refusing = [one.name for one in service.workloads if policies.mode(one) == unfit]
        if refusing and destination_rule_of(policies, application, service) is source.manifest:
            message = f"{refusing[0]} refuses it: a PeerAuthentication sets {unfit} for its port"
            yield source.problem(("spec", "trafficPolicy", "tls", "mode"), message)


def _subset_problem(name: str, service: Service, policies: Policies, application: Application) -> str:
    subsets = subsets_of(policies, application, service)
    if name not in subsets:
        return f"no DestinationRule defines the subset {name!r} of {service.name}{format_suggestion(name, subsets)}"
    if workloads_of(service, subsets[name]):
        return ""
    wanted = ", ".join(f"{key} {value}" for key, value in subsets[name].labels.items())
    deployed = ", ".join(one.version for one in service.workloads)
    return f"{service.name} with {wanted} is not deployed; deployed is {deployed} (application.versions.{service.name})"


def route_proof_problems(
    sources: Sequence[Source[VirtualService]], policies: Policies, application: Application
) -> Iterator[Problem]:
    """Yield routes that no request of the application could prove."""
    for source in sources:
        indexes = [index for index, route in enumerate(source.manifest.spec.http) for _ in route.match or (None,)]
        for service in _find_services(source.manifest, policies, application):
            every = routes(policies, application, caller=application.client, service=service)
            for index, route in zip(indexes, every, strict=True):
                if not is_provable(route, every, application, service.workload.app):
                    message = "no request of the application could prove that this route works"
                    yield source.problem(("spec", "http", index), message)
