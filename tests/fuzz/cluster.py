"""Edges of a cluster: its API server, kubelets, Prometheus, proxies, probe pods and the load's pod."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import urllib3
import yaml
from hypothesis import strategies as st

from bench.envoy import admin
from bench.errors import ClusterError, ErrorKind, MeshbenchError, reject_malformed
from bench.k8s.client import Cluster, Ref
from bench.k8s.connection import Connection
from bench.k8s.credentials import Credentials
from bench.k8s.diagnose import find_problems, find_warnings
from bench.k8s.exec import read_exit_code
from bench.k8s.objects import conditions_by_type, find_restarts, names_of, release_of
from bench.k8s.retry import ONCE
from bench.k8s.wait import describe_blockers, describe_unavailable
from bench.load.recorded import Start
from bench.meshes import MESHES
from bench.meshes.kuma.kuma_cp import read_certificates, select_stats
from bench.results.resources import write_resources
from bench.system.timing import DEFAULT
from bench.targets.cluster.application_manifests import read_image_ids
from bench.targets.cluster.interference import snapshot_conditions
from bench.targets.cluster.kubelet import KubeletUsage, Part, parts_of
from bench.targets.cluster.load.transfer import PodFiles, bytes_allowed, parse_checksums, parse_parts
from bench.targets.cluster.lock import holder_of, seems_dead
from bench.targets.cluster.node_noise import NodeNoise
from bench.targets.cluster.preflight.capacity import find_free
from bench.targets.cluster.probes.injection import selecting_webhooks
from bench.targets.cluster.probes.prober import ClusterProber, parse_answers, read_answer, read_series
from bench.targets.cluster.prometheus import PrometheusUsage, examine_prometheus, make_query
from bench.targets.cluster.session import cluster_environment
from bench.targets.cluster.teardown.blockers import services_of
from bench.verification.counts import ask_proxy, policies_of, read_requests
from bench.verification.prover import Prover
from tests.bookinfo import ROOT
from tests.fuzz.edge import Case, Cases, Edge, Read
from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.sidecars import bootstrap_of, configuration_with

_RECORDED: Final = ROOT / "tests" / "recorded" / "cluster.json"
_NODE: Final = "/api/v1/nodes/n1/proxy/stats/summary"
_TYPES: Final = ("application/json", "text/html; charset=utf-8", "", "application/vnd.kubernetes.protobuf")
_STATUSES: Final = (200, 200, 200, 200, 201, 204, 301, 302, 307, 400, 401, 403, 404, 409, 410, 418, 429, 500, 503, 504)


class _Pool:
    """Answers in place of a server: as recorded, but at one path."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.odd: tuple[str, int, str, bytes] | None = None

    def request(self, _method: str, url: str, **_options: object) -> urllib3.HTTPResponse:
        path = url.removeprefix("http://lab.example").partition("?")[0]
        recorded = json.dumps(self.answers.get(path, {})).encode()
        is_odd = self.odd is not None and self.odd[0] == path
        _, status, kind, body = self.odd if self.odd and is_odd else (path, 200, "application/json", recorded)
        headers = {"Content-Type": kind, "Location": "http://captive.example/login"}
        return urllib3.HTTPResponse(io.BytesIO(body), status=status, headers=headers, preload_content=False)


class _Connection(Connection):
    """A connection whose credentials cannot be renewed, which would open sockets."""

    def renew(self, used: Credentials) -> None:
        raise ClusterError(f"{used.server} no longer accepts the credentials", kind=ErrorKind.UNAUTHORIZED)


