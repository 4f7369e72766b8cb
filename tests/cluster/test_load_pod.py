"""Locust in a pod of the lab: its samples are fetched completely, whatever happens to it or to the connection."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest

from bench.analysis.resource_usage import measure_processes
from bench.errors import BadAnswerError, DeployError
from bench.files.folders import find_shipped
from bench.files.locust_folder import find_locust_folder
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.ownership import add_run_labels
from bench.load.generator import LoadSpec, RunningLoad
from bench.load.raw_samples import list_raw_files, read_samples
from bench.load.schedule import UnitLoads, drive_alone
from bench.results.resources import read_resources
from bench.scenario.load_settings import EnvironmentValue
from bench.system.cancellation import CancelToken, wait_until
from bench.system.private_files import PrivateFolder
from bench.system.timing import Timing
from bench.targets.cluster.kubelet import kubelet_usage
from bench.targets.cluster.load.generator import PodGenerator, locust_page, start_load
from bench.targets.cluster.load.pod import KEEPER, NAME, default_image, fill_secret, load_objects, uid_for
from bench.targets.cluster.load.transfer import PodFiles
from tests.cluster.job import delete_named
from tests.cluster.lab import CONTEXT
from tests.cluster.relay import open_relay
from tests.rows import count_rows

PAGE = "ISBN-10 PublisherA Reviewer1 Reviewer2"
SERVER = f"""
from gevent.pywsgi import WSGIServer
def page(environ, start):
    start("200 OK", [("Content-Type", "text/html")])
    return [{PAGE.encode()!r}]
WSGIServer(("", 9080), page, log=None).serve_forever()
"""
GREEDY = """
import gevent
from locust import FastHttpUser, constant, events, task

@events.init_command_line_parser.add_listener
def options(parser):
    for name in ("--think-time", "--virtual-host"):
        parser.add_argument(name, default="")

class Greedy(FastHttpUser):
    wait_time = constant(0.1)
    kept = []

    @task
    def page(self):
        self.client.get("/productpage")
        if self.environment.stats.total.num_requests > 50:
            self.kept.append(b"x" * (64 << 20))
"""


# A Locust file that ends at its import, or writes nothing, unless everything that belongs to it is there.
HELPED = """
import os
from pathlib import Path

from locust import FastHttpUser, constant, events, tag, task

from shop.names import NAMES

assert Path("data/large.bin").stat().st_size == 2 << 20
assert os.access("tool.sh", os.X_OK)
assert os.environ["TOKEN"] == "s3cret-of-the-shop"
assert os.environ["PRICE"] == "$(HOME) $5"
Path("written").write_text("the folder is this load's own")

@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--region", required=True)

class Helped(FastHttpUser):
    wait_time = constant(0.1)

    @tag("read")
    @task
    def page(self):
        assert self.environment.parsed_options.region == "$(HOME)"
        self.client.get("/productpage", name=NAMES[0])

    @task
    def never(self):
        self.client.get("/productpage", name="not tagged")
