"""Compare what the pods of a run request with what the nodes have free."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.check_result import CheckResult
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import node_name
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.equalise import values
from bench.meshes.protocols import InstallOptions
from bench.scenario.loader import Inputs
from bench.scenario.model import Equal, Scenario
from bench.targets.cluster.load.placement import UNDECIDED, Part, part_of
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.preflight.mesh import examine_telemetry
from bench.targets.cluster.preflight.permissions import examine_permissions, plug_in_needs
from bench.targets.cluster.trial_manifests import Blueprint, blueprint_of
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


@dataclass(frozen=True, slots=True)
class Injected:
    """A sidecar's request, and the images that come with it."""

    room: Room = NO_ROOM
    images: tuple[str, ...] = ()

    def __or__(self, other: "Injected") -> "Injected":
        """Of two, what has room for either."""
        room = Room(max(self.room.cpu, other.room.cpu), max(self.room.memory, other.room.memory))
        return Injected(room, tuple(dict.fromkeys((*self.images, *other.images))))


NO_SIDECAR: Final = Injected()


def injected(mesh: str, objects: Iterable[Object]) -> Injected:
    """What is said about it among a control plane's objects; nothing where they do not say it."""
    found = NO_SIDECAR
    for thing in objects:
        found |= _READERS[mesh](thing)
    return found


def _istio(thing: Object) -> Injected:
    """The values that istiod makes sidecars from are JSON in a ConfigMap."""
    if thing["kind"] != "ConfigMap" or not thing["metadata"]["name"].startswith("istio-sidecar-injector"):
        return NO_SIDECAR
    values: dict[str, Any] = json.loads(thing["data"]["values"])["global"]
    proxy = values.get("proxy") or {}
    image = proxy.get("image") or "proxyv2"
    full = image if "/" in image else f"{values['hub']}/{image}:{values['tag']}"
    return Injected(room_of((proxy.get("resources") or {}).get("requests") or {}), (full,))


def _kuma(thing: Object) -> Injected:
    """Kuma's control plane has them in its environment."""
    if thing["kind"] != "Deployment":
        return NO_SIDECAR
    containers = thing["spec"]["template"]["spec"]["containers"]
    names: Mapping[str, str] = {one["name"]: one.get("value", "") for c in containers for one in c.get("env") or ()}
    asked = {what: names.get(f"{_KUMA_REQUESTS}_{what.upper()}") or 0 for what in ("cpu", "memory")}
    images = (value for name, value in names.items() if name.endswith(_KUMA_IMAGES))
    return Injected(room_of(asked), tuple(images))


_KUMA_REQUESTS: Final = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS"
_KUMA_IMAGES: Final = ("_INIT_CONTAINER_IMAGE", "_SIDECAR_CONTAINER_IMAGE")
_READERS: Final[Mapping[str, Callable[[Object], Injected]]] = {"istio": _istio, "kuma": _kuma}


NAMESPACES: Final = ("bookinfo-NEW", "bookinfo-NEW-outside")  # until a run has its id
_INJECTED: Final = "auto"  # the image of a pod into which its mesh puts one


