"""Find what else changed during a trial: control planes that restart, nodes under pressure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from bench.k8s.client import Cluster, Object
from bench.k8s.objects import PRESSURES, conditions_by_type, container_statuses, find_restarts, node_name
from bench.meshes.control_planes import CONTROL_PLANES

# By a pod's uid: its name, and how often each of its containers ended.
PodSnapshot: TypeAlias = Mapping[str, tuple[str, Mapping[str, int]]]
_ConditionsByType: TypeAlias = Mapping[str, tuple[str, str]]  # by type: the status, and since when
NodeConditions: TypeAlias = Mapping[str, _ConditionsByType]  # by the node's name
Neighbours: TypeAlias = Mapping[str, str]  # by a pod's uid: its namespace and name

_READY: Final = "Ready"


def control_plane_pods(cluster: Cluster) -> tuple[Object, ...]:
    """Return the pods of every mesh that is there, whether or not the trial uses it."""
    return tuple(
        pod
        for plane in CONTROL_PLANES.values()
        for pod in cluster.list("v1", "Pod", namespace=plane.NAMESPACE, labels=plane.PODS)
    )


def snapshot_pods(pods: Sequence[Object]) -> PodSnapshot:
    """Return what `find_ended` compares with. A pod that was evicted before stays listed, and is no part of it."""
    return {
        pod["metadata"]["uid"]: (pod["metadata"]["name"], _count_ends(pod)) for pod in pods if not _format_failure(pod)
    }


def find_ended(before: PodSnapshot, pods: Sequence[Object]) -> tuple[str, ...]:
    """Format the containers that ended since `before`, and why, and the pods that were removed. A pod that is new
    replaces one that was removed, or is one more."""
    changed = [pod for pod in pods if _count_ends(pod) != before.get(pod["metadata"]["uid"], ("", _count_ends(pod)))[1]]
    return (*find_restarts(changed), *find_removed(before, pods))


def find_removed(before: PodSnapshot, pods: Sequence[Object]) -> tuple[str, ...]:
    """Format the pods that were removed, are terminating, or were ended as a whole, and why."""
    there = {pod["metadata"]["uid"]: pod for pod in pods}
    gone = ((name, there.get(uid)) for uid, (name, _) in before.items() if not _is_lasting(there.get(uid)))
    return tuple(f"pod {name}{_format_failure(pod) if pod else ''} ended" for name, pod in gone)


def _is_lasting(pod: Object | None) -> bool:
    return pod is not None and "deletionTimestamp" not in pod["metadata"] and not _format_failure(pod)


def _format_failure(pod: Object) -> str:
    """Return ` (Evicted)`, where the node ended the pod as a whole; such a pod stays listed, and may have no container
    status."""
    status = pod.get("status", {})
    return f" ({status['reason']})" if status.get("phase") == "Failed" and status.get("reason") else ""


def _count_ends(pod: Object) -> dict[str, int]:
    """Return how often each container has ended: one that has, and was not started again yet, counts too."""
    return {
        one["name"]: one.get("restartCount", 0) + ("terminated" in one.get("state", {}))
        for one in container_statuses(pod)
    }


def snapshot_neighbours(pods: Sequence[Object], *, nodes: Collection[str], own: Collection[str]) -> Neighbours:
    """Return the pods of others on the nodes of a run, for `find_moves`. `own` are the namespaces of the run."""
    return {
        pod["metadata"]["uid"]: f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod["spec"].get("nodeName") in nodes and pod["metadata"]["namespace"] not in own and _has_processes(pod)
    }


def _has_processes(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def find_moves(before: Neighbours, after: Neighbours) -> tuple[str, ...]:
    """Format the pods of others that came to a run's nodes or went between two snapshots: their start and end use the
    CPUs, the disk and the network of the node."""
    came = [f"pod {name} came" for uid, name in after.items() if uid not in before]
    went = [f"pod {name} went" for uid, name in before.items() if uid not in after]
    return (*sorted(came), *sorted(went))


def snapshot_conditions(nodes: Sequence[Object], names: Collection[str]) -> NodeConditions:
    """Return what `find_node_problems` compares with, of the nodes of these names."""
    return {node_name(node): _read_conditions(node) for node in nodes if node_name(node) in names}


def find_node_problems(before: NodeConditions, nodes: Sequence[Object]) -> tuple[str, ...]:
    """Format what is wrong with the nodes of `before` now, or was meanwhile.

    A condition that has passed again shows by the time of its last change. That is compared with the time before only:
    both are of the cluster's clocks, and in whole seconds.
    """
    now = snapshot_conditions(nodes, before)
    return tuple(
        f"node {name}: {problem}" for name, was in before.items() for problem in _list_node_problems(was, now.get(name))
    )


def _read_conditions(node: Object) -> _ConditionsByType:
    by_type = conditions_by_type(node)
    return {kind: (str(one["status"]), str(one.get("lastTransitionTime", ""))) for kind, one in by_type.items()}


def _list_node_problems(was: _ConditionsByType, now: _ConditionsByType | None) -> Iterator[str]:
    if now is None:
        yield "was removed"
        return
    silent = _has_changed(_READY, was, now)  # a kubelet that stops reporting changes all its conditions, there and back
    if silent or _status(_READY, now) != "True":
        yield "was not ready"
    for kind in PRESSURES:
        if _status(kind, now) == "True" or (_has_changed(kind, was, now) and not silent):
            yield f"had {kind}"


def _has_changed(kind: str, was: _ConditionsByType, now: _ConditionsByType) -> bool:
    return kind in was and was[kind] != now.get(kind)


def _status(kind: str, conditions: _ConditionsByType) -> str:
    return conditions.get(kind, ("", ""))[0]
