"""A run uses an existing control plane, and leaves it unchanged."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.k8s.client import Cluster, Object
from tests.cluster.job import MEASURED, POLICIES, find_changes, list_objects, run_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("existing_istio")]

_LEADER = "control-plane.alpha.kubernetes.io/leader"  # istiod renews objects with this annotation every few seconds


def test_existing_istio_is_used_and_unchanged(cluster: Cluster, tmp_path: Path) -> None:
    """All policies apply in the run's own namespace; none of the mesh's objects is changed afterwards."""
    before = list_objects(cluster)
    job = run_job(tmp_path, "--use-existing-mesh", scenario=[POLICIES])
    assert job.exit_code in MEASURED, job.output
    assert "the mesh was there before and stays" in (job.folder / "report" / "report.md").read_text("utf-8")
    now = list_objects(cluster)
    assert find_changes(before, now) == []
    assert find_modified(before, now) == []


def find_modified(before: Mapping[str, Object], now: Mapping[str, Object]) -> list[str]:
    """Return objects of the mesh that were written to, except liveness records of istiod and the kubelet."""
    alive = ("Lease", "Pod", "Deployment", "ReplicaSet", "Endpoints", "EndpointSlice")
    return [
        name
        for name, thing in before.items()
        if "istio" in name
        and thing["kind"] not in alive
        and _LEADER not in thing["metadata"].get("annotations", {})
        and _version(thing) != _version(now[name])
    ]


def _version(thing: Object) -> str:
    return str(thing["metadata"]["resourceVersion"])
