"""The toy mesh's proxies: how they are started on this machine, and what they count."""

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bench.application.model import Gateway, Hop, Workload
from bench.envoy.addresses import OutboundCapture
from bench.envoy.wire import Wire
from bench.meshes.protocols import ProxyCommand, ProxyInputs, RequestPage
from bench.results.records import DataPath, EffectiveRoute, Inbound, Limits, ObservedConnections

PROXY = Path(__file__).with_name("proxy.py")
NO_LIMITS = Limits(connections=None, pending=None, requests=None, retries=None)


class ToyDataPlane:
    """See `bench.meshes.protocols.DataPlane`."""

    title = "toy proxy"
    wire = Wire(http="HTTP/1.1", tls="TLSv1.3", alpn="toy")
    outbound_capture: OutboundCapture = "separate"
    servers = ("toy-proxy",)
    upstream_header = "x-toy-upstream"
    denial = ""

    def sidecar(self, workload: Workload, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        place = inputs.placement
        listeners = [
            {
                "port": place.outbound[workload.name, service.name],
                "name": inputs.policies.outbound_cluster(place.application, service),
                "upstream": place.inbound[service.workload.name],
            }
            for service in place.application.services
        ]
        if workload.port is not None:
            port, upstream = place.inbound[workload.name], place.serving[workload.name]
            listeners.append({"port": port, "name": self.inbound_cluster(workload), "upstream": upstream})
        configuration = {"admin": str(admin), "listeners": listeners}
        return ProxyCommand(json.dumps(configuration), (sys.executable, "-P", str(PROXY), str(config)))

    def gateway(self, gateway: Gateway, inputs: ProxyInputs, *, config: Path, admin: Path) -> ProxyCommand:
        raise NotImplementedError

    def inbound_cluster(self, workload: Workload) -> str:
        return f"into {workload.name}"

    def requests(self, page: RequestPage) -> dict[str, int]:
        counted: dict[str, int] = json.loads(page("/counts"))
        return counted

    def connections(self, page: RequestPage) -> dict[str, dict[str, int]]:
        return {name: {"HTTP/1.1": count} for name, count in self.requests(page).items()}  # one for each request

    def handshakes(self, _page: RequestPage) -> dict[str, int]:
        return {}

    def decisions(self, _page: RequestPage) -> dict[str, int]:
        return {}

    def identities(self, _page: RequestPage) -> tuple[str, ...]:
        return ()

    def configuration(self, page: RequestPage) -> str:
        return page("/configuration")

    def data_path(
        self,
        outbound: Mapping[Hop, Collection[str]],
        inbound: Mapping[str, str],
        *,
        configurations: Mapping[str, str],
        pages: Mapping[str, RequestPage],  # noqa: ARG002 - all is in the configuration
    ) -> DataPath:
        seen = ObservedConnections(http=("HTTP/1.1",), tls=(), ciphers=(), curves=())
        settings: dict[str, Any] = {"timeout_s": None, "retries": None}
        routes = [
            EffectiveRoute(
                caller=hop.caller, callee=hop.callee, http="HTTP/1.1", seen=seen, load_balancing="FIRST",
                limits=NO_LIMITS, **settings,
            )
            for hop in outbound
        ]  # fmt: skip
        return DataPath(
            workers=dict.fromkeys(configurations, 1),
            ways=tuple(routes),
            inbounds=tuple(
                Inbound(workload=name, http_policies=None, network_policies=None, **settings) for name in inbound
            ),
        )
