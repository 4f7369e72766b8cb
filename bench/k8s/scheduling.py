"""Decide which nodes the scheduler would consider for a pod: by conditions, taints, labels and node affinity. Pure.

Room is not part of it, nor are affinities between pods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.k8s.client import Object
from bench.k8s.objects import has_condition, node_name
from bench.k8s.ownership import labels_of

REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
TAINT: Final = "taint "
"""Begins the text of an exclusion by a taint."""
_KEEPS_OUT: Final = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class NodeConstraints:
    """What a pod requires of its node: labels, one of the terms of its node affinity (`terms`, none where it has no
    such affinity), a name; and which taints it tolerates."""

    labels: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Object, ...] = ()
    terms: tuple[Object, ...] | None = None
    node: str = ""


ANY_NODE: Final = NodeConstraints()


def read_constraints(spec: Object) -> NodeConstraints:
    """Read the constraints of a pod's `spec`."""
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED)
    return NodeConstraints(
        labels=spec.get("nodeSelector") or {},
        tolerations=tuple(spec.get("tolerations") or ()),
        terms=None if affinity is None else tuple(affinity.get("nodeSelectorTerms") or ()),
        node=spec.get("nodeName") or "",
    )


def is_open(node: Object) -> bool:
    """Return whether a node is ready, and not cordoned."""
    return has_condition(node, "Ready") and not (node.get("spec") or {}).get("unschedulable")


def schedulable_nodes(nodes: Sequence[Object], constraints: NodeConstraints = ANY_NODE) -> tuple[Object, ...]:
    """Return the nodes that take pods with these constraints: ready, not cordoned, and not excluded."""
    return tuple(node for node in nodes if is_open(node) and not find_exclusion(node, constraints))


def find_exclusion(node: Object, constraints: NodeConstraints) -> str:
    """Return why the scheduler does not consider an open node for a pod, as text; empty where it does."""
    if constraints.node and constraints.node != node_name(node):
        return f"not {constraints.node}"
    labels = labels_of(node)
    for key, value in constraints.labels.items():
        if labels.get(key) != value:
            return f"no label {key}={value}"
    for taint in list_taints(node):
        if not any(_tolerates(one, taint) for one in constraints.tolerations):
            return f"{TAINT}{format_taint(taint)}"
    if constraints.terms is not None and not any(_meets_term(node, term) for term in constraints.terms):
        return "node affinity"
    return ""


def list_taints(node: Object) -> tuple[Object, ...]:
    """Return the taints of a node that keep pods out which do not tolerate them."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return tuple(one for one in taints if one.get("effect") in _KEEPS_OUT)


def format_taint(taint: Mapping[str, Any]) -> str:
    """Format a taint as `kubectl taint` takes it: `role=workload:NoSchedule`."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def _meets_term(node: Object, term: Mapping[str, Any]) -> bool:
    """Return whether a node meets all expressions of a term; an empty term is met by none."""
    labels, fields = labels_of(node), {"metadata.name": node_name(node)}
    found = [
        *(_meets(labels, one) for one in term.get("matchExpressions") or ()),
        *(_meets(fields, one) for one in term.get("matchFields") or ()),
    ]
    return bool(found) and all(found)


def _meets(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    value, operator, values = labels.get(expression["key"]), expression["operator"], expression.get("values") or ()
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return _compare(value, operator, values)


def _compare(value: str | None, operator: str, values: Sequence[str]) -> bool:
    """Compare whole numbers, `Gt` or `Lt`; anything else is not met, as in the scheduler."""
    try:
        number, limit = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > limit if operator == "Gt" else operator == "Lt" and number < limit
