"""The objects that a trial creates on a cluster, computed before anything is created: a run applies them, the
pre-flight sums their requests, `meshbench plan` counts them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bench.application.model import Application
from bench.k8s.client import Object
from bench.load.generator import LoadSpec, make_load_spec
from bench.meshes.cluster_protocol import ControlPlane, SidecarImage
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.equalise import worker_annotations
from bench.meshes.resolved import ResolvedConfiguration, ResolvedScenario
from bench.meshes.rewriting import Namespaces
from bench.scenario.placement import PodPlacement
from bench.scenario.versions import SIDECAR, override_images
from bench.targets.cluster.application_manifests import (
    application_objects,
    gateway_objects,
    image_of,
    label_outside_pods,
    makes_pods,
    read_pod_spec,
)
from bench.targets.cluster.load.placement import LoadPlacement
from bench.targets.cluster.load.pod import default_image, load_objects
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.pod_placement import place_pods
from bench.targets.cluster.probes.pods import find_callers, outside_objects, probe_objects
from bench.targets.cluster.scaling import scale_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialManifests:
    """One configuration in the namespace of `application`, with a pod in `outside`. `plane` is None without a mesh;
    `things` are the application's own objects; `gateway` are the objects that a gateway's pods are made from.
    `replaced_sidecar` is how the sidecars get an image of this configuration, of which `policies` have the objects.
    `counts_decisions` is whether sidecars count what their filters decide, in all configurations or in none."""

    options: ClusterOptions
    load_place: LoadPlacement
    configuration: ResolvedConfiguration
    things: tuple[Object, ...]
    order: LoadSpec
    plane: ControlPlane | None
    policies: tuple[Object, ...]
    gateway: tuple[Object, ...]
    replaced_sidecar: SidecarImage | None = None
    counts_decisions: bool = False

    @property
    def sidecar_image(self) -> str:
        """The image of the sidecars in this configuration; empty for that of the mesh."""
        return self.replaced_sidecar.image if self.replaced_sidecar else ""

    @property
    def containers(self) -> frozenset[str]:
        """The names of the application's own containers."""
        specs = (read_pod_spec(one) for one in (*self.things, *self.gateway))
        every = (one for spec in specs for key in ("containers", "initContainers") for one in spec.get(key) or ())
        return frozenset(one["name"] for one in every)

    @property
    def application(self) -> Application:
        return self.configuration.deployed

    @property
    def namespace(self) -> str:
        return self.application.namespace

    @property
    def outside(self) -> str:
        return self.configuration.namespaces.outside

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of all of its namespaces."""
        return (*self.configuration.namespaces.runs.values(), self.outside)

    def namespaces(self) -> tuple[Object, ...]:
        """Return the application's namespaces, which request sidecars where there is a mesh, and the one outside."""
        names, own = self.configuration.namespaces, self.options.placement.namespaces
        labels = self.plane.namespace_labels(self.options.revision, names.run_mesh) if self.plane else {}
        requesting = {**own.labels, **labels}
        return (
            *(_namespace(one, requesting, own.annotations) for one in names.runs.values()),
            _namespace(self.outside, own.labels, own.annotations),
        )

    def pods(self, uid: int | None) -> dict[str, tuple[Object, ...]]:
        """Return what pods are made from, by component, in the order in which it is applied. `uid` is that of load and
        probes; None leaves it to the cluster."""
        options, image, placement = self.options, self._load_image(), self.options.placement
        own = (one.caller for one in self.configuration.scenario_probes)
        callers = find_callers(self.application, self.configuration.probes, own)
        probes = (
            *probe_objects(self.application, callers, image=image, uid=uid),
            *outside_objects(self.outside, image=image, uid=uid),
        )
        load = load_objects(
            self.order,
            namespace=self.namespace,
            image=image,
            uid=uid,
            annotations=self._annotations(),
            ui=options.locust_ui is not None,
        )
        rest = (one for one in load if one not in probes)  # one of which has the load's account already
        things: dict[str, tuple[Object, ...]] = {
            "application": self._application(),
            "probe": _place(probes, placement.of("probes")),
            "load": _place(rest, placement.of("load"), self.load_place.load),
        }
        outside = self.plane.outside_labels() if self.plane else {}
        return {
            name: tuple(
                scale_requests(one, options.scale_requests)
                for one in label_outside_pods(objects, self.application, outside)
            )
            for name, objects in things.items()
        }

    def _application(self) -> tuple[Object, ...]:
        images, registry = self.options.images, self.options.registry
        placement, noted, away = self.options.placement, self._annotations(), self.load_place.application
        own = application_objects(self.application, self.things, images=images, registry=registry, annotations=noted)
        entry = gateway_objects(self.gateway, images=images, registry=registry, annotations=noted)
        return (
            *_place(own, placement.of("application"), away),
            *_place(entry, placement.of("gateway"), away),
        )

    def _load_image(self) -> str:
        return image_of("load", default_image(), images=self.options.images, registry=self.options.registry)

    def _annotations(self) -> Mapping[str, str]:
        """Return the annotations of every pod with a sidecar."""
        mesh = self.configuration.mesh
        if self.plane is None or mesh is None:
            return {}
        replaced = self.replaced_sidecar.annotations if self.replaced_sidecar else {}
        counted = self.plane.decision_annotations() if self.counts_decisions else {}
        workers = worker_annotations(mesh, self.configuration.equalise)
        return {**self.plane.pod_annotations(), **counted, **workers, **replaced}


def build_trial_manifests(
    resolved: ResolvedScenario,
    name: str,
    *,
    options: ClusterOptions,
    names: Namespaces,
    load_place: LoadPlacement,
    seed: int = 0,
) -> TrialManifests:
    """Build the manifests of the configuration of that name in these namespaces."""
    configuration = resolved.configuration(name).in_namespaces(names)
    plane, application = CONTROL_PLANES.get(configuration.settings.mesh), configuration.deployed
    entry = application.front
    space = application.namespace_of(entry.workload)
    at = f"{entry.name}{f'.{space}' if space != application.namespace else ''}:{entry.port}"
    written = [one.value for one in configuration.moved]
    own = configuration.settings.images
    images = override_images(options.images, own, application.name)
    # Side by side, the part of the mesh is the configuration's in every block, and so are objects outside namespaces.
    owner = configuration.namespaces.run_mesh or application.namespace
    image = plane.sidecar_image(own[SIDECAR], owner) if plane and SIDECAR in own else None
    return TrialManifests(
        options=replace(options, images=images),
        load_place=load_place,
        configuration=configuration,
        things=tuple(one.value for one in configuration.moved_application),
        order=make_load_spec(
            configuration.load,
            application.definition,
            configuration.groups,
            address=at,
            virtual_host=at,
            locust=resolved.inputs.locust,
            namespaces=[resolved.configuration(name).application.namespace, *application.spaces],
            seed=seed,
            scenario=resolved.scenario,
        ),
        plane=plane,
        policies=(*(thing for thing in written if not makes_pods(thing)), *(image.objects if image else ())),
        gateway=tuple(thing for thing in written if makes_pods(thing)),
        replaced_sidecar=image,
        counts_decisions=resolved.counts_decisions,
    )


def _place(things: Iterable[Object], placement: PodPlacement, affinity: Object | None = None) -> tuple[Object, ...]:
    return tuple(place_pods(one, placement, affinity) for one in things)


def _namespace(name: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Object:
    metadata = {"name": name, "labels": dict(labels), **({"annotations": dict(annotations)} if annotations else {})}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
