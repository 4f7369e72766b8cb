"""Mutual TLS as Kuma's sidecars speak it: Envoy's own versions and ciphers, SPIFFE ids as names, ALPN `kuma`.

Certificates come from files where Kuma's sidecars get them from the control plane (SDS): the same keys and
checks. With a MeshIdentity the roots belong to a trust domain, and Envoy's SPIFFE validator checks them.
"""

from typing import Any, Final

from bench.meshes.application import MESH
from bench.meshes.kuma_names import TRUST_DOMAIN
from bench.meshes.kuma_policies import Form
from bench.targets.local.calls import Identity

Json = dict[str, Any]

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def server_socket(identity: Identity, form: Form) -> Json:
    """The transport socket of an inbound chain: asks for a certificate of the mesh."""
    domain = TRUST_DOMAIN if form == "identity" else MESH
    context = _context(identity, [{"prefix": f"spiffe://{domain}/"}], form)
    return _socket("DownstreamTlsContext", {"common_tls_context": context, "require_client_certificate": True})


def client_socket(identity: Identity, form: Form, *, peers: list[str], sni: str) -> Json:
    """The transport socket of an outbound cluster; `peers` are the SPIFFE ids of which the server must show one."""
    context = _context(identity, [{"exact": peer} for peer in peers], form)
    context = {"alpn_protocols": [identity.alpn], **context}
    return _socket("UpstreamTlsContext", {"common_tls_context": context, "sni": sni})


def _context(identity: Identity, names: list[Json], form: Form) -> Json:
    matchers = [{"san_type": "URI", "matcher": name} for name in names]
    return {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(identity.certificate)},
                "private_key": {"filename": str(identity.key)},
            }
        ],
        "validation_context": {**_trust(identity, form), "match_typed_subject_alt_names": matchers},
    }


def _trust(identity: Identity, form: Form) -> Json:
    roots = {"filename": str(identity.roots)}
    if form != "identity":
        return {"trusted_ca": roots}
    domains = [{"name": TRUST_DOMAIN, "trust_bundle": roots}]
    validator = {"@type": f"{_TLS}.SPIFFECertValidatorConfig", "trust_domains": domains}
    return {"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator}}


def _socket(context: str, config: Json) -> Json:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": f"{_TLS}.{context}", **config}}
