"""Sidecars are queried through Kuma's control plane, here a small server on loopback."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, cast

import pytest

from bench.errors import DeployError
from bench.k8s.client import Cluster
from bench.meshes.kuma import control_plane as kuma
from tests.kuma_cluster import KumaCluster, control_plane_pod


class Api(BaseHTTPRequestHandler):
    """Responds with a page that has its own address; a dataplane called `gone` does not exist."""

    def do_GET(self) -> None:
        body = b"no such dataplane" if "gone" in self.path else self.path.encode()
        self.send_response(404 if "gone" in self.path else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three pods of the control plane, of which one is ready and not terminating."""
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        pods = [
            control_plane_pod("cp-1", ready=False),
            control_plane_pod("cp-2"),
            control_plane_pod("cp-3", deletionTimestamp="t"),
        ]
        yield cast("Cluster", KumaCluster(pods, port=server.server_port))
        server.shutdown()
        thread.join()


def test_sidecar_is_queried_through_ready_control_plane(cluster: Cluster) -> None:
    """The URL has the mesh, pod, namespace and requested page."""
    answer = kuma.admin(cluster, "one", "/clusters?format=json", namespace="n")
    assert answer == "/meshes/default/dataplanes/one.n/clusters?format=json"
    assert kuma.admin(cluster, "one", "/clusters", namespace="guest").startswith("/meshes/own/dataplanes/one.guest/")


def test_control_plane_error_is_reported(cluster: Cluster) -> None:
    """The error names the page, status and reason in one line."""
    with pytest.raises(
        DeployError, match=r"answered GET /meshes/default/dataplanes/gone\.n/xds with 404: no such data"
    ):
        kuma.admin(cluster, "gone", "/config_dump", namespace="n")


def test_unsupported_page_is_named(cluster: Cluster) -> None:
    """A page that the control plane does not serve is an error at once."""
    with pytest.raises(DeployError, match="does not serve /quitquitquit"):
        kuma.admin(cluster, "one", "/quitquitquit", namespace="n")
