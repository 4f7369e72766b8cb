"""Resolve Kuma's routes of an application, and find routes that cannot work. Pure."""

from collections.abc import Iterator, Sequence

from bench.application.manifests import Source
from bench.application.model import Application, Service, Workload
from bench.errors import Problem
from bench.files.yaml_source import Loc, format_suggestion
from bench.meshes.kuma.naming import mesh_service, route_kri, service_tag
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.route_manifests import BackendRef, HttpMatch, MeshHTTPRoute, PathMatch, RouteRule, ServiceRef, To
from bench.meshes.problems import Obstacle
from bench.meshes.routing import Condition, Destination, Route, is_provable

# The manifest of a rule, and the indexes of its `to` and of the rule in it.
RulePosition = tuple[MeshHTTPRoute, int, int]


def outbound_cluster(policies: Policies, application: Application, service: Service) -> str:
    """Return `api_shop_svc_9080`, or the name of its MeshService."""
    return mesh_service(application, service) if policies.exclusive else service_tag(application, service)


def routes(policies: Policies, application: Application, *, caller: Workload, service: Service) -> tuple[Route, ...]:
    """Return the routes from the sidecar of `caller` to a service, the narrowest first.

    The last one matches all remaining requests; by default it leads to any of the service's workloads.
    """
    written = [route for _, route in _list_routes(policies, application, caller=caller, service=service)]
    default = Route((_destination(policies, application, service),))
    narrow = sorted((route for route in written if not _matches_everything(route)), key=_width)
    return (*narrow, next(filter(_matches_everything, written), default))


def destinations(policies: Policies, application: Application, caller: Workload) -> tuple[Service, ...]:
    """Return the Services that requests of `caller` can reach, by name; its sidecar has no other clusters."""
    every = (routes(policies, application, caller=caller, service=service) for service in application.services)
    found = {one.service.name: one.service for some in every for route in some for one in route.destinations}
    return tuple(found[name] for name in sorted(found))


def route_obstacles(sources: Sequence[Source[MeshHTTPRoute]], policies: Policies) -> Iterator[Obstacle]:
    """Yield routes without a caller or service, and conflicting ones."""
    found = [(source, problem) for source in sources for problem in _problems(source, policies)]
    yield from found or _conflict_obstacles(sources, policies)


def _list_routes(
    policies: Policies, application: Application, *, caller: Workload, service: Service
) -> Iterator[tuple[RulePosition, Route]]:
    """Yield the routes of the manifests in their order, with their positions."""
    for manifest in policies.http_routes:
        if not policies.applies(manifest, caller):
            continue
        for index, to in enumerate(manifest.spec.to):
            if to.target_ref.name == service.name:
                for number, route in _resolve_routes(manifest, to, policies=policies, application=application):
                    yield (manifest, index, number), route


def _resolve_routes(
    manifest: MeshHTTPRoute, to: To, *, policies: Policies, application: Application
) -> Iterator[tuple[int, Route]]:
    origin = route_kri(policies.namespace_of(manifest), manifest.metadata.name)
    for number, rule in enumerate(to.rules):
        target = _destination(policies, application, application.service(rule.default.backend.name))
        for match in rule.matches:
            yield number, Route((target,), _path(match.path), _headers(match), origin)


def _destination(policies: Policies, application: Application, service: Service) -> Destination:
    return Destination(outbound_cluster(policies, application, service), service, service.workloads)


def _path(path: PathMatch | None) -> Condition | None:
    if path is None or path.is_everything:
        return None
    return Condition("exact" if path.type == "Exact" else "prefix", path.value)


def _headers(match: HttpMatch) -> tuple[tuple[str, Condition], ...]:
    return tuple(
        (header.name, Condition("exact" if header.type == "Exact" else "prefix", header.value))
        for header in match.headers
    )


def _matches_everything(route: Route) -> bool:
    return route.path is None and not route.headers


def _width(route: Route) -> tuple[bool, int]:
    """Return Kuma's order of routes: those with a path first, then those with more headers."""
    return route.path is None, -len(route.headers)


