"""Single HTTP calls on loopback, in plain text or with mutual TLS: for readiness, proofs and Envoy's admin."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from bench.targets.asking import Answer, Handshake, in_words

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: certificate, key and the roots that are trusted, as PEM files.

    `tls` is the highest version that is offered, `alpn` the protocol: as a sidecar's client side does.
    """

    certificate: Path
    key: Path
    roots: Path
    tls: str
    alpn: str

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE id in the certificate."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


def call(
    port: int,
    method: str,
    path: str,
    *,
    host: str,
    identity: Identity | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own to 127.0.0.1:`port`, with `host` as Host header."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        handshake = _connect(connection, port, identity)
        connection.request(method, path, headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        lowered = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read(), lowered, handshake)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, b"", {}, refused=in_words(type(error).__name__, str(error), timeout_s=TIMEOUT_S))
    finally:
        connection.close()


def admin(path: Path, query: str) -> str:
    """What Envoy's admin interface on the Unix socket `path` answers to `query`. Raises OSError."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(str(path))
        connection.request("GET", query)
        return connection.getresponse().read().decode("utf-8")
    finally:
        connection.close()


def admin_json(path: Path, query: str) -> Any:
    """The same, parsed."""
    return json.loads(admin(path, query))


def _connect(connection: http.client.HTTPConnection, port: int, identity: Identity | None) -> Handshake | None:
    if identity is None:
        return None
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    try:
        secured = _context(identity).wrap_socket(plain)
    except BaseException:
        plain.close()
        raise
    connection.sock = secured
    agreed = secured.cipher()
    names = (secured.getpeercert() or {}).get("subjectAltName", ())
    peer = next((str(name[1]) for name in names if name[0] == "URI"), "")
    return Handshake(secured.version() or "", agreed[0] if agreed else "", identity.spiffe_id, peer)


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # SPIFFE ids are URIs, not host names: the caller compares them
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(identity.roots)
    context.load_cert_chain(identity.certificate, identity.key)
    context.maximum_version = ssl.TLSVersion[identity.tls.replace(".", "_")]
    context.set_alpn_protocols([identity.alpn])
    return context
