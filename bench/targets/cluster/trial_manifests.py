"""The objects that a trial creates on a cluster, computed before anything is created: a run applies them, the
pre-flight sums their requests, `meshbench plan` counts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.application.model import Application
from bench.files.folders import list_manifest_files
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object
from bench.load.generator import LoadSpec, make_load_spec
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.equalise import policy_objects as equal_policies
from bench.meshes.equalise import worker_annotations
from bench.meshes.protocols import ControlPlane
from bench.meshes.resolved import add_gateway, application_folder, application_of, user_groups_in
from bench.meshes.user_groups import UserGroup
from bench.scenario.loader import Inputs
from bench.scenario.model import Configuration, Scenario
from bench.targets.cluster.application_manifests import (
    bookinfo_objects,
    gateway_objects,
    image_of,
    label_outside_pods,
    makes_pods,
)
from bench.targets.cluster.load.placement import LoadPlacement
from bench.targets.cluster.load.pod import default_image, load_objects
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.probes.prober import find_callers, outside_objects, probe_objects
from bench.verification.checks import Meshed, read_meshed


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialManifests:
    """One configuration in the namespace of `application`, with a pod in `outside`. `plane` and `meshed` are None
    without a mesh; `readers` are those of its load; `gateway` are the objects that a gateway's pods are made from."""

    options: ClusterOptions
    load_place: LoadPlacement
    application: Application
    folder: Path
    outside: str
    readers: tuple[UserGroup, ...]
    order: LoadSpec
    plane: ControlPlane | None
    meshed: Meshed | None
    policies: tuple[Object, ...]
    gateway: tuple[Object, ...]

    @property
    def namespace(self) -> str:
        return self.application.namespace

    def namespaces(self) -> tuple[Object, ...]:
        """Return both namespaces; the first requests sidecars where there is a mesh."""
        scope = existing_mesh_scope(self.options, self.namespace)
        labels = self.plane.namespace_labels(self.options.revision, scope) if self.plane else {}
        return (_namespace(self.namespace, labels), _namespace(self.outside, {}))

    def pods(self, uid: int | None) -> dict[str, tuple[Object, ...]]:
        """Return what pods are made from, by component, in the order in which it is applied. `uid` is that of load and
        probes; None leaves it to the cluster."""
        options, image = self.options, self._load_image()
        callers = find_callers(self.application, self.meshed.probes if self.meshed else ())
        things: dict[str, tuple[Object, ...]] = {
            "application": self._application(),
            "probe": (
                *probe_objects(self.application, callers, image=image, uid=uid),
                *outside_objects(self.outside, image=image, uid=uid),
            ),
            "load": load_objects(
                self.order,
                namespace=self.namespace,
                image=image,
                affinity=self.load_place.load,
                uid=uid,
                annotations=self._annotations(),
                ui=options.locust_ui is not None,
            ),
        }
        outside = self.plane.outside_labels() if self.plane else {}
        return {name: label_outside_pods(objects, self.application, outside) for name, objects in things.items()}

    def _application(self) -> tuple[Object, ...]:
        images, registry = self.options.images, self.options.registry
        affinity, noted = self.load_place.application, self._annotations()
        return (
            *bookinfo_objects(
                self.application, self.folder, images=images, registry=registry, annotations=noted, affinity=affinity
            ),
            *gateway_objects(self.gateway, images=images, registry=registry, annotations=noted, affinity=affinity),
        )

    def _load_image(self) -> str:
        return image_of("load", default_image(), images=self.options.images, registry=self.options.registry)

    def _annotations(self) -> Mapping[str, str]:
        """Return the annotations of every pod with a sidecar."""
        if self.plane is None or self.meshed is None:
            return {}
        return {**self.plane.pod_annotations(), **worker_annotations(self.plane.NAME, self.meshed.equalise)}


def existing_mesh_scope(options: ClusterOptions, namespace: str) -> str:
    """Return the namespace that an existing mesh's policies are limited to; empty where the run installs its own mesh.
    See `ControlPlane`."""
    return namespace if options.existing_mesh else ""


def build_trial_manifests(
    scenario: Scenario,
    configuration: str,
    *,
    inputs: Inputs,
    options: ClusterOptions,
    namespaces: tuple[str, str],
    load_place: LoadPlacement,
    seed: int = 0,
) -> TrialManifests:
    """Build the manifests of a configuration in these namespaces. Raises InputError where its manifests are wrong."""
    settings = scenario.configuration(configuration)
    inside, outside = namespaces
    scope, plane = existing_mesh_scope(options, inside), CONTROL_PLANES.get(settings.mesh)
    written = add_gateway(settings, application_of(scenario), inputs.manifests)
    application = replace(written, namespace=inside, mesh=scope or written.mesh)
    readers = user_groups_in(settings, application_of(scenario), inputs.manifests)
    entry = application.service(application.calls[0][1])
    at = f"{entry.name}:{entry.port}"
    given = [*_manifests(settings, inputs), *equal_policies(settings.mesh, scenario.equalise)]
    things = plane.mesh_objects(given, inside, scope) if plane else ()
    return TrialManifests(
        options=options,
        load_place=load_place,
        application=application,
        folder=application_folder(scenario),
        outside=outside,
        readers=readers,
        order=make_load_spec(
            scenario.load_of(configuration),
            readers,
            address=at,
            virtual_host=at,
            locustfile=inputs.locustfile,
            seed=seed,
        ),
        plane=plane,
        meshed=_meshed(scenario, settings, application, inputs=inputs),
        policies=tuple(thing for thing in things if not makes_pods(thing)),
        gateway=tuple(thing for thing in things if makes_pods(thing)),
    )


def _manifests(settings: Configuration, inputs: Inputs) -> Sequence[Object]:
    files = [file for place in settings.manifests for file in list_manifest_files(inputs.manifests[place])]
    return [document.value for file in files for document in read_documents(file) if document.value is not None]


def _meshed(scenario: Scenario, settings: Configuration, application: Application, *, inputs: Inputs) -> Meshed | None:
    if settings.mesh == "none":
        return None
    folders = [inputs.manifests[place] for place in settings.manifests]
    return replace(read_meshed(settings.mesh, folders, application), equalise=scenario.equalise)


def _namespace(name: str, labels: Mapping[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
