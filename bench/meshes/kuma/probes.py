"""Derive probes from permissions: for each a caller that must pass, and one that must be denied.

Each expected response is evaluated with all policies, so that it is correct if policies overlap. Kuma's permissions
have no method or path, so each probe is a request of the application's own clients.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.application.model import Application, Workload
from bench.meshes.kuma.manifests import MeshTrafficPermission, TrafficPermission
from bench.meshes.kuma.naming import builtin_ids, service_tags, spiffe_id
from bench.meshes.kuma.policies import Decision, Policies, decide_request, has_name, has_source
from bench.meshes.probe import Outcome, Probe

_DENIED: Final[dict[Decision, int]] = {"denied": 403, "refused": 0}

Permission = MeshTrafficPermission | TrafficPermission


def certificate_names(policies: Policies, application: Application, workload: Workload) -> tuple[str, ...]:
    """Return the names in the certificate of a workload's account, its SPIFFE id first; none without mutual TLS."""
    match policies.form:
        case "plain":
            return ()
        case "builtin":
            return builtin_ids(application, workload.identity)
        case "identity":
            return (spiffe_id(application, workload, policies.domain_template),)


def probes(policies: Policies, application: Application) -> tuple[Probe, ...]:
    """Return requests that prove mutual TLS and each permission, workload by workload."""
    every: tuple[Permission, ...] = (*policies.permissions, *policies.traffic_permissions)
    return (
        *_plaintext(policies, application),
        *(probe for permission in every for probe in permission_probes(permission, policies, application)),
    )


def find_outcome(policies: Policies, application: Application, caller: Workload | None, workload: Workload) -> Outcome:
    """Return what the permissions make of the workload's usual request: with the caller's certificate, or in
    plaintext."""
    names = certificate_names(policies, application, caller) if caller is not None else ()
    return Outcome(
        _DENIED.get(decide_request(policies, workload, names), application.usual_request(workload.app).status)
    )


def permission_probes(permission: Permission, policies: Policies, application: Application) -> Iterator[Probe]:
    """Yield the probes that prove one of the permissions."""
    for workload in application.workloads:
        scene = _WorkloadPolicies(policies, application, workload)
        if isinstance(permission, TrafficPermission):
            yield from scene.connection(permission)
        elif policies.applies(permission, workload):
            yield from scene.service(permission) if permission.spec.from_ else scene.identity(permission)


def _plaintext(policies: Policies, application: Application) -> Iterator[Probe]:
    """Yield a probe without a certificate for each workload, which the MeshIdentity or Mesh must refuse."""
    if policies.form != "plain":
        label = "default" if policies.identity is None else policies.identity.metadata.name
        for workload in application.workloads:
            usual = application.usual_request(workload.app)
            yield Probe(label, workload.name, None, usual.method, usual.path, 0)


@dataclass(frozen=True, slots=True)
class _WorkloadPolicies:
    """The policies at one workload, for which it builds probes."""

    policies: Policies
    application: Application
    workload: Workload

    def connection(self, permission: TrafficPermission) -> Iterator[Probe]:
        if permission.rank(service_tags(self.application, self.workload)):
            matching = [caller for caller in self._callers() if has_source(permission, self._names(caller))]
            yield from self._pair(permission.metadata.name, matching, allowing=True)

    def service(self, permission: MeshTrafficPermission) -> Iterator[Probe]:
        for index, one in enumerate(permission.spec.from_):
            name = permission.metadata.name
            label = name if len(permission.spec.from_) == 1 else f"{name} from {index}"
            service, allowing = one.target_ref.service, one.default.action == "Allow"
            matching = [caller for caller in self._callers() if has_name(service, self._names(caller))]
            yield from self._pair(label, matching, allowing=allowing)

    def identity(self, permission: MeshTrafficPermission) -> Iterator[Probe]:
        entries = list(permission.entries())
        for index, (verb, match) in enumerate(entries):
            name = permission.metadata.name
            label = name if len(entries) == 1 else f"{name} rule {index}"
            matching = [caller for caller in self._callers() if match.matches(self._names(caller)[0])]
            yield from self._pair(label, matching, allowing=verb == "allow")

    def _pair(self, label: str, matching: Sequence[Workload], *, allowing: bool) -> Iterator[Probe]:
        """Yield a probe of one caller that matches the permission, and of one that does not."""
        others = [caller for caller in self._callers() if caller not in matching]
        yield from self._first(label, (caller for caller in matching if self._allows(caller) == allowing))
        yield from self._first(label, (caller for caller in others if self._allows(caller) != allowing))

    def _callers(self) -> tuple[Workload, ...]:
        """Return all possible callers, those of the application itself first."""
        usual = self.application.callers(self.workload.name)
        return (*usual, *(one for one in self.application.everyone if one not in usual))

    def _names(self, caller: Workload) -> tuple[str, ...]:
        return certificate_names(self.policies, self.application, caller)

    def _decision(self, caller: Workload) -> Decision:
        return decide_request(self.policies, self.workload, self._names(caller))

    def _allows(self, caller: Workload) -> bool:
        return self._decision(caller) == "allowed"

    def _first(self, label: str, callers: Iterable[Workload]) -> Iterator[Probe]:
        usual = self.application.usual_request(self.workload.app)
        for caller in callers:
            expected = _DENIED.get(self._decision(caller), usual.status)
            yield Probe(label, self.workload.name, caller.identity, usual.method, usual.path, expected)
            return
