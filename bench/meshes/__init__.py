"""Service meshes: what a mesh is to meshbench, and the ones that it knows.

A mesh is a module with the functions below; targets ask `MESHES` for it by the name that scenarios use.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bench.application.model import Application, Gateway, Service, Workload
from bench.envoy.wire import Mode, Wire
from bench.meshes import istio, kuma
from bench.meshes.protocols import Probe
from bench.meshes.routing import Way

# Each mesh has a class of its own for these, and alone looks inside.
Policies = Any


class Mesh(Protocol):
    """What the targets need of a mesh."""

    TITLE: str
    WIRE: Wire

    def read_gateway(self, folders: Sequence[Path], application: Application) -> Gateway | None:
        """The gateway through which a configuration's load enters, if its manifests have one. Raises InputError with
        all problems."""

    def read_policies(self, folders: Sequence[Path], application: Application) -> Policies:
        """The policies of a configuration. Raises InputError with all problems."""

    def identities(self, policies: Policies, application: Application) -> Mapping[str, tuple[str, ...]]:
        """The names (URIs) in the certificate of each service account, its SPIFFE id first; none without mutual TLS."""

    def mode(self, policies: Policies, workload: Workload) -> Mode:
        """What the sidecar of a workload accepts."""

    def ways(
        self, policies: Policies, application: Application, *, caller: Workload, service: Service
    ) -> tuple[Way, ...]:
        """Where the sidecar of `caller` sends requests to a service; the first way that takes a request counts."""

    def outbound_cluster(self, policies: Policies, application: Application, service: Service) -> str:
        """The cluster in which a caller's sidecar counts requests to a service."""

    def inbound_cluster(self, workload: Workload) -> str:
        """The cluster in which a workload's sidecar counts what it hands to the workload."""

    def probes(self, policies: Policies, application: Application) -> tuple[Probe, ...]:
        """What to ask the sidecars so that each policy shows."""


MESHES: Final[Mapping[str, Mesh]] = {"istio": istio, "kuma": kuma}
