"""Implement `bench.meshes.protocols.PolicyModel` for Kuma: read its gateway and policies, and find their problems."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from bench.application.manifests import Kind, Source, select_kind
from bench.application.model import Application, Service, Workload
from bench.envoy.wire import Mode
from bench.errors import InputError, Problem
from bench.files.yaml_source import format_suggestion
from bench.meshes.kuma.gateway import GATEWAY_KINDS, is_gateway_part
from bench.meshes.kuma.gateway import find_gateway as read_gateway
from bench.meshes.kuma.kinds import ATTACHED, EFFECTS, MOVABLE
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
from bench.meshes.kuma.naming import ROOT_NAMESPACE, service_tag, service_tags, spiffe_id
from bench.meshes.kuma.policies import Form, Policies, Targeted
from bench.meshes.kuma.probes import certificate_names, find_outcome, permission_probes, probes
from bench.meshes.kuma.route_manifests import ROUTE_KINDS, MeshHTTPRoute
from bench.meshes.kuma.routing import outbound_cluster, route_obstacles, route_proof_problems, routes
from bench.meshes.kuma.traffic import is_to
from bench.meshes.kuma.traffic_manifests import TRAFFIC_KINDS, MeshRetry, MeshTimeout
from bench.meshes.kuma.universal import convert
from bench.meshes.probe import Outcome, Probe
from bench.meshes.problems import Obstacle, conflict_obstacles, duplicate_problems, separate_untranslated
from bench.meshes.protocols import PolicyReading
from bench.meshes.routing import Route

__all__ = [
    "ATTACHED",
    "EFFECTS",
    "KINDS",
    "MOVABLE",
    "convert",
    "is_gateway_part",
    "mesh_objects",
    "read_gateway",
    "read_policies",
]

T = TypeVar("T", bound=Targeted)

KINDS: Final[Mapping[str, Kind[Any]]] = {**POLICY_KINDS, **ROUTE_KINDS, **TRAFFIC_KINDS, **GATEWAY_KINDS}


@dataclass(frozen=True, slots=True)
class KumaPolicies(Policies):
    """See `bench.meshes.protocols.Policies`."""

    def identities(self, application: Application) -> Mapping[str, tuple[str, ...]]:
        """Return the names in the certificate of each service account; none without mutual TLS."""
        if self.form == "plain":
            return {}
        return {one.identity: certificate_names(self, application, one) for one in application.everyone}

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
        tuple(source.manifest for source in select_kind(sources, MeshTimeout)),
        tuple(source.manifest for source in select_kind(sources, MeshRetry)),
    )


def _find_obstacles(sources: Sequence[Source[Any]], application: Application) -> Iterator[Obstacle]:
    policies = _make_policies(sources, application)
    for source in select_kind(sources, Mesh):
        if source.manifest.spec.mtls is not None and policies.identity is None and policies.exclusive:
            message = "is translated with meshServices.mode Disabled only"
            yield source, source.problem(("spec", "mtls"), message)
    yield from _conflict_obstacles(select_kind(sources, TrafficPermission), application)
    yield from _rank_obstacles(select_kind(sources, MeshTimeout), policies)
    yield from _rank_obstacles(select_kind(sources, MeshRetry), policies)
    permissions = (one for one in select_kind(sources, MeshTrafficPermission) if one.manifest.spec.from_)
    yield from _rank_obstacles(tuple(permissions), policies)
    yield from _default_obstacles((*select_kind(sources, MeshTimeout), *select_kind(sources, MeshRetry)), policies)
    yield from route_obstacles(select_kind(sources, MeshHTTPRoute), policies)


def _rank_obstacles(sources: Sequence[Source[T]], policies: Policies) -> Iterator[Obstacle]:
    """Yield policies that override each other by their names or ages, which files do not have."""

    def is_conflict(one: Targeted, other: Targeted) -> bool:
        everyone = policies.application.everyone
        return policies.rank(one) == policies.rank(other) and any(
            policies.applies(one, each) and policies.applies(other, each) for each in everyone
        )

    return conflict_obstacles(sources, is_conflict, ("spec", "targetRef"), "selects the same workloads")


def _default_obstacles(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Obstacle]:
    """Yield policies of which it is not known whether Kuma's default policy overrides them, and those of a gateway."""
    gateway = policies.application.gateway
    for source in sources:
        if not any(policies.rank(source.manifest)):
            message = f"{ROOT_NAMESPACE} has a default policy of this kind; hint: use the application's namespace"
            yield source, source.problem(("metadata", "namespace"), message)
        elif gateway and gateway.proxy is None and policies.applies(source.manifest, gateway.workload):
            yield source, source.problem(("spec", "targetRef"), "is not translated for a built-in gateway")


