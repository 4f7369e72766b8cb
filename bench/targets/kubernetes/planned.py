"""The pods that a run will make, as far as they can be told before it: what they ask for, and their images."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.findings import CheckResult
from bench.inputs import Inputs
from bench.scenario import Scenario
from bench.settings import Equal
from bench.targets.kubernetes.blueprint import Blueprint, blueprint_of
from bench.targets.kubernetes.client import Cluster, Object
from bench.targets.kubernetes.control_plane import InstallOptions
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.equalised import values
from bench.targets.kubernetes.injected import NO_SIDECAR, Injected, injected
from bench.targets.kubernetes.load_place import UNDECIDED
from bench.targets.kubernetes.options import ClusterOptions
from bench.targets.kubernetes.permissions import examine_permissions, plug_in_needs
from bench.targets.kubernetes.room import NO_ROOM, Asked, asked_by
from bench.targets.kubernetes.telemetry import examine_telemetry

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
