"""The nodes below a trial: one that is not ready, or short of memory, disk or processes, slows or evicts what is
measured. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from bench.targets.kubernetes.client import Object
from bench.targets.kubernetes.nodes import PRESSURES, conditions, node_name

_READY: Final = "Ready"

_Conditions: TypeAlias = Mapping[str, tuple[str, str]]  # by type: the status, and since when
Conditions: TypeAlias = Mapping[str, _Conditions]  # by the node's name


def conditions_of(nodes: Sequence[Object], names: Collection[str]) -> Conditions:
    """What `ailed_since` compares with, of the nodes of these names."""
    return {node_name(node): _conditions(node) for node in nodes if node_name(node) in names}


def ailed_since(before: Conditions, nodes: Sequence[Object]) -> tuple[str, ...]:
    """What is wrong with the nodes of `before` now, or was meanwhile, in words.

    A condition that has passed again shows by the time of its last change. That is only held against the one of
    before: both are of the cluster's clocks, and in whole seconds.
    """
    now = conditions_of(nodes, before)
    return tuple(f"node {name}: {told}" for name, was in before.items() for told in _ailments(was, now.get(name)))


def _conditions(node: Object) -> _Conditions:
    found = conditions(node)
    return {kind: (str(one["status"]), str(one.get("lastTransitionTime", ""))) for kind, one in found.items()}


def _ailments(was: _Conditions, now: _Conditions | None) -> Iterator[str]:
    if now is None:
        yield "was removed"
        return
    silent = _has_changed(_READY, was, now)  # a kubelet that falls silent changes all its conditions, there and back
    if silent or _status(_READY, now) != "True":
        yield "was not ready"
    for kind in PRESSURES:
        if _status(kind, now) == "True" or (_has_changed(kind, was, now) and not silent):
            yield f"had {kind}"


def _has_changed(kind: str, was: _Conditions, now: _Conditions) -> bool:
    return kind in was and was[kind] != now.get(kind)


def _status(kind: str, conditions: _Conditions) -> str:
    return conditions.get(kind, ("", ""))[0]
