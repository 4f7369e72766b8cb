"""The load enters through gateways of real control planes: proven, counted, and removed without a trace."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.store import read_record
from tests.cluster.job import MEASURED, Job, assert_unchanged, run_job, small_kuma_options

pytestmark = pytest.mark.slow

ISTIO = {"name": "istio-gateway", "mesh": "istio", "manifests": ["istio/gateway"]}
POLICIES = {
    "name": "istio-gateway-policies",
    "mesh": "istio",
    "manifests": ["istio/policies", "istio/gateway", "istio/gateway-policies"],
}
BUILTIN = {"name": "kuma-gateway", "mesh": "kuma", "manifests": ["kuma/gateway"]}
DELEGATED = {"name": "kuma-gateway-delegated", "mesh": "kuma", "manifests": ["kuma/policies", "kuma/gateway-delegated"]}
ROUTES = {"/productpage", "/static", "/login", "/logout", "/api/v1/products"}
EXISTING = "--use-existing-mesh"
ENTRY, INSIDE = "locust -> gateway", "gateway -> productpage"


def measure(cluster: Cluster, folder: Path, *arguments: str, scenario: list[Mapping[str, Any]]) -> Job:
    """Trials with gateways, of which nothing stays on the cluster."""
    with assert_unchanged(cluster):
        job = run_job(folder, *arguments, scenario=scenario)
    assert job.exit_code in MEASURED, job.output
    return job


def proofs_of(job: Job) -> dict[str, ProofRecord]:
    """Return the proofs by configuration."""
    return {
        trial["configuration"]: read_record(job.folder / "trials" / name / "proof.json", ProofRecord)
        for name, trial in job.trials().items()
    }


def find_evidence(proof: ProofRecord, name: str) -> dict[str, str]:
    """What the proofs of one name found after the load, by their subject."""
    return {fact.subject: fact.seen for fact in proof.after if fact.name == name}


def check_entry(proof: ProofRecord) -> None:
    """Check that the whole load passed gateway and productpage's sidecar; routes as written, and 404 for all else."""
    assert proof.failures == ()
    counted = find_evidence(proof, "requests counted")
    entered = counted[ENTRY].split()[0]
    assert int(entered) > 0
    assert counted[INSIDE] == f"{entered} by gateway's proxy, {entered} by productpage's"
    assert find_evidence(proof, "route").keys() == ROUTES
    assert find_evidence(proof, "no route") == {"/health": "404 from the gateway itself"}


@pytest.mark.usefixtures("existing_istio")
def test_istios_gateway_with_and_without_policies(cluster: Cluster, tmp_path: Path) -> None:
    """It is injected in the run's namespace, with the identity of its account, which policies allow; it is deleted with
    the run."""
    proofs = proofs_of(measure(cluster, tmp_path, EXISTING, scenario=[ISTIO, POLICIES]))
    assert proofs.keys() == {"istio-gateway", "istio-gateway-policies"}
    for proof in proofs.values():
        check_entry(proof)
        assert find_evidence(proof, "identity")["gateway"].endswith("/sa/bookinfo-gateway")
        assert "locust" not in find_evidence(proof, "identity")
    policies = {fact.name for fact in proofs["istio-gateway-policies"].after}
    assert {"policy gateway-viewer rule 0", "policy productpage-login rule 0"} <= policies


def test_kumas_built_in_gateway(cluster: Cluster, tmp_path: Path, kumactl: str) -> None:
    """The pods that the control plane creates for it are awaited, queried, and deleted with the run."""
    proofs = proofs_of(measure(cluster, tmp_path, scenario=[BUILTIN]))
    check_entry(proofs["kuma-gateway"])


def test_delegated_gateway_in_kuma(cluster: Cluster, tmp_path: Path, kumactl: str) -> None:
    """A standard Envoy of the lab, whose sidecar has an identity that productpage's permission allows."""
    envoy = next(
        name
        for node in cluster.list("v1", "Node")
        for image in node["status"]["images"]
        for name in image.get("names") or ()
        if "/proxyv2:" in name
    )
    job = measure(cluster, tmp_path, *small_kuma_options(tmp_path), "--image", f"gateway={envoy}", scenario=[DELEGATED])
    proof = proofs_of(job)["kuma-gateway-delegated"]
    check_entry(proof)
    assert "/sa/bookinfo-gateway" in find_evidence(proof, "identity")["gateway"]
