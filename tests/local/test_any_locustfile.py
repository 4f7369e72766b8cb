"""Locust files that know nothing of meshbench, as Locust runs them with the recorder."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from bench.analysis.pace import measure_pace
from bench.load import recorder_path
from bench.load.generator import LoadSpec
from bench.load.raw_samples import read_samples, read_valid_account, read_valid_tasks
from bench.load.recorded import Account
from bench.results.records import Window
from bench.results.samples import Samples

pytestmark = pytest.mark.measures

NAMES = ("shop:8080", "shop.web:8080", "shop.web.svc:8080", "shop.web.svc.cluster.local:8080")

CLIENTS = """
import http.client
import socket
import time

from locust import FastHttpUser, HttpUser, SequentialTaskSet, User, between, constant_throughput, events, tag, task


@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--seed", default="mine")
    parser.add_argument("--record-to", required=True)


class Login:
    def on_start(self):
        self.client.post("/login", {"user": "jane"})


class Http(Login, HttpUser):
    wait_time = between(0.02, 0.05)

    @task
    class Ordered(SequentialTaskSet):
        @task
        def page(self):
            self.client.get("/page")

        @task
        def detail(self):
            self.client.get("/http", name="http")
            self.client.get("http://SHOP.web.svc:8080/http", name="http absolute")


class Fast(Login, FastHttpUser):
    wait_time = constant_throughput(20)

    @tag("quick")
    @task
    def page(self):
        self.client.get("/page")
        with self.client.get("/fast", name="fast", catch_response=True) as response:
            response.success() if response.headers["x-host"] == "shop:8080" else response.failure("wrong host")
        self.client.get("http://shop.web.svc.cluster.local.:8080/fast", name="fast absolute")


class Custom(User):
    wait_time = between(0.02, 0.05)

    @task
    def page(self):
        with self.environment.events.request.measure("GET", "custom"):
            connection = http.client.HTTPConnection("shop.web", 8080)
            connection.request("GET", "/custom")
            assert connection.getresponse().status == 200
        with self.environment.events.request.measure("RAW", "raw"):
            address = socket.gethostbyname("shop")
            with socket.socket() as raw:
                raw.connect((address, 8080))
                raw.sendall(b"GET /raw HTTP/1.0\\r\\n\\r\\n")
                assert b"200 OK" in raw.recv(1000)
"""
STRAY = """
import socket

from locust import FastHttpUser, HttpUser, constant, task

try:
    socket.create_connection(("192.0.2.1", 443), timeout=5)
except OSError as error:
    assert "is not the entry of the application, shop:8080" in str(error), error
else:
    raise AssertionError("connected")


class Fast(FastHttpUser):
    wait_time = constant(0.05)

    @task
    def page(self):
        self.client.get("/page")
        self.client.get("http://elsewhere.example/page", name="fast")


class Http(HttpUser):
    wait_time = constant(0.05)

    @task
    def page(self):
        self.client.get("http://127.0.0.1:9/page", name="http")
"""
RAISING = """
from locust import HttpUser, constant, task


class Buyer(HttpUser):
    wait_time = constant(0.1)

    @task
    def page(self):
        self.basket["id"]
"""
SHAPED = """
from locust import HttpUser, LoadTestShape, task


class Buyer(HttpUser):
    @task
    def page(self):
        self.client.get("/page")


class Steps(LoadTestShape):
    def tick(self):
        return (1, 1)
"""


class Shop(BaseHTTPRequestHandler):
    """Responds with the Host header that it got; remembers all of them by path."""

    protocol_version = "HTTP/1.1"
    hosts: ClassVar[dict[str, set[str]]] = {}

    def do_GET(self) -> None:
        host = self.headers.get("host", "none")
        self.hosts.setdefault(self.path, set()).add(host)
        self.send_response(302 if self.path == "/login" else 200)
        if self.path == "/login":
            self.rfile.read(int(self.headers["content-length"]))
            self.send_header("location", "/welcome")
        self.send_header("x-host", host)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815  # the base class names it

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a small server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as http:
        http.daemon_threads = True
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


def run(folder: Path, address: str, text: str, *words: str, seconds: int = 3, **changes: Any) -> tuple[int, str]:
    """Run Locust as meshbench does, until its run time; its exit code and log."""
    locustfile = folder / "shop.py"
    locustfile.write_text(text, "utf-8")
    given: dict[str, Any] = {"users": 6, "think_time_s": 0.1, "rate_per_s": None, "warmup_s": 0, "duration_s": 1}
    ready = json.dumps({"path": "/page", "status": 200, "contains": "ok"})
    spec = LoadSpec(
        address=address, virtual_host=NAMES[0], names=NAMES, ready=ready, locustfile=locustfile, seed=1,
        versions={"reviews": "v3"}, **{**given, **changes},
    )  # fmt: skip
    argv = spec.argv(sys.executable, locustfile=str(locustfile), recorder=str(recorder_path()), folder=str(folder))
    argv[argv.index("--run-time") + 1] = f"{seconds}s"
    child = subprocess.run([*argv, *words], cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    return child.returncode, child.stderr


def account(folder: Path) -> Account:
    found, invalid = read_valid_account(folder)
    assert found is not None, invalid
    return found


def failures(samples: Samples) -> dict[str, int]:
    """The number of failed requests by name."""
    return {name: int((~samples.ok[samples.name == number]).sum()) for number, name in enumerate(samples.names)}


@pytest.fixture(scope="module")
def loaded(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users of all classes, whose file has options of its own with the names of the recorder's former ones."""
    folder = tmp_path_factory.mktemp("loaded")
    code, log = run(folder, address, CLIENTS, "--record-to=mine", seconds=6)
    assert code == 0, log
    return folder


