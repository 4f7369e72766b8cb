"""Build the clusters of a sidecar's Envoy configuration, with mutual TLS as istiod sets it. Pure.

Certificates are read from files, while Istio's sidecars get them from their agent (SDS), with the same keys and checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.application.model import Application, Service, Workload
from bench.envoy.addresses import HOST, Placement
from bench.envoy.certificates import Certificates, Identity
from bench.envoy.parts import tls_socket
from bench.meshes.istio.naming import cluster_to, full_name
from bench.meshes.istio.naming import inbound_cluster as inbound_name
from bench.meshes.istio.policies import TRUST_DOMAIN, Policies
from bench.meshes.istio.route_manifests import ConnectionPool, OutlierDetection, Subset, TcpKeepalive, TrafficPolicy
from bench.meshes.istio.routing import (
    config_path,
    destination_rule_of,
    subsets_of,
    traffic_policy_of,
    workloads_of,
)

Json = dict[str, Any]

BLACK_HOLE: Final = "BlackHoleCluster"
# The metadata of an endpoint with TLS, which a cluster matches: auto mutual TLS.
TLS_ENDPOINT: Final[Json] = {"tlsMode": "istio"}

_CONNECT_TIMEOUT: Final = "10s"
_NO_LIMIT: Final = 2**32 - 1
_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ENFORCED: Final = 100  # percent
_LOAD_BALANCING: Final = {"RANDOM": "RANDOM", "ROUND_ROBIN": "ROUND_ROBIN"}  # all others are the default
# The address from which Istio's sidecars call their own application.
_OWN_ADDRESS: Final = "127.0.0.6"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_RAW: Final = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_VERSIONS: Final = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
_SERVER_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)


def outbound_clusters(
    caller: Workload, *, placement: Placement, policies: Policies, certificates: Certificates
) -> list[Json]:
    """Build the clusters to which `caller` may send requests: every service and every subset."""
    application = placement.application
    return [
        _outbound_cluster(
            _Destination(application, service, subset),
            caller,
            placement=placement,
            policies=policies,
            certificates=certificates,
        )
        for service in sorted(application.services, key=lambda service: service.name)
        for subset in (None, *subsets_of(policies, application, service).values())
    ]


def build_inbound_cluster(workload: Workload, *, placement: Placement, policies: Policies) -> Json:
    """Build the cluster of the sidecar's own application, whose limits are those of its callers."""
    application = placement.application
    name = inbound_name(workload)
    services = [service for service in application.services if workload in service.workloads]
    first = min(services, key=lambda one: full_name(application, one))
    rule, policy = destination_rule_of(policies, application, first), traffic_policy_of(policies, application, first)
    described = {
        "services": _describe_services(application, services),
        **({"config": config_path(policies.namespace_of(rule), rule)} if rule and policy.model_fields_set else {}),
    }
    return {
        **_cluster(name, described, policy),
        "type": "STATIC",
        "common_lb_config": {},
        "upstream_bind_config": {"source_address": {"address": _OWN_ADDRESS, "port_value": 0}},
        "load_assignment": _assignment(name, [_endpoint(placement.serving[workload.name], secured=False)]),
    }


def black_hole_cluster() -> Json:
    """Build the cluster of requests that match no service."""
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


def _outbound_cluster(
    to: _Destination, caller: Workload, *, placement: Placement, policies: Policies, certificates: Certificates
) -> Json:
    """Build an outbound cluster: HTTP/1.1, least requests, mutual TLS unless the peer has none."""
    rule = destination_rule_of(policies, to.application, to.service)
    policy = traffic_policy_of(policies, to.application, to.service, to.subset)
    described = {
        "services": _describe_services(to.application, [to.service]),
        **({"config": config_path(policies.namespace_of(rule), rule)} if rule else {}),
        **({"subset": to.name} if to.subset else {}),
    }
    endpoints = [
        _endpoint(placement.inbound[one.name], secured=policies.mode(one) != "DISABLE") for one in to.workloads
    ]
    detection, balancer = policy.outlier_detection, policy.load_balancer
    least_healthy = detection.min_health_percent if detection else 0
    return {
        **_cluster(to.cluster, described, policy),
        "type": "STATIC",
        "lb_policy": _LOAD_BALANCING.get(balancer.simple if balancer else "", "LEAST_REQUEST"),
        "common_lb_config": {"healthy_panic_threshold": {"value": least_healthy} if least_healthy else {}},
        **({"outlier_detection": _outlier_detection(detection)} if detection else {}),
        **_transport(
            policy,
            certificates.identity(caller.account),
            peer=certificates.spiffe_id(to.service.workload.account),
            sni=to.sni,
        ),
        "load_assignment": _assignment(to.cluster, endpoints),
    }


def _transport(policy: TrafficPolicy, identity: Identity, *, peer: str, sni: str) -> Json:
    """Build how callers connect: in mutual TLS wherever the endpoint takes it, unless a DestinationRule says how."""
    if policy.tls is None:
        return {"transport_socket_matches": client_sockets(identity, peer=peer, sni=sni)}
    return {} if policy.tls.mode == "DISABLE" else {"transport_socket": _mutual_tls(identity, peer=peer, sni=sni)}


