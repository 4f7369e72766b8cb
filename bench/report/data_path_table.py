"""Make the data path comparison: the properties in which configurations with a mesh are equal or different."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from bench.meshes.equalise import format_equalised
from bench.report.model import Cell, Column, Report, Table
from bench.results.records import DataPath, EffectiveRoute, Limits, Retries
from bench.units import format_count, format_duration

_BALANCING: Final = {
    "LEAST_REQUEST": "fewest requests",
    "ROUND_ROBIN": "round robin",
    "RANDOM": "random",
    "RING_HASH": "ring hash",
    "MAGLEV": "Maglev",
}
_NONE: Final = "none"


def compare_data_paths(report: Report) -> Table:
    """Return a row per property of the data path, a column per configuration; no rows for fewer than two of them."""
    paths = {name: found for name in report.configurations if (found := tuple(_read_paths(report, name)))}
    rows = tuple(_make_rows(paths)) if len(paths) > 1 else ()
    return Table(
        name="data-path",
        title="Data path comparison",
        note=f"{_format_sentence(rows, report)} Read from the sidecars' configuration; protocol and TLS "
        "from their counters of connections to each other.",
        columns=tuple(Column(title, number=False) for title in ("Property", "Result", *paths)),
        rows=rows,
    )


def _read_paths(report: Report, configuration: str) -> Iterator[DataPath]:
    for trial in report.run.stored.trials:
        if trial.record.configuration == configuration and trial.proof and trial.proof.data_path:
            yield trial.proof.data_path


def _make_rows(paths: Mapping[str, tuple[DataPath, ...]]) -> Iterator[tuple[Cell, ...]]:
    for title, read in _PROPERTIES.items():
        values = [" · ".join(dict.fromkeys(text for path in found for text in read(path))) for found in paths.values()]
        equal = len(set(values)) == 1
        yield (Cell(title), Cell("equal" if equal else "different", verdict=not equal), *map(Cell, values))


def _format_sentence(rows: Iterable[tuple[Cell, ...]], report: Report) -> str:
    different = [row[0].text for row in rows if row[1].verdict]
    meshes = {configuration.mesh for configuration in report.configurations.values()} - {"none"}
    difference = "In addition to the mesh, these differ" if len(meshes) > 1 else "These differ"
    equal = format_equalised(report.record.scenario.equalise)
    return " ".join(
        (
            f"{difference}: {', '.join(different)}." if different else "All properties are equal.",
            *([f"Set to equal values by the scenario (equalise): {equal}."] if equal else []),
        )
    )


def _read_routes(read: Callable[[EffectiveRoute], str]) -> Callable[[DataPath], Iterable[str]]:
    return lambda path: dict.fromkeys(read(route) for route in path.ways)


def _format_http(route: EffectiveRoute) -> str:
    return ", ".join(route.seen.http) or f"{route.http} (as configured)"


def _format_retries(retries: Retries | None) -> str:
    if retries is None:
        return _NONE
    first, last = (format_duration(seconds) for seconds in retries.backoff_s)
    each = f", {format_duration(retries.per_try_timeout_s)} for each" if retries.per_try_timeout_s else ""
    return f"{retries.number} on {', '.join(retries.conditions)}; {first} to {last} between{each}"


def _format_limits(limits: Limits) -> str:
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


def _format_timeout(route: EffectiveRoute) -> str:
    return _NONE if route.timeout_s is None else format_duration(route.timeout_s)


def _format_policies(counts: Iterable[int | None]) -> Iterator[str]:
    """Yield the number of policies and of the sidecars that have the filter; a filter without policies denies all."""
    found = [count for count in counts if count is not None]
    yield f"{sum(found)} in {len(found)} sidecars" if found else _NONE


_PROPERTIES: Final[Mapping[str, Callable[[DataPath], Iterable[str]]]] = {
    "protocol between sidecars": _read_routes(_format_http),
    "TLS version": _read_routes(lambda route: ", ".join(route.seen.tls) or "plaintext"),
    "TLS cipher": _read_routes(lambda route: ", ".join(route.seen.ciphers) or _NONE),
    "TLS curve": _read_routes(lambda route: ", ".join(route.seen.curves) or _NONE),
    "policies for HTTP": lambda path: _format_policies(inbound.http_policies for inbound in path.inbounds),
    "policies for connections": lambda path: _format_policies(inbound.network_policies for inbound in path.inbounds),
    "retries between sidecars": _read_routes(lambda route: _format_retries(route.retries)),
    "retries to the application": lambda path: dict.fromkeys(_format_retries(one.retries) for one in path.inbounds),
    "timeout of a request": _read_routes(_format_timeout),
    "load balancing": _read_routes(lambda route: _BALANCING.get(route.load_balancing, route.load_balancing)),
    "limits (circuit breaker)": _read_routes(lambda route: _format_limits(route.limits)),
    "workers of a sidecar": lambda path: dict.fromkeys(format_count(count) for count in path.workers.values()),
}
