"""A run in an existing Kuma: it has its own Mesh there, and changes no other."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_until_deleted
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.kuma import control_plane as kuma
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import MEASURED, delete_named, find_changes, list_objects, run_job

POLICIES: Mapping[str, Any] = {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}
OLDER: Mapping[str, Any] = {"name": "kuma-older", "mesh": "kuma", "manifests": ["kuma/policies-legacy"]}
MESH = Ref("kuma.io/v1alpha1", "Mesh", "default")
_TIMEOUT_S = 120.0
_QUIET_S = 8.0


@pytest.fixture
def existing_kuma(cluster: Cluster, kumactl: str, as_before: None) -> Iterator[dict[str, Object]]:
    """Kuma with its Mesh `default`, as a user has it; everything on the cluster with it."""
    rendered = kuma.render(InstallOptions())
    try:
        for thing in rendered:
            cluster.apply(thing)
        kuma.wait_ready(cluster, timeout_s=_TIMEOUT_S, watch=CancelToken())
        cluster.apply(kuma.base_objects()[0])
        yield wait_until_settled(cluster)
    finally:
        refs = [ref_of(thing) for thing in reversed(rendered)]  # webhooks first, the namespace last
        for ref in refs:
            delete_named(cluster, ref)
        wait_until_deleted(cluster, refs, timeout_s=_TIMEOUT_S, watch=CancelToken())


def wait_until_settled(cluster: Cluster) -> dict[str, Object]:
    """Return everything on the cluster, once the control plane has created what it creates at its first start."""
    looks: list[dict[str, Object]] = []

    def nothing_came() -> bool:
        looks.append(list_objects(cluster))
        has_begun = any(thing["kind"] == "HostnameGenerator" for thing in looks[-1].values())
        return has_begun and len(looks) > 1 and not find_changes(looks[-2], looks[-1])

    assert wait_until(nothing_came, timeout_s=_TIMEOUT_S, watch=CancelToken(), poll_s=_QUIET_S)
    return looks[-1]


def test_existing_kuma_is_used_and_unchanged(cluster: Cluster, existing_kuma: dict[str, Object], tmp_path: Any) -> None:
    """Both forms of its policies are proven in full there, and afterwards no object of others is changed."""
    job = run_job(tmp_path, "--use-existing-mesh", scenario=[POLICIES, OLDER])
    assert job.exit_code in MEASURED, job.output
    assert set(job.trials()) == {"01-kuma-policies-1", "02-kuma-older-1"}
    assert job.record["cluster"]["mesh_versions"] == {"kuma": "2.14.3"}
    report = (job.folder / "report" / "report.md").read_text("utf-8")
    assert "policies for a whole mesh were applied to the run's own part of it alone" in report
    now = list_objects(cluster)
    assert find_changes(existing_kuma, now) == []
    name = f"{MESH.api_version} {MESH}"
    assert now[name]["metadata"]["resourceVersion"] == existing_kuma[name]["metadata"]["resourceVersion"]
