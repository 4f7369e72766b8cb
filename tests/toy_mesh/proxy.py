"""The toy mesh's proxy: passes HTTP requests on to one upstream for each port, and counts them.

It serves its counts at `/counts` and its configuration at `/configuration`, by HTTP on a Unix socket.
"""

import http.client
import json
import socketserver
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NOT_PASSED_ON = ("connection", "date", "keep-alive", "server", "transfer-encoding")

counted: Counter[str] = Counter()
counting = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers with status, headers and body."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Proxy(Handler):
    name: str
    upstream: int

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        with counting:
            counted[self.name] += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            received = answer.read()
        except (OSError, http.client.HTTPException):
            self.send(503, [("Server", "toy-proxy")], b"")
            return
        finally:
            connection.close()
        kept = [one for one in answer.getheaders() if one[0].lower() not in (*NOT_PASSED_ON, "content-length")]
        self.send(answer.status, [*kept, ("Server", "toy-proxy"), ("X-Toy-Upstream", "yes")], received)

    do_GET = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815 - the library's names


class Admin(Handler):
    configuration: str

    def do_GET(self) -> None:
        with counting:
            pages = {"/counts": json.dumps(counted), "/configuration": self.configuration}
        page = pages.get(self.path)
        self.send(200 if page else 404, [], (page or "").encode())


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def main(file: Path) -> None:
    """Serve all listeners of the configuration until the process ends."""
    configuration: dict[str, Any] = json.loads(text := file.read_text("utf-8"))
    servers: list[socketserver.BaseServer] = [
        Server(
            ("127.0.0.1", one["port"]), type("Listener", (Proxy,), {"name": one["name"], "upstream": one["upstream"]})
        )
        for one in configuration["listeners"]
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    UnixServer(configuration["admin"], type("Page", (Admin,), {"configuration": text})).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
