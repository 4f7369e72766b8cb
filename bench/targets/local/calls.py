"""Single HTTP calls on loopback, in plain text or with mutual TLS: for readiness, proofs and Envoy's admin."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: certificate, key and the roots that are trusted, as PEM files."""

    certificate: Path
    key: Path
    roots: Path

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE id in the certificate."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


@dataclass(frozen=True, slots=True)
class Handshake:
    """What TLS agreed on, and both SPIFFE ids: the one that was presented, and the peer's."""

    version: str
    cipher: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `status` 0 and `refused` say that there was none."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    handshake: Handshake | None = None
    refused: str = field(default="")

    @property
    def told(self) -> str:
        """In words, for evidence: `200`, `403 RBAC: access denied`, `connection reset`."""
        text = self.body[:40].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return self.refused or f"{self.status} {text}".strip()


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
        return Answer(0, b"", {}, refused=_in_words(error))
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
    context.set_alpn_protocols(["istio"])  # what a sidecar's client side offers
    return context


def _in_words(error: Exception) -> str:
    if isinstance(error, ConnectionResetError | http.client.RemoteDisconnected):
        return "connection closed without an answer"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s"
    return f"{type(error).__name__}: {error}"
