"""Web sockets through the API server: a command in a container, and a pod's port on this machine.

asyncio serves both directions of a stream at once, which a blocking socket cannot do without the risk that both
sides wait for each other to read.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Thread
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from bench.errors import ClusterError, RefusedError
from bench.targets.kubernetes.client_connection import Answer, Connection, Request, failure, said
from bench.targets.kubernetes.client_credentials import Credentials

# Version 5 can close stdin, which every server since Kubernetes 1.30 has.
_V5 = "v5.channel.k8s.io"
_V4 = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _ERROR = range(4)
_CLOSE = 255
_CLOSED = -1  # as the number of a socket
_LOOK_S = 0.002
_DATA = 0  # of a forwarded port; its errors come on channel 1
_CHUNK = 32 * 1024
_CONNECT_TIMEOUT_S = 10.0
_UNAUTHORIZED = 401
_INTERNAL_ERROR = 500
_NO_UPGRADE = "Upgrade request required"
_PAUSE_S = 0.25
_LINGER_S = 2.0
_END_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Ran:
    """A command that ended in a container."""

    exit_code: int
    stdout: bytes
    stderr: str


@dataclass(slots=True)
class _Output:
    channels: dict[int, bytearray] = field(default_factory=lambda: {one: bytearray() for one in range(4)})

    def take(self, frame: bytes) -> None:
        if frame and frame[0] in self.channels:
            self.channels[frame[0]] += frame[1:]


def run_command(connection: Connection, request: Request, *, stdin: bytes, timeout_s: float) -> Ran:
    """Runs a command in a container to its end. Raises ClusterError if it cannot be started or does not end."""
    try:
        output = asyncio.run(_run(connection, request, stdin, timeout_s))
    except TimeoutError as error:
        raise ClusterError(f"{request.what}: it has not ended after {timeout_s:g} s", status=0) from error
    return Ran(
        exit_code=exit_code(request.what, bytes(output[_ERROR])),
        stdout=bytes(output[_STDOUT]),
        stderr=output[_STDERR].decode("utf-8", "replace"),
    )


async def _run(connection: Connection, request: Request, stdin: bytes, timeout_s: float) -> dict[int, bytearray]:
    output = _Output()
    protocols = (_V5,) if stdin else (_V5, _V4)
    async with asyncio.timeout(timeout_s), _stream(connection, request, protocols) as stream:
        if stdin and stream.protocol != _V5:
            raise ClusterError(f"{request.what}: to end its input takes Kubernetes 1.30 or newer", status=0)
        writing = asyncio.create_task(_write(stream, stdin))
        try:
            async for message in stream:
                if message.type is aiohttp.WSMsgType.BINARY:
                    output.take(message.data)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    return output.channels


async def _write(stream: aiohttp.ClientWebSocketResponse, stdin: bytes) -> None:
    """It may end early with an error when the command has ended, whose output then has told enough."""
    if not stdin:
        return
    for start in range(0, len(stdin), _CHUNK):
        await stream.send_bytes(bytes([_STDIN]) + stdin[start : start + _CHUNK])
        await asyncio.sleep(0)  # sending alone does not let the loop see that the connection has gone
    await stream.send_bytes(bytes([_CLOSE, _STDIN]))


def exit_code(what: str, status: bytes) -> int:
    """From the Status that ends a command's stream; a stream without one was cut, and its output is not whole."""
    if not status:
        raise ClusterError(f"{what}: the connection broke before the command had ended", status=0)
    parsed = json.loads(status)
    if parsed.get("status") == "Success":
        return 0
    for cause in parsed.get("details", {}).get("causes", ()):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise ClusterError(f"{what}: {said(status)}", status=parsed.get("code", _INTERNAL_ERROR))


