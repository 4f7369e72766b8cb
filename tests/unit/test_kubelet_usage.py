"""CPU and memory of containers and nodes: their owner, their time, their part in a window, and gaps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.analysis.resource_usage import measure_generator_cores, measure_processes
from bench.errors import ClusterError, ErrorKind, InputError
from bench.k8s.client import Cluster, Object
from bench.load.recorded import Start
from bench.results.records import Window
from bench.results.resources import ResourceTrace, read_resources, write_resources
from bench.results.summary_records import ProcessUse
from bench.targets.cluster.kubelet import EVERY_S, KubeletUsage, Part, kubelet_usage, parts_of, read_summary
from bench.targets.cluster.node_noise import Reading
from bench.targets.cluster.prometheus import CPU, PrometheusUsage, check_address, examine_prometheus, make_query
from tests.issues import issue

START = Start(zero_ns=77, wall_s=1_763_888_400.5)  # 2025-11-23T09:00:00.5Z
SIDECARS = ("istio-proxy", "kuma-sidecar")


def pod(name: str, *containers: str, namespace: str = "here", native: tuple[str, ...] = (), **labels: str) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {key.replace("_", "-"): value for key, value in labels.items()},
            "ownerReferences": [{"kind": "ReplicaSet", "name": name.rpartition("-")[0]}] if "-" in name else [],
        },
        "spec": {
            "nodeName": "n1" if name < "m" else "n2",
            "containers": [{"name": one} for one in containers],
            "initContainers": [{"name": "set-up"}, *({"name": one, "restartPolicy": "Always"} for one in native)],
        },
    }


def named(*pods: Object) -> dict[tuple[str, str], tuple[str, str]]:
    """(pod, container) -> (process, role)."""
    parts = parts_of(pods, namespaces=["here"], sidecars=SIDECARS)
    return {(name, container): (part.process, part.role) for (_, name, container), part in parts.items()}


def test_containers_have_the_names_of_local_processes() -> None:
    """A service has its name, its sidecar a suffix, native or not; a container that sets a pod up has none."""
    found = named(
        pod("details-v1-6c5b-x", "details", native=("istio-proxy",), app="details"),
        pod("reviews-v3-6c5b-x", "reviews", "kuma-sidecar", app="reviews"),
    )
    assert found == {
        ("details-v1-6c5b-x", "details"): ("details", "service"),
        ("details-v1-6c5b-x", "istio-proxy"): ("details-sidecar", "sidecar"),
        ("reviews-v3-6c5b-x", "reviews"): ("reviews", "service"),
        ("reviews-v3-6c5b-x", "kuma-sidecar"): ("reviews-sidecar", "sidecar"),
        ("n1", ""): ("node n1", "node"),
        ("n2", ""): ("node n2", "node"),
    }


def test_generator_is_no_service() -> None:
    """Neither Locust nor the container that stores its samples; its sidecar is a sidecar."""
    found = named(pod("locust", "locust", "keeper", native=("istio-proxy",), app="locust"))
    assert found[("locust", "locust")] == ("locust", "generator")
    assert found[("locust", "keeper")] == ("locust-keeper", "generator")
    assert found[("locust", "istio-proxy")] == ("locust-sidecar", "sidecar")


def test_control_planes_are_no_services() -> None:
    """They are in other namespaces; without a label they have the name of their owner; two of a kind differ."""
    found = named(
        pod("istiod-6c5b-x", "discovery", namespace="istio-system", app="istiod"),
        pod("istiod-6c5b-y", "discovery", namespace="istio-system", app="istiod"),
        pod("kuma-cp-77-z", "control-plane", "other", namespace="kuma-system", pod_template_hash="77"),
    )
    assert found[("istiod-6c5b-x", "discovery")] == ("istiod", "control-plane")
    assert found[("istiod-6c5b-y", "discovery")] == ("istiod (istiod-6c5b-y)", "control-plane")
    assert found[("kuma-cp-77-z", "other")] == ("kuma-cp-other", "control-plane")


def test_does_not_measure_probes() -> None:
    """They are not part of the comparison."""
    one = pod("probe", "probe")
    one["metadata"]["labels"] = {"meshbench.dev/component": "probe"}
    assert set(named(one)) == {("n2", "")}


def summary(node: str, at: str, *pods: tuple[str, str, str, int, int]) -> Object:
    """A kubelet's answer: pods as (namespace, pod, container, CPU ns, memory)."""
    return {
        "node": {"nodeName": node, **figures(at, 9_000_000_000, 8_000_000)},
        "pods": [
            {
                "podRef": {"namespace": space, "name": name},
                "containers": [{"name": container, **figures(at, cpu, size)}],
            }
            for space, name, container, cpu, size in pods
        ],
    }


