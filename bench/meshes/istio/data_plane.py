"""Give Istio's proxies on this machine the configuration that istiod 1.31 and 1.32 give them."""

from typing import Final

from bench.envoy.wire import Wire
from bench.meshes.envoy_data_plane import EnvoyDataPlane
from bench.meshes.istio.envoy.gateway import gateway_bootstrap
from bench.meshes.istio.envoy.listeners import ENVOY_OPTIONS, sidecar_bootstrap
from bench.meshes.istio.naming import inbound_cluster
from bench.meshes.istio.policies import Policies

DATA_PLANE: Final = EnvoyDataPlane(
    wire=Wire(http="HTTP/1.1", tls="TLSv1.3", alpn="istio"),
    outbound_capture="shared",
    options=ENVOY_OPTIONS,
    own_policies=Policies,
    own_cluster=inbound_cluster,
    sidecar_bootstrap=sidecar_bootstrap,
    gateway_bootstrap=gateway_bootstrap,
)