class _Opened:
    """One connection to the API server, for one stream. It ends at once, whatever is still to be written: a polite
    end waits for a server that may have stopped reading, and outlives the loop that would close it."""

    def __init__(self, tls: ssl.SSLContext | bool) -> None:
        self.stream: aiohttp.ClientWebSocketResponse | None = None
        self._tcp: list[socket.socket] = []
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, socket_factory=self._make))

    def _make(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._tcp.append(made)
        return made

    async def end(self) -> None:
        if self.stream is not None:
            self.stream._response.close()  # noqa: SLF001  # its own close() writes first, and may leave this one open
        for one in self._tcp:
            with suppress(OSError):  # it has gone, or never came
                one.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self.session.close()
                while any(one.fileno() != _CLOSED for one in self._tcp):
                    await asyncio.sleep(_LOOK_S)


@asynccontextmanager
async def _stream(
    connection: Connection, request: Request, protocols: Sequence[str]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    opened, stream = await _open(connection, request, protocols)
    try:
        yield stream
    finally:
        await opened.end()


async def _open(
    connection: Connection, request: Request, protocols: Sequence[str]
) -> tuple[_Opened, aiohttp.ClientWebSocketResponse]:
    """Within the connection's patience, as long as the server cannot have begun with what must not be done twice."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + connection.patience_s
    renewed = False
    while True:
        used = connection.credentials
        try:
            return await _connect(used, request, protocols)
        except aiohttp.WSServerHandshakeError as error:
            if error.status != _UNAUTHORIZED or renewed:
                raise await asyncio.to_thread(_refusal, connection, request, error) from error
            await asyncio.to_thread(connection.renew, used)
            renewed = True
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            begun = not isinstance(error, aiohttp.ClientConnectorError)
            if clock() > deadline or (begun and not request.idempotent):
                answer = Answer(0, (str(error) or "no answer in time").encode())
                raise failure(request.what, used.server, answer) from error
            await asyncio.sleep(_PAUSE_S)


async def _connect(
    credentials: Credentials, request: Request, protocols: Sequence[str]
) -> tuple[_Opened, aiohttp.ClientWebSocketResponse]:
    opened = _Opened(credentials.tls())
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            stream = opened.stream = await opened.session.ws_connect(
                URL(f"{credentials.server}{request.path}?{urlencode(request.query)}", encoded=True),
                headers=credentials.headers,
                protocols=protocols,
                max_msg_size=0,
                autoclose=False,
                proxy=credentials.proxy,
                server_hostname=credentials.server_name,
            )
    except BaseException:
        await opened.end()
        raise
    return opened, stream


def _refusal(connection: Connection, request: Request, error: aiohttp.WSServerHandshakeError) -> ClusterError:
    """A refused handshake has no text; the same question without an upgrade is answered with one."""
    try:
        connection.send(replace(request, patience_s=0))
    except ClusterError as plain:
        if plain.status != 0 and _NO_UPGRADE not in str(plain):
            return plain
    return failure(request.what, connection.credentials.server, Answer(error.status, error.message.encode()))


@contextmanager
def forwarded(connection: Connection, request: Request, *, local_port: int) -> Iterator[int]:
    """Serves a pod's port on 127.0.0.1 from a thread of its own; each connection has its own stream to the pod, so
    that a stream which breaks takes nothing else with it. `local_port` 0 picks a free one."""
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
    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = loop.create_task(_relay(connection, request, reader, writer))
        relays.add(relay)
        relay.add_done_callback(relays.discard)

    try:
        server = await asyncio.start_server(accept, "127.0.0.1", local_port)
    except OSError as error:
        started.set_exception(RefusedError(f"{request.what}: port {local_port} of this machine: {error.strerror}"))
        return
    started.set_result((server.sockets[0].getsockname()[1], partial(loop.call_soon_threadsafe, ended.set)))
    await ended.wait()
    server.close()
    for relay in relays:
        relay.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
    await server.wait_closed()


async def _relay(
    connection: Connection, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # Whoever connected sees a closed connection, as with any server that has gone.
    with suppress(ClusterError, OSError, aiohttp.ClientError):
        try:
            async with _stream(connection, request, (_V4,)) as stream:
                await _both_ways(stream, reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()


async def _both_ways(
    stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    up = asyncio.create_task(_to_pod(stream, reader))
    down = asyncio.create_task(_from_pod(stream, writer))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done():  # it has said all it wants to say, and may still wait for the answer
            await asyncio.wait((down,), timeout=_LINGER_S)
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _to_pod(stream: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await stream.send_bytes(bytes([_DATA]) + data)


async def _from_pod(stream: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """The first frame of each channel only repeats the port; what comes on the channel for errors ends it."""
    seen: set[int] = set()
    async for message in stream:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel = message.data[0]
        if channel not in seen:
            seen.add(channel)
        elif channel == _DATA:
            writer.write(message.data[1:])
            await writer.drain()
        else:
            return
