"""Find which pods have a sidecar, and which would get one, from the objects that the API server has. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from bench.k8s.client import Object
from bench.k8s.objects import container_statuses, find_restarts, is_selected, name_of
from bench.k8s.ownership import labels_of
from bench.meshes import MESHES
from bench.meshes.control_planes import CONTROL_PLANES
from bench.verification.prober import State

WEBHOOKS: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")

_DECLINED: Final = frozenset({"disabled", "false", "none"})
_OTHER_DOMAINS: Final = ("linkerd.io", "consul.hashicorp.com")  # of meshes that a run does not install


def read_namespace_state(
    namespace: Object, pods: Sequence[Object], webhooks: Sequence[Object], *, own: Collection[str]
) -> State:
    """Return what of a mesh may affect these pods. `own` are the names of our own containers; `webhooks` the cluster's
    mutating webhook configurations."""
    return State(
        namespace=namespace["metadata"]["name"],
        labels=injection_labels(namespace),
        webhooks=selecting_webhooks(namespace, pods, webhooks),
        running=tuple(f"{container} in {name_of(pod)}" for pod in pods for container in _foreign_containers(pod, own)),
        restarts=find_restarts(pods),
    )


def read_mesh_state(pods: Sequence[Object], sidecar: str) -> State:
    """Return which pods have the sidecar, whether native or classic, and what was restarted."""
    return State(
        sidecar=sidecar,
        pods=len(pods),
        missing=find_missing_sidecars(pods, sidecar),
        restarts=find_restarts(pods),
        askable=not find_uninjected(pods, sidecar),
    )


def injection_labels(namespace: Object) -> tuple[str, ...]:
    """Return the labels by which a namespace requests injection."""
    labels = labels_of(namespace)
    keys = (key for plane in CONTROL_PLANES.values() for key in plane.INJECTION_LABELS)
    return tuple(f"{key}={labels[key]}" for key in keys if labels.get(key, "disabled") not in _DECLINED)


def selecting_webhooks(namespace: Object, pods: Sequence[Object], webhooks: Sequence[Object]) -> tuple[str, ...]:
    """Return the webhooks of meshes that are called when any of these pods is created in the namespace."""
    domains = (*(mesh.domain for mesh in MESHES.values()), *_OTHER_DOMAINS)
    return tuple(
        webhook["name"]
        for configuration in webhooks
        for webhook in configuration.get("webhooks") or ()
        if webhook["name"].endswith(domains)
        and _is_asked_about_pods(webhook)
        and is_selected(webhook.get("namespaceSelector"), labels_of(namespace))
        and any(is_selected(webhook.get("objectSelector"), labels_of(pod)) for pod in pods)
    )


def find_missing_sidecars(pods: Sequence[Object], sidecar: str) -> tuple[str, ...]:
    """Format the pods that lack the sidecar or whose sidecar is not ready, and which of both."""
    states = ((pod, {status["name"]: status["ready"] for status in container_statuses(pod)}) for pod in pods)
    return tuple(
        f"{'not ready' if sidecar in ready else 'none'} in {name_of(pod)}"
        for pod, ready in states
        if not ready.get(sidecar, False)
    )


def find_uninjected(pods: Sequence[Object], sidecar: str) -> tuple[str, ...]:
    """Return the pods that were created without the sidecar: no webhook injected it."""
    return tuple(name_of(pod) for pod in pods if sidecar not in _containers(pod))


def find_other_images(pods: Sequence[Object], sidecar: str, image: str) -> tuple[str, ...]:
    """Format the sidecars whose image is not this one."""
    return tuple(
        f"{one['image']} in {name_of(pod)}"
        for pod in pods
        for one in _list_containers(pod)
        if one["name"] == sidecar and one["image"] != image
    )


def _containers(pod: Object) -> tuple[str, ...]:
    return tuple(one["name"] for one in _list_containers(pod))


def _list_containers(pod: Object) -> tuple[Object, ...]:
    return (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))


def _foreign_containers(pod: Object, own: Collection[str]) -> Iterator[str]:
    return (name for name in _containers(pod) if name not in own)


def _is_asked_about_pods(webhook: Mapping[str, Any]) -> bool:
    return any(
        {"pods", "*", "*/*"} & set(rule["resources"])
        and {"CREATE", "*"} & set(rule["operations"])
        and {"", "*"} & set(rule["apiGroups"])
        for rule in webhook.get("rules") or ()
    )
