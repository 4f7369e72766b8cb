"""Who listens where in one deployment: every address on loopback, and who connects to which."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.meshes.application import Application
from bench.targets.local.ports import HOST, free_ports


@dataclass(frozen=True, slots=True)
class Placement:
    """The ports of one deployment. `inbound` and `outbound` are those of sidecars; empty without a mesh."""

    application: Application
    serving: Mapping[str, int]
    inbound: Mapping[str, int]
    outbound: Mapping[str, int]

    @property
    def meshed(self) -> bool:
        return bool(self.outbound)

    def reached_by(self, caller: str, callee: str) -> int:
        """The port to which `caller` connects for `callee`: its own sidecar's, or the service itself."""
        return self.outbound[caller] if self.meshed else self.serving[callee]

    def connect_to(self, caller: str) -> tuple[str, ...]:
        """The settings that lead a service's calls to its sidecar, or straight to the other services."""
        called = [callee for known, callee in self.application.calls if known == caller]
        return tuple(f"{self.host_of(callee)}={HOST}:{self.reached_by(caller, callee)}" for callee in called)

    def host_of(self, workload: str) -> str:
        """The Host header for a workload: its own name and port, `reviews:9080`."""
        port = next(service.port for service in self.application.services if service.name == workload)
        return f"{workload}:{port}"


def place(application: Application, *, meshed: bool) -> Placement:
    """Free ports for everyone."""
    serving = [workload.name for workload in application.workloads]
    everyone = [*serving, application.client.name]
    ports = free_ports(
        [
            *serving,
            *(f"{name}/inbound" for name in serving if meshed),
            *(f"{name}/outbound" for name in everyone if meshed),
        ]
    )
    return Placement(
        application,
        serving={name: ports[name] for name in serving},
        inbound={name: ports[f"{name}/inbound"] for name in serving if meshed},
        outbound={name: ports[f"{name}/outbound"] for name in everyone if meshed},
    )
