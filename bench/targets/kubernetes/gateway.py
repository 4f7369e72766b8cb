"""A configuration's gateway on a cluster: its pods are made with the application's, and the load stays outside of the
mesh. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench.meshes.application import CLIENT, Application
from bench.targets.kubernetes.application import PodSettings, with_settings
from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.load_objects import NAME
from bench.targets.kubernetes.probing import pod_name

# What a manifest may hold besides policies: what a gateway's pods are made of.
_POD_GROUPS: Final = ("v1", "apps/v1")
_POD_KINDS: Final = ("MeshGatewayInstance",)
_ORDER: Final = ("ServiceAccount", "ConfigMap", "Service", "Deployment")
_KUMAS: Final = "kuma-gateway"


def makes_pods(thing: Object) -> bool:
    """Whether a manifest is one of those that a gateway's pods are made of; the others are policies and routes."""
    return thing["apiVersion"] in _POD_GROUPS or thing["kind"] in _POD_KINDS


def gateway_objects(
    things: Iterable[Object],
    *,
    images: Mapping[str, str],
    registry: str,
    annotations: Mapping[str, str],
    affinity: Object | None,
) -> tuple[Object, ...]:
    """What a gateway's pods are made of, in the order in which it is to be applied; see `PodSettings`."""
    ordered = sorted(things, key=lambda thing: _ORDER.index(thing["kind"]) if thing["kind"] in _ORDER else len(_ORDER))
    settings = PodSettings(images, registry, annotations, affinity)
    return tuple(with_settings(thing, settings) for thing in ordered)


def outside_of_the_mesh(application: Application) -> frozenset[str]:
    """The names of the pods of a run's namespace that get no sidecar: the load and its stand-in, where there is a
    gateway."""
    return frozenset({NAME, pod_name(CLIENT)}) if application.gateway else frozenset()


def kept_out(things: Iterable[Object], application: Application, labels: Mapping[str, str]) -> tuple[Object, ...]:
    """The objects, with `labels` (by which a mesh leaves a pod alone) on the pods that stay outside of it."""
    names = outside_of_the_mesh(application)
    return tuple(_labelled(thing, labels) if _is_one(thing, names) else thing for thing in things)


def in_the_mesh(pods: Sequence[Object], application: Application) -> tuple[Object, ...]:
    """The pods that have a sidecar, or are a mesh's proxy themselves."""
    names = outside_of_the_mesh(application)
    return tuple(pod for pod in pods if pod["metadata"]["name"] not in names)


def with_sidecar(pods: Sequence[Object]) -> tuple[Object, ...]:
    """Those that have a sidecar beside something else, or in its place: a gateway that Kuma's control plane made has
    one container of its own kind."""
    return tuple(pod for pod in pods if not any(one["name"] == _KUMAS for one in pod["spec"]["containers"]))


def _is_one(thing: Object, names: frozenset[str]) -> bool:
    return thing["kind"] == "Pod" and thing["metadata"]["name"] in names


def _labelled(thing: Object, labels: Mapping[str, str]) -> Object:
    metadata = thing["metadata"]
    return {**thing, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}
