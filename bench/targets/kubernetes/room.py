"""Room on the nodes: what the pods of a run ask for, against what nobody has asked for yet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.findings import CheckResult
from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.load_place import Part, part_of
from bench.targets.kubernetes.nodes import node_name
from bench.units import format_bytes, parse_quantity


@dataclass(frozen=True, slots=True)
class Room:
    """Processors (in cores) and memory (in bytes)."""

    cpu: float = 0.0
    memory: float = 0.0

    def __add__(self, other: "Room") -> "Room":
        return Room(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "Room") -> "Room":
        return Room(self.cpu - other.cpu, self.memory - other.memory)

    def holds(self, other: "Room") -> bool:
        return self.cpu >= other.cpu - 1e-9 and self.memory >= other.memory

    def __str__(self) -> str:
        return f"{round(self.cpu, 3):,g} CPU and {format_bytes(self.memory)}"


NO_ROOM: Final = Room()


@dataclass(frozen=True, slots=True)
class Asked:
    """One pod to come, what it asks for, and what it is a part of, which says where it may go."""

    name: str
    room: Room
    part: Part = "any"


@dataclass(frozen=True, slots=True)
class Free:
    """What is left of a node; `pods` is how many more it takes."""

    node: str
    room: Room
    pods: int


def pod_room(spec: Object) -> Room:
    """What the scheduler counts for a pod: its containers and native sidecars together, or the largest of the
    containers that run before them."""
    early = spec.get("initContainers") or ()
    lasting = [*spec["containers"], *(one for one in early if one.get("restartPolicy") == "Always")]
    total = sum(map(_container_room, lasting), NO_ROOM)
    first = [_container_room(one) for one in early if one.get("restartPolicy") != "Always"]
    return Room(max(total.cpu, *(one.cpu for one in first), 0), max(total.memory, *(one.memory for one in first), 0))


def _container_room(container: Object) -> Room:
    resources: dict[str, Any] = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}  # no request: the limit is one
    return room_of(asked)


def room_of(requests: Mapping[str, str | float]) -> Room:
    """The room in a container's requests; what they do not name is none."""
    return Room(_number(requests.get("cpu", 0)), _number(requests.get("memory", 0)))


def _number(quantity: str | float) -> float:
    return parse_quantity(str(quantity))  # YAML gives numbers for what has no unit


def asked_by(objects: Iterable[Object], *, sidecar: Room = NO_ROOM) -> tuple[Asked, ...]:
    """The pods that Deployments and Pods among `objects` will be, each with `sidecar` beside it; those of Kuma's
    gateways, which are a proxy and nothing else; of a DaemonSet, one node's."""
    found: list[Asked] = []
    for thing in objects:
        name, spec = thing["metadata"]["name"], thing["spec"]
        if thing["kind"] == "DaemonSet":
            found.append(Asked(name, pod_room(spec["template"]["spec"])))
        elif thing["kind"] == "Deployment":
            found += [_asked(name, spec["template"]["spec"], sidecar)] * spec.get("replicas", 1)
        elif thing["kind"] == "Pod":
            found.append(_asked(name, spec, sidecar))
        elif thing["kind"] == "MeshGatewayInstance":
            found += [Asked(name, pod_room({"containers": [spec]}))] * spec.get("replicas", 1)
    return tuple(found)


def _asked(name: str, spec: Object, sidecar: Room) -> Asked:
    return Asked(name, pod_room(spec) + sidecar, part_of(spec))


def free_rooms(nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[Free, ...]:
    """What is left of each node after the pods that are bound to it and have not ended."""
    bound = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    return tuple(
        _free(node, [pod for pod in bound if pod["spec"].get("nodeName") == node_name(node)]) for node in nodes
    )


def _free(node: Object, pods: Sequence[Object]) -> Free:
    allocatable = node["status"]["allocatable"]
    taken = sum((pod_room(pod["spec"]) for pod in pods), NO_ROOM)
    whole = Room(_number(allocatable["cpu"]), _number(allocatable["memory"]))
    return Free(node_name(node), whole - taken, int(_number(allocatable["pods"])) - len(pods))


def left_by(everywhere: Sequence[Asked], free: Iterable[Free]) -> tuple[Free, ...]:
    """What is left of each node when these have taken their part of it."""
    taken = sum((pod.room for pod in everywhere), NO_ROOM)
    return tuple(Free(one.node, one.room - taken, one.pods - len(everywhere)) for one in free)


def without_room(asked: Iterable[Asked], free: Sequence[Free], *, load_node: str = "") -> tuple[Asked, ...]:
    """The pods that find no place when the largest are placed first, each where most processors are left. `load_node`
    is the load's alone, of the load and the application; empty where it has none."""
    left, homeless = list(free), []
    for pod in sorted(asked, key=lambda one: (one.room.cpu, one.room.memory), reverse=True):
        allowed = [node for node in left if _may_go(pod, node, load_node)]
        fitting = [node for node in allowed if node.pods > 0 and node.room.holds(pod.room)]
        if not fitting:
            homeless.append(pod)
            continue
        best = max(fitting, key=lambda node: node.room.cpu)
        left[left.index(best)] = Free(best.node, best.room - pod.room, best.pods - 1)
    return tuple(homeless)


def _may_go(pod: Asked, node: Free, load_node: str) -> bool:
    if not load_node or pod.part == "any":
        return True
    return (node.node == load_node) == (pod.part == "load")


def examine_room(asked: Sequence[Asked], free: Sequence[Free], *, load_node: str = "") -> CheckResult:
    """Whether all pods of a run would be scheduled; `load_node` as in `without_room`."""
    total = sum((pod.room for pod in asked), NO_ROOM)
    needed = f"{len(asked)} pods that ask for {total}"
    there = "; ".join(f"{node.node} has {node.room} and {node.pods} pods left" for node in free)
    apart = f"; the load has {load_node} for itself" if load_node else ""
    homeless = without_room(asked, free, load_node=load_node)
    if not homeless:
        return CheckResult("room", "ok", f"for {needed}: {there}{apart}")
    named = ", ".join(f"{pod.name} ({pod.room}{_where(pod, load_node)})" for pod in homeless)
    hint = "remove other workloads, add a node, or ask for less (--mesh-values)"
    return CheckResult("room", "error", f"none for {named}, of {needed}: {there}{apart}", hint)


def _where(pod: Asked, load_node: str) -> str:
    if not load_node or pod.part == "any":
        return ""
    return f", on {load_node} only" if pod.part == "load" else f", not on {load_node}"
