"""What a mesh adds to each pod, as its control plane's own objects say: how much its sidecar asks for, and its images.
Pure."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.room import NO_ROOM, Room, room_of


@dataclass(frozen=True, slots=True)
class Injected:
    """A sidecar's request, and the images that come with it."""

    room: Room = NO_ROOM
    images: tuple[str, ...] = ()

    def __or__(self, other: "Injected") -> "Injected":
        """Of two, what has room for either."""
        room = Room(max(self.room.cpu, other.room.cpu), max(self.room.memory, other.room.memory))
        return Injected(room, tuple(dict.fromkeys((*self.images, *other.images))))


NO_SIDECAR: Final = Injected()


def injected(mesh: str, objects: Iterable[Object]) -> Injected:
    """What is said about it among a control plane's objects; nothing where they do not say it."""
    found = NO_SIDECAR
    for thing in objects:
        found |= _READERS[mesh](thing)
    return found


def _istio(thing: Object) -> Injected:
    """The values that istiod makes sidecars from are JSON in a ConfigMap."""
    if thing["kind"] != "ConfigMap" or not thing["metadata"]["name"].startswith("istio-sidecar-injector"):
        return NO_SIDECAR
    values: dict[str, Any] = json.loads(thing["data"]["values"])["global"]
    proxy = values.get("proxy") or {}
    image = proxy.get("image") or "proxyv2"
    full = image if "/" in image else f"{values['hub']}/{image}:{values['tag']}"
    return Injected(room_of((proxy.get("resources") or {}).get("requests") or {}), (full,))


def _kuma(thing: Object) -> Injected:
    """Kuma's control plane has them in its environment."""
    if thing["kind"] != "Deployment":
        return NO_SIDECAR
    containers = thing["spec"]["template"]["spec"]["containers"]
    names: Mapping[str, str] = {one["name"]: one.get("value", "") for c in containers for one in c.get("env") or ()}
    asked = {what: names.get(f"{_KUMA_REQUESTS}_{what.upper()}") or 0 for what in ("cpu", "memory")}
    images = (value for name, value in names.items() if name.endswith(_KUMA_IMAGES))
    return Injected(room_of(asked), tuple(images))


_KUMA_REQUESTS: Final = "KUMA_INJECTOR_SIDECAR_CONTAINER_RESOURCES_REQUESTS"
_KUMA_IMAGES: Final = ("_INIT_CONTAINER_IMAGE", "_SIDECAR_CONTAINER_IMAGE")
_READERS: Final[Mapping[str, Callable[[Object], Injected]]] = {"istio": _istio, "kuma": _kuma}
