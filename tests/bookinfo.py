"""Bookinfo's services and stand-ins for their back ends as tests start them: real processes, real sockets."""

import http.client
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True)
class Answer:
    """The response to a client."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass
class BackEnd:
    """A stand-in for a back end that stores the head of every request, by connection."""

    answer: Callable[[], bytes | None]  # None: no answer, until the client closes the connection
    connections: list[list[str]] = field(default_factory=list)
    closed_by_client: threading.Event = field(default_factory=threading.Event)
    address: str = ""


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a service with only `environment` in its environment, without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.application.bookinfo", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
    )


def address_of(process: "subprocess.Popen[str]") -> str:
    """Return the address that a service prints; fail the test on any other output."""
    assert process.stdout
    match = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", process.stdout.readline())
    assert match, process.communicate(timeout=5)
    return match[1]


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[str]:
    """Run a service until the block ends; yield its address."""
    with start(*arguments, **environment) as process:
        try:
            yield address_of(process)
        finally:
            process.terminate()
            process.wait(timeout=5)


def connect(details: str = NOWHERE, reviews: str = NOWHERE, ratings: str = NOWHERE) -> list[str]:
    """Return the options with the addresses of the back ends; a missing one is down."""
    peers = {"details": details, "reviews": reviews, "ratings": ratings}
    return [part for name, address in peers.items() for part in ("--connect-to", f"{name}:9080={address}")]


def fetch(
    address: str,
    path: str,
    method: str = "GET",
    body: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own."""
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def http_answer(status: int, data: object) -> bytes:
    """Build a complete response for a `back_end`."""
    body = json.dumps(data).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _head(stream: BufferedIOBase) -> str:
    lines = []
    while (line := stream.readline()) not in {b"\r\n", b""}:
        lines.append(line)
    return b"".join(lines).decode().lower()


@contextmanager
def back_end(answer: Callable[[], bytes | None]) -> Iterator[BackEnd]:
    """Run a stand-in that returns `answer()` for each request, until the block ends."""
    found = BackEnd(answer)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            requests: list[str] = []
            found.connections.append(requests)
            while head := _head(self.rfile):
                requests.append(head)
                if (reply := found.answer()) is not None:
                    self.wfile.write(reply)
            found.closed_by_client.set()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield found
        finally:
            server.shutdown()