"""


# A keeper whose shell does not run the requested commands, and responds as `fetch` expects.
HOSTILE = """
import pathlib, sys, time
shell = pathlib.Path("/load/bin/sh")
shell.parent.mkdir()
answer = b"samples.bin 1\\nX../../outside 3\\nssh"
shell.write_text(f"#!{sys.executable}\\nimport sys; sys.stdout.buffer.write({answer!r})\\n")
shell.chmod(0o755)
pathlib.Path("/load/ready").touch()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace with a complete page, as `web:9080`."""
    name = f"t-load-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        for thing in _web(name):
            cluster.apply(add_run_labels(thing, "application", run_id="t-load", now=datetime.now(UTC)))
        _wait_ready(cluster, name, "web")
        yield name
    finally:
        delete_named(cluster, Ref("v1", "Namespace", name))


def _web(namespace: str) -> tuple[Object, ...]:
    container = {
        "name": "web",
        "image": default_image(),
        "command": ["python", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 9080}, "periodSeconds": 1},
    }
    service = {"selector": {"app": "web"}, "ports": [{"port": 9080, "name": "http"}]}
    return (
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": namespace, "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": service},
    )


def _wait_ready(cluster: Cluster, namespace: str, name: str) -> None:
    def ready() -> bool:
        pod = cluster.get(Ref("v1", "Pod", name, namespace)) or {}
        conditions = pod.get("status", {}).get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    assert wait_until(ready, timeout_s=90, watch=CancelToken(), poll_s=0.3), cluster.get(
        Ref("v1", "Pod", name, namespace)
    )


@pytest.fixture
def order() -> LoadSpec:
    """Some seconds of the shipped locustfile."""
    return LoadSpec(
        address="web:9080",
        virtual_host="web:9080",
        locustfile=find_shipped("locustfiles") / "bookinfo.py",
        check="bench.application.bookinfo.pages",
        users=5,
        think_time_s=0.1,
        rate_per_s=None,
        warmup_s=3,
        duration_s=8,
        seed=1,
    )


@contextmanager
def waiting_pod(cluster: Cluster, namespace: str, order: LoadSpec, *, ui: bool = False) -> Iterator[None]:
    """A load pod that waits for the start."""
    things = load_objects(order, namespace=namespace, uid=uid_for(cluster.kinds()), ui=ui)
    refs = [ref_of(thing) for thing in things]
    try:
        for thing in things:
            cluster.apply(add_run_labels(fill_secret(thing, order), "load", run_id="t-load", now=datetime.now(UTC)))
        _wait_ready(cluster, namespace, NAME)
        yield
    finally:
        for ref in refs:
            delete_named(cluster, ref, grace_s=0)
        assert wait_until(
            lambda: not any(cluster.get(ref) for ref in refs), timeout_s=60, watch=CancelToken(), poll_s=0.3
        )


def start_load_in(cluster: Cluster, namespace: str, order: LoadSpec, folder: Path) -> RunningLoad:
    meter = kubelet_usage(cluster, [namespace], control_planes=(), sidecars=())
    private = PrivateFolder.of_run(folder, "run")
    load = start_load(cluster, order, folder, namespace=namespace, meter=meter, watch=CancelToken(), private=private)
    load.wait_for_start()
    return load


def read_log(folder: Path) -> str:
    """The private log of a load with this folder."""
    return (PrivateFolder.of_run(folder, "run").path / "load.log").read_text("utf-8")


def generator_of(load: RunningLoad) -> PodGenerator:
    assert isinstance(load.generator, PodGenerator)
    return load.generator


def tick_for(load: RunningLoad, seconds: float) -> None:
    """Tick as a trial does, until an error or the end of the time."""

    def in_trouble() -> bool:
        load.generator.tick()
        return bool(load.generator.trouble())

    wait_until(in_trouble, timeout_s=seconds, watch=CancelToken(), poll_s=0.5)


def is_reachable_again(load: RunningLoad) -> bool:
    """Whether an outage is over, after one more tick."""
    load.generator.tick()
    return generator_of(load).outage.since_s is None


def test_load_pod_records_as_a_local_load(cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path) -> None:
    """Every request is a sample, Locust's summary agrees, and the resource use of the pods and of the node is
    recorded."""
    with waiting_pod(cluster, namespace, order):
        load = start_load_in(cluster, namespace, order, tmp_path)
        drive_alone(UnitLoads({"one": load}, CancelToken(), lambda *_: None, lambda *_: None))
        outcome = load.finish()
    assert outcome.issues == ()
    assert outcome.generator.exit_code == 0
    assert outcome.generator.locust_requests == outcome.generator.recorded == len(outcome.samples) > 20
    assert outcome.generator.locust_failures == (~outcome.samples.ok).sum() == 0
    assert outcome.samples.names == ("/productpage",)
    assert len(outcome.samples.counted(outcome.windows)) > 10
    assert outcome.clock.gap_s < 0.5
    assert not list_raw_files(tmp_path)
    assert "clocks: the window's edges are known to" in read_log(tmp_path)
    uses = {
        use.process: use
        for use in measure_processes(read_resources(tmp_path / "resources.parquet"), outcome.windows, 1)
    }
    node = next(name for name in uses if name.startswith("node "))
    assert {name: use.role for name, use in uses.items()} == {
        "web": "service", "locust": "generator", "locust-keeper": "generator", node: "node",
    }  # fmt: skip
    locust = uses["locust"]
    assert locust.cpu_s is not None
    assert locust.seen_s is not None
    assert 0.01 < locust.cpu_s / locust.seen_s < 1
    assert locust.rss_max_bytes is not None
    assert 10 << 20 < locust.rss_max_bytes < 1 << 30


def test_pod_clock_offset_is_zero(cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path) -> None:
    """The lab's node is this machine, so that the two clocks are one: the offset is 0 within its uncertainty."""
    with waiting_pod(cluster, namespace, order):
        load = start_load_in(cluster, namespace, order, tmp_path)
        offset = generator_of(load).offset
        now_ns = load.generator.now_ns()
        load.finish(timeout_s=1)
    assert abs(offset.offset_ns) <= offset.uncertainty_ns
    assert now_ns == pytest.approx((time.time() - load.wall_s) * 1e9, abs=60e9)
    assert abs(offset.skew_s) < 1


