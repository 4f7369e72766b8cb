"""Issue the certificates of one run: its own root, and a certificate for every service account.

They are like those of a mesh's own authority: RSA-2048 keys, leaves signed by the root directly, and the identity as
names (URIs) only. The root's key is never written, and only the owner can read the other keys.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.envoy.wire import Wire
from bench.errors import DeployError

KEY_BITS: Final = 2048
SPARE: Final = timedelta(hours=24)
_CLOCK_SKEW: Final = timedelta(minutes=2)
_ROOT_FILE: Final = "root-cert.pem"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller's certificate, key and trusted roots, as PEM files.

    `tls` is the highest version to offer and `alpn` the protocol, as a sidecar's client side offers them.
    """

    certificate: Path
    key: Path
    roots: Path
    tls: str
    alpn: str

    @property
    def spiffe_id(self) -> str:
        """Return the SPIFFE id in the certificate."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


@dataclass(frozen=True, slots=True)
class Certificates:
    """The certificates in `folder`, by service account; all are valid until `not_after` (UTC).

    `names` are the URIs in each, the SPIFFE id first; `wire` has the protocols between their owners' sidecars.
    """

    folder: Path
    not_after: datetime
    names: Mapping[str, tuple[str, ...]]
    wire: Wire

    @property
    def roots(self) -> Path:
        """Return the path of the root certificate, PEM."""
        return self.folder / _ROOT_FILE

    def identity(self, account: str) -> Identity:
        """Return certificate, key and root of a service account."""
        certificate, key = (self.folder / f"{account}.{suffix}" for suffix in ("crt", "key"))
        return Identity(certificate, key, self.roots, self.wire.tls, self.wire.alpn)

    def spiffe_id(self, account: str) -> str:
        """Return the SPIFFE id of an account. Raises KeyError for an account without a certificate."""
        return self.names[account][0]

    def require_validity(self, until: datetime) -> None:
        """Raise DeployError if a certificate would expire before `until`, the planned end of the run."""
        if self.not_after < until:
            raise DeployError(
                f"the certificates of this run expire at {self.not_after:%Y-%m-%d %H:%M} UTC, before its"
                f" planned end at {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC; hint: start a new run"
            )


def issue_certificates(
    folder: Path, names: Mapping[str, tuple[str, ...]], *, wire: Wire, now: datetime, run_s: float
) -> Certificates:
    """Write root and leaves into `folder`, which is created if missing, with `names` by service account.

    They are valid for `run_s` seconds from `now` and 24 hours more. Takes some tenths of a second per account.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A certificate has whole seconds.
    not_after = (now + timedelta(seconds=run_s) + SPARE).astimezone(UTC).replace(microsecond=0)
    validity = (now - _CLOCK_SKEW, not_after)
    root_key = _new_key()
    root = _root(root_key, validity)
    certificates = Certificates(folder, not_after, dict(names), wire)
    _write_private(certificates.roots, root.public_bytes(Encoding.PEM))
    for account, uris in names.items():
        key = _new_key()
        leaf = _leaf(key, uris, issuer=root, issuer_key=root_key, validity=validity)
        identity = certificates.identity(account)
        _write_private(identity.certificate, leaf.public_bytes(Encoding.PEM))
        _write_private(identity.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificates


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def _root(key: rsa.RSAPrivateKey, validity: tuple[datetime, datetime]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "meshbench")])
    return (
        _unsigned(name, key, issuer=name, validity=validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    key: rsa.RSAPrivateKey,
    uris: tuple[str, ...],
    *,
    issuer: x509.Certificate,
    issuer_key: rsa.RSAPrivateKey,
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    both_sides = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    return (
        _unsigned(x509.Name([]), key, issuer=issuer.subject, validity=validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature", "key_encipherment"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_sides), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(names, critical=True)  # critical, since the subject is empty
        .sign(issuer_key, hashes.SHA256())
    )


def _unsigned(
    subject: x509.Name, key: rsa.RSAPrivateKey, *, issuer: x509.Name, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    not_before, not_after = validity
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _key_usage(*allowed: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign"
        " crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in allowed for name in every.split()})


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read from the start. Raises FileExistsError for an existing file."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(content)
