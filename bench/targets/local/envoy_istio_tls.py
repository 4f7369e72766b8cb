"""Mutual TLS as Istio's sidecars speak it: TLS 1.2 to 1.3, SPIFFE ids as names, ALPN `istio`.

Certificates come from files where Istio's sidecars ask their agent for them (SDS): the same keys and checks.
"""

from typing import Any, Final

from bench.meshes.istio_policies import TRUST_DOMAIN
from bench.targets.local.calls import Identity

Json = dict[str, Any]

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
# What an endpoint says about itself, and what a cluster looks for: auto mutual TLS.
TLS_ENDPOINT: Final[Json] = {"tlsMode": "istio"}


def server_socket(identity: Identity) -> Json:
    """The transport socket of an inbound chain: asks for a certificate of the mesh."""
    context = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {**_VERSIONS, "cipher_suites": list(_SERVER_CIPHERS)},
        **_secrets(identity, {"prefix": f"spiffe://{TRUST_DOMAIN}/"}),
    }
    return _socket("DownstreamTlsContext", {"common_tls_context": context, "require_client_certificate": True})


def client_sockets(identity: Identity, *, peer: str, sni: str) -> list[Json]:
    """The transport sockets of an outbound cluster: TLS towards endpoints that have it, else plain text.

    `peer` is the SPIFFE id that the server must show.
    """
    context = {"alpn_protocols": ["istio"], "tls_params": _VERSIONS, **_secrets(identity, {"exact": peer})}
    tls = _socket("UpstreamTlsContext", {"common_tls_context": context, "sni": sni})
    plain = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": _RAW}}
    return [
        {"name": "tlsMode-istio", "match": TLS_ENDPOINT, "transport_socket": tls},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": plain},
    ]


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


def _socket(context: str, config: Json) -> Json:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.{context}", **config},
    }
