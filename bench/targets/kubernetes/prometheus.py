"""CPU and memory of containers from a Prometheus that the cluster has: `--prometheus URL`, or `NAMESPACE/SERVICE:PORT`
for one that is reached through the API server.

It is asked for the samples as they were scraped, with their own times: a query by steps would repeat old values.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from bench.errors import ClusterError, InputError
from bench.findings import Finding
from bench.load.merge import Start
from bench.resources import Row
from bench.targets.kubernetes.client import Cluster
from bench.targets.kubernetes.permissions import PROMETHEUS, Need
from bench.targets.kubernetes.usage import Key, KubeletUsage, Reading, rows_of
from bench.units import NANOSECONDS

CPU: Final = "container_cpu_usage_seconds_total"
MEMORY: Final = "container_memory_working_set_bytes"
_SERVICE: Final = re.compile(r"([a-z0-9-]+)/([a-z0-9-]+):([a-z0-9-]+)")
_URL: Final = re.compile(r"https?://[^/]")
_TIMEOUT_S: Final = 10.0
_MEND: Final = "mend --prometheus, or leave it out: the kubelets are asked anyway"

Query = Callable[[str], Any]  # PromQL -> the answer's `data`


@dataclass
class PrometheusUsage:
    """The kubelets' readings, with Prometheus's in place of those of the containers that it knows better. See
    `load_pod.Meter`."""

    kubelets: KubeletUsage
    query: Query
    _remarks: list[str] = field(default_factory=list)

    def tick(self) -> None:
        self.kubelets.tick()

    def read(self) -> None:
        self.kubelets.read()

    def rows(self, start: Start) -> list[Row]:
        """Prometheus is asked once, for the whole load."""
        known = self.kubelets.readings
        try:
            asked = self._ask(round(time.time() - start.wall_s) + 1)
        except ClusterError as error:
            self._remarks.append(f"resources are the kubelets' own figures: {error}")
            asked = {}
        better = {key: found for key, found in asked.items() if len(found) >= max(2, len(known.get(key, ())))}
        parts = self.kubelets.parts
        return [row for key, found in {**known, **better}.items() for row in rows_of(parts[key], found, start)]

    def remarks(self) -> tuple[str, ...]:
        return (*self.kubelets.remarks(), *self._remarks)

    def _ask(self, seconds: int) -> dict[Key, list[Reading]]:
        names = sorted({namespace for namespace, _, container in self.kubelets.parts if container})
        selected = f'{{namespace=~"{"|".join(names)}",container!=""}}[{seconds}s]'
        cpu, memory = (self.query(f"{metric}{selected}") for metric in (CPU, MEMORY))
        return readings_of(cpu, memory, wanted=self.kubelets.parts.keys())


def readings_of(cpu: Any, memory: Any, *, wanted: Collection[Key]) -> dict[Key, list[Reading]]:
    """Both answers together: every scrape of the CPU time, with the memory of the same moment or of the one before."""
    sizes = _series(memory, wanted)
    return {
        key: [Reading(at_s, round(value * NANOSECONDS), _before(sizes.get(key, []), at_s)) for at_s, value in found]
        for key, found in _series(cpu, wanted).items()
    }


def _series(data: Any, wanted: Collection[Key]) -> dict[Key, list[tuple[float, float]]]:
    """Of the containers that are wanted: times and values. One that is scraped twice is taken once."""
    found: dict[Key, list[tuple[float, float]]] = {}
    for series in data["result"]:
        labels: Mapping[str, str] = series["metric"]
        key = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
        if key in wanted:
            found.setdefault(key, [(float(at_s), float(value)) for at_s, value in series["values"]])
    return found


def _before(values: list[tuple[float, float]], at_s: float) -> int:
    return round(next((value for time_s, value in reversed(values) if time_s <= at_s), values[0][1] if values else 0))


def check_place(place: str) -> None:
    """Raises InputError for what is neither a URL nor a service of the cluster."""
    if not _URL.match(place) and not _SERVICE.fullmatch(place):
        raise InputError(f"--prometheus {place}: write a URL (http://...), or NAMESPACE/SERVICE:PORT")


def prometheus_needs(place: str) -> tuple[Need, ...]:
    """What has to be allowed for asking it; nothing for a URL, or for none."""
    match = _SERVICE.fullmatch(place)
    if match is None:
        return ()
    return tuple(replace(need, namespace=match[1], names=(f"{match[2]}:{match[3]}",)) for need in PROMETHEUS)


def source_of(place: str, cluster: Cluster) -> Query:
    """Who answers queries. Raises InputError, as `check_place` does."""
    check_place(place)
    match = _SERVICE.fullmatch(place)
    if match is None:
        return lambda query: _data(_fetch(f"{place.rstrip('/')}/api/v1/query", query))
    path = f"/api/v1/namespaces/{match[1]}/services/{match[2]}:{match[3]}/proxy/api/v1/query"
    return lambda query: _data(cluster.read(path, query=query))


def examine_prometheus(place: str, cluster: Cluster) -> Finding:
    """Whether it answers and knows containers, asked once before anything is made."""
    try:
        known = source_of(place, cluster)(f"count({CPU})")["result"]
    except (ClusterError, KeyError, TypeError) as error:
        return Finding("missing", "Prometheus", f"{place} does not answer as one: {error}", _MEND)
    if not known:
        told = f"{place} has no {CPU}, so that the kubelets' own figures stay"
        return Finding("doubt", "Prometheus", told, "have it scrape the kubelets' /metrics/cadvisor")
    return Finding("ok", "Prometheus", f"{place} answers")


def _fetch(url: str, query: str) -> Any:
    try:
        with urlopen(f"{url}?{urlencode({'query': query})}", timeout=_TIMEOUT_S) as answer:  # noqa: S310  # http(s) only
            return json.load(answer)
    except (OSError, HTTPException, ValueError) as error:
        raise ClusterError(f"asking Prometheus at {url}: {error}", status=0) from error


def _data(answer: Any) -> Any:
    """Raises ClusterError for an answer that is none of Prometheus's."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        told = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise ClusterError(f"asking Prometheus: {str(told)[:200]}", status=0)
    return answer["data"]
