"""What Kuma's permissions say to one caller: the intent, as a pure function.

The sidecars' RBAC filters come from the same models by another way (`kuma_rbac`); proofs ask real sidecars
and compare the answers with what is said here.
"""

from typing import Literal

from bench.meshes.application import Workload
from bench.meshes.kuma_names import builtin_id
from bench.meshes.kuma_objects import ANY, TrafficPermission
from bench.meshes.kuma_policies import Policies

Decision = Literal["allowed", "denied", "refused"]


def decision(policies: Policies, workload: Workload, names: tuple[str, ...]) -> Decision:
    """`allowed`, `denied` (403), or `refused`: the connection itself is closed.

    `names` are those in the caller's certificate, its SPIFFE id first; none for plain text. The form with a
    MeshIdentity denies a request, the older one closes the connection.
    """
    if policies.form == "plain":
        return "refused" if names else "allowed"
    if not names:
        return "refused"
    if policies.form == "identity":
        return "allowed" if _identity_passes(policies, workload, names[0]) else "denied"
    permission = policies.closest(workload)
    return "allowed" if permission is not None and names_source(permission, names) else "refused"


def names_source(permission: TrafficPermission, names: tuple[str, ...]) -> bool:
    """Whether a TrafficPermission has a source with one of these names."""
    services = {source.match.service for source in permission.spec.sources}
    return ANY in services or any(builtin_id(service) in names for service in services)


def _identity_passes(policies: Policies, workload: Workload, spiffe_id: str) -> bool:
    entries = [entry for policy in policies.permitting(workload) for entry in policy.entries()]
    said = {verb for verb, match in entries if match.matches(spiffe_id)}
    return "allow" in said and "deny" not in said
