"""Read what Kuma's control plane is configured to cost: its sidecars. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench.k8s.client import Object
from bench.meshes.cluster_protocol import ScaleRequests, SidecarSpec

_REQUESTS: Final = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS"
_IMAGES: Final = ("_INIT_CONTAINER_IMAGE", "_SIDECAR_CONTAINER_IMAGE")


def read_sidecar(objects: Iterable[Object]) -> SidecarSpec:
    """Read the environment of Kuma's control plane."""
    deployments = [thing for thing in objects if thing["kind"] == "Deployment"]
    containers = [one for thing in deployments for one in thing["spec"]["template"]["spec"]["containers"]]
    values: Mapping[str, str] = {
        entry["name"]: entry.get("value", "") for one in containers for entry in one.get("env") or ()
    }
    requests = {what: values.get(f"{_REQUESTS}_{what.upper()}") or 0 for what in ("cpu", "memory")}
    return SidecarSpec(requests, tuple(value for name, value in values.items() if name.endswith(_IMAGES)))


def scale_sidecars(objects: Sequence[Object], scale: ScaleRequests) -> tuple[Object, ...]:
    """Return the objects with scaled requests in the environment of Kuma's control plane."""
    requests = {what: value for what, value in read_sidecar(objects).requests.items() if value}
    changed = {f"{_REQUESTS}_{what.upper()}": value for what, value in scale(requests).items()}
    return tuple(_set_environment(one, changed) if one["kind"] == "Deployment" else one for one in objects)


def _set_environment(deployment: Object, changed: Mapping[str, str]) -> Object:
    template = deployment["spec"]["template"]
    containers = [
        {**one, "env": [_set_entry(entry, changed) for entry in one["env"]]} if one.get("env") else one
        for one in template["spec"]["containers"]
    ]
    pod = {**template, "spec": {**template["spec"], "containers": containers}}
    return {**deployment, "spec": {**deployment["spec"], "template": pod}}


def _set_entry(entry: Object, changed: Mapping[str, str]) -> Object:
    return {**entry, "value": changed[entry["name"]]} if entry["name"] in changed else entry


def find_telemetry(objects: Sequence[Object]) -> tuple[str, ...]:  # noqa: ARG001 - policies alone configure it
    """Return nothing: Kuma records requests only by policies, which belong to a configuration."""
    return ()
