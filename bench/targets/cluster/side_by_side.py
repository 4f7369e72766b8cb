"""Find what keeps the configurations of a scenario from being deployed side by side on a cluster. Pure.

One table, which the plan, the pre-flight and the run use: each row finds its obstacles in one object as it is written,
and says why two deployments cannot both have it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from bench.application.objects import CLUSTER_SCOPED
from bench.errors import InputError
from bench.files.yaml_source import Document, Loc, format_path, value_at
from bench.k8s.client import ref_of
from bench.k8s.objects import POD_PATHS
from bench.meshes.resolved import ResolvedConfiguration, ResolvedScenario
from bench.meshes.rewriting import Moved, Namespaces

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: finds the places in an object, and says why they are an obstacle."""

    find: Callable[[Object], Iterator[Loc]]
    why: str


def _find_host_ports(thing: Object) -> Iterator[Loc]:
    for loc, container in _list_containers(thing):
        for index, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort"):
                yield (*loc, "ports", index, "hostPort")


def _find_host_network(thing: Object) -> Iterator[Loc]:
    loc = POD_PATHS.get(thing["kind"])
    if loc and (value_at(thing, loc) or {}).get("hostNetwork"):
        yield (*loc, "hostNetwork")


def _find_node_ports(thing: Object) -> Iterator[Loc]:
    if thing["kind"] == "Service":
        for index, port in enumerate((thing.get("spec") or {}).get("ports") or ()):
            if port.get("nodePort"):
                yield ("spec", "ports", index, "nodePort")


def _find_cluster_scoped(thing: Object) -> Iterator[Loc]:
    if thing["kind"] in (*CLUSTER_SCOPED, "Namespace"):
        yield ("kind",)


# Of an object that the application or a configuration has, as it is written.
TABLE: Final[tuple[Row, ...]] = (
    Row(_find_host_ports, "one pod of a node can have this port"),
    Row(_find_host_network, "pods in the network of their node listen at the same ports"),
    Row(_find_node_ports, "one Service of a cluster can have this port"),
    Row(_find_cluster_scoped, "the object is of the whole cluster, where there is one of its name"),
)
_SHARED: Final = "applies to the whole mesh, and has no form for one namespace"
_DIFFERING: Final = "is a setting of the whole mesh, and differs between configurations"


def list_obstacles(resolved: ResolvedScenario) -> tuple[str, ...]:
    """Return why the configurations cannot be deployed side by side, each once, with file and line where there is one;
    empty where they can."""
    every = (document for one in resolved.configurations for document in (*one.things, *one.objects))
    documents = (*resolved.objects, *every)
    found = chain(
        (text for document in documents for text in _apply_table(document)),
        _list_shared(resolved.configurations),
    )
    return tuple(dict.fromkeys(found))


def settle_obstacles(resolved: ResolvedScenario) -> ResolvedScenario:
    """Return the scenario with a design that its manifests allow: sequential, with a remark, where its configurations
    cannot be side by side. Raises InputError where a design was asked for that needs it."""
    obstacles = list_obstacles(resolved) if resolved.scenario.is_paired else ()
    if not obstacles:
        return resolved
    if resolved.design_asked:
        lines = "\n".join(f"  {one}" for one in obstacles)
        design = resolved.scenario.design
        raise InputError(
            f"{design}: the configurations cannot be deployed side by side:\n{lines}\n"
            "hint: use `design: sequential`, or leave the design out"
        )
    return resolved.with_design("sequential", f"they cannot be deployed side by side: {'; '.join(obstacles)}")


def _apply_table(document: Document) -> Iterator[str]:
    for row in TABLE:
        for loc in row.find(document.value):
            yield _format_obstacle(document, loc, row.why)


def _list_shared(configurations: Sequence[ResolvedConfiguration]) -> Iterator[str]:
    """Yield objects that two configurations would both have under one name, in the namespaces of neither."""
    by_mesh: dict[str, list[ResolvedConfiguration]] = {}
    for one in configurations:
        by_mesh.setdefault(one.settings.mesh, []).append(one)
    for same in by_mesh.values():
        shared = {one.name: _find_shared(one) for one in same}
        for one in same:
            for key, moved in shared[one.name].items():
                values = [shared[other.name][key].value if key in shared[other.name] else None for other in same]
                alike = all(value == values[0] for value in values)
                yield _format_obstacle(moved.document, ("metadata", "name"), _SHARED if alike else _DIFFERING)


def _find_shared(configuration: ResolvedConfiguration) -> dict[str, Moved]:
    """Return the objects that have the same place whatever the namespaces of the configuration are."""
    first, second = (
        configuration.in_namespaces(
            Namespaces({one: f"{one}-{part}" for one in configuration.namespaces.runs}, part)
        ).moved
        for part in ("one", "other")
    )
    elsewhere = {str(ref_of(one.value)) for one in second}
    return {str(ref): one for one in first if str(ref := ref_of(one.value)) in elsewhere}


def _list_containers(thing: Object) -> Iterator[tuple[Loc, Object]]:
    loc = POD_PATHS.get(thing["kind"])
    pod = (value_at(thing, loc) if loc else None) or {}
    for key in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(key) or ()):
            yield (*(loc or ()), key, index), container


def _format_obstacle(document: Document, loc: Loc, why: str) -> str:
    thing = document.value
    where = f"{document.file}:{document.line_of(loc)}"
    return f"{where}: {thing['kind']} {thing['metadata']['name']}, {format_path(loc)}: {why}"
