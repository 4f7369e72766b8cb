"""The probe agent as a separate process, against servers on loopback."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.envoy.certificates import issue_certificates
from bench.meshes import MESHES
from bench.targets.cluster.probes import agent
from bench.targets.cluster.probes.prober import read_answer
from bench.verification.questions import Answer

SPIFFE_ID = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details"


def ask(*questions: dict[str, Any], script: Path = Path(agent.__file__)) -> list[Answer]:
    """The script's answers; it runs without meshbench on its path, as in a pod."""
    whole = [
        {"method": "GET", "path": "/", "headers": {}, "tls": False, "alpn": [], **question} for question in questions
    ]
    argv = [sys.executable, "-I", str(script)]
    ran = subprocess.run(argv, input=json.dumps(whole) + "\n", capture_output=True, text=True, timeout=30, check=True)
    return [read_answer(one) for one in json.loads(ran.stdout)]


def query(port: int, **rest: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, **rest}


@pytest.fixture
def mirror() -> Iterator[int]:
    """The port of a server whose response body repeats the request, and which keeps the connection open."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = f"{self.command} {self.path} {self.headers['Host']} {self.headers['x-who']}".encode()
            self.send_response(403 if self.path == "/denied" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Odd", "Yes")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def serve_connections(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[int]]]:
    """A server that calls `answer` with each connection: its port, and one entry for each connection so far."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return  # the test is over
                seen.append(1)
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_requests_are_sent_unchanged(mirror: int) -> None:
    """Method, path and headers arrive as given, and the answers come in order with status, headers and body."""
    headers = {"Host": "details:9080", "x-who": "me"}
    first, second = ask(
        query(mirror, path="/details/0", headers=headers),
        query(mirror, method="DELETE", path="/denied", headers=headers),
    )
    assert (first.status, first.body) == (200, b"GET /details/0 details:9080 me")
    assert first.headers["x-odd"] == "Yes"
    assert (second.status, second.detail) == (403, "403 DELETE /denied details:9080 me")


def test_closed_connection_is_not_retried() -> None:
    """A connection that is closed without a response is reported, and the request is not sent again."""

    def close(connection: socket.socket) -> None:
        connection.recv(1000)

    with serve_connections(close) as (port, seen):
        (answer,) = ask(query(port))
    assert (answer.status, answer.detail) == (0, "connection closed without a response")
    assert len(seen) == 1


def test_connection_errors_are_answers(unused_port: int) -> None:
    """A refused connection and an unknown name are reported as answers, and the next questions are still asked."""
    refused, unknown = ask(query(unused_port), query(9, host="unknown.invalid"))
    assert refused.detail == "connection refused"
    assert unknown.detail.startswith("gaierror")


def test_silent_server_times_out() -> None:
    """A server that does not respond times out after three seconds."""
    done = threading.Event()

    def wait(_connection: socket.socket) -> None:
        done.wait(20)

    with serve_connections(wait) as (port, _):
        (answer,) = ask(query(port))
        done.set()
    assert (answer.status, answer.detail) == (0, "no response within 3 s")


def test_truncated_response_has_no_status() -> None:
    """A response that ends within its body has no status."""

    def break_off(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    with serve_connections(break_off) as (port, _):
        (answer,) = ask(query(port))
    assert (answer.status, answer.body) == (0, b"")
    assert answer.detail.startswith("IncompleteRead")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_handshake_reports_server_identity(tmp_path: Path) -> None:
    """TLS without a client certificate reports the version, the server's SPIFFE ID, and that the server required a
    certificate."""
    names = {"bookinfo-details": ("kuma://kuma.io/zone/default", SPIFFE_ID)}
    wire = MESHES["kuma"].data_plane.wire
    issued = issue_certificates(tmp_path / "ids", names, wire=wire, now=datetime.now(UTC), run_s=60)
    identity = issued.identity("bookinfo-details")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(identity.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    offered: list[str | None] = []

    def shake(connection: socket.socket) -> None:
        context.set_alpn_protocols(["istio"])
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
            secured.do_handshake()
        offered.append(secured.selected_alpn_protocol())
        with socket.socket(fileno=secured.detach()) as plain:
            while plain.recv(1000):
                pass  # closed with something unread, the connection would be reset, and the alert with it

    with serve_connections(shake) as (port, _):
        (answer,) = ask(query(port, tls=True, alpn=["istio"]))
    assert answer.handshake is not None
    assert (answer.handshake.version, answer.handshake.own, answer.handshake.peer) == ("TLSv1.3", "", SPIFFE_ID)
    assert (answer.status, offered) == (0, ["istio"])
    assert "certificate required" in answer.detail.replace("_", " ").lower()


def test_plaintext_server_fails_handshake(mirror: int) -> None:
    """A server that speaks plaintext yields no handshake, and the answer reports that."""
    (answer,) = ask(query(mirror, tls=["istio", "kuma"]))
    assert (answer.status, answer.handshake) == (0, None)
    assert answer.refused


@contextmanager
def front_page(*, lets_in: bool) -> Iterator[tuple[int, list[int]]]:
    """A page that greets the logged-in user: its port, and one entry for each connection so far."""
    seen: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            seen.append(1)
            super().setup()

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(302)
            if lets_in:
                self.send_header("Set-Cookie", f"session={form.partition('&')[0].rpartition('=')[2]}; HttpOnly")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            body = f"{self.path} for {self.headers['Cookie']}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1], seen
        server.shutdown()


def ask_for_series(port: int, user: str) -> list[tuple[int, str, str, int]]:
    """A series of seven pages, as the script reports it."""
    login = {"path": "/login", "form": {"username": user, "passwd": ""}, "cookie": "session", "user": user}
    question = query(port, path="/productpage", headers={"Host": "page"}, login=login if user else None, times=7)
    argv = [sys.executable, "-I", agent.__file__]
    given = json.dumps([question]) + "\n"
    ran = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=True)
    (found,) = json.loads(ran.stdout)
    answers = [(read_answer(one), one["count"]) for one in found["answers"]]
    return [(answer.status, answer.body.decode(), answer.refused, count) for answer, count in answers]


def test_page_series_logs_in_and_reuses_connection() -> None:
    """Equal answers are reported once, with their count; a user without a login sends no cookie."""
    with front_page(lets_in=True) as (port, connections):
        assert ask_for_series(port, "Marco") == [(200, "/productpage for session=Marco", "", 7)]
        assert len(connections) == 1
        assert ask_for_series(port, "") == [(200, "/productpage for None", "", 7)]


def test_failed_login_is_reported() -> None:
    """A failed login ends the series: no page is requested as another user."""
    with front_page(lets_in=False) as (port, _):
        ((status, _, refused, count),) = ask_for_series(port, "Marco")
        assert (status, count) == (0, 1)
        assert refused == "HTTPException: the login as Marco was answered with 302"
