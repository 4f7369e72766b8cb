"""Choose the addresses of one deployment on loopback: free ports, who listens where, who connects to which."""

import random
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from bench.application.model import GATEWAY, Application
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


# How a sidecar takes what its workload sends: not at all (there is none), all at one port and told apart by the
# Host header, or each destination at a port of its own, as a cluster tells them apart by address.
WaysOut = Literal["none", "shared", "apart"]


@dataclass(frozen=True, slots=True)
class Placement:
    """The ports of one deployment. `inbound` and `outbound` are those of sidecars; empty without a mesh.

    `outbound` is by caller and the Service that it calls; the ports are equal where it has one way out. `gateway` is
    the port at which the gateway is open to the load; 0 without a gateway.
    """

    application: Application
    serving: Mapping[str, int]
    inbound: Mapping[str, int]
    outbound: Mapping[tuple[str, str], int]
    gateway: int = 0

    @property
    def meshed(self) -> bool:
        return bool(self.outbound)

    def reached_by(self, caller: str, callee: str) -> int:
        """The port to which `caller` connects for `callee`: its own sidecar's, or the service itself. A gateway's own
        calls begin at the gateway, unless it has a sidecar, too."""
        if GATEWAY in (caller, callee) and (caller, callee) not in self.outbound:
            return self.gateway
        return self.outbound[caller, callee] if self.meshed else self.serving[callee]

    def connect_to(self, caller: str) -> tuple[str, ...]:
        """The settings that lead a service's calls to its sidecar, or straight to the other services."""
        names = [callee for known, callee in self.application.calls if known == caller]
        called = dict.fromkeys(self.application.workload(name).app for name in names)
        return tuple(f"{self.host_of(app)}={HOST}:{self.reached_by(caller, app)}" for app in called)

    def host_of(self, workload: str) -> str:
        """The Host header for a workload: its own name and port, `reviews:9080`."""
        service = self.application.service(workload)
        return f"{service.name}:{service.port}"


def place(
    application: Application, *, ways_out: WaysOut, choose_ports: Callable[[Sequence[str]], dict[str, int]] = free_ports
) -> Placement:
    """Choose a port for each listener of the application and its sidecars."""
    serving = [workload.name for workload in application.workloads]
    inbound = {name: f"{name}/inbound" for name in serving if ways_out != "none"}
    outbound = _outbound(application, ways_out)
    entry = [GATEWAY] if application.gateway else []
    ports = choose_ports([*serving, *inbound.values(), *dict.fromkeys(outbound.values()), *entry])
    return Placement(
        application,
        serving={name: ports[name] for name in serving},
        inbound={name: ports[label] for name, label in inbound.items()},
        outbound={way: ports[label] for way, label in outbound.items()},
        gateway=ports.get(GATEWAY, 0),
    )


def _outbound(application: Application, ways_out: WaysOut) -> dict[tuple[str, str], str]:
    """A label for the port of every way out."""
    if ways_out == "none":
        return {}
    callers = [workload.name for workload in application.with_sidecar]
    ways = product(callers, [service.name for service in application.services])
    return {
        (caller, service): f"{caller}/outbound/{service if ways_out == 'apart' else 'all'}" for caller, service in ways
    }
