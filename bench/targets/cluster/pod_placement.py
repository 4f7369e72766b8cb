"""Apply a scenario's `placement` to pods, and read it as the scheduler does. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.k8s.client import Object
from bench.k8s.objects import POD_PATHS
from bench.k8s.scheduling import REQUIRED, NodeConstraints
from bench.scenario.placement import PARTS, Placement, PodPlacement, Toleration


def constraints_of(placement: PodPlacement) -> NodeConstraints:
    """Return what a placement alone requires of a node."""
    return NodeConstraints(dict(placement.labels), _manifests(placement.tolerated))


def place_pods(thing: Object, placement: PodPlacement, affinity: Object | None = None) -> Object:
    """Return an object whose pods have the placement, and the node affinity in addition to their own; one that has no
    pods unchanged."""
    return _change_pods(thing, lambda spec: _place(spec, placement, affinity))


def place_mesh(things: Iterable[Object], placement: Placement) -> tuple[Object, ...]:
    """Return a control plane's objects with its placement. What runs on every node tolerates the taints of all parts,
    since it has to be where their pods are."""
    own = placement.of("mesh")
    every = [one for part in PARTS for one in placement.of(part).tolerated]
    anywhere = PodPlacement(tolerations=tuple(dict.fromkeys(every)))
    return tuple(place_pods(thing, anywhere if thing["kind"] == "DaemonSet" else own) for thing in things)


def _change_pods(thing: Object, change: Any) -> Object:
    path = POD_PATHS.get(thing["kind"])
    return _change_at(thing, path, change) if path else thing


def _change_at(value: Object, path: Sequence[str], change: Any) -> Object:
    if not path:
        changed: Object = change(value)
        return changed
    return {**value, path[0]: _change_at(value[path[0]], path[1:], change)}


def _place(spec: Object, placement: PodPlacement, affinity: Object | None) -> Object:
    labels = {**(spec.get("nodeSelector") or {}), **placement.labels}
    own = tuple(spec.get("tolerations") or ())
    tolerations = (*own, *(one for one in _manifests(placement.tolerated) if one not in own))
    merged = _require(spec.get("affinity") or {}, affinity) if affinity else spec.get("affinity")
    found = {"nodeSelector": labels, "tolerations": list(tolerations), "affinity": merged}
    return {**spec, **{key: value for key, value in found.items() if value}}


def _require(own: Object, added: Object) -> Object:
    """Return an affinity in which a node has to meet both: the terms of one are alternatives, so that each gets the
    other's expressions."""
    node = own.get("nodeAffinity") or {}
    (term,) = added["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    terms = (node.get(REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    both = [
        {**one, "matchExpressions": [*(one.get("matchExpressions") or ()), *term["matchExpressions"]]} for one in terms
    ]
    return {**own, "nodeAffinity": {**node, REQUIRED: {"nodeSelectorTerms": both}}}


def _manifests(tolerations: Iterable[Toleration]) -> tuple[Object, ...]:
    return tuple(one.manifest for one in tolerations)