def _outlier_detection(detection: OutlierDetection) -> Json:
    """Build when an endpoint is ejected, never by its success rate."""
    numbers = {
        "consecutive_5xx": detection.consecutive_5xx_errors,
        "consecutive_gateway_failure": detection.consecutive_gateway_errors,
    }
    settings = {"enforcing_success_rate": 0, **_limit_errors(numbers)}
    durations = {"interval": detection.interval, "base_ejection_time": detection.base_ejection_time}
    settings |= {name: value for name, value in durations.items() if value is not None}
    if detection.max_ejection_percent:
        settings["max_ejection_percent"] = detection.max_ejection_percent
    if detection.split_external_local_origin_errors:
        local = {"consecutive_local_origin_failure": detection.consecutive_local_origin_failures or None}
        split = {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0}
        settings |= {**split, **_limit_errors(local)}
    return settings


def _limit_errors(numbers: Mapping[str, int | None]) -> Json:
    """Build the numbers of errors in a row, of which 0 switches the check off."""
    given = {name: number for name, number in numbers.items() if number is not None}
    return {**given, **{f"enforcing_{name}": _ENFORCED if number else 0 for name, number in given.items()}}


def _describe_services(application: Application, services: list[Service]) -> list[Json]:
    ordered = sorted(services, key=lambda service: full_name(application, service))
    return [
        {
            "name": service.name,
            "namespace": application.namespace_of(service.workload),
            "host": full_name(application, service),
        }
        for service in ordered
    ]


def _cluster(name: str, described: Json, policy: TrafficPolicy) -> Json:
    pool = policy.connection_pool or ConnectionPool()
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "connect_timeout": pool.tcp.connect_timeout or _CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [_thresholds(pool)]},
        "metadata": {"filter_metadata": {"istio": described}},
        **_connection_options(pool),
        **_keepalive(pool.tcp.tcp_keepalive),
    }


def _thresholds(pool: ConnectionPool) -> Json:
    limits = {
        "max_connections": pool.tcp.max_connections,
        "max_pending_requests": pool.http.http1_max_pending_requests,
        "max_requests": pool.http.http2_max_requests,
        "max_retries": pool.http.max_retries,
    }
    return {name: limit or _NO_LIMIT for name, limit in limits.items()}


def _connection_options(pool: ConnectionPool) -> Json:
    """Build how long connections are used, for as many requests; HTTP/1.1 has to be said then."""
    common = {
        "idle_timeout": pool.http.idle_timeout or pool.tcp.idle_timeout,
        "max_connection_duration": pool.tcp.max_connection_duration,
        "max_requests_per_connection": pool.http.max_requests_per_connection,
    }
    common = {name: value for name, value in common.items() if value is not None}
    if not common:
        return {}
    options = {
        "@type": f"type.googleapis.com/{_PROTOCOL}",
        "common_http_protocol_options": common,
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {"typed_extension_protocol_options": {_PROTOCOL: options}}


def _keepalive(keepalive: TcpKeepalive | None) -> Json:
    """Build the probes of idle connections; Envoy takes whole seconds."""
    if keepalive is None:
        return {}
    durations = {"keepalive_time": keepalive.time, "keepalive_interval": keepalive.interval}
    settings = {name: int(float(value.removesuffix("s"))) for name, value in durations.items() if value is not None}
    probes = {"keepalive_probes": keepalive.probes} if keepalive.probes else {}
    return {"upstream_connection_options": {"tcp_keepalive": {**probes, **settings}}}


def _assignment(cluster: str, endpoints: list[Json]) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}


def _endpoint(port: int, *, secured: bool) -> Json:
    endpoint: Json = {"endpoint": {"address": {"socket_address": {"address": HOST, "port_value": port}}}}
    if secured:
        endpoint["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": TLS_ENDPOINT}}
    return endpoint


def server_socket(identity: Identity) -> Json:
    """Build the transport socket of an inbound chain, which requires a certificate of the mesh."""
    context = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {**_VERSIONS, "cipher_suites": list(_SERVER_CIPHERS)},
        **_secrets(identity, {"prefix": f"spiffe://{TRUST_DOMAIN}/"}),
    }
    return tls_socket("DownstreamTlsContext", {"common_tls_context": context, "require_client_certificate": True})


def client_sockets(identity: Identity, *, peer: str, sni: str) -> list[Json]:
    """Build the transport sockets of an outbound cluster: TLS to endpoints that have it, else plaintext.

    `peer` is the SPIFFE id that the server must have.
    """
    tls = _mutual_tls(identity, peer=peer, sni=sni)
    plain = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": _RAW}}
    return [
        {"name": "tlsMode-istio", "match": TLS_ENDPOINT, "transport_socket": tls},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": plain},
    ]


def _mutual_tls(identity: Identity, *, peer: str, sni: str) -> Json:
    context = {"alpn_protocols": ["istio"], "tls_params": _VERSIONS, **_secrets(identity, {"exact": peer})}
    return tls_socket("UpstreamTlsContext", {"common_tls_context": context, "sni": sni})


def _secrets(identity: Identity, peer: Json) -> Json:
    return {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity.certificate)},
                "private_key": {"filename": str(identity.key)},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(identity.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": peer}],
        },
    }
