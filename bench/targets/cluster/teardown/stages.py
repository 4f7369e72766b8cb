"""In which order what a run left is deleted, so that nothing is needed any more when it goes. Pure.

A mesh's webhook answers for its objects, and its control plane for their finalizers: both outlive the objects, and the
webhook goes before the control plane, or the API server asks one that is gone and refuses every deletion. The kinds go
last: while they stay, they tell that we installed the mesh.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bench.k8s.client import Object, Ref, ref_of
from bench.k8s.ownership import COMPONENT, POD_GRACE_S, labels_of, run_of

MESH_COMPONENTS: Final = ("istio", "kuma")
LOCK_COMPONENT: Final = "lock"

_ASKED_FIRST: Final = ("admissionregistration.k8s.io", "apiregistration.k8s.io")  # what the API server asks for others
# A CNI plug-in takes itself out of its node when it ends: one that was killed keeps all new pods off it.
_PATIENT: Final = "DaemonSet"


class Stage(IntEnum):
    """What goes together; a stage begins when nothing is left of the one before that it has to wait for."""

    APPLICATION = 1
    POLICIES = 2
    WEBHOOKS = 3
    CONTROL_PLANE = 4
    MADE_BY_MESH = 5  # what the control plane made outside its namespace, without labels
    NAMESPACES = 6  # of the first and the fourth stage: they take seconds to go, with nothing in them that matters
    KINDS = 7
    LOCK = 8


@dataclass(frozen=True, slots=True)
class Found:
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
    def going(self) -> bool:
        """Its deletion has been asked for."""
        return bool(self.thing["metadata"].get("deletionTimestamp"))

    @property
    def derived(self) -> bool:
        """Another object made it and takes it along, as a ReplicaSet its pods."""
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
        return Stage.CONTROL_PLANE if self.component in MESH_COMPONENTS else Stage.APPLICATION


def found(thing: Object) -> Found:
    """An object as the cluster lists it."""
    return Found(ref_of(thing), thing)


def is_custom(api_version: str) -> bool:
    """Whether such objects exist by a custom resource definition, and not by Kubernetes itself."""
    group = group_of(api_version)
    return "." in group and (not group.endswith(".k8s.io") or group == "gateway.networking.k8s.io")


def group_of(api_version: str) -> str:
    """The API group; empty for the core's."""
    return api_version.partition("/")[0] if "/" in api_version else ""


def of_stage(things: Iterable[Found], stage: Stage) -> tuple[Found, ...]:
    """What a stage has to see gone. What is in a namespace of ours goes with it, at the latest in the namespace's own
    stage."""
    everything = tuple(things)
    ends = {one.ref.name: one.stage for one in everything if one.ref.kind == "Namespace"}
    return tuple(one for one in everything if min(one.stage, ends.get(one.ref.namespace, one.stage)) == stage)


def awaited(things: Iterable[Found]) -> tuple[Found, ...]:
    """Of a stage's objects, those for which the next stage has to wait: not a namespace that is going, nor what goes
    with it, but pods, which still want their control plane, and custom resources."""
    everything = tuple(things)
    going = {one.ref.name for one in everything if one.ref.kind == "Namespace" and one.going}
    return tuple(
        one
        for one in everything
        if not (one.ref.kind == "Namespace" and one.going) and (one.ref.namespace not in going or _matters(one))
    )


def _matters(one: Found) -> bool:
    return one.ref.kind == "Pod" or is_custom(one.ref.api_version)


@dataclass(frozen=True, slots=True)
class Deletion:
    """One request; `grace_s` is how long a pod may take, None for its own choice."""

    ref: Ref
    grace_s: int | None = None


def deletions(things: Iterable[Found]) -> tuple[Deletion, ...]:
    """The requests that a stage's objects ask for, all to be sent at once: namespaces, what does not go with them or is
    waited for, and pods in a hurry. Nothing that was asked for already, except that pods are told to hurry; those of a
    DaemonSet go in their own time."""
    everything = tuple(things)
    namespaces = {one.ref.name for one in everything if one.ref.kind == "Namespace"}
    first = [one for one in everything if one.ref.kind == "Namespace" and not one.going]
    pods = [one for one in everything if one.ref.kind == "Pod" and _dawdles(one)]
    rest = [one for one in everything if one.ref.kind not in ("Namespace", "Pod") and _by_itself(one, namespaces)]
    return (
        *(Deletion(one.ref) for one in first),
        *(Deletion(one.ref) for one in rest),
        *(Deletion(one.ref, POD_GRACE_S) for one in pods),
    )


def _dawdles(pod: Found) -> bool:
    if any(owner["kind"] == _PATIENT for owner in pod.thing["metadata"].get("ownerReferences") or ()):
        return False
    grace_s = pod.thing["metadata"].get("deletionGracePeriodSeconds")
    return not pod.going or (grace_s is not None and grace_s > POD_GRACE_S)


def _by_itself(one: Found, namespaces: set[str]) -> bool:
    return not (one.going or one.derived) and (one.ref.namespace not in namespaces or _matters(one))
