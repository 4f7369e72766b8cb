"""Read what Kuma's control plane is configured to cost: its sidecars. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bench.k8s.client import Object
from bench.meshes.cluster_protocol import SidecarSpec

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


def find_telemetry(objects: Sequence[Object]) -> tuple[str, ...]:  # noqa: ARG001 - policies alone configure it
    """Return nothing: Kuma records requests only by policies, which belong to a configuration."""
    return ()
