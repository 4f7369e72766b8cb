"""Locust in several processes: each worker records separately, and the merged records are complete."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest

from bench.envoy.addresses import free_ports
from bench.files.folders import find_shipped
from bench.load import recorder_path
from bench.load.generator import LoadSpec
from bench.load.raw_samples import list_raw_files, read_recent_rows, read_samples, read_start
from bench.targets.local.locust import fill_work, make_local_argv
from tests.bookinfo import ROOT
from tests.rows import count_rows

pytestmark = pytest.mark.measures

USUAL_PORT = 5557
ANSWER_S = 1.0  # longer than Locust's master waits for the last statistics of its workers

LOCUSTFILE = """
from locust import FastHttpUser, constant, task

class Asking(FastHttpUser):
    wait_time = constant(0.05)

    @task(50)
    def quick(self):
        self.client.get("/quick")

    @task(1)
    def slow(self):
        self.client.get("/slow")
"""

UNTIMED = """
    @task(1)
    def untimed(self):
        self.environment.events.request.fire(request_type="GET", name="/untimed", response_time=None, response_length=0)
"""


class Answers(BaseHTTPRequestHandler):
    """Responds to `/slow` after `ANSWER_S`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(ANSWER_S)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a small server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as http:
        http.daemon_threads = True
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@contextmanager
def locust(folder: Path, server: str, *options: str, locustfile: str = LOCUSTFILE) -> Iterator["subprocess.Popen[str]"]:
    """Two workers under load in `folder`."""
    (folder / "asking.py").write_text(locustfile, "utf-8")
    files = f"{recorder_path()},{folder / 'asking.py'}"
    port = str(free_ports(["master"])["master"])
    bind = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    given = ["--host", server, "--users", "6", "--spawn-rate", "6", "--stop-timeout", "5", "--exit-code-on-error", "0"]
    argv = [sys.executable, "-m", "locust", "-f", files, "--headless", "--only-summary", "--loglevel", "WARNING"]
    record = ["--processes", "2", "--meshbench-record-to", str(folder), "--meshbench-seed", "7"]
    with (folder / "load.log").open("w") as log:
        child = subprocess.Popen(
            [*argv, *bind, *given, *record, *options],
            cwd=ROOT,
            stderr=log,
            stdout=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_for_rows(folder: Path, child: "subprocess.Popen[Any]", *, rows: int) -> None:
    deadline = time.monotonic() + 60
    while count_rows(folder) < rows:
        assert child.poll() is None, (folder / "load.log").read_text("utf-8")
        assert time.monotonic() < deadline, "the load did not begin"
        time.sleep(0.1)


def account(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "generator.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def loaded(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two workers that are ended during slow requests."""
    folder = tmp_path_factory.mktemp("loaded")
    with locust(folder, server) as child:
        wait_for_rows(folder, child, rows=300)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == 0, (folder / "load.log").read_text("utf-8")
    return folder


def test_every_workers_requests_are_rows(loaded: Path) -> None:
    """Locust's count over its workers is the number of rows, including requests in flight at the end."""
    own = account(loaded)
    assert own["problem"] == ""
    assert own["locust_requests"] == own["recorded"] == count_rows(loaded) == len(read_samples(loaded)) >= 300
    assert own["locust_failures"] == (~read_samples(loaded).ok).sum() == 0
    assert (own["derived_starts"], own["clock_step_ms"]) == (0, 0)


def test_each_worker_has_its_own_files(loaded: Path) -> None:
    """Both workers recorded rows, each with names and a start; the master's start is the earliest."""
    assert [path.name for path in list_raw_files(loaded)] == [
        "generator.json", "names-0.txt", "names-1.txt", "samples-0.bin", "samples-1.bin",
        "started-0.json", "started-1.json", "started.json", "tasks-0.bin", "tasks-1.bin",
    ]  # fmt: skip
    assert all((loaded / f"samples-{worker}.bin").stat().st_size > 0 for worker in (0, 1))
    start = read_start(loaded)
    assert start is not None
    assert start.zero_ns == json.loads((loaded / "started.json").read_text("utf-8"))["zero_ns"]


def test_request_names_are_merged_across_workers(loaded: Path) -> None:
    """The slow requests are those with a high latency, whichever worker numbered the names in which order."""
    samples = read_samples(loaded)
    assert sorted(samples.names) == ["/quick", "/slow"]
    slow = samples.name == samples.names.index("/slow")
    assert slow.any()
    assert samples.latency_ns[slow].min() >= ANSWER_S * 1e9 > samples.latency_ns[~slow].max()


def test_newest_rows_are_in_order_of_completion(loaded: Path) -> None:
    """The newest rows of both workers come in the order in which the requests ended."""
    rows = read_recent_rows(loaded, most=50)
    assert len(rows) == 100
    assert (np.diff(rows["started_ns"] + rows["latency_ns"]) >= 0).all()


def test_workers_share_the_arrivals(server: str, tmp_path: Path) -> None:
    """An open loop of 40/s stays one of 40/s with two workers, and they do not send in step."""
    with locust(tmp_path, server, "--meshbench-arrival-rate", "40", "--run-time", "8s") as child:
        assert child.wait(timeout=60) == 0, (tmp_path / "load.log").read_text("utf-8")
    due_s = np.sort(read_samples(tmp_path).intended_ns) / 1e9
    due_s = due_s[(due_s > 1) & (due_s < 7)]
    assert 240 - 4 * 240**0.5 < len(due_s) < 240 + 4 * 240**0.5
    assert np.unique(due_s).size == due_s.size
    own = account(tmp_path)
    assert own["recorded"] == own["locust_requests"] == count_rows(tmp_path)


def test_lost_worker_ends_the_load(server: str, tmp_path: Path) -> None:
    """When a worker is killed, the load ends as a failure that reports it; the other worker's rows are kept."""
    with locust(tmp_path, server) as child:
        wait_for_rows(tmp_path, child, rows=100)
        worker = psutil.Process(child.pid).children()[0]
        worker.kill()
        assert child.wait(timeout=60) != 0
    own = account(tmp_path)
    assert own["problem"] == "1 of Locust's 2 workers ended during the load"
    assert own["recorded"] > 0


def test_unrecordable_row_ends_the_load(server: str, tmp_path: Path) -> None:
    """When one worker's recorder fails, the load ends as a failure with its reason; rows until then are kept."""
    with locust(tmp_path, server, locustfile=LOCUSTFILE + UNTIMED) as child:
        assert child.wait(timeout=60) == 1, (tmp_path / "load.log").read_text("utf-8")
    own = account(tmp_path)
    assert own["problem"] == "the request '/untimed' cannot be recorded: its response_time None is not a time in ms"
    assert own["recorded"] == count_rows(tmp_path) == len(read_samples(tmp_path))


def test_workers_start_while_another_locust_runs(server: str, tmp_path: Path) -> None:
    """If another process listens on the master's usual port, here and on every address, the load uses another port."""
    (tmp_path / "asking.py").write_text(LOCUSTFILE, "utf-8")
    order = LoadSpec(
        address=server.removeprefix("http://"),
        virtual_host="productpage:9080",
        locustfile=find_shipped("locustfiles") / "bookinfo.py",
        versions={"reviews": "v3"},
        users=4,
        think_time_s=0.05,
        rate_per_s=None,
        warmup_s=1,
        duration_s=2,
        seed=1,
        workers=2,
    )
    with socket.create_server(("0.0.0.0", USUAL_PORT)) as other:
        assert other.getsockname()[1] == USUAL_PORT
        fill_work(order, tmp_path)
        argv = make_local_argv(order, tmp_path)
        with (tmp_path / "load.log").open("wb") as log:
            child = subprocess.Popen(argv, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_rows(tmp_path, child, rows=20)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
