"""Make the objects of the application and its gateway for one configuration, in the run's namespace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.application.model import CLIENT, Application
from bench.files.folders import manifest_files
from bench.files.yaml_source import read_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.objects import app_of, names_of
from bench.k8s.ownership import COMPONENT
from bench.scenario.model import BOOKINFO, SERVICES
from bench.targets.cluster.load.pod import NAME
from bench.targets.cluster.probes.prober import pod_name

_GRACE_S: Final = 1  # no request is left when a trial's pods are deleted, and the next trial waits for it
_INJECTED: Final = "auto"  # the image that a mesh replaces in a gateway's pods itself
_STATUSES: Final = ("containerStatuses", "initContainerStatuses")
_ORDER: Final = ("ServiceAccount", "Service", "Deployment")
# What a manifest may hold in addition to policies: the objects that a gateway's pods are made from.
_POD_GROUPS: Final = ("v1", "apps/v1")
_POD_KINDS: Final = ("MeshGatewayInstance",)
_GATEWAY_ORDER: Final = ("ServiceAccount", "ConfigMap", "Service", "Deployment")
_KUMAS: Final = "kuma-gateway"


def image_of(workload: str, image: str, *, images: Mapping[str, str], registry: str = "") -> str:
    """Return the image of a workload, or of `load`. `images` replace the manifest's `image`, by workload (`bookinfo`
    stands for its four services), unchanged; `registry` replaces the registry's host in the manifest's image."""
    chosen = images.get(workload) or (images.get(BOOKINFO, "") if workload in SERVICES else "")
    return chosen or mirrored(image, registry)


def mirrored(image: str, registry: str) -> str:
    """Return the image in a mirror: `mirror.example/release/x:1` for `registry.istio.io/release/x:1`."""
    host, slash, path = image.partition("/")
    if not registry:
        return image
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        path = image
    return f"{registry.rstrip('/')}/{path}"


def bookinfo_objects(
    application: Application,
    folder: Path,
    *,
    images: Mapping[str, str],
    registry: str = "",
    annotations: Mapping[str, str] | None = None,
    affinity: Object | None = None,
) -> tuple[Object, ...]:
    """Return the objects in `folder` that belong to `application`, in the order in which they are to be applied: its
    versions of reviews, and where those are several the Service of each. They are in the application's namespace.

    `images` and `registry` are those of `image_of`; `annotations` are set on the pods, `affinity` limits their nodes.
    """
    documents = [document.value for file in manifest_files(folder) for document in read_documents(file)]
    wanted = [thing for thing in documents if thing is not None and _belongs(thing, application)]
    own = [_placed(thing, application.namespace) for thing in wanted]
    things = [with_settings(thing, PodSettings(images, registry, annotations or {}, affinity)) for thing in own]
    return tuple(sorted(things, key=lambda thing: _ORDER.index(thing["kind"])))


def running_images(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the images that really run, by container name, as the nodes' digests; without probe pods."""
    return images_in(cluster.list("v1", "Pod", namespace=namespace, labels=f"{COMPONENT}!=probe"))


def images_in(pods: Sequence[Object]) -> dict[str, str]:
    """Return the image ids of these pods' containers, sidecars included, by container name; of several versions of a
    workload each has its own."""
    names, ids = names_of(pods), dict[str, str]()
    for pod in pods:
        app = app_of(pod)
        statuses = (one for key in _STATUSES for one in pod.get("status", {}).get(key) or () if one.get("imageID"))
        for one in statuses:
            name = names[pod["metadata"]["name"]] if one["name"] == app else one["name"]
            ids[name] = one["imageID"].removeprefix("docker-pullable://")
    return dict(sorted(ids.items()))


def _belongs(thing: Object, application: Application) -> bool:
    if thing["kind"] == "Deployment":
        return any(one.labels == thing["spec"]["template"]["metadata"]["labels"] for one in application.workloads)
    names = {
        "ServiceAccount": {workload.account for workload in application.workloads},
        "Service": {service.name for service in application.services},
    }
    return thing["metadata"]["name"] in names[thing["kind"]]