def _connect(folder: Path, pool: _Pool) -> Cluster:
    """Open a cluster whose connection has this pool, and retries nothing."""
    content = {
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://lab.example"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (folder / "config").write_text(yaml.safe_dump(content), "utf-8")
    connection = _Connection(folder / "config", lambda: None, policy=ONCE)
    connection._pool = cast("Any", pool)  # no socket
    return Cluster(connection, folder / "config", context="lab", cluster_name="c", timing=DEFAULT)


def _prepare_api(folder: Path) -> tuple[Cases, Read]:
    """What an API server answers, or what is in its place."""
    answers: dict[str, Any] = json.loads(_RECORDED.read_text("utf-8"))
    pool = _Pool(answers)
    statuses = st.sampled_from(_STATUSES)
    cases = st.sampled_from(sorted(answers)).flatmap(
        lambda path: st.tuples(st.just(path), statuses, st.sampled_from(_TYPES), mutate_json(answers[path]))
    )

    def read(case: Case) -> None:
        pool.odd = case
        use_cluster(_connect(folder, pool))

    return cases, read


def use_cluster(cluster: Cluster) -> None:
    """Read what a run reads; each use may be refused by itself."""
    for use in _list_uses(cluster):
        with suppress(MeshbenchError):
            use()


def _list_uses(cluster: Cluster) -> Iterator[Callable[[], object]]:
    def use_pods() -> None:
        pods, nodes = cluster.list("v1", "Pod"), cluster.list("v1", "Node")
        names_of(pods), find_restarts(pods), read_image_ids(pods), find_free(nodes, pods)
        parts_of(pods, namespaces=("here",), sidecars=("istio-proxy",))
        for pod in pods:
            [str(problem) for problem in find_problems(pod)]
        find_warnings(pods, cluster.list("v1", "Event"))
        namespaces = cluster.list("v1", "Namespace")
        hooks = cluster.list("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
        for one in namespaces:
            describe_blockers(one), selecting_webhooks(one, pods, hooks)
        for hook in hooks:
            services_of(hook)

    def use_nodes() -> None:
        nodes = cluster.list("v1", "Node")
        release_of(cluster.version)
        cluster_environment(cluster.version, nodes, "uid", load_image="locust")
        snapshot_conditions(nodes, [node["metadata"]["name"] for node in nodes])
        [conditions_by_type(node) for node in nodes]

    def use_workloads() -> None:
        for one in cluster.list("apps/v1", "Deployment"):
            describe_unavailable(one), [str(problem) for problem in find_problems(one)]

    def use_lease() -> None:
        lease = cluster.get(Ref("coordination.k8s.io/v1", "Lease", "meshbench", "meshbench-lock"))
        holder = holder_of(lease) if lease else None
        if holder:
            seems_dead(holder)

    yield from (cluster.check_reachable, cluster.kinds, cluster.broken_apis)
    yield from (use_pods, use_nodes, use_workloads, use_lease)
    yield lambda: cluster.allowed("create", "pods/exec", namespace="here")
    yield lambda: cluster.read(_NODE)


def _prepare_kubelets(folder: Path) -> tuple[Cases, Read]:
    """Summaries of kubelets."""
    summary = json.loads(_RECORDED.read_text("utf-8"))[_NODE]

    def read(content: bytes) -> None:
        answer = _parse(content)
        cluster = cast("Cluster", SimpleNamespace(read=lambda *_, **__: answer))
        key = ("here", "web", "web")
        noise = NodeNoise({"n1": 2.0}, ("here",))
        usage = KubeletUsage(cluster, ("n1",), {key: Part("web", "service")}, noise=noise)
        usage.read()
        usage.read()
        write_resources(folder / "resources.parquet", usage.rows(Start(0, 1795419498.0)))
        usage.issues()

    return mutate_json(summary), read


def _parse(content: bytes) -> Any:
    """Parse as the client does: JSON, or text."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")


def _prepare_prometheus(folder: Path) -> tuple[Cases, Read]:
    """Prometheus's answers."""
    labels = {"namespace": "here", "pod": "web", "container": "web"}
    series = {"metric": labels, "values": [[1795419499.25, "0.5"], [1795419514.25, "2.5"], [1795419529.25, "4"]]}
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [series, series]}}

    def read(content: bytes) -> None:
        cluster = cast("Cluster", SimpleNamespace(read=lambda *_, **__: _parse(content)))
        parts = {("here", "web", "web"): Part("web", "service")}
        usage = PrometheusUsage(KubeletUsage(cluster, (), parts), make_query("monitoring/prometheus:http", cluster))
        write_resources(folder / "resources.parquet", usage.rows(Start(0, 1795419498.0)))
        usage.issues(), examine_prometheus("monitoring/prometheus:http", cluster)

    return mutate_json(answer), read


