"""Give Kuma's proxies on this machine the configuration that kuma-cp 2.14 gives them."""

import re
from pathlib import Path
from typing import Any, Final

from bench.application.model import Gateway, Workload
from bench.envoy.wire import Wire
from bench.meshes.envoy_data_plane import EnvoyDataPlane
from bench.meshes.kuma.envoy.gateway import gateway_bootstrap
from bench.meshes.kuma.envoy.listeners import ENVOY_OPTIONS, sidecar_bootstrap
from bench.meshes.kuma.naming import inbound_cluster
from bench.meshes.kuma.policies import Policies
from bench.meshes.protocols import ProxyInputs

Json = dict[str, Any]

_ROUTE_HASH: Final = re.compile(r"-[0-9a-f]{16}$")


class KumaDataPlane(EnvoyDataPlane):
    """See `bench.meshes.protocols.DataPlane`."""

    def inbound_cluster(self, workload: Workload) -> str:
        """Return the cluster of the sidecar's own application."""
        return inbound_cluster(workload)

    def base_name(self, cluster: str) -> str:
        """See `EnvoyDataPlane`. A gateway has a cluster for each route to a service, with a hash after its name."""
        return _ROUTE_HASH.sub("", cluster)

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


DATA_PLANE: Final = KumaDataPlane(
    # Kuma leaves the TLS versions to Envoy, whose client side stops at 1.2 by default.
    wire=Wire(http="HTTP/2", tls="TLSv1.2", alpn="kuma"),
    outbound_capture="separate",
    options=ENVOY_OPTIONS,
    servers=("envoy", "Kuma Gateway"),
)