def figures(at: str, cpu_ns: int, size: int) -> Object:
    return {
        "cpu": {"time": at, "usageCoreNanoSeconds": cpu_ns},
        "memory": {"time": at, "workingSetBytes": size},
    }


@dataclass
class FakeKubelets:
    """Gives one answer after the other, whichever node is asked; an error is raised."""

    answers: list[Object | ClusterError]
    pods: tuple[Object, ...] = ()
    asked: list[str] = field(default_factory=list)

    def read(self, path: str, **query: str) -> Object:
        self.asked.append(f"{path}?{'&'.join(f'{key}={value}' for key, value in query.items())}")
        given = self.answers.pop(0)
        if isinstance(given, ClusterError):
            raise given
        return given

    def list(self, _version: str, _kind: str, *, namespace: str) -> tuple[Object, ...]:
        return tuple(one for one in self.pods if one["metadata"]["namespace"] == namespace)


def usage_of(
    *answers: Object | ClusterError, parts: dict[Any, Part] | None = None
) -> tuple[KubeletUsage, FakeKubelets]:
    kubelets = FakeKubelets(list(answers))
    web = {("here", "web", "web"): Part("web", "service")}
    return KubeletUsage(cast("Cluster", kubelets), ("n1",), parts or web), kubelets


def test_stores_only_new_readings() -> None:
    """A repeated reading has no news; containers that are not part of the run are left out."""
    usage, kubelets = usage_of(
        summary("n1", "2025-11-23T09:00:10Z", ("here", "web", "web", 1, 50), ("there", "web", "web", 3, 60)),
        summary("n1", "2025-11-23T09:00:10Z", ("here", "web", "web", 1, 50)),
        summary("n1", "2025-11-23T09:00:25Z", ("here", "web", "web", 9, 70)),
    )
    for _ in range(3):
        usage.read()
    assert usage.rows(START) == [
        (10_000_000_000, "web", "service", 1, 50),
        (25_000_000_000, "web", "service", 9, 70),
    ]
    assert set(kubelets.asked) == {"/api/v1/nodes/n1/proxy/stats/summary?only_cpu_and_memory=true"}


def test_skips_early_tick() -> None:
    """A summary costs the node CPU."""
    usage, kubelets = usage_of(summary("n1", "2025-11-23T09:00:10Z"))
    usage.tick()
    usage.tick()
    assert len(kubelets.asked) == 1


def test_reports_kubelet_without_readings() -> None:
    """The other nodes' readings are there; the remark has the node, the number and the reason."""
    refused = ClusterError("reading /api/v1/nodes/n0: 403: forbidden", kind=ErrorKind.FORBIDDEN)
    usage, _ = usage_of(refused, summary("n1", "2025-11-23T09:00:10Z", ("here", "web", "web", 1, 50)), refused)
    usage.nodes = ("n0", "n1")
    usage.read()
    usage.nodes = ("n0",)
    usage.read()
    assert usage.rows(START) == [(10_000_000_000, "web", "service", 1, 50)]
    remark = "the kubelet of node n0 gave no CPU and memory 2 times: reading /api/v1/nodes/n0: 403: forbidden"
    assert usage.issues() == (issue("no-resources", remark),)
    assert PrometheusUsage(usage, lambda _: None).issues() == usage.issues()


def test_pauses_requests_to_failed_kubelet() -> None:
    """A request may take the client's whole timeout, while the load's samples wait."""
    usage, kubelets = usage_of(ClusterError("503", kind=ErrorKind.UNAVAILABLE), summary("n1", "2025-11-23T09:00:10Z"))
    usage.nodes = ("n0", "n1")
    usage.tick()
    usage._next_s = {node: at_s - EVERY_S for node, at_s in usage._next_s.items()}
    kubelets.answers.append(summary("n1", "2025-11-23T09:00:15Z"))
    usage.tick()
    assert [path.split("/")[4] for path in kubelets.asked] == ["n0", "n1", "n1"]


def test_requests_one_node_during_an_outage() -> None:
    """A timeout for each of twenty nodes would delay the end of the load."""
    usage, kubelets = usage_of(ClusterError("no answer", kind=ErrorKind.UNREACHABLE))
    usage.nodes = ("n0", "n1")
    usage.read()
    assert len(kubelets.asked) == 1


def test_ignores_container_without_readings() -> None:
    """A container that has just started has none yet."""
    answer = summary("n1", "2025-11-23T09:00:10Z", ("here", "web", "web", 1, 50))
    answer["pods"][0]["containers"][0]["cpu"] = {"time": "2025-11-23T09:00:10Z"}
    assert [*read_summary(answer, "n1")] == [("", "n1", "")]


