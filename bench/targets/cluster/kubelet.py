"""Read what containers and nodes use from their kubelets, through the API server: no metrics server needed.

A kubelet renews its figures on its own schedule, on some clusters only every 15 s, and gives the time of each, to the
second. A figure that is not new has no information and is not kept.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from threading import Lock
from typing import Any, Final

from bench.analysis.validity import make_issue
from bench.application.model import GATEWAY
from bench.errors import ClusterError, reject_malformed
from bench.k8s.client import Cluster, Object
from bench.k8s.diagnose import is_of_job
from bench.k8s.objects import names_of
from bench.k8s.ownership import COMPONENT, labels_of
from bench.load.recorded import Start
from bench.results.issues import Issue, IssueCode
from bench.results.resources import Row
from bench.system.processes import Role
from bench.targets.cluster.load.pod import KEEPER, NAME
from bench.targets.cluster.node_noise import Key, NodeNoise, Reading
from bench.units import NANOSECONDS, format_counted

EVERY_S: Final = 5.0  # a kubelet has to read every container's counters for it
PAUSE_S: Final = 30.0  # before one that failed is read again: that may have taken as long as the client retries
_HALF_A_SECOND: Final = 0.5  # the kubelet's times are cut to whole seconds
_SKIPPED: Final = ("probe",)  # components that are not part of the cost

_JUST_NOW_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """Which process and role a figure belongs to, as in `resources.parquet`."""

    process: str
    role: Role


@dataclass
class Summaries:
    """The summaries of kubelets, which all deployments of a block share: each costs its node CPU time, under the
    load."""

    cluster: Cluster
    _last: dict[str, tuple[float, Mapping[Key, Reading]]] = field(default_factory=dict)
    _one_at_a_time: Lock = field(default_factory=Lock)

    def read(self, node: str, *, age_s: float = 0.0) -> Mapping[Key, Reading]:
        """Return the figures of a node's summary: the last one, if it is younger than `age_s`. Raises ClusterError."""
        with self._one_at_a_time:
            at_s, found = self._last.get(node, (-inf, {}))
            if time.monotonic() - at_s >= age_s:
                at_s = time.monotonic()
                summary = self.cluster.read(f"/api/v1/nodes/{node}/proxy/stats/summary", only_cpu_and_memory="true")
                found = read_summary(summary, node)
                self._last[node] = at_s, found
            return found


@dataclass
class KubeletUsage:
    """Collects readings of `parts` from the kubelets of `nodes`, and the errors of those that gave none; `noise` gets
    each summary, too. `summaries` are those that other deployments of the block read as well. See
    `bench.targets.cluster.load.generator.Meter`."""

    cluster: Cluster
    nodes: tuple[str, ...]
    parts: Mapping[Key, Part]
    noise: NodeNoise | None = None
    summaries: Summaries | None = None
    readings: dict[Key, list[Reading]] = field(default_factory=dict)
    failures: dict[str, list[ClusterError]] = field(default_factory=dict)
    _next_s: dict[str, float] = field(default_factory=dict)

    def tick(self) -> None:
        """Read each node at most every `EVERY_S`, and less often while it gives nothing."""
        now_s = time.monotonic()
        self._read_nodes((node for node in self.nodes if now_s >= self._next_s.get(node, 0.0)), age_s=EVERY_S / 2)

    def read(self) -> None:
        """Read every node once, now."""
        self._read_nodes(self.nodes, age_s=_JUST_NOW_S)

    def _read_nodes(self, nodes: Iterable[str], *, age_s: float) -> None:
        for node in nodes:
            began_s = time.monotonic()
            try:
                found = (self.summaries or Summaries(self.cluster)).read(node, age_s=age_s)
            except ClusterError as error:
                self.failures.setdefault(node, []).append(error)
                self._next_s[node] = time.monotonic() + PAUSE_S
                if error.kind.is_unanswered:
                    return  # the others are reached through the same server, and each would be waited for
                continue
            self._next_s[node] = began_s + EVERY_S
            for key, reading in found.items():
                self._keep(key, reading)
            if self.noise is not None:
                self.noise.add(node, found)

    def rows(self, start: Start) -> list[Row]:
        """Return the readings on the clock of the load that began at `start`."""
        own = [row for key, found in self.readings.items() for row in rows_of(self.parts[key], found, start)]
        return [*own, *(self.noise.rows(start) if self.noise is not None else ())]

    def issues(self) -> tuple[Issue, ...]:
        """Return which kubelets gave nothing, and why."""
        details = (
            f"the kubelet of node {node} gave no CPU and memory {format_counted(len(errors), 'time')}: {errors[-1]}"
            for node, errors in self.failures.items()
        )
        return tuple(make_issue(IssueCode.NO_RESOURCES, detail) for detail in details)

    def _keep(self, key: Key, reading: Reading) -> None:
        """Keep a reading of a part, if it is newer."""
        if key in self.parts:
            known = self.readings.setdefault(key, [])
            if not known or reading.wall_s > known[-1].wall_s:
                known.append(reading)


