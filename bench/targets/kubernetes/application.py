"""Bookinfo as a cluster is given it: the manifests' objects of one configuration, in the run's namespace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.manifest_files import manifest_files
from bench.meshes.application import Application
from bench.targets.kubernetes.client import Cluster, Object
from bench.targets.kubernetes.images import image_of
from bench.targets.kubernetes.ownership import COMPONENT
from bench.targets.kubernetes.workloads import app_of, names_of
from bench.yamlfile import read_documents

_GRACE_S: Final = 1  # nobody asks any more when a trial's pods go, and the next trial waits for it
_INJECTED: Final = "auto"  # the image that a mesh puts into a gateway's pods itself
_STATUSES: Final = ("containerStatuses", "initContainerStatuses")
_ORDER: Final = ("ServiceAccount", "Service", "Deployment")


def bookinfo_objects(
    application: Application,
    folder: Path,
    *,
    images: Mapping[str, str],
    registry: str = "",
    annotations: Mapping[str, str] | None = None,
    affinity: Object | None = None,
) -> tuple[Object, ...]:
    """The objects in `folder` that belong to `application`, in the order in which they are to be applied: its versions
    of reviews, and where those are several the Service of each. They are in the application's namespace.

    `images` and `registry` are those of `images.image_of`; `annotations` go onto the pods, `affinity` says
    where they may be.
    """
    documents = [document.value for file in manifest_files(folder) for document in read_documents(file)]
    wanted = [thing for thing in documents if thing is not None and _belongs(thing, application)]
    placed = [_placed(thing, application.namespace) for thing in wanted]
    things = [with_settings(thing, PodSettings(images, registry, annotations or {}, affinity)) for thing in placed]
    return tuple(sorted(things, key=lambda thing: _ORDER.index(thing["kind"])))


def running_images(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The images that really run, by container name, as the node's digests say; probe pods left out."""
    return images_in(cluster.list("v1", "Pod", namespace=namespace, labels=f"{COMPONENT}!=probe"))


def images_in(pods: Sequence[Object]) -> dict[str, str]:
    """The image ids of these pods' containers, sidecars included, by container name; of several versions of a workload
    each has its own."""
    names, found = names_of(pods), dict[str, str]()
    for pod in pods:
        app = app_of(pod)
        statuses = (one for key in _STATUSES for one in pod.get("status", {}).get(key) or () if one.get("imageID"))
        for one in statuses:
            name = names[pod["metadata"]["name"]] if one["name"] == app else one["name"]
            found[name] = one["imageID"].removeprefix("docker-pullable://")
    return dict(sorted(found.items()))


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
    """What is said of all pods of the application. `images` and `registry` are those of `images.image_of`;
    `annotations` go onto the pods, `affinity` says where they may be."""

    images: Mapping[str, str]
    registry: str
    annotations: Mapping[str, str]
    affinity: Object | None


def with_settings(thing: Object, pods: PodSettings) -> Object:
    """A Deployment with its image chosen, and pods that go quickly; any other object as it is."""
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
