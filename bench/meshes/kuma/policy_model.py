"""Implement `bench.meshes.protocols.PolicyModel` for Kuma: read its gateway and policies, and find their problems."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bench.application.manifests import Kind, Source, select_kind
from bench.application.model import Application, Service, Workload
from bench.envoy.wire import Mode
from bench.errors import InputError, Problem
from bench.files.yaml_source import format_suggestion
from bench.meshes.kuma.gateway import GATEWAY_KINDS, is_gateway_part
from bench.meshes.kuma.gateway import find_gateway as read_gateway
from bench.meshes.kuma.manifests import (
    ANY,
    Mesh,
    MeshIdentity,
    MeshSpec,
    MeshTrafficPermission,
    TrafficPermission,
)
from bench.meshes.kuma.manifests import KINDS as POLICY_KINDS
from bench.meshes.kuma.namespacing import mesh_objects
from bench.meshes.kuma.naming import service_tags, spiffe_id
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.probes import certificate_names, find_outcome, permission_probes, probes
from bench.meshes.kuma.route_manifests import ROUTE_KINDS, MeshHTTPRoute
from bench.meshes.kuma.routing import outbound_cluster, route_obstacles, route_proof_problems, routes
from bench.meshes.probe import Outcome, Probe
from bench.meshes.problems import Obstacle, conflict_obstacles, duplicate_problems, separate_untranslated
from bench.meshes.protocols import PolicyReading
from bench.meshes.routing import Route

__all__ = ["KINDS", "mesh_objects", "read_gateway", "read_policies"]

KINDS: Final[Mapping[str, Kind[Any]]] = {**POLICY_KINDS, **ROUTE_KINDS, **GATEWAY_KINDS}


@dataclass(frozen=True, slots=True)
class KumaPolicies(Policies):
    """See `bench.meshes.protocols.Policies`."""

    def identities(self, application: Application) -> Mapping[str, tuple[str, ...]]:
        """Return the names in the certificate of each service account; none without mutual TLS."""
        if self.form == "plain":
            return {}
        return {one.account: certificate_names(self, application, one) for one in application.everyone}

    def mode(self, workload: Workload) -> Mode:  # noqa: ARG002 - the same for all
        """Return what the sidecar of a workload accepts."""
        return "DISABLE" if self.form == "plain" else "STRICT"

    def encrypts(self, application: Application, workload: Workload) -> bool:  # noqa: ARG002 - the same for all
        """Return whether sidecars use mutual TLS."""
        return self.form != "plain"

    def routes(self, application: Application, *, caller: Workload, service: Service) -> tuple[Route, ...]:
        """Return the routes from a sidecar to a service."""
        return routes(self, application, caller=caller, service=service)

    def outcome(self, application: Application, *, caller: Workload | None, workload: Workload) -> Outcome:
        """Return what the permissions make of a workload's usual request."""
        return find_outcome(self, application, caller, workload)

    def outbound_cluster(self, application: Application, service: Service) -> str:
        """Return the cluster of a service, whose name depends on the Mesh."""
        return outbound_cluster(self, application, service)

    def probes(self, application: Application) -> tuple[Probe, ...]:
        """Return requests whose responses show that each permission is in force."""
        return probes(self, application)


def read_policies(manifests: Sequence[Source[Any]], application: Application) -> PolicyReading:
    """Read the policies of one configuration from its manifests, of which those of a gateway are left out.

    Forms of mutual TLS that are not translated together, conflicting permissions and routes to unknown services are
    untranslated. Warnings are permissions without an effect (unknown services, unknown identities), or that no request
    could prove.
    Raises InputError with all problems that no target takes: two of the same name, and a Mesh that cannot work.
    """
    own = tuple(one for one in manifests if not is_gateway_part(one.manifest))
    whole = _make_policies(own, application)
    if problems := [*_duplicate_problems(own, whole), *_form_problems(own, whole)]:
        raise InputError(problems)
    sources, untranslated = separate_untranslated(own, partial(_find_obstacles, application=application))
    policies = _make_policies(sources, application)
    warnings = [*_form_warnings(own, whole), *_permission_problems(sources, policies)]
    return PolicyReading(policies, untranslated, tuple(warnings or _proof_problems(sources, policies)))


def _make_policies(sources: Sequence[Source[Any]], application: Application) -> KumaPolicies:
    meshes, given = select_kind(sources, Mesh), select_kind(sources, MeshIdentity)
    return KumaPolicies(
        application,
        meshes[0].manifest.spec if meshes else MeshSpec(),
        given[0].manifest if given else None,
        tuple(source.manifest for source in select_kind(sources, MeshTrafficPermission)),
        tuple(source.manifest for source in select_kind(sources, TrafficPermission)),
        tuple(source.manifest for source in select_kind(sources, MeshHTTPRoute)),
    )


def _find_obstacles(sources: Sequence[Source[Any]], application: Application) -> Iterator[Obstacle]:
    policies = _make_policies(sources, application)
    for source in select_kind(sources, Mesh):
        if source.manifest.spec.mtls is not None and policies.identity is None and policies.exclusive:
            message = "is translated with meshServices.mode Disabled only"
            yield source, source.problem(("spec", "mtls"), message)
    yield from _conflict_obstacles(select_kind(sources, TrafficPermission), application)
    yield from route_obstacles(select_kind(sources, MeshHTTPRoute), policies)