def kubelet_usage(
    cluster: Cluster,
    namespaces: Collection[str],
    *,
    control_planes: Collection[str],
    sidecars: Collection[str],
    noise: NodeNoise | None = None,
    summaries: Summaries | None = None,
) -> KubeletUsage:
    """Return the usage of the pods of an application's namespaces as they are now, of the pods in the namespaces
    `control_planes`, and of the nodes of all of them. `sidecars` are the names of the meshes' containers; `noise`
    and `summaries` as in KubeletUsage. Raises ClusterError."""
    pods = [pod for one in (*namespaces, *control_planes) for pod in cluster.list("v1", "Pod", namespace=one)]
    lasting = [pod for pod in pods if not is_of_job(pod)]
    parts = parts_of(lasting, namespaces=namespaces, sidecars=sidecars)
    return KubeletUsage(cluster, nodes_of(pods), parts, noise=noise, summaries=summaries)


def nodes_of(pods: Sequence[Object]) -> tuple[str, ...]:
    """Return the nodes that pods run on."""
    return tuple(sorted({pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}))


def parts_of(pods: Sequence[Object], *, namespaces: Collection[str], sidecars: Collection[str]) -> dict[Key, Part]:
    """Name the containers of pods, and their nodes. Pods outside of `namespaces` are control planes'."""
    parts: dict[Key, Part] = {("", node, ""): Part(f"node {node}", "node") for node in nodes_of(pods)}
    shown = [pod for pod in pods if labels_of(pod).get(COMPONENT) not in _SKIPPED]
    names = names_of(shown)
    for pod in shown:
        found = _parts_of_pod(pod, names[pod["metadata"]["name"]], namespaces=namespaces, sidecars=sidecars)
        taken, place = set(parts.values()), pod["metadata"]["name"]
        parts |= {key: part if part not in taken else _qualify(part, place) for key, part in found.items()}
    return parts


def _parts_of_pod(
    pod: Object, workload: str, *, namespaces: Collection[str], sidecars: Collection[str]
) -> dict[Key, Part]:
    place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    lasting = [one["name"] for one in pod["spec"]["containers"]]
    lasting += [one["name"] for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always"]
    own = [container for container in lasting if container not in sidecars]
    return {
        (place, name, container): _part(workload, container, own=own, control_plane=place not in namespaces)
        for container in lasting
    }


def _qualify(part: Part, pod: str) -> Part:
    """Return a part of a pod whose name another pod has taken."""
    return Part(f"{part.process} ({pod})", part.role)


def _part(workload: str, container: str, *, own: Sequence[str], control_plane: bool) -> Part:
    """Return a container's part. A pod's only container has the workload's name; of several, the one of the same name.
    A gateway's are all proxies, whichever mesh they belong to."""
    if workload == GATEWAY and not control_plane:
        return Part(f"{GATEWAY}-sidecar" if own and container not in own else GATEWAY, "sidecar")
    if container not in own:
        return Part(f"{workload}-sidecar", "control-plane" if control_plane else "sidecar")
    process = workload if len(own) == 1 or container == workload else f"{workload}-{container}"
    if control_plane:
        return Part(process, "control-plane")
    return Part(process, "generator" if workload == NAME and container in (NAME, KEEPER) else "service")


def read_summary(summary: Any, node: str) -> dict[Key, Reading]:
    """Return every container's figures in a kubelet's summary, and the node's; without those that the kubelet lacks.
    Raises BadAnswerError for anything but a summary."""
    with reject_malformed(f"the kubelet of node {node}"):
        return dict(_list_readings(summary))


def _list_readings(summary: Object) -> Iterator[tuple[Key, Reading]]:
    node = summary["node"]
    parts = [(("", str(node["nodeName"]), ""), node)]
    for pod in summary.get("pods") or ():
        of = pod["podRef"]
        names = str(of["namespace"]), str(of["name"])
        parts += [((*names, str(one["name"])), one) for one in pod.get("containers") or ()]
    for key, figures in parts:
        reading = _reading(figures.get("cpu") or {}, figures.get("memory") or {})
        if reading is not None:
            yield key, reading


def _reading(cpu: Object, memory: Object) -> Reading | None:
    """Return the reading; CPU and memory are taken at almost the same time."""
    if "usageCoreNanoSeconds" not in cpu or "time" not in cpu:
        return None
    wall_s = datetime.fromisoformat(cpu["time"]).timestamp() + _HALF_A_SECOND
    return Reading(wall_s, int(cpu["usageCoreNanoSeconds"]), int(memory.get("workingSetBytes", 0)))


def rows_of(part: Part, readings: Sequence[Reading], start: Start) -> Iterator[Row]:
    """Yield readings as rows of `resources.parquet`."""
    for reading in readings:
        at_ns = round((reading.wall_s - start.wall_s) * NANOSECONDS)
        yield at_ns, part.process, part.role, reading.cpu_ns, reading.memory_bytes