@dataclass(frozen=True, slots=True)
class Planned:
    """`trials` is what becomes pods in each configuration, most of them with `sidecar`; `control` those of the control
    planes that are installed, on every node too; `remarks` are what their objects show besides."""

    trials: tuple[tuple[Object, ...], ...]
    control: tuple[Object, ...] = ()
    sidecar: Injected = NO_SIDECAR
    remarks: tuple[CheckResult, ...] = ()

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every pod that finds itself a node and is there at once, with the configuration that asks for most."""
        trials = (asked_by(things, sidecar=self.sidecar.room) for things in self.trials)
        return (*max(trials, key=_size), *asked_by(pods_of(self.control)))

    @property
    def everywhere(self) -> tuple[Asked, ...]:
        """What takes its part of every node."""
        return asked_by(daemons_of(self.control))

    @property
    def images(self) -> tuple[str, ...]:
        """Each once."""
        things = (*(thing for trial in self.trials for thing in trial), *self.control)
        own = (image for thing in things for image in _images(thing) if image != _INJECTED)
        return tuple(dict.fromkeys((*own, *self.sidecar.images)))


def _size(asked: Sequence[Asked]) -> tuple[float, float, int]:
    room = sum((one.room for one in asked), NO_ROOM)
    return room.cpu, room.memory, len(asked)


def blueprints(scenario: Scenario, options: ClusterOptions, inputs: Inputs) -> dict[str, Blueprint]:
    """Each configuration of a run that has not begun."""
    return {
        one.name: blueprint_of(
            scenario, one.name, inputs=inputs, options=options, namespaces=NAMESPACES, load_place=UNDECIDED
        )
        for one in scenario.configurations
    }


def planned_pods(scenario: Scenario, options: ClusterOptions, inputs: Inputs) -> tuple[tuple[Object, ...], ...]:
    """Application, load and probes of a scenario's configurations, of which one at a time is there."""
    drawn = blueprints(scenario, options, inputs).values()
    return tuple(pods_of(thing for things in one.pods(None).values() for thing in things) for one in drawn)


def install_options(options: ClusterOptions, mesh: str, equalise: Collection[Equal] = ()) -> InstallOptions:
    """How the user wants a mesh to be installed."""
    return InstallOptions(
        values=tuple(options.mesh_values.get(mesh, ())),
        hub=options.hub,
        tag=options.tag,
        revision=options.revision if mesh == "istio" else "",
        equal=values(mesh, equalise),
    )


def with_mesh(
    planned: Planned, mesh: str, *, cluster: Cluster, options: ClusterOptions, equalise: Collection[Equal] = ()
) -> Planned:
    """The same with a mesh: its control plane, if the run installs it, and its sidecars. Raises RefusedError or
    InputError where the mesh's tool does not render it."""
    plane = CONTROL_PLANES[mesh]
    if options.existing_mesh:
        kinds = (("v1", "ConfigMap"), ("apps/v1", "Deployment"))
        there = [thing for kind in kinds for thing in cluster.list(*kind, namespace=plane.NAMESPACE)]
        remarks = (*planned.remarks, *examine_telemetry(mesh, there))
        return replace(planned, sidecar=planned.sidecar | injected(mesh, there), remarks=remarks)
    rendered = plane.render(install_options(options, mesh, equalise))
    return Planned(
        planned.trials,
        (*planned.control, *pods_of(rendered), *daemons_of(rendered)),
        planned.sidecar | injected(mesh, rendered),
        (*planned.remarks, *examine_telemetry(mesh, rendered), *_plug_in(cluster, mesh, rendered)),
    )


def _plug_in(cluster: Cluster, mesh: str, rendered: Iterable[Object]) -> Iterator[CheckResult]:
    """What a mesh puts on every node, a CNI plug-in, changes how others' pods start too, and takes more rights."""
    names = ", ".join(thing["metadata"]["name"] for thing in daemons_of(rendered))
    if not names:
        return
    lacking = examine_permissions(cluster, plug_in_needs(mesh))
    yield from (replace(finding, name="plug-in") for finding in lacking if finding.status != "ok")
    detail = f"{mesh}'s DaemonSet {names} is part of how every pod on every node gets its network, others' too"
    yield CheckResult("plug-in", "warning", f"{detail}, until the run's end", "a cluster of its own for the run")


def pods_of(things: Iterable[Object]) -> tuple[Object, ...]:
    """Those that are pods or become pods; of what runs on every node, see `daemons_of`."""
    return tuple(thing for thing in things if thing["kind"] in ("Deployment", "Pod", "MeshGatewayInstance"))


def daemons_of(things: Iterable[Object]) -> tuple[Object, ...]:
    """Those that become one pod on every node."""
    return tuple(thing for thing in things if thing["kind"] == "DaemonSet")


def _images(thing: Object) -> Iterator[str]:
    if thing["kind"] == "MeshGatewayInstance":  # the control plane gives it the sidecars' image
        return
    spec = thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
    yield from (container["image"] for container in (*(spec.get("initContainers") or ()), *spec["containers"]))
