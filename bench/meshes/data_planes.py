"""List the modules that build the Envoy configuration of each mesh's sidecars and gateways on the local target.

docs/local-target.md lists the differences from a sidecar in a cluster, and their effect on latency. A test compares
both and fails for a difference that is not in that list.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bench.application.model import Gateway, Workload
from bench.envoy.addresses import OutboundCapture, Placement
from bench.envoy.certificates import Certificates
from bench.meshes import Policies
from bench.meshes.istio.envoy import gateway as envoy_istio_gateway
from bench.meshes.istio.envoy import listeners as envoy_istio
from bench.meshes.kuma.envoy import gateway as envoy_kuma_gateway
from bench.meshes.kuma.envoy import listeners as envoy_kuma

Json = dict[str, Any]


class Shape(Protocol):
    """The configuration and start of one mesh's sidecars. Pure."""

    @property
    def ENVOY_OPTIONS(self) -> Sequence[str]:  # noqa: N802 - a module's constant
        """The command-line options of Envoy."""

    @property
    def OUTBOUND_CAPTURE(self) -> OutboundCapture:  # noqa: N802
        """How the sidecar receives the requests of its workload."""

    def sidecar_bootstrap(
        self, workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
    ) -> Json:
        """Return Envoy's complete configuration for the sidecar of `workload`, to be written as JSON.

        A client that serves nothing has no inbound listener. `admin` is the path of a Unix socket (at most
        107 bytes) for Envoy's admin interface.
        """


class GatewayShape(Protocol):
    """The configuration of one mesh's gateways. Pure."""

    def gateway_bootstrap(
        self, gateway: Gateway, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
    ) -> Json:
        """Return Envoy's complete configuration for a gateway with the mesh's own proxy; see `Shape` for the rest."""


SHAPES: Final[Mapping[str, Shape]] = {"istio": envoy_istio, "kuma": envoy_kuma}
GATEWAYS: Final[Mapping[str, GatewayShape]] = {"istio": envoy_istio_gateway, "kuma": envoy_kuma_gateway}


def envoy_command(mesh: str, binary: Path, config: Path) -> list[str]:
    """Return the command line of one sidecar; with `--mode validate` added it only checks its configuration."""
    return [str(binary), "--config-path", str(config), *SHAPES[mesh].ENVOY_OPTIONS]


def outbound_capture(mesh: str) -> OutboundCapture:
    """Return how the sidecars of a mesh receive the requests of their workloads: `none` without a mesh."""
    return SHAPES[mesh].OUTBOUND_CAPTURE if mesh in SHAPES else "none"
