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
from urllib.request import Request, urlopen

from bench.check_result import CheckResult
from bench.errors import BadAnswerError, ClusterError, InputError
from bench.k8s.client import Cluster
from bench.load.recorded import Start
from bench.results.resources import Row
from bench.system.redaction import basic_authorization, split_credentials
from bench.targets.cluster.kubelet import Key, KubeletUsage, Reading, rows_of
from bench.targets.cluster.preflight.permissions import PROMETHEUS, Need
from bench.units import NANOSECONDS

CPU: Final = "container_cpu_usage_seconds_total"
MEMORY: Final = "container_memory_working_set_bytes"
_SERVICE: Final = re.compile(r"([a-z0-9-]+)/([a-z0-9-]+):([a-z0-9-]+)")
_URL: Final = re.compile(r"https?://[^/]")
_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 64 * 1024 * 1024
_HINT: Final = "correct --prometheus, or leave it out: the kubelets are asked anyway"

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
        try:
            cpu, memory = (self.query(f"{metric}{selected}") for metric in (CPU, MEMORY))
            return readings_of(cpu, memory, wanted=self.kubelets.parts.keys())
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadAnswerError(f"asking Prometheus: its answer makes no sense ({type(error).__name__})") from error


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
    if _SERVICE.fullmatch(place):
        return
    clean = without_password(place)
    if not _URL.match(clean) or "?" in clean or "#" in clean:
        shown = "" if "@" in clean else f" {clean}"  # it may have a password where no URL would have it
        raise InputError(f"--prometheus{shown}: write a URL (http://...), or NAMESPACE/SERVICE:PORT")


def without_password(place: str) -> str:
    """How the place is recorded and shown: a URL's user and password are in no file and no message. Raises InputError
    for what is no URL."""
    try:
        return place if _SERVICE.fullmatch(place) else split_credentials(place)[0]
    except ValueError as error:
        raise InputError(f"--prometheus: {error}; write a URL (http://...), or NAMESPACE/SERVICE:PORT") from None


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
        url, pair = split_credentials(place)
        authorization = basic_authorization(pair) if pair else ""
        return lambda query: _data(_fetch(f"{url.rstrip('/')}/api/v1/query", query, authorization))
    path = f"/api/v1/namespaces/{match[1]}/services/{match[2]}:{match[3]}/proxy/api/v1/query"
    return lambda query: _data(cluster.read(path, query=query))


def examine_prometheus(place: str, cluster: Cluster) -> CheckResult:
    """Whether it answers and knows containers, asked once before anything is made."""
    shown = without_password(place)
    try:
        known = source_of(place, cluster)(f"count({CPU})")["result"]
    except (ClusterError, KeyError, TypeError) as error:
        return CheckResult("Prometheus", "error", f"{shown} does not answer as one: {error}", _HINT)
    if not known:
        found = f"{shown} has no {CPU}, so that the kubelets' own figures stay"
        return CheckResult("Prometheus", "warning", found, "have it scrape the kubelets' /metrics/cadvisor")
    return CheckResult("Prometheus", "ok", f"{shown} answers")


def _fetch(url: str, query: str, authorization: str) -> Any:
    request = Request(f"{url}?{urlencode({'query': query})}")  # noqa: S310  # http(s) only
    if authorization:
        request.add_unredirected_header("Authorization", authorization)  # for this server alone
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # the same
            content = answer.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return json.loads(content)
    except (OSError, HTTPException, RecursionError, ValueError) as error:
        raise ClusterError(f"asking Prometheus at {url}: {error}", status=0) from error
    raise BadAnswerError(f"asking Prometheus at {url}: its answer is larger than {_MOST_BYTES} bytes")


def _data(answer: Any) -> Any:
    """Raises ClusterError for an answer that is none of Prometheus's."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        told = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise ClusterError(f"asking Prometheus: {str(told)[:200]}", status=0)
    return answer["data"]
