"""Make the objects of the application and its gateway for one configuration, in the run's namespace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.application.model import CLIENT, Application
from bench.application.objects import TEMPLATES
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import app_of, names_of
from bench.k8s.ownership import COMPONENT, WORKLOAD
from bench.meshes.control_planes import CONTROL_PLANES, find_gateway_maker
from bench.targets.cluster.load.pod import NAME
from bench.targets.cluster.probes.pods import pod_name

_GRACE_S: Final = 1  # no request is left when a trial's pods are deleted, and the next trial waits for it
_INJECTED: Final = "auto"  # the image that a mesh replaces in a gateway's pods itself
_TTL: Final = "ttlSecondsAfterFinished"  # of a Job, which has to be there until the run has seen that it completed
_STATUSES: Final = ("containerStatuses", "initContainerStatuses")
# What pods need comes before them; whatever is in neither list, in between.
_ORDER: Final = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Service",
)
_LAST: Final = ("StatefulSet", "DaemonSet", "Deployment", "Pod", "Job")
# What a manifest may hold in addition to policies: the objects that a gateway's pods are made from.
_POD_GROUPS: Final = ("v1", "apps/v1")


def image_of(workload: str, image: str, *, images: Mapping[str, str], registry: str = "", application: str = "") -> str:
    """Return the image of a workload, or of `load`. `images` replace the manifest's `image`, by workload or by the name
    of its `application`, unchanged; `registry` replaces the registry's host in the manifest's image."""
    return images.get(workload) or images.get(application) or mirror_image(image, registry)


def mirror_image(image: str, registry: str) -> str:
    """Return the image in a mirror: `mirror.example/release/x:1` for `registry.example/release/x:1`."""
    host, slash, path = image.partition("/")
    if not registry:
        return image
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        path = image
    return f"{registry.rstrip('/')}/{path}"


def application_objects(
    application: Application,
    things: Iterable[Object],
    *,
    images: Mapping[str, str],
    registry: str = "",
    annotations: Mapping[str, str] | None = None,
) -> tuple[Object, ...]:
    """Return the application's own objects with their settings, in the order in which they are to be applied. Pods are
    labelled with the name of their workload.

    `images` and `registry` are those of `image_of`; `annotations` are set on the pods.
    """
    settings = PodSettings(images, registry, annotations or {}, application.name)
    return tuple(apply_settings(thing, settings, application) for thing in sorted(things, key=_rank))


def _rank(thing: Object) -> int:
    kind = thing["kind"]
    if kind in _LAST:
        return len(_ORDER) + 1 + _LAST.index(kind)
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def running_images(cluster: Cluster, namespaces: Iterable[str]) -> dict[str, str]:
    """Return the images that really run, by container name, as the nodes' digests; without probe pods."""
    without_probes = f"{COMPONENT}!=probe"
    listed = (cluster.list("v1", "Pod", namespace=one, labels=without_probes) for one in namespaces)
    return read_image_ids([pod for pods in listed for pod in pods])


def read_image_ids(pods: Sequence[Object]) -> dict[str, str]:
    """Return the image ids of these pods' containers, sidecars included, by container name; of several versions of a
    workload each has its own, and so have containers of one name with different images."""
    names, ids = names_of(pods), dict[str, str]()
    for pod in pods:
        app = app_of(pod)
        statuses = (one for key in _STATUSES for one in pod.get("status", {}).get(key) or () if one.get("imageID"))
        for one in statuses:
            workload, image = names[pod["metadata"]["name"]], one["imageID"].removeprefix("docker-pullable://")
            name = workload if one["name"] == app else one["name"]
            ids[name if ids.get(name, image) == image else f"{workload}-{one['name']}"] = image
    return dict(sorted(ids.items()))


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The settings of all pods of the application. `images` and `registry` are those of `image_of`; `annotations` are
    set on the pods."""

    images: Mapping[str, str]
    registry: str
    annotations: Mapping[str, str]
    application: str = ""


def read_pod_spec(thing: Object) -> Object:
    """Return what an object's pods are made from; empty for one without pods."""
    loc = TEMPLATES.get(thing["kind"])
    if loc is None:
        return {}
    spec: Object = thing["spec"]["template"]["spec"] if loc else thing["spec"]
    return spec


