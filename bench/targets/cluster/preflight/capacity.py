"""Compare what the pods of a run request with what the nodes have free."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench.application.objects import TEMPLATES
from bench.check_result import CheckResult
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import node_name
from bench.k8s.scheduling import ANY_NODE, NodeConstraints, find_exclusion, read_constraints
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.control_planes import CONTROL_PLANES, find_gateway_maker
from bench.meshes.equalise import installation_values
from bench.meshes.resolved import ResolvedScenario
from bench.scenario.model import Equal
from bench.targets.cluster.application_manifests import read_pod_spec
from bench.targets.cluster.load.placement import UNDECIDED, Share
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.pod_placement import place_mesh
from bench.targets.cluster.preflight.mesh import examine_telemetry
from bench.targets.cluster.preflight.permissions import examine_permissions, plugin_needs
from bench.targets.cluster.scaling import scale_quantities
from bench.targets.cluster.trial_manifests import TrialManifests, build_trial_manifests
from bench.units import format_bytes, format_counted, parse_quantity

_COUNTS: Final = {"Deployment": "replicas", "StatefulSet": "replicas", "Job": "parallelism"}
_INJECTED: Final = "auto"  # the image of a pod into which its mesh puts one
_SHARES: Final[Mapping[str, Share]] = {"application": "application", "load": "load"}  # by component


@dataclass(frozen=True, slots=True)
class Resources:
    """CPUs and memory (in bytes)."""

    cpu: float = 0.0
    memory: float = 0.0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu - other.cpu, self.memory - other.memory)

    def holds(self, other: "Resources") -> bool:
        return self.cpu >= other.cpu - 1e-9 and self.memory >= other.memory

    def __str__(self) -> str:
        return f"{round(self.cpu, 3):,g} CPU and {format_bytes(self.memory)}"


NO_RESOURCES: Final = Resources()


@dataclass(frozen=True, slots=True)
class PodRequest:
    """One pod to come, what it requests, and what limits its nodes: its own constraints, and the node of the load."""

    name: str
    resources: Resources
    share: Share = "any"
    constraints: NodeConstraints = ANY_NODE


@dataclass(frozen=True, slots=True)
class FreeNode:
    """What a node has free; `pods` is how many more it takes. `thing` is the node itself, with its labels and
    taints."""

    node: str
    resources: Resources
    pods: int
    thing: Object = field(default_factory=lambda: {"metadata": {"name": ""}}, compare=False, repr=False)

    def without(self, resources: Resources, pods: int = 1) -> "FreeNode":
        """Return what is left with so many pods more, which request so much together."""
        return replace(self, resources=self.resources - resources, pods=self.pods - pods)


def pod_resources(spec: Object) -> Resources:
    """Return what the scheduler counts for a pod: its containers and native sidecars together, or the largest of the
    containers that run before them."""
    early = spec.get("initContainers") or ()
    lasting = [*spec["containers"], *(one for one in early if one.get("restartPolicy") == "Always")]
    total = sum(map(_container_resources, lasting), NO_RESOURCES)
    first = [_container_resources(one) for one in early if one.get("restartPolicy") != "Always"]
    return Resources(
        max(total.cpu, *(one.cpu for one in first), 0), max(total.memory, *(one.memory for one in first), 0)
    )


def _container_resources(container: Object) -> Resources:
    resources: dict[str, Any] = container.get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}  # no request: the limit is one
    return parse_requests(requests)


def parse_requests(requests: Mapping[str, str | float]) -> Resources:
    """Parse a container's requests; what they do not name is zero."""
    return Resources(_number(requests.get("cpu", 0)), _number(requests.get("memory", 0)))


def _number(quantity: str | float) -> float:
    return parse_quantity(str(quantity))  # YAML gives numbers for what has no unit


def list_pod_requests(
    objects: Iterable[Object], *, sidecar: Resources = NO_RESOURCES, share: Share = "any"
) -> tuple[PodRequest, ...]:
    """Return the pods that workloads among `objects` will be, each with `sidecar` in addition; gateways that a control
    plane makes are a proxy and nothing else, and may be on any node; of a DaemonSet, one node's; of a Job, those that
    run at a time."""
    pods: list[PodRequest] = []
    for thing in objects:
        name, spec = thing["metadata"]["name"], thing["spec"]
        if thing["kind"] in TEMPLATES:
            count = spec.get(_COUNTS.get(thing["kind"], ""))
            pods += [_make_pod_request(name, read_pod_spec(thing), sidecar, share)] * (1 if count is None else count)
        elif maker := find_gateway_maker(thing["kind"]):
            pods += [PodRequest(name, pod_resources(pod)) for pod in maker.gateway_pods(thing)]
    return tuple(pods)


