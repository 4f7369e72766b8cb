"""A run's identities: content and lifetime of the certificates, and permissions of the keys."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.envoy.certificates import Certificates, issue_certificates
from bench.envoy.wire import Wire
from bench.errors import DeployError

NOW = datetime(2026, 11, 23, 3, 15, 0, 500_000, tzinfo=UTC)
SPIFFE_ID = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews"
BUILTIN = ("spiffe://default/locust_bookinfo_svc", "kuma://app/locust")
WIRE = Wire(http="HTTP/2", tls="TLSv1.2", alpn="kuma")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("run") / "identities"
    names = {"bookinfo-reviews": (SPIFFE_ID,), "locust": BUILTIN}
    return issue_certificates(folder, names, wire=WIRE, now=NOW, run_s=600)


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_leaf_is_a_workload_certificate(certificates: Certificates) -> None:
    """RSA-2048, signed by the run's root, with the SPIFFE id as its only name, for both sides of a connection."""
    identity = certificates.identity("bookinfo-reviews")
    leaf, root = loaded(identity.certificate), loaded(certificates.roots)
    leaf.verify_directly_issued_by(root)
    key = leaf.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert [name.value for name in names.value] == [SPIFFE_ID]
    assert identity.spiffe_id == certificates.spiffe_id("bookinfo-reviews") == SPIFFE_ID
    assert list(leaf.subject) == []


def test_leaf_has_all_names_of_its_mesh(certificates: Certificates) -> None:
    """Kuma's builtin authority writes a name for every tag; the SPIFFE id comes first and is the identity."""
    identity = certificates.identity("locust")
    names = loaded(identity.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert tuple(name.value for name in names.value) == BUILTIN
    assert identity.spiffe_id == certificates.spiffe_id("locust") == BUILTIN[0]
    assert (identity.tls, identity.alpn) == (WIRE.tls, WIRE.alpn)


def test_certificates_outlive_the_run_by_a_day(certificates: Certificates) -> None:
    """Root and leaf are valid from before the start until 24 hours after the planned end."""
    end = (NOW + timedelta(minutes=10, hours=24)).replace(microsecond=0)
    assert certificates.not_after == end
    for path in (certificates.roots, certificates.identity("bookinfo-reviews").certificate):
        assert loaded(path).not_valid_before_utc < NOW
        assert loaded(path).not_valid_after_utc == end


def test_refuses_run_that_outlives_its_certificates(certificates: Certificates) -> None:
    """The planned end of a run must be before the certificates expire."""
    certificates.require_validity(certificates.not_after)
    with pytest.raises(
        DeployError, match=r"expire at 2026-11-24 03:25 UTC, before its planned end at 2026-11-24 03:26"
    ):
        certificates.require_validity(certificates.not_after + timedelta(minutes=1))


def test_keys_are_readable_by_the_owner_only(certificates: Certificates) -> None:
    """Other users cannot read folder and files, and the root's key is not stored."""
    assert certificates.folder.stat().st_mode & 0o777 == 0o700
    files = list(certificates.folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert sorted(path.name for path in files) == [
        "bookinfo-reviews.crt",
        "bookinfo-reviews.key",
        "locust.crt",
        "locust.key",
        "root-cert.pem",
    ]


def test_does_not_overwrite_identities(certificates: Certificates) -> None:
    """A second run in the same folder would replace the keys of the first one's sidecars."""
    with pytest.raises(FileExistsError):
        issue_certificates(certificates.folder, {}, wire=WIRE, now=NOW, run_s=1)
