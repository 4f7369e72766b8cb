"""Where the load generator runs: apart from the application, where there is more than one node. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.nodes import schedulable
from bench.units import parse_quantity

_HOSTNAME: Final = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class LoadPlace:
    """`load` and `application` are affinities for the pods, None where there is no choice; `sentence` is for people,
    and names no node: it stands in every report.

    The load has its node for itself: no pod of the application may go there.
    """

    node: str
    load: Object | None
    application: Object | None
    sentence: str


def place_load(nodes: Sequence[Object]) -> LoadPlace:
    """Chooses a node for the load, the same each time: of those that take pods the one with the fewest processors,
    since one Locust uses one; of equal ones the last by name."""
    usable = sorted(schedulable(nodes), key=_preference)
    if len(usable) < 2:
        return LoadPlace("", None, None, _together(nodes))
    chosen = _hostname(usable[0])
    others = len(usable) - 1
    sentence = (
        "the load generator has a node for itself; the application runs on the other"
        f"{f' {others} nodes' if others > 1 else ' node'}"
    )
    return LoadPlace(chosen, _affinity("In", chosen), _affinity("NotIn", chosen), sentence)


def _together(nodes: Sequence[Object]) -> str:
    which = "the only node" if len(nodes) == 1 else f"the only one of {len(nodes)} nodes that takes pods"
    return f"the load generator shares {which} with the application: they compete for its processors"


def _preference(node: Object) -> tuple[float, list[int]]:
    cores = parse_quantity(str(node["status"]["allocatable"]["cpu"]))
    return cores, [-ord(letter) for letter in _hostname(node)]


def _hostname(node: Object) -> str:
    metadata = node["metadata"]
    return str((metadata.get("labels") or {}).get(_HOSTNAME) or metadata["name"])


def _affinity(operator: str, hostname: str) -> Object:
    expression = {"key": _HOSTNAME, "operator": operator, "values": [hostname]}
    terms = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
