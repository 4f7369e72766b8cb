"""Why objects do not go, in words, and the command for each: what a person needs who has to end a cleanup by hand."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from bench.errors import ClusterError
from bench.targets.kubernetes.client import Cluster, Object, Ref, ref_of
from bench.targets.kubernetes.deletion import Found
from bench.targets.kubernetes.residue import deletion_command
from bench.targets.kubernetes.waits import holding

_LINES_AT_MOST: Final = 20
_NOBODY_ANSWERS: Final = (0, 401)  # nor will anybody to the next question; other refusals concern one kind alone


def explain(cluster: Cluster, left: Iterable[Found], refused: Mapping[Ref, str]) -> tuple[str, ...]:
    """Lines for what is left of a run: each object with what holds it and with a command. What holds a namespace from
    inside is left out where the API server does not tell it."""
    things = tuple(left)
    namespaces = {one.ref.name: one for one in things if one.ref.kind == "Namespace"}
    heads = [one for one in things if one.ref.namespace not in namespaces and not one.derived]
    inside = _held_in(cluster, [name for name, one in namespaces.items() if one.going])
    lines = [f"  {line}" for one in heads for line in _reasons(cluster, one, inside, refused.get(one.ref, ""))]
    more = len(lines) - _LINES_AT_MOST
    return (*lines[:_LINES_AT_MOST], f"  ... and {more} more") if more > 0 else tuple(lines)


def _reasons(cluster: Cluster, one: Found, inside: Mapping[str, Sequence[Object]], refused: str) -> Iterator[str]:
    if not one.going:
        why = f"its deletion was refused: {refused}" if refused else "not deleted yet"
        yield f"{one.ref}: {why}; {deletion_command(one, context=cluster.context)}"
        return
    yield f"{one.ref}: being deleted; {holding(one.thing)}"
    held = inside.get(one.ref.name, ()) if one.ref.kind == "Namespace" else [one.thing]
    for thing in held:
        finalizers = thing["metadata"].get("finalizers") or ()
        if finalizers:
            yield (
                f"  {ref_of(thing)} waits for {', '.join(finalizers)}; if nobody serves that any more: "
                f"{_release_command(ref_of(thing), cluster.context)}"
            )


def _held_in(cluster: Cluster, namespaces: Iterable[str]) -> Mapping[str, Sequence[Object]]:
    """By namespace, its objects that are being deleted; what was found until the API server did not answer any more."""
    held: defaultdict[str, list[Object]] = defaultdict(list)
    with suppress(ClusterError):  # then the namespaces' own conditions have to do
        for namespace in namespaces:
            for thing in _listed(cluster, namespace):
                if thing["metadata"].get("deletionTimestamp"):
                    held[namespace].append(thing)
    return held


def _listed(cluster: Cluster, namespace: str) -> Iterator[Object]:
    """Everything in a namespace, of the kinds that can be listed. Raises ClusterError where nobody answers."""
    for kind in cluster.kinds():
        if kind.namespaced and "list" in kind.verbs:
            try:
                yield from cluster.list(kind.api_version, kind.kind, namespace=namespace)
            except ClusterError as error:
                if error.status in _NOBODY_ANSWERS:
                    raise


def _release_command(ref: Ref, context: str) -> str:
    place = f" -n {ref.namespace}" if ref.namespace else ""
    patch = """--type=merge -p '{"metadata":{"finalizers":null}}'"""
    return f"kubectl --context {context}{place} patch {ref.kind.lower()} {ref.name} {patch}"