def test_workers_are_recorded_and_page_is_served(
    cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path
) -> None:
    """Two workers' samples are complete, while Locust's own page is served here and shows the same load."""
    order = replace(order, workers=2, users=6)
    with waiting_pod(cluster, namespace, order, ui=True):
        load = start_load_in(cluster, namespace, order, tmp_path)
        with locust_page(cluster, namespace=namespace, port=0) as port:
            tick_for(load, 3)
            with urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=60) as answer:
                shown = json.load(answer)
        exit_code = load.generator.stop(timeout_s=15)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert (shown["state"], shown["user_count"]) == ("running", 6)
    assert exit_code == 0
    assert own["problem"] == ""
    assert own["locust_requests"] == own["recorded"] == count_rows(tmp_path) > 20
    assert {path.name for path in list_raw_files(tmp_path)} >= {"samples-0.bin", "samples-1.bin"}


def test_load_continues_without_an_api_server(
    lab_kubeconfig: Path,
    cluster: Cluster,
    namespace: str,
    order: LoadSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the API server does not respond, Locust continues; its samples are fetched later, and a warning reports
    it."""
    config = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(config))
    with (
        open_relay(lab_kubeconfig, config) as link,
        open_cluster(CONTEXT, private_folder=tmp_path, timing=Timing(request_s=2.0)) as beyond,
        waiting_pod(cluster, namespace, order),
    ):
        load = start_load_in(beyond, namespace, order, tmp_path)
        tick_for(load, 2)
        cut_ns = load.generator.now_ns()
        link.close()
        tick_for(load, 7)
        back_ns = load.generator.now_ns()
        seen = count_rows(tmp_path)
        link.open()
        assert wait_until(lambda: is_reachable_again(load), timeout_s=60, watch=CancelToken(), poll_s=0.3)
        assert load.generator.trouble() == ""
        load.generator.stop(timeout_s=15)
    own = json.loads((tmp_path / "generator.json").read_text("utf-8"))
    assert own["problem"] == ""
    assert own["locust_requests"] == own["recorded"] == count_rows(tmp_path) > seen
    away = read_samples(tmp_path).started_in(cut_ns, back_ns)
    assert len(away) > 10
    [warning] = generator_of(load).issues()
    assert "the API server was away during the load for" in warning.detail


def test_what_belongs_to_the_locustfile_reaches_the_pod(
    cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules in subfolders, a file larger than a ConfigMap, modes, options, tags and variables, of which one is in a
    Secret; Kubernetes expands nothing in them."""
    monkeypatch.setenv("CI_TOKEN", "s3cret-of-the-shop")
    files = {"mine.py": HELPED, "shop/__init__.py": "", "shop/names.py": "NAMES = ['jane']", "tool.sh": "#!/bin/sh"}
    for name, text in files.items():
        (tmp_path / "beside" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "beside" / name).write_text(text, "utf-8")
    (tmp_path / "beside" / "tool.sh").chmod(0o755)
    (tmp_path / "beside" / "data").mkdir()
    (tmp_path / "beside" / "data" / "large.bin").write_bytes(secrets.token_bytes(2 << 20))
    found = find_locust_folder(tmp_path / "beside" / "mine.py")
    order = replace(
        order,
        locustfile=found.locustfile,
        helpers=found.helpers,
        options={"region": "$(HOME)"},
        tags=("read",),
        env={"TOKEN": EnvironmentValue(env="CI_TOKEN"), "PRICE": EnvironmentValue(value="$(HOME) $5")},
    )
    with waiting_pod(cluster, namespace, order):
        load = start_load_in(cluster, namespace, order, tmp_path)
        tick_for(load, 5)
        outcome = load.finish()
    assert outcome.issues == ()
    assert outcome.samples.names == ("jane",)
    assert outcome.samples.ok.all()
    assert len(outcome.samples) > 10
    assert "s3cret" not in read_log(tmp_path)


def test_oom_killed_locust_is_reported(cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path) -> None:
    """The trial reports that Locust ended and why; what was on its disk is still fetched."""
    (tmp_path / "greedy.py").write_text(GREEDY, "utf-8")
    order = replace(order, locustfile=tmp_path / "greedy.py")
    with waiting_pod(cluster, namespace, order):
        load = start_load_in(cluster, namespace, order, tmp_path)
        tick_for(load, 60)
        trouble = load.generator.trouble()
        exit_code = load.generator.stop(timeout_s=5)
    assert trouble.startswith("Locust ended during the load (exit code 137, OOMKilled), log: ")
    assert exit_code == 137
    assert not (tmp_path / "generator.json").exists()
    assert len(read_samples(tmp_path)) > 10


def test_locustfile_that_does_not_load_fails_the_start(
    cluster: Cluster, namespace: str, order: LoadSpec, tmp_path: Path
) -> None:
    """The start fails with Locust's exit code and message."""
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n", "utf-8")
    order = replace(order, locustfile=tmp_path / "broken.py")
    with waiting_pod(cluster, namespace, order), pytest.raises(DeployError) as failure:
        start_load_in(cluster, namespace, order, tmp_path)
    assert "Locust did not start: Locust ended during the load (exit code 1)" in str(failure.value)
    assert "nowhere_to_be_found" in str(failure.value)


@pytest.fixture
def hostile_pod(cluster: Cluster, namespace: str) -> Iterator[None]:
    """A pod in the load pod's place that responds with arbitrary data."""
    container = {
        "name": KEEPER,
        "image": default_image(),
        "command": ["python", "-c", HOSTILE],
        "env": [{"name": "PATH", "value": "/load/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"}],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/load/ready"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "load", "emptyDir": {}}],
    }
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "namespace": namespace}, "spec": spec}
    ref = ref_of(pod)
    try:
        cluster.apply(add_run_labels(pod, "load", run_id="t-load", now=datetime.now(UTC)))
        _wait_ready(cluster, namespace, NAME)
        yield
    finally:
        delete_named(cluster, ref, grace_s=0)
        assert wait_until(lambda: cluster.get(ref) is None, timeout_s=60, watch=CancelToken(), poll_s=0.3)


@pytest.mark.usefixtures("hostile_pod")
def test_hostile_pod_writes_nothing_here(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Neither a file that was not requested nor endless output is written."""
    folder = tmp_path / "results" / "trial"
    folder.mkdir(parents=True)
    with pytest.raises(BadAnswerError, match=r"'\.\./\.\./outside' was not requested"):
        PodFiles(cluster, namespace, folder, 1).fetch()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(BadAnswerError, match="its output is larger than 1000000 bytes"):
        cluster.exec(NAME, ["cat", "/dev/zero"], namespace=namespace, container=KEEPER, most_bytes=1_000_000)
