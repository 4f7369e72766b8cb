"""`meshbench cleanup --context` on an API server with another certificate than its kubeconfig's."""

import ssl
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench.envoy.certificates import issue_certificates
from bench.envoy.wire import Wire
from bench.errors import RefusedError
from bench.targets.cluster.teardown.cleanup import cluster_cleanup
from tests.kubeconfigs import write_kubeconfig


def test_changed_server_certificate_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that was recreated at the same address has an outdated kubeconfig: the command fails without
    retries."""
    wire = Wire(http="HTTP/2", tls="TLSv1.2", alpn="kuma")
    issued = issue_certificates(
        tmp_path / "ids", {"api": ("spiffe://api",)}, wire=wire, now=datetime.now(UTC), run_s=60
    )
    identity, context = issued.identity("api"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", "lab", server=url)))
    try:
        with pytest.raises(RefusedError, match="CERTIFICATE_VERIFY_FAILED"):
            next(cluster_cleanup("lab"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
