"""Define what a mesh is on any target, and list the meshes that scenarios can name.

A mesh is a module with the functions of `Mesh`; targets look it up in `MESHES` by the name that scenarios use.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bench.application.model import Application, Gateway, Service, Workload
from bench.envoy.wire import Mode, Wire
from bench.meshes import istio, kuma
from bench.meshes.probe import Probe
from bench.meshes.routing import Route

# Each mesh has its own class for these, which no other module looks into.
Policies = Any


class Mesh(Protocol):
    """The functions of a mesh that the targets call."""

    TITLE: str
    WIRE: Wire

    def read_gateway(self, folders: Sequence[Path], application: Application) -> Gateway | None:
        """Return the gateway through which a configuration's load enters, or None without one in its manifests.

        Raises InputError with all problems.
        """

    def read_policies(self, folders: Sequence[Path], application: Application) -> Policies:
        """Return the policies of a configuration. Raises InputError with all problems."""

    def identities(self, policies: Policies, application: Application) -> Mapping[str, tuple[str, ...]]:
        """Return the names (URIs) in the certificate of each service account, its SPIFFE id first.

        The mapping is empty without mutual TLS.
        """

    def mode(self, policies: Policies, workload: Workload) -> Mode:
        """Return what the sidecar of a workload accepts."""

    def routes(
        self, policies: Policies, application: Application, *, caller: Workload, service: Service
    ) -> tuple[Route, ...]:
        """Return the routes from the sidecar of `caller` to a service; the first that matches a request is used."""

    def outbound_cluster(self, policies: Policies, application: Application, service: Service) -> str:
        """Return the Envoy cluster in which a caller's sidecar counts requests to a service."""

    def inbound_cluster(self, workload: Workload) -> str:
        """Return the Envoy cluster in which a workload's sidecar counts the requests that it passes to the workload."""

    def probes(self, policies: Policies, application: Application) -> tuple[Probe, ...]:
        """Return requests whose responses show that each policy is in force."""


MESHES: Final[Mapping[str, Mesh]] = {"istio": istio, "kuma": kuma}
