"""From permissions to questions: for each a caller that has to pass, and one that has to be turned away.

Every expectation is evaluated against the whole set of policies, so that it is right where policies overlap.
Kuma's permissions know no method and no path: every question is what the application's clients ask.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.application.model import ENDPOINTS, Application, Workload
from bench.meshes.kuma.manifests import MeshTrafficPermission, TrafficPermission
from bench.meshes.kuma.naming import builtin_ids, service_tags, spiffe_id
from bench.meshes.kuma.policies import Decision, Policies, decision, names_source
from bench.meshes.protocols import Probe

_DENIED: Final[dict[Decision, int]] = {"denied": 403, "refused": 0}

Permission = MeshTrafficPermission | TrafficPermission


def names_of(policies: Policies, application: Application, account: str) -> tuple[str, ...]:
    """The names in the certificate of a service account, its SPIFFE id first; none without mutual TLS."""
    match policies.form:
        case "plain":
            return ()
        case "builtin":
            return builtin_ids(application, account)
        case "identity":
            return (spiffe_id(application, account),)


def probes(policies: Policies, application: Application) -> tuple[Probe, ...]:
    """What to ask the sidecars so that mutual TLS and each permission show, workload by workload."""
    every: tuple[Permission, ...] = (*policies.permissions, *policies.traffic_permissions)
    return (
        *_plain_text(policies, application),
        *(probe for permission in every for probe in permission_probes(permission, policies, application)),
    )


def permission_probes(permission: Permission, policies: Policies, application: Application) -> Iterator[Probe]:
    """The probes that show one of the permissions."""
    for workload in application.workloads:
        scene = _Scene(policies, application, workload)
        if isinstance(permission, TrafficPermission):
            yield from scene.connection(permission)
        else:
            yield from scene.identity(permission)


def _plain_text(policies: Policies, application: Application) -> Iterator[Probe]:
    """Who does not show a certificate is refused everywhere; that is the MeshIdentity's doing, or the Mesh's."""
    if policies.form != "plain":
        label = "default" if policies.identity is None else policies.identity.metadata.name
        for workload in application.workloads:
            method, path = next(iter(ENDPOINTS[workload.app]))
            yield Probe(label, workload.name, None, method, path, 0)


@dataclass(frozen=True, slots=True)
class _Scene:
    """The policies as they meet at one workload."""

    policies: Policies
    application: Application
    workload: Workload

    def connection(self, permission: TrafficPermission) -> Iterator[Probe]:
        if permission.rank(service_tags(self.application, self.workload)):
            named = [caller for caller in self._callers() if names_source(permission, self._names(caller))]
            yield from self._pair(permission.metadata.name, named, allowing=True)

    def identity(self, permission: MeshTrafficPermission) -> Iterator[Probe]:
        if not self.policies.applies(permission, self.workload):
            return
        entries = list(permission.entries())
        for index, (verb, match) in enumerate(entries):
            name = permission.metadata.name
            label = name if len(entries) == 1 else f"{name} rule {index}"
            named = [caller for caller in self._callers() if match.matches(self._names(caller)[0])]
            yield from self._pair(label, named, allowing=verb == "allow")

    def _pair(self, label: str, named: Sequence[Workload], *, allowing: bool) -> Iterator[Probe]:
        """One caller on each side of what the permission says."""
        others = [caller for caller in self._callers() if caller not in named]
        yield from self._first(label, (caller for caller in named if self._allows(caller) == allowing))
        yield from self._first(label, (caller for caller in others if self._allows(caller) != allowing))

    def _callers(self) -> tuple[Workload, ...]:
        """All that could ask: first who asks when the application does its work."""
        usual = self.application.callers(self.workload.name)
        return (*usual, *(one for one in self.application.everyone if one not in usual))

    def _names(self, caller: Workload) -> tuple[str, ...]:
        return names_of(self.policies, self.application, caller.account)

    def _decision(self, caller: Workload) -> Decision:
        return decision(self.policies, self.workload, self._names(caller))

    def _allows(self, caller: Workload) -> bool:
        return self._decision(caller) == "allowed"

    def _first(self, label: str, callers: Iterable[Workload]) -> Iterator[Probe]:
        (method, path), status = next(iter(ENDPOINTS[self.workload.app].items()))
        for caller in callers:
            asked = _DENIED.get(self._decision(caller), status)
            yield Probe(label, self.workload.name, caller.account, method, path, asked)
            return
