"""What happens when connections to a real cluster break in mid-run: nothing of the load is lost, and what is forwarded
comes back."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from bench.envoy.addresses import free_ports
from bench.k8s.client import Cluster
from bench.results.samples import read_parquet
from bench.system.cancellation import Watch, wait_until
from tests.cluster.job import HARM, Job, run_job, unchanged, until_loading
from tests.cluster.way import relay
from tests.command import Command

TRIAL = "01-baseline-1"
CUTS = 2


@pytest.fixture(scope="module")
def cut_off(cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[int]]:
    """A run whose connections are all cut, some times in its window, with a browser that looks at Locust's page; and
    the requests that the page showed before the first and after each cut; at last it shows more."""
    folder, port, shown = tmp_path_factory.mktemp("cut"), free_ports(["page"])["page"], []

    def cut(started: Command) -> None:
        until_loading(started, TRIAL)
        shown.append(requests_shown(port))
        for _ in range(CUTS):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as browser:
                browser.sendall(b"GET /stats/requests HTTP/1.1\r\nHost: locust\r\n\r\n")
                assert browser.recv(65536).startswith(b"HTTP/1.1 200")
                way.cut()
                read_to_end(browser)
            shown.append(requests_shown(port))
        # Locust shows the same answer to whoever asks within some seconds.
        assert wait_until(lambda: requests_shown(port) > shown[0], timeout_s=10, watch=Watch(), poll_s=0.3)

    with unchanged(cluster), relay(lab_kubeconfig, folder / "config") as way:
        environment = {"KUBECONFIG": str(folder / "config")}
        window = {"duration": "10s"}
        return run_job(folder, "--locust-ui", str(port), load=window, during=cut, env=environment), shown


def read_to_end(browser: socket.socket) -> None:
    """Nobody waits for ever for a connection that is gone."""
    with suppress(ConnectionResetError):
        while browser.recv(65536):
            continue


def requests_shown(port: int) -> int:
    """By Locust's own page, where the command serves it."""
    with urlopen(f"http://127.0.0.1:{port}/stats/requests", timeout=20) as answer:
        return int(json.load(answer)["stats"][-1]["num_requests"])


def test_a_forwarded_page_comes_back_by_itself(cut_off: tuple[Job, list[int]]) -> None:
    """On the same port, with the same load, which has gone on meanwhile."""
    _, shown = cut_off
    assert len(shown) == CUTS + 1
    assert shown == sorted(shown)


def test_no_request_is_lost_with_a_connection(cut_off: tuple[Job, list[int]]) -> None:
    """The load is in the cluster: its trial has no other doubts than a quiet one, and its samples are whole."""
    job, _ = cut_off
    record = job.trials()[TRIAL]
    assert not HARM.search(" | ".join(record["reasons"])), job.told
    rows = read_parquet(job.folder / "trials" / TRIAL / "samples.parquet")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)


def test_the_run_ends_as_any_other(cut_off: tuple[Job, list[int]]) -> None:
    """With its report, and everything removed."""
    job, _ = cut_off
    assert job.exit_code in (0, 5), job.told
    assert job.record["cleanup_ok"] is True
    assert (job.folder / "report" / "index.html").is_file()
