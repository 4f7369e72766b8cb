"""Define what a run has to be allowed to do on a cluster, and make such needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

READ: Final = ("get", "list")
KEEP: Final = ("get", "list", "create", "patch", "delete")
OWN: Final = ("get", "create", "patch", "delete")
RBAC: Final = "rbac.authorization.k8s.io"

_GRANT: Final = (*OWN, "escalate", "bind")


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be allowed, and what for. `names` limits it to objects of these names, `namespace` to that one."""

    verbs: tuple[str, ...]
    group: str
    resource: str
    purpose: str
    names: tuple[str, ...] = ()
    namespace: str = ""

    @property
    def resource_name(self) -> str:
        """The resource as kubectl names it: `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True)
class Rights:
    """What a mesh needs in addition to what every run needs: in a run, for sidecars with an image of their own, to be
    installed, and for its CNI plugin."""

    run: tuple[Need, ...] = ()
    sidecar_image: tuple[Need, ...] = ()
    install: tuple[Need, ...] = ()
    plugin: tuple[Need, ...] = ()


def make_needs(
    verbs: tuple[str, ...], group: str, resources: Sequence[str], purpose: str, *, names: tuple[str, ...] = ()
) -> Iterator[Need]:
    """Yield one need for each resource."""
    return (Need(verbs, group, resource, purpose, names) for resource in resources)


def list_kinds(resources: Mapping[str, Sequence[str]]) -> Iterator[Need]:
    """Yield the needs to list all objects of a mesh's kinds, by API group: a kind that a run has made is deleted only
    where no other program has objects of it."""
    for group, names in resources.items():
        yield from make_needs(("list",), group, names, "objects of others, before the mesh's kinds are deleted")


def own_rights(*, cluster_roles: tuple[str, ...], roles: tuple[str, ...]) -> Iterator[Need]:
    """Yield the needs to grant a control plane its own rights, by name. A user who grants rights has to have them or be
    allowed to `escalate` and `bind`."""
    purpose = "the control plane's own rights"
    yield from own_cluster_rights(purpose, roles=cluster_roles, bindings=cluster_roles)
    yield from make_needs(_GRANT, RBAC, ("roles",), purpose, names=roles)
    yield from make_needs(OWN, RBAC, ("rolebindings",), purpose, names=roles)


def own_cluster_rights(purpose: str, *, roles: tuple[str, ...], bindings: tuple[str, ...]) -> Iterator[Need]:
    """Yield the needs to grant rights in the whole cluster, by name."""
    yield from make_needs(_GRANT, RBAC, ("clusterroles",), purpose, names=roles)
    yield from make_needs(OWN, RBAC, ("clusterrolebindings",), purpose, names=bindings)
