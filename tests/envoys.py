"""Real sidecars of Bookinfo, each before an upstream that returns 200 and the headers of the request."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.application.model import Application
from bench.envoy.addresses import Placement, assign_ports
from bench.envoy.certificates import Certificates, Identity
from bench.meshes import MESHES
from bench.meshes.probe import Probe
from bench.meshes.protocols import Policies, ProxyInputs
from bench.targets.local.prober import call, query_admin_json
from bench.verification.questions import Answer

READY_TIMEOUT_S = 10


@dataclass(frozen=True)
class Sidecars:
    """The sidecars of all workloads in one configuration."""

    mesh: str
    application: Application
    policies: Policies
    placement: Placement
    certificates: Certificates
    admins: Mapping[str, Path]

    def ask(self, probe: Probe) -> Answer:
        """Send the probe to the sidecar's inbound listener."""
        identity = self.certificates.identity(probe.caller) if probe.caller else None
        return self.knock(probe.workload, probe.path, identity, method=probe.method, headers=dict(probe.headers))

    def knock(
        self,
        workload: str,
        path: str,
        identity: Identity | None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request to a workload's sidecar with any identity."""
        port, host = self.placement.inbound[workload], f"{workload}:9080"
        return call(port, method, path, host=host, identity=identity, headers=headers)

    def send(
        self, caller: str, callee: str, path: str, *, host: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request through the caller's outbound listener."""
        port = self.placement.reached_by(caller, callee)
        return call(port, "GET", path, host=host or f"{callee}:9080", headers=headers)

    def stats(self, workload: str, pattern: str) -> dict[str, int]:
        """Read the counters of one sidecar whose names match `pattern`."""
        stats = query_admin_json(self.admins[workload], f"/stats?format=json&filter={pattern}")["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "name" in stat}

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """Write the configuration of each sidecar, and yield the command that starts it."""
        inputs = ProxyInputs(self.placement, self.policies, self.certificates)
        for one in self.application.everyone:
            config = folder / f"{one.name}.json"
            command = MESHES[self.mesh].data_plane.sidecar(one, inputs, config=config, admin=self.admins[one.name])
            config.write_text(command.configuration)
            yield list(command.start)


def place_sidecars(
    mesh: str, application: Application, policies: Policies, *, certificates: Certificates, folder: Path
) -> Sidecars:
    """Place sidecars without starting them."""
    placement = assign_ports(application, capture=MESHES[mesh].data_plane.outbound_capture)
    admins = {one.name: folder / f"{one.name}.sock" for one in application.everyone}
    return Sidecars(mesh, application, policies, placement, certificates, admins)


@contextmanager
def run_sidecars(
    mesh: str, application: Application, policies: Policies, *, certificates: Certificates, folder: Path
) -> Iterator[Sidecars]:
    """Run all sidecars of the application with these policies, until the block ends."""
    sidecars = place_sidecars(mesh, application, policies, certificates=certificates, folder=folder)
    with ExitStack() as stack:
        for port in sidecars.placement.serving.values():
            stack.enter_context(_upstream(port))
        for command in sidecars.commands(folder):
            stack.enter_context(_process(command))
        _wait_for(sidecars)
        yield sidecars


class Upstream(BaseHTTPRequestHandler):
    """A server that returns the headers of every request as JSON: after a second at `/slow`, with 418 at `/teapot`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {"peer": self.client_address[0], **{name.lower(): value for name, value in self.headers.items()}}
        ).encode()
        if self.path == "/slow":
            time.sleep(1)
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # the names that http.server asks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Print nothing."""


@contextmanager
def _upstream(port: int) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), Upstream) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(sidecars: Sidecars) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    for path in sidecars.admins.values():
        while not _is_live(path):
            assert time.monotonic() < deadline, f"{path} is not there after {READY_TIMEOUT_S} s"
            time.sleep(0.02)


def _is_live(path: Path) -> bool:
    try:
        return bool(query_admin_json(path, "/server_info")["state"] == "LIVE")
    except OSError:
        return False
