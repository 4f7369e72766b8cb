"""Scale the resource requests of pods, so that several configurations fit on small nodes at once. Pure.

Requests decide where pods fit, and share out CPUs that are short. Limits stay, since a sidecar's worker threads follow
its limit.
"""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final

from bench.application.objects import TEMPLATES
from bench.k8s.client import Object
from bench.units import parse_quantity

_LISTS: Final = ("containers", "initContainers")

Quantities = Mapping[str, str | float]


def scale_quantities(requests: Quantities, share: float) -> dict[str, str]:
    """Return requests of `cpu` and `memory` multiplied by `share`, rounded up to one thousandth of a CPU and to one
    byte; other resources, such as devices, unchanged."""
    scaled: Mapping[str, Callable[[float], str]] = {
        "cpu": lambda number: f"{_round_up(number * share * 1000)}m",
        "memory": lambda number: str(_round_up(number * share)),
    }
    return {
        name: scaled[name](parse_quantity(str(value))) if name in scaled else str(value)
        for name, value in requests.items()
    }


def _round_up(number: float) -> int:
    return ceil(round(number, 3))


def scale_requests(thing: Object, share: float) -> Object:
    """Return an object whose pods request `share` of what its manifest requests. A container that has only limits
    requests these, as it does on a cluster."""
    if share == 1.0 or not isinstance(spec := thing.get("spec"), dict):
        return thing
    if thing["kind"] == "Pod":
        return {**thing, "spec": _scale_pod(spec, share)}
    if "template" in spec and thing["kind"] in TEMPLATES:
        template = spec["template"]
        return {**thing, "spec": {**spec, "template": {**template, "spec": _scale_pod(template["spec"], share)}}}
    if "resources" in spec:  # of a gateway that a control plane makes
        return {**thing, "spec": _scale_container(spec, share)}
    return thing


def _scale_pod(spec: Object, share: float) -> Object:
    return {**spec, **{key: [_scale_container(one, share) for one in spec[key]] for key in _LISTS if spec.get(key)}}


def _scale_container(container: Object, share: float) -> Object:
    resources: dict[str, Any] = container.get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    if not requests:
        return container
    return {**container, "resources": {**resources, "requests": scale_quantities(requests, share)}}
