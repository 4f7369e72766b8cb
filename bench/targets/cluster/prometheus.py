"""Read CPU and memory of containers from the cluster's own Prometheus: `--prometheus URL`, or `NAMESPACE/SERVICE:PORT`
for one that is reached through the API server.

The query is for the samples as they were scraped, with their own times: a query by steps would repeat old values.
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

from bench.analysis.validity import make_issue
from bench.check_result import CheckResult
from bench.errors import BadAnswerError, ClusterError, ErrorKind, InputError, reject_malformed
from bench.k8s.client import Cluster
from bench.load.recorded import Start
from bench.meshes.rights import Need
from bench.results.issues import Issue, IssueCode
from bench.results.resources import Row
from bench.system.redaction import format_basic_authorization, split_credentials
from bench.targets.cluster.kubelet import KubeletUsage, rows_of
from bench.targets.cluster.node_noise import Key, Reading
from bench.targets.cluster.preflight.permissions import PROMETHEUS
from bench.units import NANOSECONDS

CPU: Final = "container_cpu_usage_seconds_total"
MEMORY: Final = "container_memory_working_set_bytes"
_SERVICE: Final = re.compile(r"([a-z0-9-]+)/([a-z0-9-]+):([a-z0-9-]+)")
_URL: Final = re.compile(r"https?://[^/]")
_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 32 * 1024 * 1024
_HINT: Final = "correct --prometheus, or leave it out: the kubelets are read anyway"

Query = Callable[[str], Any]  # PromQL -> the answer's `data`


@dataclass
class PrometheusUsage:
    """The kubelets' readings, with Prometheus's in place of those of the containers that it has more of. See
    `bench.targets.cluster.load.generator.Meter`."""

    kubelets: KubeletUsage
    query: Query
    _failures: list[ClusterError] = field(default_factory=list)

    def tick(self) -> None:
        self.kubelets.tick()

    def read(self) -> None:
        self.kubelets.read()

    def rows(self, start: Start) -> list[Row]:
        """Query Prometheus once, for the whole load."""
        known = self.kubelets.readings
        try:
            scraped = self._read_samples(round(time.time() - start.wall_s) + 1)
        except ClusterError as error:
            self._failures.append(error)
            scraped = {}
        better = {key: found for key, found in scraped.items() if len(found) >= max(2, len(known.get(key, ())))}
        parts = self.kubelets.parts
        return [row for key, found in {**known, **better}.items() for row in rows_of(parts[key], found, start)]

    def issues(self) -> tuple[Issue, ...]:
        details = (f"resources are the kubelets' own figures: {error}" for error in self._failures)
        return (*self.kubelets.issues(), *(make_issue(IssueCode.NO_PROMETHEUS, detail) for detail in details))

    def _read_samples(self, seconds: int) -> dict[Key, list[Reading]]:
        names = sorted({namespace for namespace, _, container in self.kubelets.parts if container})
        selected = f'{{namespace=~"{"|".join(names)}",container!=""}}[{seconds}s]'
        cpu, memory = (self.query(f"{metric}{selected}") for metric in (CPU, MEMORY))
        with reject_malformed("Prometheus"):
            return readings_of(cpu, memory, wanted=self.kubelets.parts.keys())


def readings_of(cpu: Any, memory: Any, *, wanted: Collection[Key]) -> dict[Key, list[Reading]]:
    """Combine both answers: every scrape of the CPU time, with the memory of the same moment or of the one before."""
    sizes = _read_series(memory, wanted)
    return {
        key: [
            Reading(at_s, round(value * NANOSECONDS), _value_before(sizes.get(key, []), at_s)) for at_s, value in found
        ]
        for key, found in _read_series(cpu, wanted).items()
    }


def _read_series(data: Any, wanted: Collection[Key]) -> dict[Key, list[tuple[float, float]]]:
    """Return times and values of the containers that are wanted. One that is scraped twice is taken once."""
    samples: dict[Key, list[tuple[float, float]]] = {}
    for series in data["result"]:
        labels: Mapping[str, str] = series["metric"]
        key = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
        if key in wanted:
            samples.setdefault(key, [(float(at_s), float(value)) for at_s, value in series["values"]])
    return samples


def _value_before(values: list[tuple[float, float]], at_s: float) -> int:
    return round(next((value for time_s, value in reversed(values) if time_s <= at_s), values[0][1] if values else 0))


def check_address(address: str) -> None:
    """Raise InputError for what is neither a URL nor a service of the cluster."""
    if _SERVICE.fullmatch(address):
        return
    clean = without_password(address)
    if not _URL.match(clean) or "?" in clean or "#" in clean:
        shown = "" if "@" in clean else f" {clean}"  # it may have a password where a URL has none
        raise InputError(f"--prometheus{shown}: write a URL (http://...), or NAMESPACE/SERVICE:PORT")


def without_password(address: str) -> str:
    """Return the address as it is recorded and shown: a URL's user and password are in no file and no message. Raises
    InputError for an invalid URL."""
    try:
        return address if _SERVICE.fullmatch(address) else split_credentials(address)[0]
    except ValueError as error:
        raise InputError(f"--prometheus: {error}; write a URL (http://...), or NAMESPACE/SERVICE:PORT") from None


def prometheus_needs(address: str) -> tuple[Need, ...]:
    """Return the permissions for querying it; none for a URL, or for an empty address."""
    match = _SERVICE.fullmatch(address)
    if match is None:
        return ()
    return tuple(replace(need, namespace=match[1], names=(f"{match[2]}:{match[3]}",)) for need in PROMETHEUS)


def make_query(address: str, cluster: Cluster) -> Query:
    """Return the function that queries this Prometheus. Raises InputError, as `check_address` does."""
    check_address(address)
    match = _SERVICE.fullmatch(address)
    if match is None:
        url, pair = split_credentials(address)
        authorization = format_basic_authorization(pair) if pair else ""
        return lambda query: _read_data(_fetch(f"{url.rstrip('/')}/api/v1/query", query, authorization))
    path = f"/api/v1/namespaces/{match[1]}/services/{match[2]}:{match[3]}/proxy/api/v1/query"
    return lambda query: _read_data(cluster.read(path, query=query))


def examine_prometheus(address: str, cluster: Cluster) -> CheckResult:
    """Check whether it answers and knows containers, once before anything is created."""
    shown = without_password(address)
    try:
        answer = make_query(address, cluster)(f"count({CPU})")
        with reject_malformed("Prometheus"):
            known = answer["result"]
    except ClusterError as error:
        return CheckResult("Prometheus", "error", f"{shown} does not answer as Prometheus: {error}", _HINT)
    if not known:
        detail = f"{shown} has no {CPU}, so that the kubelets' own figures stay"
        return CheckResult("Prometheus", "warning", detail, "have it scrape the kubelets' /metrics/cadvisor")
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
        raise ClusterError(f"querying Prometheus at {url}: {error}", kind=ErrorKind.INTERRUPTED) from error
    raise BadAnswerError(f"querying Prometheus at {url}: its answer is larger than {_MOST_BYTES} bytes")


def _read_data(answer: Any) -> Any:
    """Return the data of an answer. Raises ClusterError for one that is not Prometheus's."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        message = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise ClusterError(f"querying Prometheus: {str(message)[:200]}", kind=ErrorKind.REJECTED)
    return answer.get("data")