def apply_settings(thing: Object, pods: PodSettings, application: Application | None = None) -> Object:
    """Return an object whose pods have their images chosen, a short grace period, and the label of their workload of
    the `application`; any other object unchanged."""
    loc = TEMPLATES.get(thing["kind"])
    if loc is None:
        return thing
    template = thing["spec"]["template"] if loc else {"metadata": thing["metadata"], "spec": thing["spec"]}
    metadata, spec = template.get("metadata") or {}, template["spec"]
    workload = application.find_workload(thing) if application else None
    labels = {**(metadata.get("labels") or {}), **({WORKLOAD: workload.name} if workload else {})}
    app = labels.get("app") or thing["metadata"]["name"]
    noted = {**metadata, "labels": labels, "annotations": {**(metadata.get("annotations") or {}), **pods.annotations}}
    pod = {
        **spec,
        **{key: _choose_images(spec[key], app, pods) for key in ("initContainers", "containers") if spec.get(key)},
        "terminationGracePeriodSeconds": _GRACE_S,
    }
    if not loc:
        return {**thing, "metadata": noted, "spec": pod}
    kept = {key: value for key, value in thing["spec"].items() if key != _TTL}
    return {**thing, "spec": {**kept, "template": {**template, "metadata": noted, "spec": pod}}}


def _choose_images(containers: Sequence[Object], app: str, pods: PodSettings) -> list[Object]:
    """Return the containers with their images. That of a workload's own name, or else the first, has its image."""
    own = next((one["name"] for one in containers if one["name"] == app), containers[0]["name"])
    return [_choose_image(one, app if one["name"] == own else "", pods) for one in containers]


def _choose_image(container: Object, workload: str, pods: PodSettings) -> Object:
    """Return a container with its image; one without a `workload` has that of its manifest, or of the mirror."""
    if container.get("image", _INJECTED) == _INJECTED:
        return container
    images = pods.images if workload else {}
    image = image_of(workload, container["image"], images=images, registry=pods.registry, application=pods.application)
    return {**container, "image": image}


def makes_pods(thing: Object) -> bool:
    """Return whether a manifest is one of those that a gateway's pods are made from; the others are policies and
    routes."""
    return thing["apiVersion"] in _POD_GROUPS or find_gateway_maker(thing["kind"]) is not None


def gateway_objects(
    things: Iterable[Object],
    *,
    images: Mapping[str, str],
    registry: str,
    annotations: Mapping[str, str],
) -> tuple[Object, ...]:
    """Return the objects that a gateway's pods are made from, in the order in which they are to be applied; see
    `PodSettings`."""
    settings = PodSettings(images, registry, annotations)
    return tuple(apply_settings(thing, settings) for thing in sorted(things, key=_rank))


def names_outside_mesh(application: Application) -> frozenset[str]:
    """Return the names of the pods of a run's namespace that get no sidecar: the load and its probe pod, where there is
    a gateway."""
    return frozenset({NAME, pod_name(CLIENT)}) if application.gateway else frozenset()


def label_outside_pods(
    things: Iterable[Object], application: Application, labels: Mapping[str, str]
) -> tuple[Object, ...]:
    """Return the objects, with `labels` (by which a mesh leaves a pod alone) on the pods that stay outside of it."""
    names = names_outside_mesh(application)
    return tuple(_add_labels(thing, labels) if _is_named_pod(thing, names) else thing for thing in things)


def pods_in_mesh(pods: Sequence[Object], application: Application) -> tuple[Object, ...]:
    """Return the pods that have a sidecar, or are a mesh's proxy themselves."""
    names = names_outside_mesh(application)
    return tuple(pod for pod in pods if pod["metadata"]["name"] not in names)


def pods_with_sidecar(pods: Sequence[Object]) -> tuple[Object, ...]:
    """Return the pods that have a sidecar in addition to another container, or in its place: a gateway that a control
    plane made has one container of its own kind."""
    made = {plane.GATEWAY for plane in CONTROL_PLANES.values()}
    return tuple(pod for pod in pods if not any(one["name"] in made for one in pod["spec"]["containers"]))


def _is_named_pod(thing: Object, names: frozenset[str]) -> bool:
    return thing["kind"] == "Pod" and thing["metadata"]["name"] in names


def _add_labels(thing: Object, labels: Mapping[str, str]) -> Object:
    metadata = thing["metadata"]
    return {**thing, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}
