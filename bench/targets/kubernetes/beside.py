"""The control planes beside a trial: one that is started again, or goes, takes processors from what is measured, and
leaves sidecars with old rules."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bench.targets.kubernetes.client import Cluster, Object
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.injection import restarts, statuses

# By a pod's uid: its name, and how often each of its containers ended.
Seen: TypeAlias = Mapping[str, tuple[str, Mapping[str, int]]]


def control_plane_pods(cluster: Cluster) -> tuple[Object, ...]:
    """Of every mesh that is there, whether or not the trial uses it."""
    return tuple(
        pod
        for plane in CONTROL_PLANES.values()
        for pod in cluster.list("v1", "Pod", namespace=plane.NAMESPACE, labels=plane.PODS)
    )


def seen(pods: Sequence[Object]) -> Seen:
    """What `ended_since` compares with. A pod that was evicted before stays listed, and is no part of it."""
    return {pod["metadata"]["uid"]: (pod["metadata"]["name"], _counts(pod)) for pod in pods if not _failure(pod)}


def ended_since(before: Seen, pods: Sequence[Object]) -> tuple[str, ...]:
    """The containers that ended since `before`, and why, and the pods that are no more; in words. A pod that is new
    stands for one that is gone, or for more of them."""
    changed = [pod for pod in pods if _counts(pod) != before.get(pod["metadata"]["uid"], ("", _counts(pod)))[1]]
    return (*restarts(changed), *gone_since(before, pods))


def gone_since(before: Seen, pods: Sequence[Object]) -> tuple[str, ...]:
    """The pods that are no more, on their way out, or were ended as a whole, and why, in words."""
    there = {pod["metadata"]["uid"]: pod for pod in pods}
    gone = ((name, there.get(uid)) for uid, (name, _) in before.items() if not _lasts(there.get(uid)))
    return tuple(f"pod {name}{_failure(pod) if pod else ''} ended" for name, pod in gone)


def _lasts(pod: Object | None) -> bool:
    return pod is not None and "deletionTimestamp" not in pod["metadata"] and not _failure(pod)


def _failure(pod: Object) -> str:
    """` (Evicted)`, where the node ended the pod as a whole; such a pod stays listed, and may tell of no container."""
    status = pod.get("status", {})
    return f" ({status['reason']})" if status.get("phase") == "Failed" and status.get("reason") else ""


def _counts(pod: Object) -> dict[str, int]:
    """How often each container has ended: one that has, and was not started again yet, counts too."""
    return {one["name"]: one.get("restartCount", 0) + ("terminated" in one.get("state", {})) for one in statuses(pod)}
