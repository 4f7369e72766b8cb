"""Kuma's policies of one configuration, and which of them concern a workload.

Two forms, never mixed: MeshIdentity with MeshTrafficPermissions (Kuma 2.14, and 3.0), and Mesh.mtls with
TrafficPermissions (2.x only).
"""

from dataclasses import dataclass
from typing import Final, Literal

from bench.meshes.application import Application, Workload
from bench.meshes.kuma_names import ROOT_NAMESPACE, service_tags
from bench.meshes.kuma_objects import MeshIdentity, MeshSpec, MeshTrafficPermission, TrafficPermission
from bench.meshes.kuma_routes import MeshHTTPRoute
from bench.meshes.objects import LabelSelector

Form = Literal["plain", "builtin", "identity"]

_DEFAULT_MESH: Final = MeshSpec()


@dataclass(frozen=True, slots=True)
class Policies:
    """What one configuration says about the mesh; without a Mesh it is Kuma's default one, in plain text."""

    application: Application
    mesh: MeshSpec = _DEFAULT_MESH
    identity: MeshIdentity | None = None
    permissions: tuple[MeshTrafficPermission, ...] = ()
    traffic_permissions: tuple[TrafficPermission, ...] = ()
    routes: tuple[MeshHTTPRoute, ...] = ()

    @property
    def form(self) -> Form:
        """Where certificates come from: nowhere, the mesh's builtin authority, or a MeshIdentity."""
        if self.identity is not None:
            return "identity"
        return "plain" if self.mesh.mtls is None else "builtin"

    @property
    def exclusive(self) -> bool:
        """Whether destinations are MeshServices."""
        return self.mesh.mesh_services.mode == "Exclusive"

    def namespace_of(self, policy: MeshTrafficPermission | MeshHTTPRoute) -> str:
        """Where the policy lives: what it says, or the application's namespace."""
        return policy.metadata.namespace or self.application.namespace

    def applies(self, policy: MeshTrafficPermission | MeshHTTPRoute, workload: Workload) -> bool:
        """Whether it protects the workload, or routes what that sends: by namespace (the system's means all) and
        labels."""
        near = self.namespace_of(policy) in {self.application.namespace, ROOT_NAMESPACE}
        return near and LabelSelector(matchLabels=policy.spec.target_ref.labels).selects(workload.labels)

    def permitting(self, workload: Workload) -> tuple[MeshTrafficPermission, ...]:
        """The MeshTrafficPermissions that protect the workload, in their order."""
        return tuple(policy for policy in self.permissions if self.applies(policy, workload))

    def closest(self, workload: Workload) -> TrafficPermission | None:
        """The one TrafficPermission that counts for the workload."""
        tags = service_tags(self.application, workload)
        naming = [permission for permission in self.traffic_permissions if permission.rank(tags)]
        return max(naming, key=lambda one: one.rank(tags), default=None)
