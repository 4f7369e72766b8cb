"""A control plane that was there before: a run uses it, and leaves it as it was."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.k8s.client import Cluster, Object
from tests.cluster.job import POLICIES, changes, everything, run_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("existing_istio")]

_LEADER = "control-plane.alpha.kubernetes.io/leader"  # istiod renews what has it every few seconds


def test_an_istio_that_was_there_before_is_used_and_stays(cluster: Cluster, tmp_path: Path) -> None:
    """With all of its policies in a run's own part of it; none of its objects is another one afterwards."""
    before = everything(cluster)
    job = run_job(tmp_path, "--use-existing-mesh", scenario=[POLICIES])
    assert job.exit_code == 0, job.told
    assert "the mesh was there before and stays" in (job.folder / "report" / "report.md").read_text("utf-8")
    now = everything(cluster)
    assert changes(before, now) == []
    assert touched(before, now) == []


def touched(before: Mapping[str, Object], now: Mapping[str, Object]) -> list[str]:
    """Objects of the mesh that somebody wrote to; but for those by which istiod and the kubelet say that it lives."""
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