def _prepare_proxies(folder: Path) -> tuple[Cases, Read]:
    """Pages of Envoy's admin interface, of each mesh, through its own way."""
    pages = {mesh: _make_pages(mesh) for mesh in MESHES}
    cases = st.sampled_from([(mesh, path) for mesh, found in pages.items() for path in found]).flatmap(
        lambda at: st.tuples(st.just(at), mutate_json(pages[at[0]][at[1]]))
    )
    scenes = {mesh: configuration_with(mesh, f"{mesh}/policies") for mesh in MESHES}

    def read(case: Case) -> None:
        (mesh, path), content = case
        answers = {known: json.dumps(page) for known, page in pages[mesh].items()}
        answers[path] = content.decode("utf-8", "replace")
        data_plane = MESHES[mesh].data_plane

        def page(asked: str) -> str:
            return answers[asked]

        for question in (data_plane.decisions, data_plane.identities, data_plane.handshakes, data_plane.connections):
            with suppress(MeshbenchError):
                ask_proxy("productpage", page, question)
        with suppress(MeshbenchError):
            read_requests(data_plane, {"productpage": page})
        for convert in (partial(select_stats, pattern="ssl"), read_certificates):
            with suppress(MeshbenchError):
                ask_proxy("productpage", page, partial(_convert_page, path, convert))
        cluster = SimpleNamespace(list=_list_pods, timing=DEFAULT)
        plane = SimpleNamespace(NAME=mesh, admin=lambda _cluster, _pod, asked, **_: page(asked))
        prober = ClusterProber(cast("Any", cluster), scenes[mesh].application, "", cast("Any", plane))
        Prover(prober, scenes[mesh]).data_path(folder / "proxies")

    return cases, read


def _convert_page(path: str, convert: Callable[[Any], object], page: Callable[[str], str]) -> object:
    return convert(json.loads(page(path)))


def _list_pods(*_: str, namespace: str, labels: str) -> tuple[dict[str, Any], ...]:
    apps = ("locust",) if labels.endswith("=load") else ("productpage", "details", "reviews", "ratings")
    return tuple({"metadata": {"name": one, "namespace": namespace, "labels": {"app": one}}} for one in apps)


def _make_pages(mesh: str) -> dict[str, Any]:
    scene = configuration_with(mesh, f"{mesh}/policies")
    resources = bootstrap_of(mesh, "productpage", scene.application, policies_of(scene))["static_resources"]
    kind = "type.googleapis.com/envoy.admin.v3"
    name = "outbound|9080||details.bookinfo.svc.cluster.local"
    stats = (
        f"cluster.{name};.upstream_rq_retry",
        f"cluster.{name};.upstream_cx_http2_total",
        f"cluster.{name};.ssl.versions.TLSv1.3",
        "listener.0.0.0.0_15006.ssl.handshake",
        "http.inbound.rbac.denied",
        "server.concurrency",
    )
    counted = {"stats": [{"name": one, "value": 3} for one in stats] + [{"histograms": {}}]}
    tries = [{"stats": [{"name": "rq_total", "value": "7"}, {"name": "rq_error"}]}]
    dump = [
        {"@type": f"{kind}.ListenersConfigDump", "static_listeners": [{"listener": x} for x in resources["listeners"]]},
        {"@type": f"{kind}.ClustersConfigDump", "static_clusters": [{"cluster": x} for x in resources["clusters"]]},
        {"@type": f"{kind}.SecretsConfigDump", "dynamic_active_secrets": [{"secret": {"name": "a"}}]},
    ]
    chain = [{"subject_alt_names": [{"uri": "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details"}]}]
    return {
        admin.CLUSTERS: {"cluster_statuses": [{"name": name, "host_statuses": tries}, {"name": "BlackHoleCluster"}]},
        **dict.fromkeys((admin.RETRIES, admin.TLS, admin.PROTOCOLS, admin.DECISIONS, admin.WORKERS), counted),
        admin.CERTIFICATES: {"certificates": [{"ca_cert": [], "cert_chain": chain}]},
        admin.CONFIGURATION: {"configs": json.loads(json.dumps(dump))},
    }


