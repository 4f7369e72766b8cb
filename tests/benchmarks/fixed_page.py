"""An HTTP server that responds to every request with the same page at once, and counts: the steadiest target of a
load."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class FixedPage:
    """Where the page is, and how many requests it has received."""

    address: str
    answer: bytes
    count: int = 0


class _Answering(asyncio.Protocol):
    """One connection. A request without a body arrives whole on loopback; its empty line ends it."""

    def __init__(self, page: FixedPage) -> None:
        self.page = page

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        requests = data.count(b"\r\n\r\n")
        self.transport.write(self.page.answer * requests)
        self.page.count += requests


@contextmanager
def fixed_page(body: bytes) -> Iterator[FixedPage]:
    """Serve `body` on loopback, from a separate thread, until the block ends."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    page = FixedPage("", head.encode() + body)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = loop.run_until_complete(loop.create_server(lambda: _Answering(page), "127.0.0.1", 0))
        host, port = server.sockets[0].getsockname()
        page.address = f"{host}:{port}"
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield page
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
