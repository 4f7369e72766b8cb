"""All configurations of a block at once on a real cluster: loaded together, or in turn, and nothing left afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from bench.k8s.client import Cluster
from bench.results.records import ProofRecord
from bench.results.store import read_record
from tests.cluster.job import BASELINE, HARM, ISTIO, MEASURED, POLICIES, Job, assert_unchanged, run_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("existing_istio")]

GATEWAY: Final = {"name": "gateway", "mesh": "istio", "manifests": ["istio/gateway"]}
GATEWAY_POLICIES: Final = {
    "name": "gateway-policies",
    "mesh": "istio",
    "manifests": ["istio/policies", "istio/gateway", "istio/gateway-policies"],
}
OPTIONS: Final = ("--use-existing-mesh", "--scale-requests", "25%")
NANOSECONDS: Final = 1e9


def measure(cluster: Cluster, folder: Path, *configurations: Mapping[str, Any], **changes: Any) -> Job:
    """Run these configurations side by side, of which nothing stays on the cluster."""
    load = {"warmup": "2s", "duration": "10s", **changes.pop("load", {})}
    with assert_unchanged(cluster):
        job = run_job(
            folder, *OPTIONS, scenario=configurations, load=load, reference=configurations[0]["name"], **changes
        )
    assert job.exit_code in MEASURED, job.output
    return job


def proof_of(job: Job, trial: str) -> ProofRecord:
    return read_record(job.folder / "trials" / trial / "proof.json", ProofRecord)


def check_trials(job: Job, design: str) -> dict[str, dict[str, Any]]:
    """Check that every trial was proven before and after its load; return the records."""
    trials = job.trials()
    for name, trial in trials.items():
        assert trial["design"] == design
        assert proof_of(job, name).failures == ()
        assert not [one for one in trial["issues"] if HARM.search(one["code"])], (name, trial["issues"])
    return trials


def test_duet_of_three_configurations(cluster: Cluster, tmp_path: Path) -> None:
    """All three are loaded at the same time; policies of one apply to no other, which the proofs show. Each sidecar
    knows the Services of its neighbours, and the report says so."""
    job = measure(cluster, tmp_path, BASELINE, ISTIO, POLICIES, design="duet")
    trials = check_trials(job, "duet")
    assert len(trials) == 3
    record = job.record
    assert record["cluster"]["scale_requests"] == 0.25
    heading = " ".join(record["target"]["caveats"])
    assert "25%" in heading
    assert "Services of all namespaces" in heading
    windows = [window for one in trials.values() for window in one["windows"]]
    assert [(one["end_ns"] - one["start_ns"]) / NANOSECONDS for one in windows] == [pytest.approx(10.0)] * 3
    path = proof_of(job, next(name for name in trials if "istio-policies" in name)).data_path
    assert path is not None
    assert path.clusters.keys() == path.workers.keys()
    assert min(path.clusters.values()) > 8  # four Services of its own, and four of each neighbour in the mesh


@pytest.mark.soak("cluster")
def test_gateways_in_turn(cluster: Cluster, tmp_path: Path) -> None:
    """Two gateways with the same labels, side by side: each opens its own port and has its own routes. While the users
    of one wait, the other's send."""
    job = measure(cluster, tmp_path, GATEWAY, GATEWAY_POLICIES, design="interleaved")
    for name, trial in check_trials(job, "interleaved").items():
        assert len(trial["windows"]) >= 2
        counted = {fact.subject: fact.seen for fact in proof_of(job, name).after if fact.name == "requests counted"}
        assert int(counted["locust -> gateway"].split()[0]) > 0
