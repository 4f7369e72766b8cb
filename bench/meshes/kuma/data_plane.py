"""Give Kuma's proxies on this machine the configuration that kuma-cp 2.14 gives them."""

import re
from functools import partial
from typing import Final

from bench.envoy.wire import Wire
from bench.meshes.envoy_data_plane import EnvoyDataPlane
from bench.meshes.kuma.envoy.gateway import gateway_bootstrap
from bench.meshes.kuma.envoy.listeners import ENVOY_OPTIONS, sidecar_bootstrap
from bench.meshes.kuma.naming import inbound_cluster
from bench.meshes.kuma.policies import Policies

# A gateway has a cluster for each route to a service, with a hash after its name.
_ROUTE_HASH: Final = re.compile(r"-[0-9a-f]{16}$")

DATA_PLANE: Final = EnvoyDataPlane(
    # Kuma leaves the TLS versions to Envoy, whose client side stops at 1.2 by default.
    wire=Wire(http="HTTP/2", tls="TLSv1.2", alpn="kuma"),
    outbound_capture="separate",
    options=ENVOY_OPTIONS,
    own_policies=Policies,
    own_cluster=inbound_cluster,
    sidecar_bootstrap=sidecar_bootstrap,
    gateway_bootstrap=gateway_bootstrap,
    base_name=partial(_ROUTE_HASH.sub, ""),
    servers=("envoy", "Kuma Gateway"),
)