def test_requests_all_nodes_of_the_run() -> None:
    """The nodes of the application and of the control planes."""
    pods = (pod("details-x", "details", app="details"), pod("zipkin", "zipkin", namespace="istio-system"))
    kubelets = FakeKubelets([], pods)
    usage = kubelet_usage(
        cast("Cluster", kubelets), ["here"], control_planes=("istio-system", "kuma-system"), sidecars=SIDECARS
    )
    assert usage.nodes == ("n1", "n2")


def trace(tmp_path: Path, readings: dict[str, list[tuple[float, float]]], *, role: str = "service") -> ResourceTrace:
    """Process -> (second, CPU seconds so far); memory is 100 bytes a second."""
    rows = [
        (round(at * 1e9), name, role, round(cpu * 1e9), round(100 * at))
        for name, found in readings.items()
        for at, cpu in found
    ]
    written = write_resources(tmp_path / "resources.parquet", rows)
    stored = read_resources(tmp_path / "resources.parquet")
    assert written.processes == stored.processes
    assert all(np.array_equal(getattr(written, name), getattr(stored, name)) for name in ("at_ns", "process", "cpu_ns"))
    return stored


def used(tmp_path: Path, *readings: tuple[float, float], requests: int = 1000) -> ProcessUse:
    """Over a window from 10 to 30."""
    window = Window(start_ns=10_000_000_000, end_ns=30_000_000_000)
    (use,) = measure_processes(trace(tmp_path, {"web": list(readings)}), [window], requests)
    return use


def test_interpolates_use_at_the_edges(tmp_path: Path) -> None:
    """Half a core from 5 to 35: 10 s of CPU time in a window of 20 s, 10 ms for each of 1000 requests."""
    use = used(tmp_path, (5, 1.0), (20, 8.5), (35, 16.0))
    assert use.cpu_s == pytest.approx(10.0)
    assert use.seen_s == pytest.approx(20.0)
    assert use.cpu_ms_per_request == pytest.approx(10.0)
    assert use.rss_max_bytes == 2000


def test_does_not_extrapolate(tmp_path: Path) -> None:
    """The readings cover 14 s of 20: CPU time is divided by the requests of these."""
    use = used(tmp_path, (4, 1.0), (14, 6.0), (24, 11.0))
    assert use.cpu_s == pytest.approx(7.0)
    assert use.seen_s == pytest.approx(14.0)
    assert use.cpu_ms_per_request == pytest.approx(7.0 * 1e3 / (1000 * 14 / 20))


@pytest.mark.parametrize(
    "readings",
    [
        [(20, 5.0)],  # one reading
        [(4, 1.0), (15, 2.0)],  # a quarter of the window
        [(1, 1.0), (9, 2.0)],  # before it
        [(5, 9.0), (20, 1.0), (35, 5.0)],  # another container's count
    ],
)
def test_too_few_readings_have_no_cpu_time(tmp_path: Path, readings: list[tuple[float, float]]) -> None:
    """CPU time is missing instead of too small or zero."""
    use = used(tmp_path, *readings)
    assert use.cpu_s is None
    assert use.cpu_ms_per_request is None


def test_memory_without_readings_is_unknown(tmp_path: Path) -> None:
    """It is not zero."""
    assert used(tmp_path, (1, 1.0), (40, 2.0)).rss_max_bytes is None


def test_does_not_judge_generator_without_all_readings(tmp_path: Path) -> None:
    """Its cores are those of all its containers, or unknown."""
    windows = [Window(start_ns=10_000_000_000, end_ns=30_000_000_000)]
    both = trace(tmp_path, {"locust": [(0, 0), (40, 10)], "locust-keeper": [(0, 0), (40, 2)]}, role="generator")
    assert measure_generator_cores(both, windows) == pytest.approx(0.3)
    one = trace(tmp_path, {"locust": [(0, 0), (40, 10)], "locust-keeper": [(0, 0), (4, 2)]}, role="generator")
    assert measure_generator_cores(one, windows) is None


def series(values: list[list[Any]], **labels: str) -> Object:
    return {"metric": {"namespace": "here", "pod": "web", "container": "web", **labels}, "values": values}


def answer(*found: Object) -> Object:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(found)}}


def prometheus(*answers: Object) -> PrometheusUsage:
    """Two kubelet readings of `web` and one of the node, and a Prometheus in the cluster that gives these answers."""
    node = {("", "n1", ""): Part("node n1", "node"), ("here", "web", "web"): Part("web", "service")}
    usage, _ = usage_of(parts=node)
    usage.readings = {
        ("", "n1", ""): [Reading(START.wall_s + 3, 5, 6)],
        ("here", "web", "web"): [Reading(START.wall_s + 3, 7, 8), Reading(START.wall_s + 13, 9, 8)],
    }
    return PrometheusUsage(
        usage, make_query("monitoring/prometheus:http", cast("Cluster", FakeKubelets(list(answers))))
    )


