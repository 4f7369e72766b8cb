"""Certificate authorities, and certificates of servers on loopback; also as older clusters have them, without an
authority key identifier."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_SIGNS = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def make_server_tls(folder: Path, *names: str, key_identifier: bool = True) -> tuple[Path, ssl.SSLContext]:
    """Return the file of an authority, and the TLS settings of a server with these names and the address 127.0.0.1."""
    authority_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    subject = _name("authority")
    usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **_SIGNS)
    own = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = _build(subject, authority_key, authority_key, x509.BasicConstraints(True, None), usage, own)
    alternatives = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, names)]
    extensions: list[x509.ExtensionType] = [x509.SubjectAlternativeName(alternatives)]
    if key_identifier:
        extensions.append(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own))
    certificate = _build(_name("server"), key, authority_key, *extensions)
    (folder / "ca.pem").write_bytes(authority)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(private + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _build(
    subject: x509.Name, key: rsa.RSAPrivateKey, signer: rsa.RSAPrivateKey, *extensions: x509.ExtensionType
) -> bytes:
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(subject_name=subject, issuer_name=_name("authority"), public_key=key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    built = built.not_valid_after(now + timedelta(days=1))
    for one in extensions:
        built = built.add_extension(one, critical=isinstance(one, x509.BasicConstraints | x509.KeyUsage))
    return built.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
