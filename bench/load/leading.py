"""Lead connections of Locust's clients to the entry of the application, and refuse all others. Runs inside Locust.

A locustfile names the entry as on a cluster, whatever its clients are. Only the address of a connection is replaced,
where a name is resolved and where a socket connects: Host headers, cookies and SNI are those of the name. This holds
for all clients with Python's sockets, which Locust has replaced by gevent's: requests, FastHttpUser, httpx, plain
sockets. It does not hold for clients with sockets of their own, such as gRPC, libcurl and C libraries of databases.
"""

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent
from gevent import socket as gevent_socket

_MOST_REFUSED: Final = 50  # addresses that are counted separately
_OTHERS: Final = "others"


class OffTargetError(ConnectionRefusedError):
    """A client named another address than the entry's; no connection was made."""


class Leader:
    """Knows the entry's names (`host:port`) and where it is: `address`, which is one of its names, too."""

    def __init__(self, address: str, names: Iterable[str]) -> None:
        self.refused: Counter[str] = Counter()
        self._host, self._port = _split(address)
        self._names = {_split(name) for name in (*names, address)}
        self._entry = next(iter([*names]), address)
        self._resolved: set[tuple[str, int]] = set()  # addresses that the names were resolved to

    def resolve(self, resolve: Callable[..., Any], host: Any, port: Any, *options: Any, **more: Any) -> Any:
        """Call the resolver's `getaddrinfo`: for one of the names with the entry's address. Raises OffTargetError."""
        name, number = _normalise(host), _read_port(port)
        if number is None and self._is_entry_host(name):  # the port comes later, when a socket connects
            found = resolve(self._host, port, *options, **more)
            self._resolved.update((one[4][0], entry_port) for one in found for _, entry_port in self._names)
            return found
        if number is None or not name or _is_literal(name):
            return resolve(host, port, *options, **more)
        if (name, number) not in self._names:
            raise self._refuse(name, number)
        found = resolve(self._host, self._port, *options, **more)
        self._resolved.update((one[4][0], self._port) for one in found)
        return found

    def resolve_host(self, resolve: Callable[..., Any], host: Any) -> Any:
        """Call the resolver's `gethostbyname` or `gethostbyname_ex`."""
        if not self._is_entry_host(_normalise(host)):
            return resolve(host)
        found = resolve(self._host)
        hosts = [found] if isinstance(found, str) else found[2]
        self._resolved.update((one, port) for one in hosts for _, port in self._names)
        return found

    def lead(self, address: Any) -> Any:
        """Return the address to connect to instead; that of a local socket stays. Raises OffTargetError."""
        if not isinstance(address, tuple):
            return address
        name, number = _normalise(address[0]), _read_port(address[1])
        if (name, number) in self._resolved:
            return (address[0], self._port, *address[2:])
        if (name, number) in self._names:
            return (self._host, self._port)
        raise self._refuse(name, number)

    def _is_entry_host(self, name: str) -> bool:
        return any(name == host for host, _ in self._names) and not _is_literal(name)

    def _refuse(self, name: str, port: int | None) -> OffTargetError:
        where = f"{name}:{port}"
        self.refused[where if where in self.refused or len(self.refused) < _MOST_REFUSED else _OTHERS] += 1
        text = f"{where} is not the entry of the application, {self._entry}; meshbench makes no other connection"
        return OffTargetError(errno.ECONNREFUSED, text)


class _LeadingResolver:
    """gevent's resolver, by which all of its functions resolve names, with the leader's names."""

    def __init__(self, resolver: Any, leader: Leader) -> None:
        self._resolver, self._leader = resolver, leader

    def getaddrinfo(self, host: Any, port: Any, *options: Any, **more: Any) -> Any:
        return self._leader.resolve(self._resolver.getaddrinfo, host, port, *options, **more)

    def gethostbyname(self, host: Any) -> Any:
        return self._leader.resolve_host(self._resolver.gethostbyname, host)

    def gethostbyname_ex(self, host: Any) -> Any:
        return self._leader.resolve_host(self._resolver.gethostbyname_ex, host)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)


def lead_connections(leader: Leader) -> None:
    """Lead all connections of this process from now on."""
    hub = gevent.get_hub()
    hub.resolver = _LeadingResolver(hub.resolver, leader)
    kind: Any = gevent_socket.socket
    for name in ("connect", "connect_ex"):
        setattr(kind, name, _make_leading(getattr(kind, name), leader))


def _make_leading(connect: Callable[[Any, Any], Any], leader: Leader) -> Callable[[Any, Any], Any]:
    def connect_led(self: Any, address: Any) -> Any:
        return connect(self, leader.lead(address))

    return connect_led


def _split(name: str) -> tuple[str, int]:
    host, _, port = name.rpartition(":")
    return _normalise(host), int(port)


def _normalise(host: Any) -> str:
    text = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host or "")
    return text.strip("[]").rstrip(".").lower()


def _read_port(port: Any) -> int | None:
    """Return a port as a number, also of a service such as `http`; None where there is none."""
    text = port.decode("ascii", "replace") if isinstance(port, bytes) else port
    try:
        return int(text) or None
    except (TypeError, ValueError):
        pass
    try:
        return socket.getservbyname(text)
    except (OSError, TypeError):
        return None


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False
