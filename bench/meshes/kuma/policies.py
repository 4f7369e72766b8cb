"""Select the policies of one configuration that apply to a workload, and decide on a request. Pure.

Two forms of certificates, never mixed: MeshIdentity, with MeshTrafficPermissions that have `rules` (Kuma 2.14, and
3.0), and Mesh.mtls (2.x only). The latter has MeshTrafficPermissions with `from`, or TrafficPermissions where none of
them applies.

The sidecars' RBAC filters are built from the same models, independently of this module (`envoy.rbac`). Proofs send
requests to real sidecars and compare the responses with these decisions.
"""

from dataclasses import dataclass
from typing import Final, Literal

from bench.application.manifests import LabelSelector
from bench.application.model import Application, Workload
from bench.meshes.kuma.manifests import ANY, From, MeshIdentity, MeshSpec, MeshTrafficPermission, TrafficPermission
from bench.meshes.kuma.naming import DOMAIN_TEMPLATE, ROOT_NAMESPACE, builtin_id, service_tags, trust_domain
from bench.meshes.kuma.route_manifests import MeshHTTPRoute
from bench.meshes.kuma.traffic_manifests import MeshRetry, MeshTimeout

Decision = Literal["allowed", "denied", "refused"]
Form = Literal["plain", "builtin", "identity"]

Targeted = MeshTrafficPermission | MeshHTTPRoute | MeshTimeout | MeshRetry

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
    timeouts: tuple[MeshTimeout, ...] = ()
    retries: tuple[MeshRetry, ...] = ()

    @property
    def domain_template(self) -> str:
        """Return the template of the identities' trust domain."""
        return self.identity.spec.spiffe_id.trust_domain if self.identity is not None else DOMAIN_TEMPLATE

    def trust_domain(self, mesh: str) -> str:
        """Return the trust domain of the identities in a mesh of this name."""
        return trust_domain(mesh, self.domain_template)

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

    def namespace_of(self, policy: Targeted) -> str:
        """Return the policy's namespace, by default the application's."""
        return policy.metadata.namespace or self.application.namespace

    def applies(self, policy: Targeted, workload: Workload) -> bool:
        """Return whether the policy protects the workload, or is about its requests.

        Namespace (the system namespace means all) and labels decide.
        """
        near = self.namespace_of(policy) in {workload.namespace or self.application.namespace, ROOT_NAMESPACE}
        return near and LabelSelector(matchLabels=policy.spec.target_ref.labels).selects(workload.labels)

    def permissions_for(self, workload: Workload) -> tuple[MeshTrafficPermission, ...]:
        """Return the MeshTrafficPermissions with rules that protect the workload, in order."""
        return tuple(policy for policy in self.permissions if policy.spec.rules and self.applies(policy, workload))

    def callers_of(self, workload: Workload) -> tuple[From, ...]:
        """Return the entries of MeshTrafficPermissions with `from` that protect the workload: the last one that matches
        a caller counts."""
        found = (policy for policy in self.permissions if policy.spec.from_ and self.applies(policy, workload))
        return tuple(one for policy in sorted(found, key=self.rank) for one in policy.spec.from_)

    def rank(self, policy: Targeted) -> tuple[bool, bool]:
        """Return the order in which policies override each other: those that select workloads are last."""
        return bool(policy.spec.target_ref.labels), self.namespace_of(policy) != ROOT_NAMESPACE

    def closest_permission(self, workload: Workload) -> TrafficPermission | None:
        """Return the one TrafficPermission that is used for the workload, or None."""
        tags = service_tags(self.application, workload)
        naming = [permission for permission in self.traffic_permissions if permission.rank(tags)]
        return max(naming, key=lambda one: one.rank(tags), default=None)


def decide_request(policies: Policies, workload: Workload, names: tuple[str, ...]) -> Decision:
    """Return `allowed`, `denied` (403), or `refused`, which means that the connection is closed.

    `names` are those in the caller's certificate, its SPIFFE id first; none for plaintext. A MeshTrafficPermission
    denies a request, the older TrafficPermission closes the connection.
    """
    if policies.form == "plain":
        return "refused" if names else "allowed"
    if not names:
        return "refused"
    if policies.form == "identity":
        return "allowed" if _is_identity_allowed(policies, workload, names[0]) else "denied"
    if callers := policies.callers_of(workload):
        matching = [one for one in callers if has_name(one.target_ref.service, names)]
        return "allowed" if matching and matching[-1].default.action == "Allow" else "denied"
    permission = policies.closest_permission(workload)
    return "allowed" if permission is not None and has_source(permission, names) else "refused"


def has_source(permission: TrafficPermission, names: tuple[str, ...]) -> bool:
    """Return whether a TrafficPermission has a source with one of these names."""
    return any(has_name(source.match.service, names) for source in permission.spec.sources)


def has_name(service: str, names: tuple[str, ...]) -> bool:
    """Return whether a service tag, or ANY, is one of the names in a certificate of the builtin authority."""
    return service == ANY or builtin_id(service) in names


def _is_identity_allowed(policies: Policies, workload: Workload, spiffe_id: str) -> bool:
    entries = [entry for policy in policies.permissions_for(workload) for entry in policy.entries()]
    verbs = {verb for verb, match in entries if match.matches(spiffe_id)}
    return "allow" in verbs and "deny" not in verbs
