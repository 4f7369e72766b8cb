"""Build the clusters of a sidecar's Envoy configuration, with mutual TLS as kuma-cp sets it. Pure.

Certificates are read from files, while Kuma's sidecars get them from the control plane (SDS), with the same keys and
checks. With a MeshIdentity the roots belong to a trust domain, and Envoy's SPIFFE validator checks them.
"""

from collections.abc import Sequence
from typing import Any, Final

from bench.application.model import MESH, Service, Workload
from bench.envoy.addresses import HOST
from bench.envoy.certificates import Certificates, Identity
from bench.envoy.parts import tls_socket
from bench.meshes.kuma.naming import (
    ZONE,
    builtin_id,
    inbound_cluster,
    service_tag,
    service_tags,
    spiffe_id,
)
from bench.meshes.kuma.policies import Policies
from bench.meshes.kuma.routing import outbound_cluster
from bench.meshes.kuma.traffic import OUTBOUND, Timeouts, inbound_timeouts, outbound_timeouts

Json = dict[str, Any]

_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP1: Final[Json] = {"http_protocol_options": {}}
_HTTP2: Final[Json] = {"http2_protocol_options": {}}
_BREAKER: Final[Json] = {
    "max_connections": 1024,
    "max_pending_requests": 1024,
    "max_requests": 1024,
    "max_retries": 3,
    "track_remaining": True,
}
# The address from which Kuma's sidecars call their own application.
_OWN_ADDRESS: Final = "127.0.0.6"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def stat_name(name: str) -> str:
    """Return a name as Kuma writes it in statistics: `localhost_9080`."""
    return "".join(character if character.isalnum() else "_" for character in name)


def build_outbound_cluster(
    policies: Policies, caller: Workload, service: Service, *, ports: Sequence[int], certificates: Certificates
) -> Json:
    """Build the cluster of a service whose sidecars listen on `ports`: HTTP/2, with or without mutual TLS."""
    name, timeouts = (
        outbound_cluster(policies, policies.application, service),
        outbound_timeouts(policies, caller, service),
    )
    cluster = {
        **_cluster(name, ports, timeouts=timeouts, protocol=_HTTP2),
        "circuit_breakers": {"thresholds": [_BREAKER]},
    }
    if policies.form != "plain":
        identity = certificates.identity(caller.account)
        peers, sni = _peers(policies, service), _sni(policies, service)
        cluster["transport_socket"] = client_socket(identity, identity_domain(policies), peers=peers, sni=sni)
    return cluster


def gateway_cluster(
    policies: Policies, caller: Workload, service: Service, *, ports: Sequence[int], certificates: Certificates
) -> Json:
    """Build the same cluster for a built-in gateway: HTTP/1.1, the protocol of the service itself."""
    cluster = build_outbound_cluster(policies, caller, service, ports=ports, certificates=certificates)
    protocol = _cluster(cluster["name"], ports, timeouts=OUTBOUND, protocol=_HTTP1)
    return {**cluster, **protocol, "per_connection_buffer_limit_bytes": 32768}


def build_inbound_cluster(policies: Policies, workload: Workload, *, port: int) -> Json:
    """Build the cluster of the sidecar's own application, which listens on `port`."""
    name = inbound_cluster(workload)
    return {
        **_cluster(name, [port], timeouts=inbound_timeouts(policies, workload), protocol=_HTTP1),
        "alt_stat_name": stat_name(name),
        "circuit_breakers": {"thresholds": [{"track_remaining": True}]},
        "upstream_bind_config": {"source_address": {"address": _OWN_ADDRESS, "port_value": 0}},
    }


def _cluster(name: str, ports: Sequence[int], *, timeouts: Timeouts, protocol: Json) -> Json:
    options = {
        "@type": f"type.googleapis.com/{_PROTOCOL}",
        "common_http_protocol_options": {
            "idle_timeout": timeouts.idle,
            "max_connection_duration": timeouts.max_connection,
            "max_stream_duration": timeouts.max_stream,
        },
        "explicit_http_config": protocol,
    }
    addresses = [{"socket_address": {"address": HOST, "port_value": port}} for port in ports]
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": timeouts.connect,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {_PROTOCOL: options},
    }


def _peers(policies: Policies, service: Service) -> list[str]:
    """Return the accepted SPIFFE ids of a service.

    With a MeshIdentity, servers with a certificate of the older form are also accepted, with the name of any of their
    Services.
    """
    application = policies.application
    if policies.form != "identity":
        return [builtin_id(service_tag(application, service))]
    tags = {tag for workload in service.workloads for tag in service_tags(application, workload)}
    own = spiffe_id(application, service.workload, policies.domain_template)
    return [own, *map(builtin_id, sorted(tags))]


def _sni(policies: Policies, service: Service) -> str:
    if policies.form == "identity":
        return f"sni.msvc.{MESH}.{ZONE}.{policies.application.namespace_of(service.workload)}.{service.name}.http"
    return f"{service_tag(policies.application, service)}{{mesh={MESH}}}"


def identity_domain(policies: Policies) -> str:
    """Return the trust domain of a MeshIdentity; empty for the builtin authority."""
    return policies.trust_domain(MESH) if policies.form == "identity" else ""


def server_socket(identity: Identity, domain: str) -> Json:
    """Build the transport socket of an inbound chain, which requires a certificate of the mesh."""
    context = _context(identity, [{"prefix": f"spiffe://{domain or MESH}/"}], domain)
    return tls_socket("DownstreamTlsContext", {"common_tls_context": context, "require_client_certificate": True})


def client_socket(identity: Identity, domain: str, *, peers: list[str], sni: str) -> Json:
    """Build the transport socket of an outbound cluster; the server must have one of the SPIFFE ids in `peers`."""
    context = _context(identity, [{"exact": peer} for peer in peers], domain)
    context = {"alpn_protocols": [identity.alpn], **context}
    return tls_socket("UpstreamTlsContext", {"common_tls_context": context, "sni": sni})


def _context(identity: Identity, names: list[Json], domain: str) -> Json:
    matchers = [{"san_type": "URI", "matcher": name} for name in names]
    return {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity.certificate)},
                "private_key": {"filename": str(identity.key)},
            }
        ],
        "validation_context": {**_trust(identity, domain), "match_typed_subject_alt_names": matchers},
    }


def _trust(identity: Identity, domain: str) -> Json:
    roots = {"filename": str(identity.roots)}
    if not domain:
        return {"trusted_ca": roots}
    domains = [{"name": domain, "trust_bundle": roots}]
    validator = {"@type": f"{_TLS}.SPIFFECertValidatorConfig", "trust_domains": domains}
    return {"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator}}
