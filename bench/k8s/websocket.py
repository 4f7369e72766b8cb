"""WebSockets through the API server, each for one stream.

asyncio serves both directions of a stream at once, which a blocking socket cannot do without the risk that both sides
wait for each other to read.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from bench.errors import ClusterError, ErrorKind
from bench.k8s.connection import (
    Connection,
    Request,
    kind_of_proxy_refusal,
    make_refusal,
    make_unanswered,
    make_unsendable_error,
)
from bench.k8s.credentials import Credentials
from bench.k8s.retry import may_repeat, retry_async
from bench.k8s.socks import SocksError, SocksProxy
from bench.system.redaction import one_line

CHUNK = 32 * 1024
"""Bytes in one message to the server."""
_MOST_BYTES = 16 * 1024 * 1024  # in one message from the server, which normally has no more than ours
_CLOSED = -1  # as the number of a socket
_LOOK_S = 0.002
_CONNECT_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 1.0


class _SocksConnector(aiohttp.BaseConnector):
    """Connects through a SOCKS proxy, which aiohttp itself does not; adds each socket to `opened`."""

    def __init__(self, proxy: SocksProxy, tls: ssl.SSLContext | None, opened: list[socket.socket]) -> None:
        super().__init__()
        self._proxy, self._tls, self._opened = proxy, tls, opened

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ARG002  # aiohttp's signature
        host, port = str(req.url.host), int(req.url.port)
        tcp = await asyncio.to_thread(self._proxy.connect, host, port, timeout_s=_CONNECT_TIMEOUT_S)
        self._opened.append(tcp)
        tcp.setblocking(False)
        name = (req.server_hostname or host) if self._tls else None
        try:
            _, protocol = await self._loop.create_connection(
                self._factory, sock=tcp, ssl=self._tls, server_hostname=name
            )
        except ssl.SSLCertVerificationError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol


class _StreamConnection:
    """One connection to the API server, for one stream. It ends at once, whatever is still to be written: a clean close
    would wait for a server that may have stopped reading, and outlive the event loop."""

    def __init__(self, credentials: Credentials) -> None:
        self.stream: aiohttp.ClientWebSocketResponse | None = None
        self._tcp: list[socket.socket] = []
        proxy = credentials.proxy
        if proxy is not None and proxy.socks is not None:
            connector: aiohttp.BaseConnector = _SocksConnector(proxy.socks, credentials.tls, self._tcp)
        else:
            connector = aiohttp.TCPConnector(ssl=credentials.tls or True, socket_factory=self._make)
        self.session = aiohttp.ClientSession(connector=connector)

    def _make(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._tcp.append(made)
        return made

    async def end(self) -> None:
        if self.stream is not None:
            self.stream._response.close()  # noqa: SLF001  # its own close() writes first, and may leave this one open
        for one in self._tcp:
            with suppress(OSError):  # it is closed, or was never connected
                one.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self.session.close()
                while any(one.fileno() != _CLOSED for one in self._tcp):
                    await asyncio.sleep(_LOOK_S)


def is_too_large(message: aiohttp.WSMessage) -> bool:
    """Return whether this stands for a message that was larger than our limit, which ends the stream."""
    error = message.data if message.type is aiohttp.WSMsgType.ERROR else None
    return isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


@asynccontextmanager
async def open_stream(
    connection: Connection, request: Request, protocols: Sequence[str]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a WebSocket that speaks one of these protocols; nothing of it is left after the block. Raises
    ClusterError."""
    opened, stream = await retry_async(
        lambda: _open(connection, request, protocols),
        connection.policy,
        may_retry=partial(may_repeat, idempotent=request.idempotent),
    )
    try:
        yield stream
    finally:
        await opened.end()


async def _open(
    connection: Connection, request: Request, protocols: Sequence[str], *, renewed: bool = False
) -> tuple[_StreamConnection, aiohttp.ClientWebSocketResponse]:
    """Connect, once more where the credentials had to be renewed."""
    used = connection.credentials
    try:
        return await _connect(used, request, protocols)
    except aiohttp.WSServerHandshakeError as error:
        if error.status != HTTPStatus.UNAUTHORIZED or renewed:
            raise await asyncio.to_thread(_explain_refusal, connection, request, error) from error
    except aiohttp.ClientHttpProxyError as error:
        why = f"the proxy answered {error.status} {one_line(error.message)}"
        raise make_unanswered(request.what, used.server, why, kind=kind_of_proxy_refusal(error.status)) from None
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        raise make_unanswered(request.what, used.server, why, kind=kind_of_failure(error)) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise make_unsendable_error(request.what, error) from None
    await asyncio.to_thread(connection.renew, used)
    return await _open(connection, request, protocols, renewed=True)


def kind_of_failure(error: aiohttp.ClientConnectionError | TimeoutError) -> ErrorKind:
    """Return the kind of an exception in place of a stream."""
    if isinstance(refused := error.__cause__, SocksError):
        return ErrorKind.REJECTED if refused.permanent else ErrorKind.UNREACHABLE
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ErrorKind.CERTIFICATE
    if isinstance(error, aiohttp.ClientConnectorError):
        return ErrorKind.UNREACHABLE
    return ErrorKind.TIMEOUT if isinstance(error, TimeoutError) else ErrorKind.INTERRUPTED


async def _connect(
    credentials: Credentials, request: Request, protocols: Sequence[str]
) -> tuple[_StreamConnection, aiohttp.ClientWebSocketResponse]:
    opened, proxy = _StreamConnection(credentials), credentials.proxy
    via = None if proxy is None or proxy.socks else proxy
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            stream = opened.stream = await opened.session.ws_connect(
                URL(f"{credentials.server}{request.path}?{urlencode(request.query)}", encoded=True),
                headers=credentials.headers,
                protocols=protocols,
                max_msg_size=_MOST_BYTES,
                autoclose=False,
                proxy=via.url if via else None,
                proxy_headers=(via.headers or None) if via else None,
                server_hostname=credentials.server_name,
            )
    except BaseException:
        await opened.end()
        raise
    return opened, stream


def _explain_refusal(connection: Connection, request: Request, error: aiohttp.WSServerHandshakeError) -> ClusterError:
    """Make the error for a refused handshake. It has no text; the same request without an upgrade is answered with
    one."""
    try:
        connection.send(replace(request, retried=False))
    except ClusterError as plain:
        if not plain.kind.is_unanswered and plain.kind is not ErrorKind.UNSUPPORTED:
            return plain
    return make_refusal(request.what, connection.credentials.server, error.status, error.message.encode())
