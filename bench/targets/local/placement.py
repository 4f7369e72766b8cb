"""Who listens where in one deployment: every address on loopback, and who connects to which."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from bench.meshes.application import Application
from bench.targets.local.ports import HOST, free_ports

# How a sidecar takes what its workload sends: not at all (there is none), all at one port and told apart by the
# Host header, or each destination at a port of its own, as a cluster tells them apart by address.
WaysOut = Literal["none", "shared", "apart"]


@dataclass(frozen=True, slots=True)
class Placement:
    """The ports of one deployment. `inbound` and `outbound` are those of sidecars; empty without a mesh.

    `outbound` is by caller and the Service that it calls; the ports are equal where it has one way out.
    """

    application: Application
    serving: Mapping[str, int]
    inbound: Mapping[str, int]
    outbound: Mapping[tuple[str, str], int]

    @property
    def meshed(self) -> bool:
        return bool(self.outbound)

    def reached_by(self, caller: str, callee: str) -> int:
        """The port to which `caller` connects for `callee`: its own sidecar's, or the service itself."""
        return self.outbound[caller, callee] if self.meshed else self.serving[callee]

    def connect_to(self, caller: str) -> tuple[str, ...]:
        """The settings that lead a service's calls to its sidecar, or straight to the other services."""
        called = [callee for known, callee in self.application.calls if known == caller]
        return tuple(f"{self.host_of(callee)}={HOST}:{self.reached_by(caller, callee)}" for callee in called)

    def host_of(self, workload: str) -> str:
        """The Host header for a workload: its own name and port, `reviews:9080`."""
        port = next(service.port for service in self.application.services if service.name == workload)
        return f"{workload}:{port}"


def place(application: Application, *, ways_out: WaysOut) -> Placement:
    """Free ports for everyone."""
    serving = [workload.name for workload in application.workloads]
    inbound = {name: f"{name}/inbound" for name in serving if ways_out != "none"}
    outbound = _outbound(application, ways_out)
    ports = free_ports([*serving, *inbound.values(), *dict.fromkeys(outbound.values())])
    return Placement(
        application,
        serving={name: ports[name] for name in serving},
        inbound={name: ports[label] for name, label in inbound.items()},
        outbound={way: ports[label] for way, label in outbound.items()},
    )


def _outbound(application: Application, ways_out: WaysOut) -> dict[tuple[str, str], str]:
    """A label for the port of every way out."""
    if ways_out == "none":
        return {}
    callers = [workload.name for workload in application.everyone]
    ways = product(callers, [service.name for service in application.services])
    return {
        (caller, service): f"{caller}/outbound/{service if ways_out == 'apart' else 'all'}" for caller, service in ways
    }
