"""Where a sidecar sends requests: to its peers' sidecars, to its own application, or nowhere."""

from dataclasses import dataclass
from typing import Any, Final

from bench.meshes.application import Application, Service, Workload
from bench.meshes.istio_names import cluster_to, full_name
from bench.meshes.istio_names import inbound_cluster as inbound_name
from bench.meshes.istio_policies import Policies
from bench.meshes.istio_routes import Subset
from bench.meshes.istio_routing import config_path, destination_rule_of, subsets_of, workloads_of
from bench.targets.local.certificates import Certificates
from bench.targets.local.envoy_istio_http import BLACK_HOLE
from bench.targets.local.envoy_istio_tls import TLS_ENDPOINT, client_sockets
from bench.targets.local.placement import Placement
from bench.targets.local.ports import HOST

Json = dict[str, Any]

_CONNECT_TIMEOUT: Final = "10s"
_NO_LIMIT: Final = 2**32 - 1
_UNBROKEN: Final[Json] = {
    "thresholds": [
        {
            "max_connections": _NO_LIMIT,
            "max_pending_requests": _NO_LIMIT,
            "max_requests": _NO_LIMIT,
            "max_retries": _NO_LIMIT,
        }
    ]
}
# The address from which Istio's sidecars call their own application.
_OWN_ADDRESS: Final = "127.0.0.6"


def outbound_clusters(
    caller: Workload, *, placement: Placement, policies: Policies, certificates: Certificates
) -> list[Json]:
    """Where `caller` may send requests: every service, and every subset of one."""
    application = placement.application
    return [
        _outbound(
            _Destination(application, service, subset),
            caller,
            placement=placement,
            policies=policies,
            certificates=certificates,
        )
        for service in sorted(application.services, key=lambda service: service.name)
        for subset in (None, *subsets_of(policies, application, service).values())
    ]


def inbound_cluster(workload: Workload, *, placement: Placement) -> Json:
    """Requests to the sidecar's own application."""
    application = placement.application
    name = inbound_name(workload)
    services = [service for service in application.services if workload in service.workloads]
    return {
        **_cluster(name, {"services": _described(application, services)}),
        "type": "STATIC",
        "common_lb_config": {},
        "upstream_bind_config": {"source_address": {"address": _OWN_ADDRESS, "port_value": 0}},
        "load_assignment": _assignment(name, [_endpoint(placement.serving[workload.name], secured=False)]),
    }


def black_hole_cluster() -> Json:
    """Where requests end that no service takes."""
    return {
        "name": BLACK_HOLE,
        "alt_stat_name": f"{BLACK_HOLE};",
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
    }


@dataclass(frozen=True, slots=True)
class _Destination:
    """A service, or a subset of it."""

    application: Application
    service: Service
    subset: Subset | None

    @property
    def name(self) -> str:
        return self.subset.name if self.subset else ""

    @property
    def cluster(self) -> str:
        return cluster_to(self.application, self.service, self.name)

    @property
    def sni(self) -> str:
        return f"outbound_.{self.service.port}_.{self.name}_.{full_name(self.application, self.service)}"

    @property
    def workloads(self) -> tuple[Workload, ...]:
        return workloads_of(self.service, self.subset) if self.subset else self.service.workloads


def _outbound(
    to: _Destination, caller: Workload, *, placement: Placement, policies: Policies, certificates: Certificates
) -> Json:
    """HTTP/1.1, least requests, mutual TLS unless the peer has none."""
    rule = destination_rule_of(policies, to.application, to.service)
    described = {
        "services": _described(to.application, [to.service]),
        **({"config": config_path(policies.namespace_of(rule), rule)} if rule else {}),
        **({"subset": to.name} if to.subset else {}),
    }
    endpoints = [
        _endpoint(placement.inbound[one.name], secured=policies.mode(one) != "DISABLE") for one in to.workloads
    ]
    return {
        **_cluster(to.cluster, described),
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {}},
        "transport_socket_matches": client_sockets(
            certificates.identity(caller.account), peer=certificates.spiffe_id(to.service.workload.account), sni=to.sni
        ),
        "load_assignment": _assignment(to.cluster, endpoints),
    }


def _described(application: Application, services: list[Service]) -> list[Json]:
    ordered = sorted(services, key=lambda service: full_name(application, service))
    return [
        {"name": service.name, "namespace": application.namespace, "host": full_name(application, service)}
        for service in ordered
    ]


def _cluster(name: str, described: Json) -> Json:
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": _UNBROKEN,
        "metadata": {"filter_metadata": {"istio": described}},
    }


def _assignment(cluster: str, endpoints: list[Json]) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}


def _endpoint(port: int, *, secured: bool) -> Json:
    endpoint: Json = {"endpoint": {"address": {"socket_address": {"address": HOST, "port_value": port}}}}
    if secured:
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": TLS_ENDPOINT}}
    return endpoint