def _placed(thing: Object, namespace: str) -> Object:
    return {**thing, "metadata": {**thing["metadata"], "namespace": namespace}}


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The settings of all pods of the application. `images` and `registry` are those of `image_of`; `annotations` are
    set on the pods, `affinity` limits their nodes."""

    images: Mapping[str, str]
    registry: str
    annotations: Mapping[str, str]
    affinity: Object | None


def with_settings(thing: Object, pods: PodSettings) -> Object:
    """Return a Deployment with its image chosen and a short grace period for its pods; any other object unchanged."""
    if thing["kind"] != "Deployment":
        return thing
    template = thing["spec"]["template"]
    metadata = template["metadata"]
    placed = {"affinity": pods.affinity} if pods.affinity else {}
    pod = {
        **template["spec"],
        "containers": [_chosen(one, metadata["labels"]["app"], pods) for one in template["spec"]["containers"]],
        "terminationGracePeriodSeconds": _GRACE_S,
        **placed,
    }
    noted = {**metadata, "annotations": {**metadata.get("annotations", {}), **pods.annotations}}
    return {**thing, "spec": {**thing["spec"], "template": {"metadata": noted, "spec": pod}}}


def _chosen(container: Object, workload: str, pods: PodSettings) -> Object:
    if container["image"] == _INJECTED:
        return container
    return {**container, "image": image_of(workload, container["image"], images=pods.images, registry=pods.registry)}


def makes_pods(thing: Object) -> bool:
    """Return whether a manifest is one of those that a gateway's pods are made from; the others are policies and
    routes."""
    return thing["apiVersion"] in _POD_GROUPS or thing["kind"] in _POD_KINDS


def gateway_objects(
    things: Iterable[Object],
    *,
    images: Mapping[str, str],
    registry: str,
    annotations: Mapping[str, str],
    affinity: Object | None,
) -> tuple[Object, ...]:
    """Return the objects that a gateway's pods are made from, in the order in which they are to be applied; see
    `PodSettings`."""
    ordered = sorted(
        things,
        key=lambda thing: (
            _GATEWAY_ORDER.index(thing["kind"]) if thing["kind"] in _GATEWAY_ORDER else len(_GATEWAY_ORDER)
        ),
    )
    settings = PodSettings(images, registry, annotations, affinity)
    return tuple(with_settings(thing, settings) for thing in ordered)


def outside_of_the_mesh(application: Application) -> frozenset[str]:
    """Return the names of the pods of a run's namespace that get no sidecar: the load and its probe pod, where there is
    a gateway."""
    return frozenset({NAME, pod_name(CLIENT)}) if application.gateway else frozenset()


def kept_out(things: Iterable[Object], application: Application, labels: Mapping[str, str]) -> tuple[Object, ...]:
    """Return the objects, with `labels` (by which a mesh leaves a pod alone) on the pods that stay outside of it."""
    names = outside_of_the_mesh(application)
    return tuple(_labelled(thing, labels) if _is_one(thing, names) else thing for thing in things)


def in_the_mesh(pods: Sequence[Object], application: Application) -> tuple[Object, ...]:
    """Return the pods that have a sidecar, or are a mesh's proxy themselves."""
    names = outside_of_the_mesh(application)
    return tuple(pod for pod in pods if pod["metadata"]["name"] not in names)


def with_sidecar(pods: Sequence[Object]) -> tuple[Object, ...]:
    """Return the pods that have a sidecar in addition to another container, or in its place: a gateway that Kuma's
    control plane made has one container of its own kind."""
    return tuple(pod for pod in pods if not any(one["name"] == _KUMAS for one in pod["spec"]["containers"]))


def _is_one(thing: Object, names: frozenset[str]) -> bool:
    return thing["kind"] == "Pod" and thing["metadata"]["name"] in names


def _labelled(thing: Object, labels: Mapping[str, str]) -> Object:
    metadata = thing["metadata"]
    return {**thing, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}
