"""Connections to a real cluster break during a run: no sample of the load is lost, and forwarded ports reconnect."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from bench.envoy.addresses import free_ports
from bench.k8s.client import Cluster
from bench.results.samples import read_parquet
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import HARM, MEASURED, Job, assert_unchanged, run_job, until_loading
from tests.cluster.relay import open_relay
from tests.command import Command
from tests.issues import read_reasons

TRIAL = "01-baseline-1"
CUTS = 2


@pytest.fixture(scope="module")
def cut_run(cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[int]]:
    """A run whose connections are all cut a few times in its window, with a browser that shows Locust's page; and the
    requests that the page showed before the first and after each cut; at last it shows more."""
    folder, port, shown = tmp_path_factory.mktemp("cut"), free_ports(["page"])["page"], []

    def cut(started: Command) -> None:
        until_loading(started, TRIAL)
        shown.append(requests_shown(port))
        for _ in range(CUTS):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as browser:
                browser.sendall(b"GET /stats/requests HTTP/1.1\r\nHost: locust\r\n\r\n")
                assert browser.recv(65536).startswith(b"HTTP/1.1 200")
                link.cut()
                read_to_end(browser)
            shown.append(requests_shown(port))
        # Locust caches its statistics for some seconds.
        assert wait_until(lambda: requests_shown(port) > shown[0], timeout_s=10, watch=CancelToken(), poll_s=0.3)

    with assert_unchanged(cluster), open_relay(lab_kubeconfig, folder / "config") as link:
        environment = {"KUBECONFIG": str(folder / "config")}
        window = {"duration": "10s"}
        return run_job(folder, "--locust-ui", str(port), load=window, during=cut, env=environment), shown


def read_to_end(browser: socket.socket) -> None:
    """Read a page with a timeout, so that a lost connection does not block."""
    with suppress(ConnectionResetError):
        while browser.recv(65536):
            continue


def requests_shown(port: int) -> int:
    """Return the requests on Locust's own page, where the command serves it."""
    with urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=60) as answer:
        return int(json.load(answer)["stats"][-1]["num_requests"])


@pytest.mark.soak("cluster", together=True)
def test_forwarded_page_reconnects(cut_run: tuple[Job, list[int]]) -> None:
    """The page is back on the same port, with the same load, which has continued meanwhile."""
    _, shown = cut_run
    assert len(shown) == CUTS + 1
    assert shown == sorted(shown)


@pytest.mark.soak("cluster", together=True)
def test_cut_connections_lose_no_request(cut_run: tuple[Job, list[int]]) -> None:
    """The load is in the cluster: its trial has no issues other than those of a quiet one, and its samples are
    complete."""
    job, _ = cut_run
    record = job.trials()[TRIAL]
    assert not HARM.search(" | ".join(read_reasons(record))), job.output
    rows = read_parquet(job.folder / "trials" / TRIAL / "samples.parquet")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)


@pytest.mark.soak("cluster", together=True)
def test_run_with_cut_connections_succeeds(cut_run: tuple[Job, list[int]]) -> None:
    """The run ends with its report, and everything is removed."""
    job, _ = cut_run
    assert job.exit_code in MEASURED, job.output
    assert job.record["cleanup_ok"] is True
    assert (job.folder / "report" / "index.html").is_file()
