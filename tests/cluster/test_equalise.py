"""Equal settings in all meshes, by each mesh's own means: what real sidecars then have, and send."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.results.records import DataPath, ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MEASURED, MESH, POLICIES, Job, run_job

pytestmark = pytest.mark.slow

KUMA = {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}
HOPS = 4


def measure(folder: Path, configuration: Mapping[str, Any], *arguments: str) -> Job:
    """One trial with policies, in which everything that can be equal is."""
    job = run_job(folder, *arguments, scenario=[configuration], equalise=["tls", "workers", "retries"])
    assert job.exit_code in MEASURED, job.output
    return job


def proof_of(job: Job) -> ProofRecord:
    (trial,) = job.trials()
    return read_record(job.folder / "trials" / trial / "proof.json", ProofRecord)


def check_equal(proof: ProofRecord) -> DataPath:
    """Check that no proof failed, each hop uses TLS 1.3, sidecars have two workers, and none retries."""
    assert proof.failures == ()
    assert {fact.name for fact in proof.after if fact.name.startswith("set alike")} == {
        "set alike: TLS", "set alike: workers", "set alike: retries",
    }  # fmt: skip
    path = proof.data_path
    assert path is not None
    assert len(path.ways) == HOPS
    assert {(route.seen.tls, route.seen.ciphers) for route in path.ways} == {
        (("TLSv1.3",), ("TLS_AES_128_GCM_SHA256",))
    }
    assert {route.retries for route in path.ways} == {None}
    assert set(path.workers.values()) == {2}
    assert len(path.workers) == HOPS + 1
    return path


def keys_in(value: Any) -> Iterator[bytes]:
    """Return the private keys in a configuration, if there are any."""
    for name, part in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if name == "private_key":
            yield base64.b64decode(part.get("inline_bytes", "")) or part.get("inline_string", "").encode()
        else:
            yield from keys_in(part)


def check_stored(job: Job) -> None:
    """Check that each sidecar's configuration is in the trial's folder, without any key."""
    kept = list(job.folder.glob("trials/*/proxies/*.json"))
    assert {file.stem for file in kept} == {"productpage", "details", "reviews", "ratings", "locust"}
    for file in kept:
        text = file.read_text("utf-8")
        assert "PRIVATE KEY" not in text
        assert "SecretsConfigDump" not in text
        assert set(keys_in(json.loads(text))) <= {b"[redacted]"}


@pytest.mark.soak("cluster")
def test_istio_is_equalised(tmp_path: Path) -> None:
    """At installation: TLS 1.3 as the oldest version, no retries; the rest of its data path is Istio's."""
    job = measure(tmp_path, POLICIES, *MESH)
    path = check_equal(proof_of(job))
    assert {route.seen.http for route in path.ways} == {("HTTP/1.1",)}
    assert {route.load_balancing for route in path.ways} == {"LEAST_REQUEST"}
    assert {inbound.retries.conditions for inbound in path.inbounds if inbound.retries} == {("reset-before-request",)}
    check_stored(job)


def test_kuma_is_equalised(tmp_path: Path, kumactl: str) -> None:
    """By policies in the run's namespace: TLS 1.3 instead of 1.2, and no retries instead of five."""
    job = measure(tmp_path, KUMA)
    path = check_equal(proof_of(job))
    assert {route.seen.http for route in path.ways} == {("HTTP/2",)}
    assert {route.timeout_s for route in path.ways} == {15.0}
    check_stored(job)
