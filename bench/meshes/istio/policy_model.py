"""Implement `bench.meshes.protocols.PolicyModel` for Istio: read its gateway and policies, and find their problems."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final

from bench.application.manifests import Kind, Source, select_kind
from bench.application.model import Application, Service, Workload
from bench.envoy.addresses import HOST
from bench.errors import InputError, Problem
from bench.files.yaml_source import Document, Loc, format_suggestion
from bench.meshes.istio.authorization import Request, decide_request
from bench.meshes.istio.gateway import GATEWAY_KINDS, is_gateway_part
from bench.meshes.istio.gateway import find_gateway as read_gateway
from bench.meshes.istio.kinds import ATTACHED, EFFECTS, MOVABLE
from bench.meshes.istio.namespacing import mesh_objects
from bench.meshes.istio.naming import cluster_to
from bench.meshes.istio.policies import (
    ADDRESSES,
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    PeerAuthentication,
    Policies,
    Policy,
    RequestAuthentication,
    Routing,
    parse_pattern,
)
from bench.meshes.istio.policies import KINDS as POLICY_KINDS
from bench.meshes.istio.probes import find_outcome, is_denied_at, policy_probes, principal_of, probes
from bench.meshes.istio.route_manifests import DestinationRule, VirtualService
from bench.meshes.istio.routing import route_obstacles, route_proof_problems, routes, traffic_policy_of
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

KINDS: Final[Mapping[str, Kind[Any]]] = {**POLICY_KINDS, **GATEWAY_KINDS}


@dataclass(frozen=True, slots=True)
class IstioPolicies(Policies):
    """See `bench.meshes.protocols.Policies`."""

    def identities(self, application: Application) -> Mapping[str, tuple[str, ...]]:
        """Return the SPIFFE id of each service account; with any policies, every sidecar has a certificate."""
        return {one.identity: (f"spiffe://{principal_of(application, one)}",) for one in application.everyone}

    def encrypts(self, application: Application, workload: Workload) -> bool:
        """Return whether sidecars use mutual TLS to a workload that takes it; a DestinationRule may switch it off."""
        callees = (one for one in application.services if workload in one.workloads)
        policies = (traffic_policy_of(self, application, one) for one in callees)
        return not any(policy.tls is not None and policy.tls.mode == "DISABLE" for policy in policies)

    def routes(self, application: Application, *, caller: Workload, service: Service) -> tuple[Route, ...]:
        """Return the routes from a sidecar to a service."""
        return routes(self, application, caller=caller, service=service)

    def outcome(self, application: Application, *, caller: Workload | None, workload: Workload) -> Outcome:
        """Return what the policies make of a workload's usual request."""
        return find_outcome(self, application, caller, workload)

    def outbound_cluster(self, application: Application, service: Service) -> str:
        """Return the cluster of a service, which has the same name with any policies."""
        return cluster_to(application, service)

    def probes(self, application: Application) -> tuple[Probe, ...]:
        """Return requests whose responses show that each policy is in force."""
        return probes(self, application)


def convert(document: Document) -> Document:
    """Return the document: Istio has no other form than that of Kubernetes."""
    return document


def read_policies(manifests: Sequence[Source[Any]], application: Application) -> PolicyReading:
    """Read the policies of one configuration from its manifests, of which those of a gateway are left out.

    Conflicting policies and routes to unknown services are untranslated. Warnings are policies without an effect (a
    selector without a workload, an unknown account), or that no request could prove.
    Raises InputError with all problems that no target takes: two of the same name, what Istio rejects, and policies
    that deny the page at the gateway.
    """
    own: tuple[Source[Policy | Routing], ...] = tuple(one for one in manifests if not is_gateway_part(one.manifest))
    if problems := [*_duplicate_problems(own, application), *_selector_missing(own)]:
        raise InputError(problems)
    sources, untranslated = separate_untranslated(own, partial(_find_obstacles, application=application))
    policies = _make_policies(sources, application)
    if problems := [*_gateway_problems(sources, policies, application)]:
        raise InputError(problems)
    found = [*_warnings(sources, policies, application)]
    return PolicyReading(policies, untranslated, tuple(found or _proof_problems(sources, policies, application)))


def _make_policies(sources: Sequence[Source[Any]], application: Application) -> IstioPolicies:
    return IstioPolicies(
        application.namespace,
        tuple(source.manifest for source in select_kind(sources, PeerAuthentication)),
        tuple(source.manifest for source in select_kind(sources, AuthorizationPolicy)),
        tuple(source.manifest for source in select_kind(sources, VirtualService)),
        tuple(source.manifest for source in select_kind(sources, DestinationRule)),
        tuple(source.manifest for source in select_kind(sources, RequestAuthentication)),
    )


def _duplicate_problems(sources: Sequence[Source[Policy | Routing]], application: Application) -> Iterator[Problem]:
    return duplicate_problems(sources, lambda one: (one.metadata.namespace or application.namespace, one.metadata.name))


def _selector_missing(sources: Sequence[Source[Policy | Routing]]) -> Iterator[Problem]:
    for source in select_kind(sources, PeerAuthentication):
        if source.manifest.spec.selector is None:
            for port in source.manifest.spec.port_level_mtls:
                message = "needs a selector; Istio rejects it without one"
                yield source.problem(("spec", "portLevelMtls", port), message)