def _problems(source: Source[MeshHTTPRoute], policies: Policies) -> Iterator[Problem]:
    route, application = source.manifest, policies.application
    if not policies.exclusive:
        message = "a route to MeshServices has no effect without a Mesh whose meshServices.mode is Exclusive"
        yield source.problem(("kind",), message)
    if policies.namespace_of(route) != application.namespace:
        message = f"routes of Services are read in their own namespace, {application.namespace}"
        yield source.problem(("metadata", "namespace"), message)
    elif not any(policies.applies(route, workload) for workload in application.everyone):
        yield source.problem(("spec", "targetRef", "labels"), "selects no workload of the application")
    for index, to in enumerate(route.spec.to):
        loc: Loc = ("spec", "to", index)
        yield from _reference_problems(source, (*loc, "targetRef"), reference=to.target_ref, application=application)
        for number, rule in enumerate(to.rules):
            yield from _rule_problems(source, (*loc, "rules", number), rule=rule, application=application)


def _rule_problems(
    source: Source[MeshHTTPRoute], loc: Loc, *, rule: RouteRule, application: Application
) -> Iterator[Problem]:
    backend = rule.default.backend
    yield from _reference_problems(
        source, (*loc, "default", "backendRefs", 0), reference=backend, application=application
    )
    for position, match in enumerate(rule.matches):
        if match.path is not None and match.path.type == "PathPrefix" and not match.path.is_everything:
            where = (*loc, "matches", position, "path", "value")
            yield source.problem(where, "a prefix other than / is not translated by meshbench")


def _reference_problems(
    source: Source[MeshHTTPRoute], loc: Loc, *, reference: BackendRef | ServiceRef, application: Application
) -> Iterator[Problem]:
    services = {service.name: service for service in application.services}
    if reference.namespace not in (None, application.namespace):
        yield source.problem((*loc, "namespace"), f"nothing runs in {reference.namespace!r}")
    if reference.name not in services:
        yield source.problem((*loc, "name"), _format_missing_service(reference.name, application))
    elif isinstance(reference, BackendRef) and reference.port not in (None, services[reference.name].port):
        yield source.problem((*loc, "port"), f"{reference.name} has port {services[reference.name].port} only")


def _format_missing_service(name: str, application: Application) -> str:
    """Return the message for an unknown Service; a version's Service exists if the version is deployed."""
    app = name.rpartition("-v")[0]
    versions = [workload.version for workload in application.workloads if workload.app == app]
    near = format_suggestion(name, [service.name for service in application.services])
    known = f"; deployed of {app} is {', '.join(versions)} (application.versions.{app})" if versions else near
    return f"there is no service {name!r}{known}"


def _conflict_obstacles(sources: Sequence[Source[MeshHTTPRoute]], policies: Policies) -> Iterator[Obstacle]:
    """Yield manifests that route the same requests as another, which Kuma would merge by its own rules."""
    seen: dict[tuple[str, str], Source[MeshHTTPRoute]] = {}
    for source in sources:
        callers = [one.name for one in policies.application.everyone if policies.applies(source.manifest, one)]
        for index, to in enumerate(source.manifest.spec.to):
            firsts = [seen.setdefault((caller, to.target_ref.name), source) for caller in callers]
            other = next((first for first in firsts if first is not source), None)
            if other is not None:
                where = f"{other.document.file}:{other.document.line_of(())}"
                message = f"the route in {where} is for the same service; meshbench does not merge them"
                yield source, source.problem(("spec", "to", index, "targetRef"), message)


def route_proof_problems(sources: Sequence[Source[MeshHTTPRoute]], policies: Policies) -> Iterator[Problem]:
    """Yield rules that no request of the application's own calls uses."""
    application = policies.application
    shown = set(_list_proven(policies, application))
    for source in sources:
        for index, to in enumerate(source.manifest.spec.to):
            for number, _ in enumerate(to.rules):
                if (source.manifest.metadata.name, index, number) not in shown:
                    message = "no request of the application could prove that this route works"
                    yield source.problem(("spec", "to", index, "rules", number), message)


def _list_proven(policies: Policies, application: Application) -> Iterator[tuple[str, int, int]]:
    for caller in application.everyone:
        for service in application.services:
            every = routes(policies, application, caller=caller, service=service)
            for (manifest, index, number), route in _list_routes(policies, application, caller=caller, service=service):
                if any(
                    known == route and is_provable(known, every, application, service.workload.app) for known in every
                ):
                    yield manifest.metadata.name, index, number
