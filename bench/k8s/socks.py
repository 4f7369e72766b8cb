"""Connect through a SOCKS5 proxy (RFC 1928, passwords of RFC 1929). The proxy resolves names, as for kubectl."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PORT: Final = 1080
_VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_PASSWORD: Final = 2
_LONGEST: Final = 255  # bytes of a name or password
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES: Final = {_IPV4: 4, _IPV6: 16}
_REPLIES: Final[Mapping[int, str]] = {
    1: "general failure",
    2: "connection not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
_FORBIDDEN: Final = 2


class SocksError(OSError):
    """The proxy did not connect. `permanent`: it would not do so later, either."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """A SOCKS5 proxy, with the user and password that it asks for; `url` has neither."""

    url: str
    host: str
    port: int
    credentials: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def connect(self, host: str, port: int, *, timeout_s: float | None) -> socket.socket:
        """Return a socket that is connected to a host through the proxy; each step may take `timeout_s`. Raises
        SocksError."""
        stream = self._connect_proxy(timeout_s)
        try:
            self._negotiate(stream)
            _request(stream, host, port)
        except SocksError as error:
            stream.close()
            raise SocksError(f"the proxy {self.url}: {error}", permanent=error.permanent) from None
        except OSError as error:
            stream.close()
            raise SocksError(f"the proxy {self.url}: {error.strerror or error}") from None
        except BaseException:
            stream.close()
            raise
        return stream

    def _connect_proxy(self, timeout_s: float | None) -> socket.socket:
        try:
            return socket.create_connection((self.host, self.port), timeout=timeout_s)
        except OSError as error:
            raise SocksError(f"the proxy {self.url}: {error.strerror or error}") from None

    def _negotiate(self, stream: socket.socket) -> None:
        methods = (_NO_AUTHENTICATION, _PASSWORD) if self.credentials else (_NO_AUTHENTICATION,)
        stream.sendall(bytes([_VERSION, len(methods), *methods]))
        version, method = _read(stream, 2)
        if version != _VERSION:
            raise SocksError("is no SOCKS5 proxy", permanent=True)
        if method == _PASSWORD and self.credentials:
            name, password = self.credentials
            stream.sendall(bytes([1, len(name)]) + name + bytes([len(password)]) + password)
            if _read(stream, 2)[1] != 0:
                raise SocksError("does not accept the user and password of its URL", permanent=True)
        elif method != _NO_AUTHENTICATION:
            raise SocksError("needs a user and password in its URL", permanent=True)


def _request(stream: socket.socket, host: str, port: int) -> None:
    stream.sendall(bytes([_VERSION, 1, 0]) + _encode_address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = _read(stream, 4)
    if version != _VERSION or (not reply and kind not in (_IPV4, _NAME, _IPV6)):
        raise SocksError("is no SOCKS5 proxy", permanent=True)
    if reply:
        why = _REPLIES.get(reply, f"failure {reply}")
        raise SocksError(f"cannot connect to {host}:{port}: {why}", permanent=reply == _FORBIDDEN)
    _read(stream, (_SIZES.get(kind) or _read(stream, 1)[0]) + 2)  # the address from which it connects


def _encode_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        name = host.encode("idna")
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _read(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise SocksError("closed the connection")
        data += part
    return data


def is_sendable(text: str) -> bool:
    """Return whether a name or password fits into a SOCKS request."""
    return 0 < len(text.encode()) <= _LONGEST