def _duplicate_problems(sources: Iterable[Source[Any]], policies: Policies) -> Iterator[Problem]:
    def identify(policy: Any) -> tuple[str, str]:
        namespaced = isinstance(policy, MeshTrafficPermission | MeshHTTPRoute)
        return policies.namespace_of(policy) if namespaced else "", policy.metadata.name

    return duplicate_problems(sources, identify, alone=(Mesh, MeshIdentity))


def _form_problems(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Problem]:
    """Yield a Mesh without its own authority, and identities that would never become ready."""
    for source in select_kind(sources, Mesh):
        yield from _mesh_problems(source)
    for identity in select_kind(sources, MeshIdentity):
        if not policies.exclusive:
            message = "does not become ready without a Mesh whose meshServices.mode is Exclusive"
            yield identity.problem(("metadata", "name"), message)


def _form_warnings(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Problem]:
    """Yield manifests that mix the two forms of mutual TLS, and permissions without their form."""
    for mesh in select_kind(sources, Mesh):
        if mesh.manifest.spec.mtls is not None and policies.identity is not None:
            message = "has no effect in addition to a MeshIdentity; hint: keep one of the two"
            yield mesh.problem(("spec", "mtls"), message)
    wanted: dict[type[Any], tuple[str, str]] = {
        MeshTrafficPermission: ("identity", "a MeshIdentity"),
        TrafficPermission: ("builtin", "Mesh.mtls"),
    }
    for source in sources:
        form, needed = wanted.get(type(source.manifest), (policies.form, ""))
        if form != policies.form:
            yield source.problem(("kind",), f"a {source.manifest.kind} has no effect without {needed}")


def _mesh_problems(source: Source[Mesh]) -> Iterator[Problem]:
    mtls = source.manifest.spec.mtls
    if mtls is None:
        return
    names = [backend.name for backend in mtls.backends]
    if mtls.enabled_backend not in names:
        loc = ("spec", "mtls", "enabledBackend")
        yield source.problem(
            loc, f"no backend {mtls.enabled_backend!r}{format_suggestion(mtls.enabled_backend, names)}"
        )


def _permission_problems(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Problem]:
    for permission in select_kind(sources, MeshTrafficPermission):
        yield from _selector_problems(permission, policies)
        yield from _identity_problems(permission, policies.application)
    for one in select_kind(sources, TrafficPermission):
        yield from _service_problems(one, policies.application)


def _selector_problems(source: Source[MeshTrafficPermission], policies: Policies) -> Iterator[Problem]:
    """Yield permissions that select no workload."""
    policy, application = source.manifest, policies.application
    labels = policy.spec.target_ref.labels
    if not any(policies.applies(policy, workload) for workload in application.workloads):
        apps = {workload.labels["app"] for workload in application.workloads}
        near = format_suggestion(labels["app"], apps) if "app" in labels and labels["app"] not in apps else ""
        yield source.problem(("spec", "targetRef", "labels"), f"selects no workload of the application{near}")


def _identity_problems(source: Source[MeshTrafficPermission], application: Application) -> Iterator[Problem]:
    """Yield identities that no workload has."""
    ids = [spiffe_id(application, workload) for workload in application.everyone]
    for index, rule in enumerate(source.manifest.spec.rules):
        for verb in ("deny", "allow"):
            for position, match in enumerate(getattr(rule.default, verb)):
                value = match.spiffe_id.value
                if not any(map(match.spiffe_id.matches, ids)):
                    loc = ("spec", "rules", index, "default", verb, position, "spiffeID", "value")
                    yield source.problem(loc, f"no workload has the identity {value!r}{format_suggestion(value, ids)}")


def _service_problems(source: Source[TrafficPermission], application: Application) -> Iterator[Problem]:
    """Yield unknown services."""
    destinations = {tag for workload in application.workloads for tag in service_tags(application, workload)}
    known = {
        "sources": destinations | set(service_tags(application, application.everyone[-1])),
        "destinations": destinations,
    }
    for side, tags in known.items():
        for index, one in enumerate(getattr(source.manifest.spec, side)):
            name = one.match.service
            if name != ANY and name not in tags:
                loc = ("spec", side, index, "match", "kuma.io/service")
                yield source.problem(loc, f"there is no service {name!r}{format_suggestion(name, tags)}")


def _conflict_obstacles(sources: Sequence[Source[TrafficPermission]], application: Application) -> Iterator[Obstacle]:
    """Yield permissions as close to a destination as another."""
    every = [service_tags(application, workload) for workload in application.workloads]

    def is_conflict(one: TrafficPermission, other: TrafficPermission) -> bool:
        return any(0 < one.rank(tags) == other.rank(tags) for tags in every)

    return conflict_obstacles(sources, is_conflict, ("spec", "destinations"), "names the same destinations")


def _proof_problems(sources: Iterable[Source[Any]], policies: Policies) -> Iterator[Problem]:
    for source in sources:
        policy = source.manifest
        permission = isinstance(policy, MeshTrafficPermission | TrafficPermission)
        if permission and not any(permission_probes(policy, policies, policies.application)):
            message = "no request of the application could prove that this permission is in force"
            yield source.problem(("metadata", "name"), message)
    yield from route_proof_problems(select_kind(tuple(sources), MeshHTTPRoute), policies)
