"""In which order what a run left is deleted, so that nothing is needed any more when it is deleted. Pure.

A mesh's webhook answers for its objects, and its control plane for their finalizers: both outlive the objects. The
webhook is deleted before the control plane, or the API server would call one that is gone and refuse every deletion.
The custom resource definitions are deleted last: while they stay, they show that we installed the mesh.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.ownership import COMPONENT, POD_GRACE_S, labels_of, run_of
from bench.meshes import MESHES

LOCK_COMPONENT: Final = "lock"

_ASKED_FIRST: Final = (
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
)  # what the API server calls for other objects
# A CNI plugin removes itself from its node when it ends: one that was killed keeps all new pods off it.
_PATIENT: Final = "DaemonSet"


class Stage(IntEnum):
    """What is deleted together; a stage begins when nothing is left of the one before that it has to wait for."""

    APPLICATION = 1
    POLICIES = 2
    WEBHOOKS = 3
    CONTROL_PLANE = 4
    MADE_BY_MESH = 5  # what the control plane made outside its namespace, without labels
    NAMESPACES = 6  # of the first and the fourth stage: their deletion takes seconds, with nothing in them that matters
    KINDS = 7
    LOCK = 8


@dataclass(frozen=True, slots=True)
class RunObject:
    """An object of a run on the cluster."""

    ref: Ref
    thing: Object

    @property
    def run_id(self) -> str:
        return run_of(self.thing)

    @property
    def component(self) -> str:
        return labels_of(self.thing).get(COMPONENT, "")

    @property
    def created_at(self) -> str:
        """When the API server made it, as it writes times: they compare as texts."""
        return str(self.thing["metadata"].get("creationTimestamp", ""))

    @property
    def is_terminating(self) -> bool:
        """Whether its deletion was requested."""
        return bool(self.thing["metadata"].get("deletionTimestamp"))

    @property
    def is_owned(self) -> bool:
        """Whether another object made it and is deleted with it, as a ReplicaSet's pods."""
        return any(owner.get("controller") for owner in self.thing["metadata"].get("ownerReferences") or ())

    @property
    def stage(self) -> Stage:
        if self.component == LOCK_COMPONENT:
            return Stage.LOCK
        if self.ref.kind == "CustomResourceDefinition":
            return Stage.KINDS
        if group_of(self.ref.api_version) in _ASKED_FIRST:
            return Stage.WEBHOOKS
        if is_custom(self.ref.api_version):
            return Stage.POLICIES
        return Stage.CONTROL_PLANE if self.component in MESHES else Stage.APPLICATION


def make_run_object(thing: Object) -> RunObject:
    """Return an object as the cluster lists it."""
    return RunObject(ref_of(thing), thing)


def is_custom(api_version: str) -> bool:
    """Return whether such objects exist by a custom resource definition, and not by Kubernetes itself."""
    group = group_of(api_version)
    return "." in group and (not group.endswith(".k8s.io") or group == "gateway.networking.k8s.io")


def group_of(api_version: str) -> str:
    """Return the API group; empty for the core's."""
    return api_version.partition("/")[0] if "/" in api_version else ""


def select_stage(things: Iterable[RunObject], stage: Stage) -> tuple[RunObject, ...]:
    """Return what has to be deleted in a stage. What is in a namespace of ours is deleted with it, at the latest in the
    namespace's own stage."""
    everything = tuple(things)
    ends = {one.ref.name: one.stage for one in everything if one.ref.kind == "Namespace"}
    return tuple(one for one in everything if min(one.stage, ends.get(one.ref.namespace, one.stage)) == stage)


def select_awaited(things: Iterable[RunObject]) -> tuple[RunObject, ...]:
    """Return the objects of a stage for which the next stage has to wait: not a namespace that is terminating, nor what
    is deleted with it, but pods, which still need their control plane, and custom resources."""
    everything = tuple(things)
    terminating = {one.ref.name for one in everything if one.ref.kind == "Namespace" and one.is_terminating}
    return tuple(
        one
        for one in everything
        if not (one.ref.kind == "Namespace" and one.is_terminating)
        and (one.ref.namespace not in terminating or _is_always_awaited(one))
    )


def _is_always_awaited(one: RunObject) -> bool:
    return one.ref.kind == "Pod" or is_custom(one.ref.api_version)


@dataclass(frozen=True, slots=True)
class Deletion:
    """One request; `grace_s` is how long a pod may take, None for its own choice."""

    one: RunObject
    grace_s: int | None = None


def plan_deletions(things: Iterable[RunObject]) -> tuple[Deletion, ...]:
    """Return the requests for a stage's objects, all to be sent at once: namespaces, what is not deleted with them or
    is waited for, and pods with a short grace period. Nothing that was requested already, except that pods get the
    shorter period; those of a DaemonSet keep their own."""
    everything = tuple(things)
    namespaces = {one.ref.name for one in everything if one.ref.kind == "Namespace"}
    first = [one for one in everything if one.ref.kind == "Namespace" and not one.is_terminating]
    pods = [one for one in everything if one.ref.kind == "Pod" and _needs_shorter_grace(one)]
    rest = [one for one in everything if one.ref.kind not in ("Namespace", "Pod") and _needs_deletion(one, namespaces)]
    return (
        *map(Deletion, (*first, *rest)),
        *(Deletion(one, POD_GRACE_S) for one in pods),
    )


def _needs_shorter_grace(pod: RunObject) -> bool:
    if any(owner["kind"] == _PATIENT for owner in pod.thing["metadata"].get("ownerReferences") or ()):
        return False
    grace_s = pod.thing["metadata"].get("deletionGracePeriodSeconds")
    return not pod.is_terminating or (grace_s is not None and grace_s > POD_GRACE_S)


def _needs_deletion(one: RunObject, namespaces: set[str]) -> bool:
    return not (one.is_terminating or one.is_owned) and (one.ref.namespace not in namespaces or _is_always_awaited(one))
