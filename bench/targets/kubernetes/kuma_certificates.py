"""The certificates in a sidecar's configuration, told as Envoy's own /certs would, which Kuma hands to nobody. Pure."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography import x509


def certificates(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Whose certificates a sidecar holds, from its configuration dump. Private keys are not in one."""
    chains = [[_names(leaf)] for leaf in _leaves(dump)]
    return {"certificates": [{"cert_chain": chain} for chain in chains]}


def _leaves(dump: Mapping[str, Any]) -> Iterator[x509.Certificate]:
    for part in dump["configs"]:
        for entry in part.get("dynamic_active_secrets") or ():
            chain = entry["secret"].get("tls_certificate", {}).get("certificate_chain", {}).get("inline_bytes")
            if chain:
                yield x509.load_pem_x509_certificates(base64.b64decode(chain))[0]


def _names(leaf: x509.Certificate) -> dict[str, Any]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {"subject_alt_names": []}
    return {"subject_alt_names": [{"uri": uri} for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]}
