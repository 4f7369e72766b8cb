"""Find what runs left on a cluster, by their labels alone: all kinds that the API server knows, in all namespaces."""

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.connection import KindInfo
from bench.k8s.ownership import OURS, run_of, run_selector
from bench.targets.cluster.teardown.stages import RunObject, make_run_object

_CANNOT_BE_LISTED: Final = (ErrorKind.NOT_FOUND, ErrorKind.UNSUPPORTED)  # deleted meanwhile, or not for listing
_NAMED_AT_MOST: Final = 4
_AT_ONCE: Final = 8  # a hundred kinds, one after another, take seconds on a cluster that is far away


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Objects that carry runs' labels; `unseen` are kinds that our user may not list."""

    found: tuple[RunObject, ...]
    unseen: tuple[str, ...] = ()

    @property
    def is_blind(self) -> bool:
        """Whether an empty result has no meaning: every run has namespaces."""
        return "Namespace" in self.unseen

    def by_run(self) -> Mapping[str, tuple[RunObject, ...]]:
        """Return the objects of each run, oldest run first."""
        runs = sorted({one.run_id for one in self.found})
        return {run: tuple(one for one in self.found if one.run_id == run) for run in runs}


def find_leftovers(cluster: Cluster, run_id: str | None = None) -> Leftovers:
    """Return everything on the cluster that carries the labels of a run, or of any run."""
    kinds = [kind for kind in cluster.kinds() if {"list", "delete"} <= kind.verbs]
    return list_objects(cluster, kinds, labels=OURS if run_id is None else run_selector(run_id))


def find_foreign(cluster: Cluster, definition: Object, run_id: str) -> tuple[Ref, ...]:
    """Return the objects of the kind that a custom resource definition defines which are not this run's. Raises
    ClusterError where they cannot be listed."""
    spec = definition["spec"]
    version = next(one["name"] for one in spec["versions"] if one["served"])
    found = cluster.list(f"{spec['group']}/{version}", spec["names"]["kind"])
    return tuple(ref_of(one) for one in found if run_of(one) != run_id)


def list_objects(cluster: Cluster, kinds: Iterable[KindInfo | Ref], *, labels: str) -> Leftovers:
    """Return the objects of these kinds with these labels, each of them once."""
    requested = tuple(dict.fromkeys((one.api_version, one.kind) for one in kinds))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = tuple(pool.map(lambda one: _list_kind(cluster, *one, labels=labels), requested))
    things = {one["metadata"]["uid"]: make_run_object(one) for listed in answers for one in listed or ()}
    unseen = tuple(kind for (_, kind), listed in zip(requested, answers, strict=True) if listed is None)
    return Leftovers(tuple(things.values()), unseen)


def _list_kind(cluster: Cluster, api_version: str, kind: str, *, labels: str) -> tuple[Object, ...] | None:
    """Return the objects; None where our user may not list the kind."""
    try:
        return cluster.list(api_version, kind, labels=labels)
    except ClusterError as error:
        if error.kind in _CANNOT_BE_LISTED:
            return ()
        if error.kind is ErrorKind.FORBIDDEN:
            return None
        raise


def format_objects(things: Iterable[RunObject]) -> str:
    """Format objects kind by kind: `Namespace shop-7f3a; 14 CustomResourceDefinition`. What is deleted with
    something else is not named."""
    everything = tuple(things)
    namespaces = {one.ref.name for one in everything if one.ref.kind == "Namespace"}
    heads = [one.ref for one in everything if one.ref.namespace not in namespaces and not one.is_owned]
    counts = Counter(ref.kind for ref in heads)
    few = [str(ref) for ref in heads if counts[ref.kind] <= _NAMED_AT_MOST]
    many = [f"{count} {kind}" for kind, count in counts.items() if count > _NAMED_AT_MOST]
    return "; ".join([*few, *many]) or "nothing"
