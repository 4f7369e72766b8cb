"""Serve a pod's port on this machine."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread

import aiohttp
from kubernetes.stream.ws_client import V4_CHANNEL_PROTOCOL

from bench.errors import ClusterError, RefusedError
from bench.k8s.connection import Connection, Request
from bench.k8s.websocket import CHUNK, open_stream

_DATA = 0  # the channel of a forwarded port; its errors come on channel 1
_LINGER_S = 2.0


@contextmanager
def forward_port(connection: Connection, request: Request, *, local_port: int) -> Iterator[int]:
    """Serve a pod's port on 127.0.0.1 from a thread of its own; yields the port. Each connection has its own stream to
    the pod, so that a stream which breaks affects no other. `local_port` 0 picks a free one."""
    started: Future[tuple[int, Callable[[], object]]] = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(connection, request, local_port, started)), daemon=True)
    thread.start()
    try:
        port, stop = started.result()
        try:
            yield port
        finally:
            stop()
    finally:
        thread.join()


async def _serve(
    connection: Connection, request: Request, local_port: int, started: "Future[tuple[int, Callable[[], object]]]"
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    relays: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = loop.create_task(_relay(connection, request, reader, writer))
        relays[relay] = writer
        relay.add_done_callback(relays.pop)

    try:
        server = await asyncio.start_server(accept, "127.0.0.1", local_port)
    except OSError as error:
        started.set_exception(RefusedError(f"{request.what}: port {local_port} of this machine: {error.strerror}"))
        return
    started.set_result((server.sockets[0].getsockname()[1], partial(loop.call_soon_threadsafe, ended.set)))
    await ended.wait()
    server.close()
    for relay, writer in relays.items():
        relay.cancel()
        writer.transport.abort()  # the other side may have stopped reading; nothing waits for it
    await asyncio.gather(*relays, return_exceptions=True)
    await server.wait_closed()


async def _relay(
    connection: Connection, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # The client gets a closed connection, as from any server that ended.
    with suppress(ClusterError, OSError, aiohttp.ClientError):
        try:
            async with open_stream(connection, request, (V4_CHANNEL_PROTOCOL,)) as stream:
                await _relay_both_directions(stream, reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()


async def _relay_both_directions(
    stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    up = asyncio.create_task(_to_pod(stream, reader))
    down = asyncio.create_task(_from_pod(stream, writer))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done():  # it has sent everything, and may still wait for the answer
            await asyncio.wait((down,), timeout=_LINGER_S)
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _to_pod(stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK):
        await stream.send_bytes(bytes([_DATA]) + data)


async def _from_pod(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """Write what the pod sends. The first frame of each channel only repeats the port; a frame on the error channel
    ends it."""
    opened: set[int] = set()
    async for message in stream:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel = message.data[0]
        if channel not in opened:
            opened.add(channel)
        elif channel == _DATA:
            writer.write(message.data[1:])
            await writer.drain()
        else:
            return