def _prepare_probes(_folder: Path) -> tuple[Cases, Read]:
    """What probe agents answer."""
    tls = {"version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "certificate": "MIIB"}
    one = {"status": 200, "headers": {"server": "envoy"}, "body": "eA==", "tls": None, "error": "", "message": ""}
    answers = [one, {**one, "tls": tls}, {"answers": [{**one, "count": 2}]}]

    def read(content: bytes) -> None:
        parsed = parse_answers(content, "probe-a", count=3)
        with suppress(MeshbenchError):
            read_series(parsed[2], "probe-a", most=5)
        with reject_malformed("probe-a"):
            [read_answer(answer) for answer in parsed[:2]]

    return mutate_json(answers), read


def _prepare_exec(_folder: Path) -> tuple[Cases, Read]:
    """How a command's stream ends."""
    causes = {"causes": [{"reason": "ExitCode", "message": "3"}]}
    status = {"status": "Failure", "reason": "NonZeroExitCode", "details": causes, "code": 500, "message": "exit 3"}
    return mutate_json(status), lambda content: read_exit_code("running sh", content)


def _prepare_transfer(folder: Path) -> tuple[Cases, Read]:
    """What the load's pod says of its files, and what these hold."""
    rows = bytes(range(1, 34)) * 4
    start, account = json.dumps({"zero_ns": 5, "wall_s": 6.5}), json.dumps({"locust_requests": 4, "recorded": 4})
    files = {
        "started.json": start.encode(),
        "samples.bin": rows,
        "names.txt": b"page\nlogin\n",
        "generator.json": account.encode(),
    }
    parts = b"".join(f"{name} {len(content)}\n".encode() + content for name, content in files.items())
    sums = b"".join(f"{'0a' * 32}  {name}\n".encode() for name in files)
    cases = st.one_of(
        mutate_bytes(parts).map(lambda content: ("parts", content)),
        mutate_bytes(sums).map(lambda content: ("sums", content)),
        st.sampled_from(sorted(files)).flatmap(
            lambda name: mutate_bytes(files[name]).map(lambda content: (name, content))
        ),
    )

    def read(case: Case) -> None:
        name, content = case
        if name == "sums":
            parse_checksums(content, requested=files)
        elif name == "parts":
            for part in parse_parts(content, limits={known: bytes_allowed(known, 0) for known in files}):
                assert part.name in files
                assert len(part.content) <= bytes_allowed(part.name, 0)
        else:
            for known, valid in files.items():
                (folder / known).write_bytes(content if known == name else valid)
            PodFiles(cast("Cluster", None), "here", folder, workers=1).check()

    return cases, read


EDGES: Final = (
    Edge("API answers", MeshbenchError, _prepare_api),
    Edge("kubelet summaries", MeshbenchError, _prepare_kubelets),
    Edge("Prometheus", MeshbenchError, _prepare_prometheus),
    Edge("Envoy's admin pages", MeshbenchError, _prepare_proxies),
    Edge("probe agents", MeshbenchError, _prepare_probes),
    Edge("ends of commands", MeshbenchError, _prepare_exec),
    Edge("transferred samples", MeshbenchError, _prepare_transfer),
)
