"""Choose the addresses of one deployment on loopback: free ports, listeners, and the ports that callers connect to."""

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

# How a sidecar receives the requests of its workload: `none` without a sidecar, `shared` at one port for all, routed by
# the Host header, or `separate` with a port for each destination, as a cluster separates them by address.
OutboundCapture = Literal["none", "shared", "separate"]

HOST = "127.0.0.1"
_LOWEST = 10_000
_MIN_RANGE = 1_000
_TRIES = 2_000


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a free port for each name; all are bound at the same time, then released. Raises DeployError.

    They are below the kernel's range for outgoing connections if enough ports are left there: an application may open
    hundreds of connections a second, and one could take a port before the server binds it.
    """
    draw, end = random.SystemRandom(), _find_range_end()
    with ExitStack() as sockets:
        ports: list[int] = []
        for _ in range(_TRIES):
            if len(ports) == len(names):
                return dict(zip(names, ports, strict=True))
            port = draw.randrange(_LOWEST, end)
            if _bind(port, sockets):
                ports.append(port)
    raise DeployError(f"no {len(names)} free ports between {_LOWEST} and {end} on {HOST}")


def is_taken(port: int) -> bool:
    """Return whether a process has a port. A server may have it whose last connections have only just ended."""
    with ExitStack() as sockets:
        return not _bind(port, sockets, again=True)


def _bind(port: int, sockets: ExitStack, *, again: bool = False) -> bool:
    try:
        bound = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
        bound.bind((HOST, port))
    except OSError:
        return False
    return True


def _find_range_end() -> int:
    """Return the end of the range to try: the start of the kernel's range, or of all ports if that is too low."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return first_ephemeral if first_ephemeral >= _LOWEST + _MIN_RANGE else 65_536


@dataclass(frozen=True, slots=True)
class Placement:
    """The ports of one deployment. `inbound` and `outbound` are those of sidecars; empty without a mesh.

    `outbound` is by caller and the Service that it calls; a caller with one outbound listener has equal ports.
    `gateway` is the port at which the gateway accepts the load; 0 without a gateway.
    """

    application: Application
    serving: Mapping[str, int]
    inbound: Mapping[str, int]
    outbound: Mapping[tuple[str, str], int]
    gateway: int = 0

    @property
    def meshed(self) -> bool:
        return bool(self.outbound)

    @property
    def ports(self) -> frozenset[int]:
        """Every port that a process of the deployment listens on."""
        entry = [self.gateway] if self.gateway else []
        return frozenset([*self.serving.values(), *self.inbound.values(), *self.outbound.values(), *entry])

    def reached_by(self, caller: str, callee: str) -> int:
        """Return the port to which `caller` connects for `callee`: that of its own sidecar, or of the service itself.

        A gateway's own calls begin at the gateway, unless it has a sidecar as well.
        """
        if GATEWAY in (caller, callee) and (caller, callee) not in self.outbound:
            return self.gateway
        return self.outbound[caller, callee] if self.meshed else self.serving[callee]

    def connect_to(self, caller: str) -> tuple[str, ...]:
        """Return the settings that send a service's calls to its sidecar, or directly to the other services."""
        application = self.application
        names = [callee for known, callee in application.calls if known == caller]
        if not application.knows_calls:  # any other
            names = [workload.name for workload in application.workloads if workload.name != caller]
        called = dict.fromkeys(application.workload(name).app for name in names)
        return tuple(f"{self.host_of(app)}={HOST}:{self.reached_by(caller, app)}" for app in called)

    def host_of(self, workload: str) -> str:
        """Return the Host header for a workload: its own name and port, `api:9080`."""
        service = self.application.service(workload)
        return f"{service.name}:{service.port}"


def assign_ports(
    application: Application,
    *,
    capture: OutboundCapture,
    choose_ports: Callable[[Sequence[str]], dict[str, int]] = free_ports,
) -> Placement:
    """Choose a port for each listener of the application and its sidecars."""
    serving = [workload.name for workload in application.workloads]
    inbound = {name: f"{name}/inbound" for name in serving if capture != "none"}
    outbound = _label_outbound(application, capture)
    entry = [GATEWAY] if application.gateway else []
    ports = choose_ports([*serving, *inbound.values(), *dict.fromkeys(outbound.values()), *entry])
    return Placement(
        application,
        serving={name: ports[name] for name in serving},
        inbound={name: ports[label] for name, label in inbound.items()},
        outbound={call: ports[label] for call, label in outbound.items()},
        gateway=ports.get(GATEWAY, 0),
    )


def _label_outbound(application: Application, capture: OutboundCapture) -> dict[tuple[str, str], str]:
    """Return a label for the port of each caller and Service."""
    if capture == "none":
        return {}
    callers = [workload.name for workload in application.with_sidecar]
    calls = product(callers, [service.name for service in application.services])
    return {
        (caller, service): f"{caller}/outbound/{service if capture == 'separate' else 'all'}"
        for caller, service in calls
    }
