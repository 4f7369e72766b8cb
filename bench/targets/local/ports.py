"""Free ports on loopback for the processes of one deployment."""

import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.errors import DeployError

HOST = "127.0.0.1"
_LOWEST = 10_000
_ROOM = 1_000
_TRIES = 2_000


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A free port for each name: all are bound at once, then given back.

    They lie below the range from which the kernel takes the ports of outgoing connections, if that leaves room:
    Bookinfo opens hundreds of those in a second, and one could take a port between our look and the server's bind.
    """
    draw, end = random.SystemRandom(), _end()
    with ExitStack() as sockets:
        ports: list[int] = []
        for _ in range(_TRIES):
            if len(ports) == len(names):
                return dict(zip(names, ports, strict=True))
            port = draw.randrange(_LOWEST, end)
            if _bind(port, sockets):
                ports.append(port)
    raise DeployError(f"no {len(names)} free ports between {_LOWEST} and {end} on {HOST}")


def _bind(port: int, sockets: ExitStack) -> bool:
    try:
        held = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        held.bind((HOST, port))
    except OSError:
        return False
    return True


def _end() -> int:
    """Where the kernel's own range begins; all ports may be tried where it begins too early."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return first_ephemeral if first_ephemeral >= _LOWEST + _ROOM else 65_536
