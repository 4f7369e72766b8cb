"""The pods that a run will make, as far as they can be told before it: what they ask for, and their images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bench.meshes.application import read_application
from bench.scenario import Scenario
from bench.shipped import shipped
from bench.targets.kubernetes.application import bookinfo_objects
from bench.targets.kubernetes.client import Cluster, Object
from bench.targets.kubernetes.control_plane import InstallOptions
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.images import image_of
from bench.targets.kubernetes.injected import NO_SIDECAR, Injected, injected
from bench.targets.kubernetes.load_objects import default_image
from bench.targets.kubernetes.options import ClusterOptions
from bench.targets.kubernetes.probing import askers, outside_objects, probe_objects
from bench.targets.kubernetes.room import Asked, asked_by
from bench.yamlfile import read_documents


@dataclass(frozen=True, slots=True)
class Planned:
    """`things` are the Deployments and Pods of application, load and probes, each with `sidecar`; `control` those of
    the control planes that are installed."""

    things: tuple[Object, ...]
    control: tuple[Object, ...] = ()
    sidecar: Injected = NO_SIDECAR

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every pod that is there at once."""
        return (*asked_by(self.things, sidecar=self.sidecar.room), *asked_by(self.control))

    @property
    def images(self) -> tuple[str, ...]:
        """Each once."""
        own = (image for thing in (*self.things, *self.control) for image in _images(thing))
        return tuple(dict.fromkeys((*own, *self.sidecar.images)))


def planned_pods(scenario: Scenario, options: ClusterOptions) -> tuple[Object, ...]:
    """Application, load and probes of a scenario, one configuration at a time."""
    manifests = shipped("manifests")
    folder = manifests / scenario.application.name
    application = read_application(folder, scenario.application.reviews)
    image = image_of("load", default_image(), images=options.images, registry=options.registry)
    load = (_with_image(document.value, image) for document in read_documents(manifests / "load" / "pod.yaml"))
    things = (
        *bookinfo_objects(application, folder, images=options.images, registry=options.registry),
        *load,
        *probe_objects(application, askers(application, ()), image=image),
        *outside_objects(application.namespace, image=image),
    )
    return pods_of(things)


def _with_image(pod: Object, image: str) -> Object:
    containers = [{**container, "image": image} for container in pod["spec"]["containers"]]
    return {**pod, "spec": {**pod["spec"], "containers": containers}}


def install_options(options: ClusterOptions, mesh: str) -> InstallOptions:
    """How the user wants a mesh to be installed."""
    revision = options.revision if mesh == "istio" else ""
    values = tuple(options.mesh_values.get(mesh, ()))
    return InstallOptions(values=values, hub=options.hub, tag=options.tag, revision=revision)


def with_mesh(planned: Planned, mesh: str, *, cluster: Cluster, options: ClusterOptions) -> Planned:
    """The same with a mesh: its control plane, if the run installs it, and its sidecars. Raises RefusedError or
    InputError where the mesh's tool does not render it."""
    plane = CONTROL_PLANES[mesh]
    if options.existing_mesh:
        kinds = (("v1", "ConfigMap"), ("apps/v1", "Deployment"))
        there = [thing for kind in kinds for thing in cluster.list(*kind, namespace=plane.NAMESPACE)]
        return replace(planned, sidecar=planned.sidecar | injected(mesh, there))
    rendered = plane.render(install_options(options, mesh))
    control = (*planned.control, *pods_of(rendered))
    return replace(planned, control=control, sidecar=planned.sidecar | injected(mesh, rendered))


def pods_of(things: Iterable[Object]) -> tuple[Object, ...]:
    """Those that are pods or become pods."""
    return tuple(thing for thing in things if thing["kind"] in ("Deployment", "Pod"))


def _images(thing: Object) -> Iterator[str]:
    spec = thing["spec"]["template"]["spec"] if thing["kind"] == "Deployment" else thing["spec"]
    yield from (container["image"] for container in (*(spec.get("initContainers") or ()), *spec["containers"]))