def _find_obstacles(sources: Sequence[Source[Any]], application: Application) -> Iterator[Obstacle]:
    policies = _make_policies(sources, application)
    yield from _conflict_obstacles(select_kind(sources, PeerAuthentication), policies, application)
    yield from _address_obstacles(select_kind(sources, AuthorizationPolicy), policies, application)
    yield from route_obstacles(sources, policies, application)


def _address_obstacles(
    sources: Sequence[Source[AuthorizationPolicy]], policies: Policies, application: Application
) -> Iterator[Obstacle]:
    """Yield policies whose addresses deny a call of the application on this machine, where all have the same one."""
    named = [one for one in sources if any(rule.attributes & ADDRESSES for rule in one.manifest.spec.rules)]
    for source, hop in product(named, application.hops):
        callee = application.workload(hop.callee)
        caller = next((one for one in application.everyone if one.name == hop.caller), None)
        if policies.applies(source.manifest, callee) and is_denied_at(policies, application, caller, callee, HOST):
            message = f"its addresses deny {hop} here, where every connection comes from {HOST}"
            yield source, source.problem(("spec", "rules"), message)


def _warnings(
    sources: Sequence[Source[Policy | Routing]], policies: Policies, application: Application
) -> Iterator[Problem]:
    for source in sources:
        yield from _selector_problems(source, policies, application)
    for authentication in select_kind(sources, PeerAuthentication):
        yield from _port_problems(authentication, policies, application)
    for authorization in select_kind(sources, AuthorizationPolicy):
        yield from _rule_problems(authorization, application)


def _selector_problems(
    source: Source[Policy | Routing], policies: Policies, application: Application
) -> Iterator[Problem]:
    """Yield policies that select no workload."""
    policy = source.manifest
    if not isinstance(policy, Routing) and not any(map(partial(policies.applies, policy), application.protected)):
        yield source.problem(("spec", "selector", "matchLabels"), "selects no workload of the application")


def _port_problems(
    source: Source[PeerAuthentication], policies: Policies, application: Application
) -> Iterator[Problem]:
    spec = source.manifest.spec
    selected = [workload for workload in application.workloads if policies.applies(source.manifest, workload)]
    for port in spec.port_level_mtls:
        if selected and port not in {str(workload.port) for workload in selected}:
            yield source.problem(("spec", "portLevelMtls", port), f"no selected workload serves port {port}")


def _conflict_obstacles(
    sources: Sequence[Source[PeerAuthentication]], policies: Policies, application: Application
) -> Iterator[Obstacle]:
    """Yield policies that select a workload as narrowly as another."""

    def is_conflict(one: PeerAuthentication, other: PeerAuthentication) -> bool:
        both = (policies.applies(one, each) and policies.applies(other, each) for each in application.workloads)
        return policies.width(one) == policies.width(other) and any(both)

    return conflict_obstacles(sources, is_conflict, ("spec",), "selects the same workloads")


def _rule_problems(source: Source[AuthorizationPolicy], application: Application) -> Iterator[Problem]:
    spec = source.manifest.spec
    if spec.action == "DENY" and not spec.rules:
        yield source.problem(("spec", "action"), "a DENY policy without rules denies nothing")
    principals = [principal_of(application, workload) for workload in application.everyone]
    for loc, value in _list_principals(spec):
        if not any(parse_pattern(value).matches(principal) for principal in principals):
            yield source.problem(loc, f"no workload has the identity {value!r}{format_suggestion(value, principals)}")


def _list_principals(spec: AuthorizationPolicySpec) -> Iterator[tuple[Loc, str]]:
    """Yield each principal that the rules name, with its position."""
    for index, rule in enumerate(spec.rules):
        for position, part in enumerate(rule.from_):
            fields = {"principals": part.source.principals, "notPrincipals": part.source.not_principals}
            for field, values in fields.items():
                loc = ("spec", "rules", index, "from", position, "source", field)
                yield from (((*loc, item), value) for item, value in enumerate(values))


def _gateway_problems(
    sources: Sequence[Source[Policy | Routing]], policies: Policies, application: Application
) -> Iterator[Problem]:
    """Yield policies that deny the page at the gateway: policies of a namespace also apply to its gateway."""
    gateway = application.gateway
    if gateway is None:
        return
    page = Request(None, "GET", application.path_of(gateway.workload.app))
    if decide_request(policies, gateway.workload, page) == "allowed":
        return
    for source in select_kind(sources, AuthorizationPolicy):
        if policies.applies(source.manifest, gateway.workload):
            message = "denies every page at the gateway; hint: add istio/gateway-policies, or a policy like it"
            yield source.problem(("spec",), message)


def _proof_problems(
    sources: Iterable[Source[Policy | Routing]], policies: Policies, application: Application
) -> Iterator[Problem]:
    for source in sources:
        policy = source.manifest
        if not isinstance(policy, Routing) and not any(policy_probes(policy, policies, application)):
            message = "no request of the application could prove that this policy is in force"
            yield source.problem(("metadata", "name"), message)
    yield from route_proof_problems(select_kind(tuple(sources), VirtualService), policies, application)