def test_every_client_is_measured_and_led(loaded: Path) -> None:
    """Requests of HttpUser, FastHttpUser, plain clients and sockets reach the entry by each of its names."""
    samples = read_samples(loaded)
    assert sum(failures(samples).values()) == 0, failures(samples)
    assert {*samples.names} == {
        "/login", "/page", "http", "http absolute", "fast", "fast absolute", "custom", "raw"
    }  # fmt: skip
    own = account(loaded)
    assert (own.off_target, own.user_errors, own.problem) == ({}, 0, "")
    assert own.recorded == own.locust_requests == len(samples)


def test_host_headers_are_the_names(loaded: Path) -> None:
    """The server sees the names that the locustfile has, not the address to which connections are led."""
    assert Shop.hosts["/page"] == {"shop:8080"}
    assert Shop.hosts["/custom"] == {"shop.web:8080"}
    assert {host.lower() for host in Shop.hosts["/http"]} == {"shop:8080", "shop.web.svc:8080"}
    assert len(read_samples(loaded)) > 20


def test_account_has_what_the_proofs_need(loaded: Path) -> None:
    """Requests that are not the page are named, and those that were redirected; no offered option was taken."""
    own = account(loaded)
    assert "/page" not in own.unusual
    assert {"custom", "fast", "http"} <= {*own.unusual}
    assert "/login (redirected)" in own.unusual
    assert own.options == ()


def test_waits_of_the_file_hold(loaded: Path) -> None:
    """Tasks with several requests, sequential ones and pacing: waits and tasks of all users add up."""
    tasks, invalid = read_valid_tasks(loaded)
    assert invalid == ""
    end_ns = int(read_samples(loaded).started_ns.max()) - 500_000_000
    window = Window(start_ns=500_000_000, end_ns=end_ns)
    found = measure_pace(tasks, [window])
    assert found is not None
    assert window.seconds > 2
    assert found.waiting_s + found.working_s == pytest.approx(6 * window.seconds, rel=0.03)


def test_tags_select_tasks(address: str, tmp_path: Path) -> None:
    """Locust's own options for its file apply."""
    code, log = run(tmp_path, address, CLIENTS, "--record-to=mine", "--tags=quick", "Fast")
    assert code == 0, log
    assert {*read_samples(tmp_path).names} == {"/login", "/page", "fast", "fast absolute"}


def test_other_addresses_are_refused(address: str, tmp_path: Path) -> None:
    """No connection is made to anything but the entry, also while the file is loaded; the requests fail, and the
    account has the addresses."""
    code, log = run(tmp_path, address, STRAY)
    assert code == 0, log
    samples = read_samples(tmp_path)
    failed = failures(samples)
    assert failed["/page"] == 0
    for name in ("fast", "http"):
        assert failed[name] == (samples.name == samples.names.index(name)).sum() > 5
    refused = account(tmp_path).off_target
    assert refused["192.0.2.1:443"] == 1
    assert refused["elsewhere.example:80"] >= failed["fast"]
    assert refused["127.0.0.1:9"] >= failed["http"]
    assert "is not the entry of the application, shop:8080" in log


def test_first_request_of_a_task_has_the_arrival(address: str, tmp_path: Path) -> None:
    """With a rate, tasks start at the arrivals, whatever the file's waits are, and further requests when they start."""
    code, log = run(tmp_path, address, CLIENTS, "--record-to=mine", "Fast", rate_per_s=20.0)
    assert code == 0, log
    samples = read_samples(tmp_path)
    page, fast = (samples.name == samples.names.index(name) for name in ("/page", "fast"))
    assert (samples.intended_ns[page] < samples.started_ns[page]).mean() > 0.9
    assert (samples.intended_ns[fast] == samples.started_ns[fast]).all()
    tasks = read_valid_tasks(tmp_path)[0]
    assert 20 < (tasks["due_ns"] > 0).sum() < 90


def test_file_that_only_raises_ends_with_its_exception(address: str, tmp_path: Path) -> None:
    """When every task raises an exception, the load ends after ten seconds, with the first one and its place."""
    began = time.monotonic()
    code, log = run(tmp_path, address, RAISING, seconds=40)
    assert (code, time.monotonic() - began < 30) == (1, True), log
    problem = account(tmp_path).problem
    assert problem.startswith("no request was sent, and ")
    assert problem.endswith("the first: AttributeError: 'Buyer' object has no attribute 'basket' (shop.py:10)")


def test_load_shape_is_refused_by_name(address: str, tmp_path: Path) -> None:
    """A shape decides how many users there are, as the scenario does: Locust does not start."""
    code, log = run(tmp_path, address, SHAPED)
    assert code == 1
    assert "LoadTestShape (Steps)" in log
    assert not (tmp_path / "started.json").exists()
    assert "LoadTestShape (Steps)" in account(tmp_path).problem
