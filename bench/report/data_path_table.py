"""Make the data path comparison: the properties in which configurations with a mesh are equal or different."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from bench.meshes.equalise import said
from bench.report.model import Cell, Column, Report, Table
from bench.results.records import DataPath, Limits, Retries, Way
from bench.units import format_count, format_duration

_BALANCING: Final = {
    "LEAST_REQUEST": "fewest requests",
    "ROUND_ROBIN": "round robin",
    "RANDOM": "random",
    "RING_HASH": "ring hash",
    "MAGLEV": "Maglev",
}
_NONE: Final = "none"


def equality(report: Report) -> Table:
    """Return a row per property of the data path, a column per configuration; no rows for fewer than two of them."""
    paths = {name: found for name in report.configurations if (found := tuple(_paths(report, name)))}
    rows = tuple(_rows(paths)) if len(paths) > 1 else ()
    return Table(
        name="data-path",
        title="Data path comparison",
        note=f"{_sentence(rows, report)} Read from the sidecars' configuration; protocol and TLS "
        "from their counters of connections to each other.",
        columns=tuple(Column(title, number=False) for title in ("Property", "Result", *paths)),
        rows=rows,
    )


def _paths(report: Report, configuration: str) -> Iterator[DataPath]:
    for trial in report.run.trials:
        if trial.record.configuration == configuration and trial.proof and trial.proof.data_path:
            yield trial.proof.data_path


def _rows(paths: Mapping[str, tuple[DataPath, ...]]) -> Iterator[tuple[Cell, ...]]:
    for title, read in _PROPERTIES.items():
        values = [" · ".join(dict.fromkeys(text for path in found for text in read(path))) for found in paths.values()]
        equal = len(set(values)) == 1
        yield (Cell(title), Cell("equal" if equal else "different", verdict=not equal), *map(Cell, values))


def _sentence(rows: Iterable[tuple[Cell, ...]], report: Report) -> str:
    different = [row[0].text for row in rows if row[1].verdict]
    meshes = {configuration.mesh for configuration in report.configurations.values()} - {"none"}
    difference = "In addition to the mesh, these differ" if len(meshes) > 1 else "These differ"
    equal = said(report.record.scenario.equalise)
    return " ".join(
        (
            f"{difference}: {', '.join(different)}." if different else "All properties are equal.",
            *([f"Set to equal values by the scenario (equalise): {equal}."] if equal else []),
        )
    )


def _of_ways(read: Callable[[Way], str]) -> Callable[[DataPath], Iterable[str]]:
    return lambda path: dict.fromkeys(read(route) for route in path.ways)


def _http(route: Way) -> str:
    return ", ".join(route.seen.http) or f"{route.http} (as configured)"


def _retries(retries: Retries | None) -> str:
    if retries is None:
        return _NONE
    first, last = (format_duration(seconds) for seconds in retries.backoff_s)
    each = f", {format_duration(retries.per_try_timeout_s)} for each" if retries.per_try_timeout_s else ""
    return f"{retries.number} on {', '.join(retries.conditions)}; {first} to {last} between{each}"


def _limits(limits: Limits) -> str:
    counts = [
        f"{format_count(count)} {what}"
        for count, what in (
            (limits.connections, "connections"),
            (limits.pending, "waiting requests"),
            (limits.requests, "requests"),
            (limits.retries, "retries"),
        )
        if count is not None
    ]
    return ", ".join(counts) or _NONE


def _timeout(route: Way) -> str:
    return _NONE if route.timeout_s is None else format_duration(route.timeout_s)


def _policies(counts: Iterable[int | None]) -> Iterator[str]:
    """Yield the number of policies and of the sidecars that have the filter; a filter without policies denies all."""
    found = [count for count in counts if count is not None]
    yield f"{sum(found)} in {len(found)} sidecars" if found else _NONE


_PROPERTIES: Final[Mapping[str, Callable[[DataPath], Iterable[str]]]] = {
    "protocol between sidecars": _of_ways(_http),
    "TLS version": _of_ways(lambda route: ", ".join(route.seen.tls) or "plaintext"),
    "TLS cipher": _of_ways(lambda route: ", ".join(route.seen.ciphers) or _NONE),
    "TLS curve": _of_ways(lambda route: ", ".join(route.seen.curves) or _NONE),
    "policies for HTTP": lambda path: _policies(inbound.http_policies for inbound in path.inbounds),
    "policies for connections": lambda path: _policies(inbound.network_policies for inbound in path.inbounds),
    "retries between sidecars": _of_ways(lambda route: _retries(route.retries)),
    "retries to the application": lambda path: dict.fromkeys(_retries(one.retries) for one in path.inbounds),
    "timeout of a request": _of_ways(_timeout),
    "load balancing": _of_ways(lambda route: _BALANCING.get(route.load_balancing, route.load_balancing)),
    "limits (circuit breaker)": _of_ways(lambda route: _limits(route.limits)),
    "workers of a sidecar": lambda path: dict.fromkeys(format_count(count) for count in path.workers.values()),
}
