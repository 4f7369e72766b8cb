"""What is set alike in all meshes, by each mesh's own means: what real sidecars then have, and say on the wire."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.results.records import DataPath, ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MESH, POLICIES, Job, run_job

pytestmark = pytest.mark.slow

MEASURED = (0, 5)  # 5: it measured, and says that this machine was too busy for the numbers to count
KUMA = {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}
HOPS = 4


def measured(folder: Path, configuration: Mapping[str, Any], *arguments: str) -> Job:
    """One trial with policies, in which all that can be set alike is."""
    job = run_job(folder, *arguments, scenario=[configuration], equalise=["tls", "workers", "retries"])
    assert job.exit_code in MEASURED, job.told
    return job


def proof_of(job: Job) -> ProofRecord:
    (trial,) = job.trials()
    return read_record(job.folder / "trials" / trial / "proof.json", ProofRecord)


def check_alike(proof: ProofRecord) -> DataPath:
    """What every mesh has then: no failed proof, TLS 1.3 on each hop, two workers, no retries between sidecars."""
    assert proof.failures == ()
    assert {fact.name for fact in proof.after if fact.name.startswith("set alike")} == {
        "set alike: TLS", "set alike: workers", "set alike: retries",
    }  # fmt: skip
    path = proof.data_path
    assert path is not None
    assert len(path.ways) == HOPS
    assert {(way.seen.tls, way.seen.ciphers) for way in path.ways} == {(("TLSv1.3",), ("TLS_AES_128_GCM_SHA256",))}
    assert {way.retries for way in path.ways} == {None}
    assert set(path.workers.values()) == {2}
    assert len(path.workers) == HOPS + 1
    return path


def keys_in(value: Any) -> Iterator[bytes]:
    """The private keys in a configuration, as far as they are there at all."""
    for name, part in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if name == "private_key":
            yield base64.b64decode(part.get("inline_bytes", "")) or part.get("inline_string", "").encode()
        else:
            yield from keys_in(part)


def check_kept(job: Job) -> None:
    """Each sidecar's configuration lies in the trial's folder, without any key."""
    kept = list(job.folder.glob("trials/*/proxies/*.json"))
    assert {file.stem for file in kept} == {"productpage", "details", "reviews", "ratings", "locust"}
    for file in kept:
        text = file.read_text("utf-8")
        assert "PRIVATE KEY" not in text
        assert "SecretsConfigDump" not in text
        assert set(keys_in(json.loads(text))) <= {b"[redacted]"}


def test_istio_is_set_alike(tmp_path: Path) -> None:
    """Installed so: TLS 1.3 as the oldest version, no retries; the rest of its data path is Istio's."""
    job = measured(tmp_path, POLICIES, *MESH)
    path = check_alike(proof_of(job))
    assert {way.seen.http for way in path.ways} == {("HTTP/1.1",)}
    assert {way.load_balancing for way in path.ways} == {"LEAST_REQUEST"}
    assert {inbound.retries.conditions for inbound in path.inbounds if inbound.retries} == {("reset-before-request",)}
    check_kept(job)


def test_kuma_is_set_alike(tmp_path: Path, kumactl: str) -> None:
    """By policies in the run's namespace: TLS 1.3, where it would be 1.2, and no retries, where there would be five."""
    job = measured(tmp_path, KUMA)
    path = check_alike(proof_of(job))
    assert {way.seen.http for way in path.ways} == {("HTTP/2",)}
    assert {way.timeout_s for way in path.ways} == {15.0}
    check_kept(job)
