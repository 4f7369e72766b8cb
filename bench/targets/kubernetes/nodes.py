"""The nodes of a cluster: their names, which of them take pods, and what they may be short of. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.targets.kubernetes.client import Object

PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure")  # under each of them pods are evicted
_KEEPS_OUT: Final = ("NoSchedule", "NoExecute")


def schedulable(nodes: Sequence[Object]) -> tuple[Object, ...]:
    """The nodes that take ordinary pods: ready, not cordoned, without a taint that keeps pods away."""
    return tuple(node for node in nodes if _takes_pods(node))


def node_name(node: Object) -> str:
    return str(node["metadata"]["name"])


def conditions(node: Object) -> Mapping[str, Mapping[str, Any]]:
    """What a node says of its state, by type."""
    return {str(one["type"]): one for one in node["status"].get("conditions") or ()}


def has_condition(node: Object, kind: str) -> bool:
    """Whether a condition is true; one that is not told is not."""
    return conditions(node).get(kind, {}).get("status") == "True"


def _takes_pods(node: Object) -> bool:
    spec: dict[str, Any] = node.get("spec") or {}
    shut = any(taint.get("effect") in _KEEPS_OUT for taint in spec.get("taints") or ())
    return has_condition(node, "Ready") and not shut and not spec.get("unschedulable")
