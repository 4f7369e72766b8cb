"""Control planes that come and go with each trial, that stay for a look, and two in one run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from bench.meshes.istio import control_plane as istio
from tests.cluster.ends import tell
from tests.cluster.job import (
    BASELINE,
    ISTIO,
    MESH,
    Job,
    left_on_cluster,
    run_command,
    run_job,
    until_loading,
)
from tests.cluster.lab import CONTEXT
from tests.command import Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("as_before")]

KUMA: Mapping[str, Any] = {"name": "kuma", "mesh": "kuma"}
VALUES = MESH[1]


def proven(job: Job, trial: str) -> list[dict[str, Any]]:
    """What a trial's proof says of the time before its load."""
    text = (job.folder / "trials" / trial / "proof.json").read_text("utf-8")
    return list(json.loads(text)["before"])


def test_isolation_full_measures_the_baseline_without_a_control_plane(cluster: Cluster, tmp_path: Path) -> None:
    """It comes before its own trial and goes after it; the baseline's proof says so, and the report's heading."""
    spaces: list[str] = []

    def look(started: Command) -> None:
        until_loading(started, "02-baseline-1")
        spaces.extend(one["metadata"]["name"] for one in cluster.list("v1", "Namespace"))

    job = run_job(tmp_path, *MESH, scenario=[ISTIO, BASELINE], isolation="full", during=look)
    assert job.exit_code == 0, job.told
    assert f"bookinfo-{job.folder.name[-4:]}" in spaces
    assert "istio-system" not in spaces
    (alone,) = (fact for fact in proven(job, "02-baseline-1") if fact["name"] == "no control plane")
    assert (alone["subject"], alone["ok"], alone["seen"]) == ("istio", True, "not on the cluster")
    assert "no control plane" not in {fact["name"] for fact in proven(job, "01-istio-1")}
    assert "each trial installed its own control plane" in (job.folder / "report" / "report.md").read_text("utf-8")
    assert left_on_cluster(cluster) == []
    tell(f"isolation full, a mesh and the baseline: {job.seconds:.0f} s")


def test_what_is_to_be_kept_stays_until_the_cleanup(cluster: Cluster, tmp_path: Path) -> None:
    """The control plane, but neither the trials' namespaces nor the lock; the next run asks for the cleanup."""
    job = run_job(tmp_path, *MESH, "--keep", scenario=[ISTIO])
    assert job.exit_code == 0, job.told
    assert istio.present(cluster).startswith("namespace istio-system, Deployment istio-system/istiod")
    assert not [name for name in left_on_cluster(cluster) if "bookinfo-" in name or "meshbench-lock" in name]
    refused = run_job(tmp_path, *MESH, scenario=[ISTIO])
    assert refused.exit_code == 8, refused.told
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in refused.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.told
    assert left_on_cluster(cluster) == []


def test_both_meshes_are_measured_in_one_run(cluster: Cluster, kumactl: str, tmp_path: Path) -> None:
    """Side by side on the cluster, and each trial's pods have the sidecar of their own mesh alone."""
    scenario = [BASELINE, ISTIO, KUMA]
    job = run_job(tmp_path, "--mesh-values", f"istio={VALUES}", scenario=scenario)
    assert job.exit_code == 0, job.told
    trials = job.trials()
    assert list(trials) == ["01-baseline-1", "02-istio-1", "03-kuma-1"]
    assert {name: injected(trial) for name, trial in trials.items()} == {
        "01-baseline-1": [],
        "02-istio-1": ["istio-init", "istio-proxy"],
        "03-kuma-1": ["kuma-init", "kuma-sidecar"],
    }
    assert left_on_cluster(cluster) == []
    tell(f"baseline, Istio and Kuma in one run: {job.seconds:.0f} s")


def injected(trial: Mapping[str, Any]) -> list[str]:
    """The containers that meshes put into a trial's pods."""
    return [name for name in trial["images"] if name.startswith(("istio", "kuma"))]
