"""Select the policies of one configuration that apply to a workload, and decide on a request. Pure.

Two forms, never mixed: MeshIdentity with MeshTrafficPermissions (Kuma 2.14, and 3.0), and Mesh.mtls with
TrafficPermissions (2.x only).

The sidecars' RBAC filters are built from the same models, independently of this module (`envoy.rbac`). Proofs send
requests to real sidecars and compare the responses with these decisions.
"""

from dataclasses import dataclass
from typing import Final, Literal

from bench.application.manifests import LabelSelector
from bench.application.model import Application, Workload
from bench.meshes.kuma.manifests import ANY, MeshIdentity, MeshSpec, MeshTrafficPermission, TrafficPermission
from bench.meshes.kuma.naming import ROOT_NAMESPACE, builtin_id, service_tags
from bench.meshes.kuma.route_manifests import MeshHTTPRoute

Decision = Literal["allowed", "denied", "refused"]
Form = Literal["plain", "builtin", "identity"]

_DEFAULT_MESH: Final = MeshSpec()


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one configuration; without a Mesh it has Kuma's default one, in plaintext."""

    application: Application
    mesh: MeshSpec = _DEFAULT_MESH
    identity: MeshIdentity | None = None
    permissions: tuple[MeshTrafficPermission, ...] = ()
    traffic_permissions: tuple[TrafficPermission, ...] = ()
    http_routes: tuple[MeshHTTPRoute, ...] = ()

    @property
    def form(self) -> Form:
        """Return the source of certificates: none, the mesh's builtin authority, or a MeshIdentity."""
        if self.identity is not None:
            return "identity"
        return "plain" if self.mesh.mtls is None else "builtin"

    @property
    def exclusive(self) -> bool:
        """Return whether destinations are MeshServices."""
        return self.mesh.mesh_services.mode == "Exclusive"

    def namespace_of(self, policy: MeshTrafficPermission | MeshHTTPRoute) -> str:
        """Return the policy's namespace, by default the application's."""
        return policy.metadata.namespace or self.application.namespace

    def applies(self, policy: MeshTrafficPermission | MeshHTTPRoute, workload: Workload) -> bool:
        """Return whether the policy protects the workload, or routes its requests.

        Namespace (the system namespace means all) and labels decide.
        """
        near = self.namespace_of(policy) in {self.application.namespace, ROOT_NAMESPACE}
        return near and LabelSelector(matchLabels=policy.spec.target_ref.labels).selects(workload.labels)

    def permissions_for(self, workload: Workload) -> tuple[MeshTrafficPermission, ...]:
        """Return the MeshTrafficPermissions that protect the workload, in order."""
        return tuple(policy for policy in self.permissions if self.applies(policy, workload))

    def closest_permission(self, workload: Workload) -> TrafficPermission | None:
        """Return the one TrafficPermission that is used for the workload, or None."""
        tags = service_tags(self.application, workload)
        naming = [permission for permission in self.traffic_permissions if permission.rank(tags)]
        return max(naming, key=lambda one: one.rank(tags), default=None)


def decide_request(policies: Policies, workload: Workload, names: tuple[str, ...]) -> Decision:
    """Return `allowed`, `denied` (403), or `refused`, which means that the connection is closed.

    `names` are those in the caller's certificate, its SPIFFE id first; none for plaintext. The form with a MeshIdentity
    denies a request, the older one closes the connection.
    """
    if policies.form == "plain":
        return "refused" if names else "allowed"
    if not names:
        return "refused"
    if policies.form == "identity":
        return "allowed" if _is_identity_allowed(policies, workload, names[0]) else "denied"
    permission = policies.closest_permission(workload)
    return "allowed" if permission is not None and has_source(permission, names) else "refused"


def has_source(permission: TrafficPermission, names: tuple[str, ...]) -> bool:
    """Return whether a TrafficPermission has a source with one of these names."""
    services = {source.match.service for source in permission.spec.sources}
    return ANY in services or any(builtin_id(service) in names for service in services)


def _is_identity_allowed(policies: Policies, workload: Workload, spiffe_id: str) -> bool:
    entries = [entry for policy in policies.permissions_for(workload) for entry in policy.entries()]
    verbs = {verb for verb, match in entries if match.matches(spiffe_id)}
    return "allow" in verbs and "deny" not in verbs
