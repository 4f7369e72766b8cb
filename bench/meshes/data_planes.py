"""The sidecars' configuration: each mesh's control plane has a shape of its own, which is a module here.

What differs from a sidecar in a cluster, and what that does to latency, stands in docs/local-target.md; a
test compares both and fails for a difference that is not written there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bench.application.model import Gateway, Workload
from bench.envoy.addresses import Placement, WaysOut
from bench.envoy.certificates import Certificates
from bench.meshes import Policies
from bench.meshes.istio.envoy import gateway as envoy_istio_gateway
from bench.meshes.istio.envoy import listeners as envoy_istio
from bench.meshes.kuma.envoy import gateway as envoy_kuma_gateway
from bench.meshes.kuma.envoy import listeners as envoy_kuma

Json = dict[str, Any]


class Shape(Protocol):
    """How one mesh configures and starts its sidecars. Pure."""

    @property
    def ENVOY_OPTIONS(self) -> Sequence[str]:  # noqa: N802 - a module's constant
        """What Envoy is started with."""

    @property
    def WAYS_OUT(self) -> WaysOut:  # noqa: N802
        """How the sidecar takes what its workload sends."""

    def sidecar_bootstrap(
        self, workload: Workload, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
    ) -> Json:
        """Envoy's whole configuration for the sidecar of `workload`, to be written as JSON.

        A client that serves nothing has no inbound listener. `admin` is the path of a Unix socket (at most
        107 bytes) for Envoy's admin interface.
        """


class GatewayShape(Protocol):
    """How one mesh configures its gateways. Pure."""

    def gateway_bootstrap(
        self, gateway: Gateway, *, placement: Placement, policies: Policies, certificates: Certificates, admin: Path
    ) -> Json:
        """Envoy's whole configuration for a gateway that is the mesh's own proxy; the rest as in `Shape`."""


SHAPES: Final[Mapping[str, Shape]] = {"istio": envoy_istio, "kuma": envoy_kuma}
GATEWAYS: Final[Mapping[str, GatewayShape]] = {"istio": envoy_istio_gateway, "kuma": envoy_kuma_gateway}


def envoy_command(mesh: str, binary: Path, config: Path) -> list[str]:
    """The command line of one sidecar; add `--mode validate` to only check its configuration."""
    return [str(binary), "--config-path", str(config), *SHAPES[mesh].ENVOY_OPTIONS]


def ways_out(mesh: str) -> WaysOut:
    """How the sidecars of a mesh, or of none, take what their workloads send."""
    return SHAPES[mesh].WAYS_OUT if mesh in SHAPES else "none"
