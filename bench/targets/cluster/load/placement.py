"""Choose where the load generator runs: not with the application, where there is more than one node. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.k8s.client import Object
from bench.k8s.objects import node_name
from bench.k8s.scheduling import ANY_NODE, REQUIRED, NodeConstraints, schedulable_nodes
from bench.units import parse_quantity

_HOSTNAME: Final = "kubernetes.io/hostname"

Share = Literal["load", "application", "any"]
"""Which pods keep to the load's node, off it, or neither."""


@dataclass(frozen=True, slots=True)
class LoadPlacement:
    """`node` is the load's own, empty where it shares one. `load` and `application` are affinities for the pods, None
    where there is no choice. `sentence` is for people, and names no node: it is in every report.

    The load has its node for itself: no pod of the application may run there.
    """

    node: str
    load: Object | None
    application: Object | None
    sentence: str


def _accept_any(_: LoadPlacement) -> bool:
    """Accept every placement."""
    return True


def place_load(
    nodes: Sequence[Object],
    *,
    load: NodeConstraints = ANY_NODE,
    application: NodeConstraints = ANY_NODE,
    before: str = "",
    fits: Callable[[LoadPlacement], bool] = _accept_any,
) -> LoadPlacement:
    """Choose a node for the load: of those that take its pods the one with the fewest CPUs, since one Locust uses one;
    of equal ones the last by name, and before all one that does not take the application's. One where not everything
    `fits` comes after all others, and a run that is resumed stays with the node that it had `before`."""
    theirs = schedulable_nodes(nodes, application)
    usable = sorted(schedulable_nodes(nodes, load), key=lambda node: (node in theirs, *_preference(node)))
    places = [
        _make_dedicated(node, others=count)
        for node in usable
        if (count := len([one for one in theirs if one is not node]))
    ]
    if not places:
        return LoadPlacement("", None, None, _format_shared(nodes))
    had = [place for place in places if place.node == before]
    return had[0] if had else next(filter(fits, places), places[0])


def _make_dedicated(node: Object, *, others: int) -> LoadPlacement:
    """Return the placement with the load alone on a node, and the application on `others`."""
    hostname = _hostname(node)
    sentence = (
        "the load generator has a node for itself; the application runs on the other"
        f"{f' {others} nodes' if others > 1 else ' node'}"
    )
    return LoadPlacement(node_name(node), _affinity("In", hostname), _affinity("NotIn", hostname), sentence)


def _format_shared(nodes: Sequence[Object]) -> str:
    which = "the only node" if len(nodes) == 1 else f"the only one of {len(nodes)} nodes that takes pods"
    return f"the load generator shares {which} with the application: they compete for its CPUs"


def _preference(node: Object) -> tuple[float, list[int]]:
    cores = parse_quantity(str(node["status"]["allocatable"]["cpu"]))
    return cores, [-ord(letter) for letter in _hostname(node)]


def _hostname(node: Object) -> str:
    metadata = node["metadata"]
    return str((metadata.get("labels") or {}).get(_HOSTNAME) or metadata["name"])


def _affinity(operator: str, hostname: str) -> Object:
    expression = {"key": _HOSTNAME, "operator": operator, "values": [hostname]}
    terms = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}


UNDECIDED: Final = LoadPlacement("", None, None, "")  # stands for the node that is chosen later