def test_prometheus_replaces_sparser_readings() -> None:
    """Its samples have their own times; a container with fewer samples, and the node, keep the kubelet's."""
    cpu = [[START.wall_s + 1.25, "0.5"], [START.wall_s + 16.25, "2.5"], [START.wall_s + 31.25, "4"]]
    memory = [[START.wall_s + 1.25, "1000"], [START.wall_s + 16.25, "2000"]]
    twice = series(cpu, image="seen twice")
    usage = prometheus(answer(series(cpu), twice, series(cpu, pod="other")), answer(series(memory)))
    assert usage.rows(START) == [
        (3_000_000_000, "node n1", "node", 5, 6),
        (1_250_000_000, "web", "service", 500_000_000, 1000),
        (16_250_000_000, "web", "service", 2_500_000_000, 2000),
        (31_250_000_000, "web", "service", 4_000_000_000, 2000),
    ]
    assert usage.issues() == ()


def test_prometheus_with_fewer_samples_changes_nothing() -> None:
    """One sample has less information than two readings."""
    usage = prometheus(answer(series([[START.wall_s + 1, "0.5"]])), answer())
    assert [row[3] for row in usage.rows(START)] == [5, 7, 9]


def test_reports_prometheus_failure() -> None:
    """The kubelets' readings stay, and the remark has the reason."""
    usage = prometheus({"status": "error", "error": "query timed out"})
    assert [row[3] for row in usage.rows(START)] == [5, 7, 9]
    assert usage.issues() == (
        issue("no-prometheus", "resources are the kubelets' own figures: querying Prometheus: query timed out"),
    )


def test_requests_the_runs_namespaces_from_prometheus() -> None:
    """Through the API server, for the samples of the whole load."""
    kubelets = FakeKubelets([answer(), answer()])
    query = make_query("monitoring/prometheus:9090", cast("Cluster", kubelets))
    usage, _ = usage_of()
    PrometheusUsage(usage, query).rows(START)
    path, _, asked = kubelets.asked[0].partition("?query=")
    assert path == "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
    assert asked.startswith(f'{CPU}{{namespace=~"here",container!=""}}[')


@pytest.mark.parametrize("place", ["prometheus", "monitoring/prometheus", "ftp://here", "a/b:c/d"])
def test_refuses_invalid_prometheus_url(place: str) -> None:
    """The error has an example."""
    with pytest.raises(InputError, match="write a URL"):
        make_query(place, cast("Cluster", FakeKubelets([])))


@pytest.mark.parametrize(
    ("answer_body", "state", "expected"),
    [
        (answer({"metric": {}, "value": [0, "17"]}), "ok", "answers"),
        (answer(), "warning", f"has no {CPU}"),
        ({"status": "error", "error": "down"}, "error", "querying Prometheus: down"),
        ("<html>", "error", "querying Prometheus: <html>"),
        ({"status": "success", "data": None}, "error", "does not answer as Prometheus"),
    ],
)
def test_checks_prometheus_in_the_preflight(answer_body: Any, state: str, expected: str) -> None:
    """One that does not respond, or is another program, is found before the load."""
    finding = examine_prometheus("monitoring/prometheus:9090", cast("Cluster", FakeKubelets([answer_body])))
    assert finding.status == state
    assert expected in finding.detail


def test_reads_resources_without_readings(tmp_path: Path) -> None:
    """A load that ended before the first reading leaves a valid file."""
    assert len(trace(tmp_path, {}).at_ns) == 0
    assert measure_processes(trace(tmp_path, {}), [], 0) == ()


@pytest.mark.parametrize(
    "place", ["me:hidden@x:9090", "http://me:hidden@x:port", "http://me:hidden@x?a=b", "http://x?a=b"]
)
def test_refuses_invalid_prometheus_url_without_its_password(place: str) -> None:
    """Also with a password where no URL has one."""
    with pytest.raises(InputError, match="write a URL") as caught:
        check_address(place)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [None, [], {"result": 3}, {"result": [3]}, {"result": [{"metric": 3, "values": []}]}, {"result": [{"metric": {}}]}],
)
def test_keeps_kubelet_readings_with_invalid_prometheus(data: Any) -> None:
    """A remark has the reason."""
    labels = {"namespace": "here", "pod": "web", "container": "web"}
    for answer_body in (data, {"result": [{"metric": labels, "values": [[1, "nan"]]}]}):
        usage = prometheus({"status": "success", "data": answer_body}, {"status": "success", "data": answer_body})
        assert [row[3] for row in usage.rows(START)] == [5, 7, 9]
    assert len(usage.issues()) <= 1
