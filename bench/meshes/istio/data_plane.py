"""Give Istio's proxies on this machine the configuration that istiod 1.31 and 1.32 give them."""

from pathlib import Path
from typing import Any, Final

from bench.application.model import Gateway, Workload
from bench.envoy.wire import Wire
from bench.meshes.envoy_data_plane import EnvoyDataPlane
from bench.meshes.istio.envoy.gateway import gateway_bootstrap
from bench.meshes.istio.envoy.listeners import ENVOY_OPTIONS, sidecar_bootstrap
from bench.meshes.istio.naming import inbound_cluster
from bench.meshes.istio.policies import Policies
from bench.meshes.protocols import ProxyInputs

Json = dict[str, Any]


class IstioDataPlane(EnvoyDataPlane):
    """See `bench.meshes.protocols.DataPlane`."""

    def inbound_cluster(self, workload: Workload) -> str:
        """Return the cluster of the sidecar's own application."""
        return inbound_cluster(workload)

    def sidecar_bootstrap(self, workload: Workload, inputs: ProxyInputs, admin: Path) -> Json:
        """See `EnvoyDataPlane`."""
        return sidecar_bootstrap(
            workload,
            placement=inputs.placement,
            policies=_own_policies(inputs),
            certificates=inputs.certificates,
            admin=admin,
        )

    def gateway_bootstrap(self, gateway: Gateway, inputs: ProxyInputs, admin: Path) -> Json:
        """See `EnvoyDataPlane`."""
        return gateway_bootstrap(
            gateway,
            placement=inputs.placement,
            policies=_own_policies(inputs),
            certificates=inputs.certificates,
            admin=admin,
        )


def _own_policies(inputs: ProxyInputs) -> Policies:
    assert isinstance(inputs.policies, Policies)  # noqa: S101  # a mesh is given its own
    return inputs.policies


DATA_PLANE: Final = IstioDataPlane(
    wire=Wire(http="HTTP/1.1", tls="TLSv1.3", alpn="istio"), outbound_capture="shared", options=ENVOY_OPTIONS
)
