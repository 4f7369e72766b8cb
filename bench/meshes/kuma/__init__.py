"""Kuma as the local target imitates it: what its policies mean for Bookinfo, before any Envoy knows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.application.manifests import Source, of_kind, read_manifests
from bench.application.model import Application, Gateway, Workload
from bench.envoy.wire import Mode, Wire
from bench.errors import InputError, Problem
from bench.files.yaml_source import did_you_mean
from bench.meshes.kuma.gateway import GATEWAY_KINDS, gateway_in, without_gateway
from bench.meshes.kuma.manifests import (
    ANY,
    KINDS,
    Mesh,
    MeshIdentity,
    MeshSpec,
    MeshTrafficPermission,
    TrafficPermission,
)
from bench.meshes.kuma.naming import service_tags, spiffe_id
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.probes import names_of, permission_probes, probes
from bench.meshes.kuma.route_manifests import ROUTE_KINDS, MeshHTTPRoute
from bench.meshes.kuma.routing import outbound_cluster, route_problems, ways

__all__ = [
    "TITLE",
    "WIRE",
    "identities",
    "inbound_cluster",
    "mode",
    "outbound_cluster",
    "probes",
    "read_gateway",
    "read_policies",
    "ways",
]

TITLE: Final = "Kuma 2.14"
_EVERY_KIND: Final = {**KINDS, **ROUTE_KINDS, **GATEWAY_KINDS}
# Kuma leaves the TLS versions to Envoy, whose client side stops at 1.2 by default.
WIRE: Final = Wire(http="HTTP/2", tls="TLSv1.2", alpn="kuma")


def identities(policies: Policies, application: Application) -> Mapping[str, tuple[str, ...]]:
    """The names in the certificate of each service account; none without mutual TLS."""
    if policies.form == "plain":
        return {}
    accounts = (workload.account for workload in application.everyone)
    return {account: names_of(policies, application, account) for account in accounts}


def mode(policies: Policies, workload: Workload) -> Mode:  # noqa: ARG001 - the same for all
    """What the sidecar of a workload accepts."""
    return "DISABLE" if policies.form == "plain" else "STRICT"


def inbound_cluster(workload: Workload) -> str:
    """`localhost:9080`."""
    return f"localhost:{workload.port}"


def read_gateway(folders: Sequence[Path], application: Application) -> Gateway | None:
    """The gateway through which a configuration's load enters, from the manifests in `folders`; None where they have
    none. Raises InputError with all problems."""
    return gateway_in(read_manifests(folders, _EVERY_KIND, namespace=application.namespace), application)


def read_policies(folders: Sequence[Path], application: Application) -> Policies:
    """The policies of one configuration, from the manifests in `folders`; none where there is no folder.

    Raises InputError with all problems: what cannot be read or is not translated, forms that do not go together,
    and permissions that could not do anything here: for a service that is not there, for nobody, or such that no
    request could show them.
    """
    sources = without_gateway(read_manifests(folders, _EVERY_KIND, namespace=application.namespace))
    meshes, given = of_kind(sources, Mesh), of_kind(sources, MeshIdentity)
    policies = Policies(
        application,
        meshes[0].manifest.spec if meshes else MeshSpec(),
        given[0].manifest if given else None,
        tuple(source.manifest for source in of_kind(sources, MeshTrafficPermission)),
        tuple(source.manifest for source in of_kind(sources, TrafficPermission)),
        tuple(source.manifest for source in of_kind(sources, MeshHTTPRoute)),
    )
    problems = [*_doubled(sources, policies), *_form_problems(sources, policies)]
    problems += _permission_problems(sources, policies)
    problems += route_problems(of_kind(sources, MeshHTTPRoute), policies)
    problems = problems or [*_unproven(sources, policies)]
    if problems:
        raise InputError(problems)
    return policies


def _doubled(sources: Iterable[Source[Any]], policies: Policies) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str], Source[Any]] = {}
    for source in sources:
        policy = source.manifest
        alone = isinstance(policy, Mesh | MeshIdentity)  # one of each, whatever its name
        namespaced = isinstance(policy, MeshTrafficPermission | MeshHTTPRoute)
        namespace = policies.namespace_of(policy) if namespaced else ""
        first = seen.setdefault((policy.kind, namespace, "" if alone else policy.metadata.name), source)
        if first is not source:
            where = f"{first.document.file}:{first.document.line_of(('metadata', 'name'))}"
            again = f"{'a' if alone else 'the same'} {policy.kind}"
            yield source.problem(("metadata", "name"), f"{again} stands in {where}")


def _form_problems(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Problem]:
    """The two forms of mutual TLS do not mix, and permissions do nothing without the one that is theirs."""
    for source in of_kind(sources, Mesh):
        yield from _mesh_problems(source, policies)
    for identity in of_kind(sources, MeshIdentity):
        if not policies.exclusive:
            message = "does not become ready without a Mesh whose meshServices.mode is Exclusive"
            yield identity.problem(("metadata", "name"), message)
    wanted = {MeshTrafficPermission: ("identity", "a MeshIdentity"), TrafficPermission: ("builtin", "Mesh.mtls")}
    for source in sources:
        form, needed = wanted.get(type(source.manifest), (policies.form, ""))
        if form != policies.form:
            yield source.problem(("kind",), f"a {source.manifest.kind} does nothing without {needed}")


def _mesh_problems(source: Source[Mesh], policies: Policies) -> Iterator[Problem]:
    mtls = source.manifest.spec.mtls
    if mtls is None:
        return
    if policies.identity is not None:
        yield source.problem(("spec", "mtls"), "has no effect beside a MeshIdentity; keep one of the two")
    elif policies.exclusive:
        yield source.problem(("spec", "mtls"), "is translated with meshServices.mode Disabled only")
    names = [backend.name for backend in mtls.backends]
    if mtls.enabled_backend not in names:
        loc = ("spec", "mtls", "enabledBackend")
        yield source.problem(loc, f"no backend {mtls.enabled_backend!r}{did_you_mean(mtls.enabled_backend, names)}")


def _permission_problems(sources: Sequence[Source[Any]], policies: Policies) -> Iterator[Problem]:
    for permission in of_kind(sources, MeshTrafficPermission):
        yield from _selectless(permission, policies)
        yield from _nobodies(permission, policies.application)
    legacy = of_kind(sources, TrafficPermission)
    for one in legacy:
        yield from _unknown_services(one, policies.application)
    yield from _rivals(legacy, policies.application)


def _selectless(source: Source[MeshTrafficPermission], policies: Policies) -> Iterator[Problem]:
    """Find permissions that select no workload."""
    policy, application = source.manifest, policies.application
    labels = policy.spec.target_ref.labels
    if not any(policies.applies(policy, workload) for workload in application.workloads):
        apps = {workload.labels["app"] for workload in application.workloads}
        near = did_you_mean(labels["app"], apps) if "app" in labels and labels["app"] not in apps else ""
        yield source.problem(("spec", "targetRef", "labels"), f"selects no workload of the application{near}")


def _nobodies(source: Source[MeshTrafficPermission], application: Application) -> Iterator[Problem]:
    """Identities that nobody has."""
    ids = [spiffe_id(application, workload.account) for workload in application.everyone]
    for index, rule in enumerate(source.manifest.spec.rules):
        for verb in ("deny", "allow"):
            for place, match in enumerate(getattr(rule.default, verb)):
                value = match.spiffe_id.value
                if not any(map(match.spiffe_id.matches, ids)):
                    loc = ("spec", "rules", index, "default", verb, place, "spiffeID", "value")
                    yield source.problem(loc, f"nobody has the identity {value!r}{did_you_mean(value, ids)}")


def _unknown_services(source: Source[TrafficPermission], application: Application) -> Iterator[Problem]:
    """Services that are not there."""
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
                yield source.problem(loc, f"there is no service {name!r}{did_you_mean(name, tags)}")


def _rivals(sources: Sequence[Source[TrafficPermission]], application: Application) -> Iterator[Problem]:
    """Two that name a destination equally closely: a cluster takes the older one, files have no age."""
    every = [service_tags(application, workload) for workload in application.workloads]
    for index, source in enumerate(sources):
        for other in sources[:index]:
            if any(0 < source.manifest.rank(tags) == other.manifest.rank(tags) for tags in every):
                where = f"{other.document.file}:{other.document.line_of(())}"
                yield source.problem(("spec", "destinations"), f"names the same destinations as the one in {where}")


def _unproven(sources: Iterable[Source[Any]], policies: Policies) -> Iterator[Problem]:
    for source in sources:
        policy = source.manifest
        permission = isinstance(policy, MeshTrafficPermission | TrafficPermission)
        if permission and not any(permission_probes(policy, policies, policies.application)):
            message = "no request of the application could show that this permission works"
            yield source.problem(("metadata", "name"), message)
