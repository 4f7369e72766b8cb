"""Control planes that exist for one trial, that are kept after a run, and two in one run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from bench.meshes.istio import control_plane as istio
from tests.cluster.ends import print_figure
from tests.cluster.job import (
    BASELINE,
    ISTIO,
    MEASURED,
    MESH,
    Job,
    list_leftovers,
    run_command,
    run_job,
    until_loading,
)
from tests.cluster.lab import CONTEXT
from tests.command import Command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_before")]

KUMA: Mapping[str, Any] = {"name": "kuma", "mesh": "kuma"}
VALUES = MESH[1]


def read_proof(job: Job, trial: str) -> list[dict[str, Any]]:
    """What a trial's proof found before its load."""
    text = (job.folder / "trials" / trial / "proof.json").read_text("utf-8")
    return list(json.loads(text)["before"])


@pytest.mark.soak("cluster")
def test_full_isolation_measures_baseline_without_control_plane(cluster: Cluster, tmp_path: Path) -> None:
    """The control plane is installed before its own trial and removed after it; the baseline's proof and the report's
    heading record that."""
    spaces: list[str] = []

    def look(started: Command) -> None:
        until_loading(started, "02-baseline-1")
        spaces.extend(one["metadata"]["name"] for one in cluster.list("v1", "Namespace"))

    job = run_job(tmp_path, *MESH, scenario=[ISTIO, BASELINE], isolation="full", during=look)
    assert job.exit_code in MEASURED, job.output
    assert f"bookinfo-{job.folder.name[-4:]}" in spaces
    assert "istio-system" not in spaces
    (alone,) = (fact for fact in read_proof(job, "02-baseline-1") if fact["name"] == "no control plane")
    assert (alone["subject"], alone["ok"], alone["seen"]) == ("istio", True, "not on the cluster")
    assert "no control plane" not in {fact["name"] for fact in read_proof(job, "01-istio-1")}
    assert "each trial installed its own control plane" in (job.folder / "report" / "report.md").read_text("utf-8")
    assert list_leftovers(cluster) == []
    print_figure(f"isolation full, a mesh and the baseline: {job.seconds:.0f} s")


@pytest.mark.soak("cluster")
def test_kept_control_plane_stays_until_cleanup(cluster: Cluster, tmp_path: Path) -> None:
    """The control plane stays, but neither the trials' namespaces nor the lock; the next run requires a cleanup."""
    job = run_job(tmp_path, *MESH, "--keep", scenario=[ISTIO])
    assert job.exit_code in MEASURED, job.output
    assert istio.find_installed(cluster).startswith("namespace istio-system, Deployment istio-system/istiod")
    assert not [name for name in list_leftovers(cluster) if "bookinfo-" in name or "meshbench-lock" in name]
    refused = run_job(tmp_path, *MESH, scenario=[ISTIO])
    assert refused.exit_code == 8, refused.output
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in refused.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.output
    assert list_leftovers(cluster) == []


def test_both_meshes_are_measured_in_one_run(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """Both control planes are on the cluster, and each trial's pods have only the sidecar of their own mesh."""
    scenario = [BASELINE, ISTIO, KUMA]
    job = run_job(tmp_path, "--mesh-values", f"istio={VALUES}", scenario=scenario)
    assert job.exit_code in MEASURED, job.output
    trials = job.trials()
    assert list(trials) == ["01-baseline-1", "02-istio-1", "03-kuma-1"]
    assert {name: find_injected(trial) for name, trial in trials.items()} == {
        "01-baseline-1": [],
        "02-istio-1": ["istio-init", "istio-proxy"],
        "03-kuma-1": ["kuma-init", "kuma-sidecar"],
    }
    assert list_leftovers(cluster) == []
    print_figure(f"baseline, Istio and Kuma in one run: {job.seconds:.0f} s")


def find_injected(trial: Mapping[str, Any]) -> list[str]:
    """Return the containers that meshes injected into a trial's pods."""
    return [name for name in trial["images"] if name.startswith(("istio", "kuma"))]
