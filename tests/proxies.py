"""Proxies on loopback, as companies and bastions have them: HTTP with CONNECT, with TLS, and SOCKS5. All of them lead
to one port, whatever name they are asked for: names that only the proxy knows."""

import base64
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

USER, PASSWORD = "jane", "s3cret/of:jane"


@dataclass
class Seen:
    """The hosts that a proxy was asked for, and how many connections it refused."""

    hosts: list[str] = field(default_factory=list)
    refused: int = 0


@contextmanager
def serve_proxy(
    kind: str, target: int, *, password: bool = False, tls: ssl.SSLContext | None = None, status: int = 0
) -> Iterator[tuple[str, Seen]]:
    """Serve a proxy of the kind `http` or `socks5` to a port of 127.0.0.1; yield its address and what it saw.
    `password`: it asks for USER and PASSWORD. `status`: it refuses with this HTTP status, or SOCKS reply."""
    seen = Seen()
    negotiate = _connect_http if kind == "http" else _connect_socks

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), tls.wrap_socket(self.request, server_side=True) if tls else self.request as stream:
                if negotiate(stream, seen, password=password, status=status):
                    with socket.create_connection(("127.0.0.1", target)) as other:
                        _relay(stream, other)

    class Server(ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def _connect_http(stream: Any, seen: Seen, *, password: bool, status: int) -> bool:
    head = b""
    while b"\r\n\r\n" not in head:
        data = stream.recv(1024)
        if not data:
            return False
        head += data
        if not head[:1].isalpha():
            stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    seen.hosts.append(lines[0].split()[1])
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if password and headers.get("proxy-authorization") != expected:
        status = 407
    if status:
        seen.refused += 1
        stream.sendall(f"HTTP/1.1 {status} No Way\r\nContent-Length: 0\r\n\r\n".encode())
        return False
    stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    return True


def _connect_socks(stream: Any, seen: Seen, *, password: bool, status: int) -> bool:
    _, count = _read(stream, 2)
    methods, wanted = _read(stream, count), 2 if password else 0
    stream.sendall(bytes([5, wanted if wanted in methods else 0xFF]))
    if wanted not in methods:
        seen.refused += 1
        return False
    if password:
        name = _read(stream, _read(stream, 2)[1]).decode()
        given = _read(stream, _read(stream, 1)[0]).decode()
        stream.sendall(bytes([1, (name, given) != (USER, PASSWORD)]))
        if (name, given) != (USER, PASSWORD):
            seen.refused += 1
            return False
    kind = _read(stream, 4)[3]
    host = _read(stream, _read(stream, 1)[0]).decode() if kind == 3 else socket.inet_ntoa(_read(stream, 4))
    (port,) = struct.unpack(">H", _read(stream, 2))
    seen.hosts.append(f"{host}:{port}")
    seen.refused += bool(status)
    stream.sendall(bytes([5, status, 0, 3, 4]) + b"name" + b"\0\1")  # any address, here a name
    return not status


def _read(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def _relay(one: Any, other: Any) -> None:
    """Copy both ways until one side has ended."""

    def copy(source: Any, sink: Any) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for stream in (source, sink):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=copy, args=(other, one), daemon=True)
    thread.start()
    copy(one, other)
    thread.join()
