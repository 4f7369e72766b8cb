"""A run in a Kuma that somebody else has put on the cluster: it has a Mesh of its own there, and touches no other."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import gone
from bench.meshes.kuma import control_plane as kuma
from bench.meshes.protocols import InstallOptions
from bench.system.cancellation import Watch, wait_until
from tests.cluster.job import changes, everything, run_job

POLICIES: Mapping[str, Any] = {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}
OLDER: Mapping[str, Any] = {"name": "kuma-older", "mesh": "kuma", "manifests": ["kuma/policies-legacy"]}
MESH = Ref("kuma.io/v1alpha1", "Mesh", "default")
_TIMEOUT_S = 120.0
_QUIET_S = 8.0


@pytest.fixture
def kuma_of_others(cluster: Cluster, kumactl: str, as_before: None) -> Iterator[dict[str, Object]]:
    """Kuma with its Mesh `default`, as a user has it; everything on the cluster with it."""
    rendered = kuma.render(InstallOptions())
    try:
        for thing in rendered:
            cluster.apply(thing)
        kuma.wait_ready(cluster, timeout_s=_TIMEOUT_S, watch=Watch())
        cluster.apply(kuma.base_objects()[0])
        yield settled(cluster)
    finally:
        refs = [ref_of(thing) for thing in reversed(rendered)]  # webhooks first, the namespace last
        for ref in refs:
            cluster.delete(ref)
        gone(cluster, refs, timeout_s=_TIMEOUT_S, watch=Watch())


def settled(cluster: Cluster) -> dict[str, Object]:
    """Everything on the cluster, once the control plane has made what it makes at its first start."""
    looks: list[dict[str, Object]] = []

    def nothing_came() -> bool:
        looks.append(everything(cluster))
        has_begun = any(thing["kind"] == "HostnameGenerator" for thing in looks[-1].values())
        return has_begun and len(looks) > 1 and not changes(looks[-2], looks[-1])

    assert wait_until(nothing_came, timeout_s=_TIMEOUT_S, watch=Watch(), poll_s=_QUIET_S)
    return looks[-1]


def test_a_kuma_that_was_there_before_is_used_and_stays(
    cluster: Cluster, kuma_of_others: dict[str, Object], tmp_path: Any
) -> None:
    """Both forms of its policies are proven in full there, and afterwards no object of others is another one."""
    job = run_job(tmp_path, "--use-existing-mesh", scenario=[POLICIES, OLDER])
    assert job.exit_code == 0, job.told
    assert set(job.trials()) == {"01-kuma-policies-1", "02-kuma-older-1"}
    assert job.record["cluster"]["mesh_versions"] == {"kuma": "2.14.3"}
    report = (job.folder / "report" / "report.md").read_text("utf-8")
    assert "policies for a whole mesh were applied to the run's own part of it alone" in report
    now = everything(cluster)
    assert changes(kuma_of_others, now) == []
    name = f"{MESH.api_version} {MESH}"
    assert now[name]["metadata"]["resourceVersion"] == kuma_of_others[name]["metadata"]["resourceVersion"]