def _duplicate_problems(sources: Iterable[Source[Any]], policies: Policies) -> Iterator[Problem]:
    def identify(policy: Any) -> tuple[str, str]:
        namespaced = isinstance(policy, Targeted)
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
    for source in sources:
        form = _find_form(source.manifest)
        if form not in (None, policies.form):
            needed = "a MeshIdentity" if form == "identity" else "Mesh.mtls"
            yield source.problem(("kind",), f"a {source.manifest.kind} has no effect without {needed}")


def _find_form(manifest: object) -> Form | None:
    """Return the form of mutual TLS without which a permission has no effect; None for anything else."""
    if isinstance(manifest, MeshTrafficPermission):
        return "builtin" if manifest.spec.from_ else "identity"
    return "builtin" if isinstance(manifest, TrafficPermission) else None


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
        yield from _identity_problems(permission, policies)
        yield from _caller_problems(permission, policies.application)
    for traffic in sources:
        if isinstance(traffic.manifest, MeshTimeout | MeshRetry):
            yield from _selector_problems(traffic, policies)
            yield from _destination_problems(traffic, policies)
    for one in select_kind(sources, TrafficPermission):
        yield from _service_problems(one, policies.application)


def _destination_problems(source: Source[Any], policies: Policies) -> Iterator[Problem]:
    """Yield services that do not exist."""
    services = policies.application.services
    for index, one in enumerate(source.manifest.spec.to):
        if not any(is_to(one.target_ref, service, policies=policies) for service in services):
            known = [each.name if policies.exclusive else service_tag(policies.application, each) for each in services]
            name = str(one.target_ref.name)
            message = f"there is no service {name!r}{format_suggestion(name, known)}"
            yield source.problem(("spec", "to", index, "targetRef", "name"), message)


def _caller_problems(source: Source[MeshTrafficPermission], application: Application) -> Iterator[Problem]:
    """Yield callers that do not exist."""
    tags = {tag for workload in application.everyone for tag in service_tags(application, workload)}
    for index, one in enumerate(source.manifest.spec.from_):
        name = one.target_ref.service
        if name != ANY and name not in tags:
            loc = ("spec", "from", index, "targetRef")
            yield source.problem(loc, f"there is no service {name!r}{format_suggestion(name, tags)}")


def _selector_problems(source: Source[Any], policies: Policies) -> Iterator[Problem]:
    """Yield policies that select no workload."""
    policy, application = source.manifest, policies.application
    labels = policy.spec.target_ref.labels
    selectable = application.workloads if isinstance(policy, MeshTrafficPermission) else application.everyone
    if not any(policies.applies(policy, workload) for workload in selectable):
        apps = {workload.labels["app"] for workload in application.workloads}
        near = format_suggestion(labels["app"], apps) if "app" in labels and labels["app"] not in apps else ""
        yield source.problem(("spec", "targetRef", "labels"), f"selects no workload of the application{near}")


def _identity_problems(source: Source[MeshTrafficPermission], policies: Policies) -> Iterator[Problem]:
    """Yield identities that no workload has."""
    application, template = policies.application, policies.domain_template
    ids = [spiffe_id(application, workload, template) for workload in application.everyone]
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