def _make_pod_request(name: str, spec: Object, sidecar: Resources, share: Share) -> PodRequest:
    return PodRequest(name, pod_resources(spec) + sidecar, share, read_constraints(spec))


def find_free(nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[FreeNode, ...]:
    """Return what is free on each node after the pods that are bound to it and have not ended."""
    bound = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    return tuple(
        _compute_free(node, [pod for pod in bound if pod["spec"].get("nodeName") == node_name(node)]) for node in nodes
    )


def _compute_free(node: Object, pods: Sequence[Object]) -> FreeNode:
    allocatable = node["status"]["allocatable"]
    taken = sum((pod_resources(pod["spec"]) for pod in pods), NO_RESOURCES)
    whole = Resources(_number(allocatable["cpu"]), _number(allocatable["memory"]))
    return FreeNode(node_name(node), whole - taken, int(_number(allocatable["pods"])) - len(pods), node)


def subtract_daemons(everywhere: Sequence[PodRequest], free: Iterable[FreeNode]) -> tuple[FreeNode, ...]:
    """Return what is free on each node with one of each of these pods on it that may be there."""
    return tuple(
        _subtract(one, [pod for pod in everywhere if not find_exclusion(one.thing, pod.constraints)]) for one in free
    )


def _subtract(node: FreeNode, pods: Sequence[PodRequest]) -> FreeNode:
    return node.without(sum((pod.resources for pod in pods), NO_RESOURCES), len(pods))


def find_unschedulable(
    pods: Iterable[PodRequest], free: Sequence[FreeNode], *, load_node: str = ""
) -> tuple[PodRequest, ...]:
    """Return the pods that are unschedulable when the largest are placed first, each where most CPUs are free.
    `load_node` is the load's alone, of the load and the application; empty where it has none."""
    left, unschedulable = list(free), []
    for pod in sorted(pods, key=lambda one: (one.resources.cpu, one.resources.memory), reverse=True):
        allowed = [node for node in left if _is_allowed(pod, node, load_node)]
        fitting = [node for node in allowed if node.pods > 0 and node.resources.holds(pod.resources)]
        if not fitting:
            unschedulable.append(pod)
            continue
        best = max(fitting, key=lambda node: node.resources.cpu)
        left[left.index(best)] = best.without(pod.resources)
    return tuple(unschedulable)


def _is_allowed(pod: PodRequest, node: FreeNode, load_node: str) -> bool:
    if find_exclusion(node.thing, pod.constraints):
        return False
    return not load_node or pod.share == "any" or (node.node == load_node) == (pod.share == "load")


def examine_capacity(pods: Sequence[PodRequest], free: Sequence[FreeNode], *, load_node: str = "") -> CheckResult:
    """Check whether all pods of a run would be scheduled; `load_node` as in `find_unschedulable`."""
    total = sum((pod.resources for pod in pods), NO_RESOURCES)
    needed = f"{len(pods)} pods that request {total}"
    used = [node for node in free if any(_is_allowed(pod, node, load_node) for pod in pods)]
    there = "; ".join(f"{node.node} has {node.resources} and {node.pods} pods left" for node in used) or "no node"
    own_node = f"; the load has {load_node} for itself" if load_node else ""
    unschedulable = find_unschedulable(pods, free, load_node=load_node)
    if not unschedulable:
        return CheckResult("capacity", "ok", f"for {needed}: {there}{own_node}")
    named = ", ".join(
        f"{pod.name} ({pod.resources}{_format_node_limit(pod, free, load_node)})" for pod in unschedulable
    )
    hint = "remove other workloads, add a node, or lower the requests (--scale-requests, --mesh-values)"
    return CheckResult("capacity", "error", f"unschedulable: {named}, of {needed}: {there}{own_node}", hint)


def _format_node_limit(pod: PodRequest, free: Sequence[FreeNode], load_node: str) -> str:
    excluded = Counter(why for node in free if (why := find_exclusion(node.thing, pod.constraints)))
    limits = [f"{why} on {format_counted(count, 'node')}" for why, count in excluded.most_common()]
    if load_node and pod.share != "any":
        limits.append(f"on {load_node} only" if pod.share == "load" else f"not on {load_node}")
    return "".join(f", {limit}" for limit in limits)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar's request, and the images that come with it."""

    resources: Resources = NO_RESOURCES
    images: tuple[str, ...] = ()

    def __or__(self, other: "Sidecar") -> "Sidecar":
        """Return the larger request of both, and the images of both."""
        larger = Resources(
            max(self.resources.cpu, other.resources.cpu), max(self.resources.memory, other.resources.memory)
        )
        return Sidecar(larger, tuple(dict.fromkeys((*self.images, *other.images))))


NO_SIDECAR: Final = Sidecar()


def read_sidecar(mesh: str, objects: Iterable[Object]) -> Sidecar:
    """Read the sidecar from a control plane's objects; empty where they do not define it."""
    found = CONTROL_PLANES[mesh].read_sidecar(objects)
    return Sidecar(parse_requests(found.requests), found.images)


@dataclass(frozen=True, slots=True)
class PodPlan:
    """The pods of a run. `trials` is what becomes pods in each configuration, by component, most of them with
    `sidecar`; `control` those of the control planes that are installed, on every node too; `telemetry` and `remarks`
    are results of examining their objects; `own_images` are those of sidecars in single configurations. `at_once` is
    whether all configurations are deployed at once."""

    trials: tuple[Mapping[str, tuple[Object, ...]], ...]
    control: tuple[Object, ...] = ()
    sidecar: Sidecar = NO_SIDECAR
    telemetry: tuple[CheckResult, ...] = ()
    remarks: tuple[CheckResult, ...] = ()
    own_images: tuple[str, ...] = ()
    at_once: bool = False

    @property
    def requests(self) -> tuple[PodRequest, ...]:
        """Every pod that is scheduled and is there at once: of all configurations, or of the one that requests
        most."""
        trials = [tuple(self._list_trial(components)) for components in self.trials]
        pods = tuple(chain(*trials)) if self.at_once else max(trials, key=_sum_requests)
        return (*pods, *list_pod_requests(pods_of(self.control)))

    def _list_trial(self, components: Mapping[str, tuple[Object, ...]]) -> Iterator[PodRequest]:
        for name, things in components.items():
            share = _SHARES.get(name, "any")
            yield from list_pod_requests(pods_of(things), sidecar=self.sidecar.resources, share=share)

    @property
    def everywhere(self) -> tuple[PodRequest, ...]:
        """The pods that run on every node: of control planes, and of the application in all configurations at once or
        in the one that requests most."""
        daemons = [daemons_of(chain(*components.values())) for components in self.trials]
        own = [list_pod_requests(things, sidecar=self.sidecar.resources) for things in daemons]
        application = tuple(chain(*own)) if self.at_once else max(own, key=_sum_requests, default=())
        return (*list_pod_requests(daemons_of(self.control)), *application)

    @property
    def images(self) -> tuple[str, ...]:
        """The images of all pods, each once."""
        things = (*(thing for trial in self.trials for part in trial.values() for thing in part), *self.control)
        own = (image for thing in things for image in _list_images(thing) if image != _INJECTED)
        return tuple(dict.fromkeys((*own, *self.sidecar.images, *self.own_images)))


def _sum_requests(pods: Sequence[PodRequest]) -> tuple[float, float, int]:
    total = sum((one.resources for one in pods), NO_RESOURCES)
    return total.cpu, total.memory, len(pods)


def build_manifests(resolved: ResolvedScenario, options: ClusterOptions) -> dict[str, TrialManifests]:
    """Build the manifests of each configuration of a run that has not begun."""
    names = resolved.name_configurations(existing_mesh=options.existing_mesh)
    return {
        one.name: build_trial_manifests(
            resolved, one.name, options=options, names=names[one.name], load_place=UNDECIDED
        )
        for one in resolved.configurations
    }


def list_trial_pods(manifests: Iterable[TrialManifests]) -> tuple[Mapping[str, tuple[Object, ...]], ...]:
    """Return what becomes pods of application, load and probes in each configuration of a scenario, by component."""
    return tuple(
        {name: (*pods_of(things), *daemons_of(things)) for name, things in one.pods(None).items()} for one in manifests
    )


def plan_trials(manifests: Collection[TrialManifests], *, at_once: bool = False) -> PodPlan:
    """Return the pods of a scenario's configurations, without their meshes."""
    images = tuple(one.sidecar_image for one in manifests if one.sidecar_image)
    return PodPlan(list_trial_pods(manifests), own_images=images, at_once=at_once)


def install_options(options: ClusterOptions, mesh: str, equalise: Collection[Equal] = ()) -> InstallOptions:
    """Return how the user wants a mesh to be installed."""
    return InstallOptions(
        values=tuple(options.mesh_values.get(mesh, ())),
        hub=options.hub,
        tag=options.tag,
        revision=options.revision if CONTROL_PLANES[mesh].REVISIONS else "",
        equal=installation_values(MESHES[mesh], equalise),
    )


def render_mesh(
    options: ClusterOptions, mesh: str, equalise: Collection[Equal] = (), *, kubeconfig: Path | None = None
) -> tuple[Object, ...]:
    """Return the objects of a control plane as the run installs it, in the order to apply. Raises RefusedError or
    InputError where the mesh's tool does not render it."""
    plane, share = CONTROL_PLANES[mesh], options.scale_requests
    rendered = plane.render(replace(install_options(options, mesh, equalise), kubeconfig=kubeconfig))
    rendered = place_mesh(rendered, options.placement)
    if share == 1:
        return rendered
    return plane.scale_sidecars(rendered, lambda requests: scale_quantities(requests, share))


def add_mesh(
    planned: PodPlan, mesh: str, *, cluster: Cluster, options: ClusterOptions, equalise: Collection[Equal] = ()
) -> PodPlan:
    """Add a mesh: its control plane, if the run installs it, and its sidecars. Raises RefusedError or InputError where
    the mesh's tool does not render it."""
    plane = CONTROL_PLANES[mesh]
    if options.existing_mesh:
        kinds = (("v1", "ConfigMap"), ("apps/v1", "Deployment"))
        there = [thing for kind in kinds for thing in cluster.list(*kind, namespace=plane.NAMESPACE)]
        telemetry = (*planned.telemetry, *examine_telemetry(mesh, there))
        return replace(planned, sidecar=planned.sidecar | read_sidecar(mesh, there), telemetry=telemetry)
    rendered = render_mesh(options, mesh, equalise)
    return replace(
        planned,
        control=(*planned.control, *pods_of(rendered), *daemons_of(rendered)),
        sidecar=planned.sidecar | read_sidecar(mesh, rendered),
        telemetry=(*planned.telemetry, *examine_telemetry(mesh, rendered)),
        remarks=(*planned.remarks, *_examine_plugin(cluster, mesh, rendered)),
    )


def _examine_plugin(cluster: Cluster, mesh: str, rendered: Iterable[Object]) -> Iterator[CheckResult]:
    """Yield results for a CNI plugin: it runs on every node, changes how others' pods start too, and needs more
    permissions."""
    names = ", ".join(thing["metadata"]["name"] for thing in daemons_of(rendered))
    if not names:
        return
    lacking = examine_permissions(cluster, plugin_needs((mesh,)))
    yield from (replace(finding, name="plugin") for finding in lacking if finding.status != "ok")
    detail = f"{mesh}'s DaemonSet {names} sets up the network of every pod on every node, others' too"
    yield CheckResult("plugin", "warning", f"{detail}, until the run's end", "use a cluster for this run alone")


def pods_of(things: Iterable[Object]) -> tuple[Object, ...]:
    """Return the objects that are pods or become pods; of what runs on every node, see `daemons_of`."""
    kinds = TEMPLATES.keys() - {"DaemonSet"}
    return tuple(thing for thing in things if thing["kind"] in kinds or find_gateway_maker(thing["kind"]))


def daemons_of(things: Iterable[Object]) -> tuple[Object, ...]:
    """Return the objects that become one pod on every node."""
    return tuple(thing for thing in things if thing["kind"] == "DaemonSet")


def _list_images(thing: Object) -> Iterator[str]:
    if find_gateway_maker(thing["kind"]):  # it has the sidecars' image
        return
    spec = read_pod_spec(thing)
    yield from (container["image"] for container in (*(spec.get("initContainers") or ()), *spec["containers"]))
