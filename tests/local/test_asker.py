"""The probe pods' script as a process of its own, against servers on loopback."""

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
from bench.targets.cluster.probes import agent as asker
from bench.targets.cluster.probes.prober import read_answer
from bench.verification.questions import Answer

SPIFFE_ID = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-details"


def ask(*questions: dict[str, Any], script: Path = Path(asker.__file__)) -> list[Answer]:
    """What the script answers, run without meshbench in reach, as in a pod."""
    whole = [{"method": "GET", "path": "/", "headers": {}, "tls": False, **question} for question in questions]
    argv = [sys.executable, "-I", str(script)]
    ran = subprocess.run(argv, input=json.dumps(whole) + "\n", capture_output=True, text=True, timeout=30, check=True)
    return [read_answer(told) for told in json.loads(ran.stdout)]


def at(port: int, **rest: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, **rest}


@pytest.fixture
def mirror() -> Iterator[int]:
    """The port of a server that tells in its body what it was asked, and keeps the connection open."""

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
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[int]]]:
    """A server that does `answer` with each connection: its port, and one entry for each connection so far."""
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


def test_questions_are_asked_as_they_are(mirror: int) -> None:
    """Method, path and headers arrive as given, and the answers come in order with status, headers and body."""
    headers = {"Host": "details:9080", "x-who": "me"}
    first, second = ask(
        at(mirror, path="/details/0", headers=headers), at(mirror, method="DELETE", path="/denied", headers=headers)
    )
    assert (first.status, first.body) == (200, b"GET /details/0 details:9080 me")
    assert first.headers["x-odd"] == "Yes"
    assert (second.status, second.told) == (403, "403 DELETE /denied details:9080 me")


def test_no_question_is_asked_twice() -> None:
    """A connection that is closed without an answer is told as such, and not tried again."""

    def close(connection: socket.socket) -> None:
        connection.recv(1000)

    with listening(close) as (port, seen):
        (answer,) = ask(at(port))
    assert (answer.status, answer.told) == (0, "connection closed without an answer")
    assert len(seen) == 1


def test_nobody_there_is_told(unused_port: int) -> None:
    """A refused connection and an unknown name are answers too, and the questions after them are asked."""
    refused, unknown = ask(at(unused_port), at(9, host="nobody.invalid"))
    assert refused.told == "connection refused"
    assert unknown.told.startswith("gaierror")


def test_a_silent_server_is_given_up() -> None:
    """Who does not answer is given up after three seconds."""
    done = threading.Event()

    def wait(_connection: socket.socket) -> None:
        done.wait(20)

    with listening(wait) as (port, _):
        (answer,) = ask(at(port))
        done.set()
    assert (answer.status, answer.told) == (0, "no answer within 3 s")


def test_half_an_answer_is_none() -> None:
    """An answer that breaks off in its body has no status."""

    def break_off(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    with listening(break_off) as (port, _):
        (answer,) = ask(at(port))
    assert (answer.status, answer.body) == (0, b"")
    assert answer.told.startswith("IncompleteRead")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_handshake_shows_who_the_server_is(tmp_path: Path) -> None:
    """TLS without a certificate: version and the server's SPIFFE id are told, and that it wanted one."""
    names = {"bookinfo-details": ("kuma://kuma.io/zone/default", SPIFFE_ID)}
    wire = MESHES["kuma"].WIRE
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

    with listening(shake) as (port, _):
        (answer,) = ask(at(port, tls=True))
    assert answer.handshake is not None
    assert (answer.handshake.version, answer.handshake.own, answer.handshake.peer) == ("TLSv1.3", "", SPIFFE_ID)
    assert (answer.status, offered) == (0, ["istio"])
    assert "certificate required" in answer.told.replace("_", " ").lower()


def test_plain_text_is_no_handshake(mirror: int) -> None:
    """Where nobody speaks TLS there is no handshake, and the answer says so."""
    (answer,) = ask(at(mirror, tls=True))
    assert (answer.status, answer.handshake) == (0, None)
    assert answer.refused


@contextmanager
def front_page(*, lets_in: bool) -> Iterator[tuple[int, list[int]]]:
    """A page that greets who has logged in: its port, and one entry for each connection so far."""
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
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1], seen
        server.shutdown()


def series(port: int, user: str) -> list[tuple[int, str, str, int]]:
    """A series of seven pages, as the script tells of it."""
    question = at(port, path="/productpage", headers={"Host": "page"}, user=user, times=7)
    argv = [sys.executable, "-I", asker.__file__]
    given = json.dumps([question]) + "\n"
    ran = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=True)
    (told,) = json.loads(ran.stdout)
    answers = [(read_answer(one), one["count"]) for one in told["answers"]]
    return [(answer.status, answer.body.decode(), answer.refused, count) for answer, count in answers]


def test_a_series_of_pages_is_asked_on_one_connection_after_a_login() -> None:
    """Equal answers are told once, with their number; who has not logged in sends no cookie."""
    with front_page(lets_in=True) as (port, connections):
        assert series(port, "Marco") == [(200, "/productpage for session=Marco", "", 7)]
        assert len(connections) == 1
        assert series(port, "") == [(200, "/productpage for None", "", 7)]


def test_a_login_that_fails_is_told() -> None:
    """Nobody goes on as somebody else."""
    with front_page(lets_in=False) as (port, _):
        ((status, _, refused, count),) = series(port, "Marco")
        assert (status, count) == (0, 1)
        assert refused == "HTTPException: the login as Marco was answered with 302"
