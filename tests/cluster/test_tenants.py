"""A run shares the cluster with a second team: nothing of the team's changes, whenever the run is killed."""

import random
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bench.k8s.client import Cluster, Ref
from bench.targets.cluster.teardown.inventory import find_leftovers
from tests.cluster import tenant
from tests.cluster.ends import clean_up_after, print_figure
from tests.cluster.job import (
    BASELINE,
    MEASURED,
    MESH,
    POLICIES,
    delete_named,
    list_leftovers,
    namespace_of,
    run_command,
    run_job,
    until_applied,
    until_loading,
)
from tests.cluster.lab import CONTEXT
from tests.command import Command

pytestmark = [pytest.mark.slow, pytest.mark.soak("tenants")]

KILLS: Final = 3  # of one test, so that it ends within five minutes
GATEWAY: Final = {
    "name": "gateway",
    "mesh": "istio",
    "manifests": ["istio/policies", "istio/gateway", "istio/gateway-policies"],
}
EXISTING: Final = "--use-existing-mesh"


@dataclass(frozen=True)
class Kill:
    """SIGKILL after so many seconds, unless the command ends before."""

    after_s: float

    def __call__(self, started: Command) -> None:
        with suppress(subprocess.TimeoutExpired):
            started.popen.wait(self.after_s)
        if started.popen.poll() is None:
            started.send(signal.SIGKILL)


def kill_beside_team(
    cluster: Cluster, folder: Path, seed: int, *arguments: str, longest_s: float, in_mesh: bool
) -> None:
    """Kill runs at moments that the seed draws, clean up after each, and compare the team's objects."""
    drawn, changed, left = random.Random(seed), 0, 0
    scenario = [GATEWAY] if in_mesh else [POLICIES, BASELINE]
    with tenant.second_team(cluster, in_mesh=in_mesh):
        before, others = tenant.snapshot_team(cluster), list_leftovers(cluster)
        for number in range(KILLS):
            place, kill = folder / str(number), Kill(drawn.uniform(0.5, longest_s))
            place.mkdir()
            killed = run_job(place, *arguments, scenario=scenario, during=kill)
            there = len(find_leftovers(cluster).found)
            cleaned = clean_up_after(killed, place, from_folder=killed.run_folder is not None and number % 2 == 0)
            assert cleaned.exit_code == 0, cleaned.output
            different = tenant.find_changes(before, tenant.snapshot_team(cluster))
            remaining = sorted(set(list_leftovers(cluster)) ^ set(others))
            changed, left = changed + len(different), left + len(remaining)
            how = "killed" if killed.exit_code == -signal.SIGKILL else f"ended with {killed.exit_code}"
            print_figure(
                f"seed {seed}: {how} after {kill.after_s:.1f} s with {there} objects, cleaned up in "
                f"{cleaned.seconds:.1f} s; of {len(before)} objects of the team {len(different)} changed {different}; "
                f"left of the run {len(remaining)} {remaining}"
            )
    assert (changed, left) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_killed_run_that_installs_its_mesh_changes_nothing_of_others(
    cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    """Namespaces, ConfigMaps with a mesh's label, kinds and their objects, and pods like those of a gateway."""
    kill_beside_team(cluster, tmp_path, seed, *MESH, longest_s=100.0, in_mesh=False)


@pytest.mark.usefixtures("existing_istio")
@pytest.mark.parametrize("seed", range(5, 10))
def test_killed_run_in_an_existing_mesh_changes_nothing_of_others(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    """The same where the team has a gateway, routes and policies in the mesh that the run uses."""
    kill_beside_team(cluster, tmp_path, seed, EXISTING, longest_s=60.0, in_mesh=True)


@pytest.mark.usefixtures("existing_istio")
def test_gateway_of_a_second_team_gets_no_routes_of_a_run(cluster: Cluster, tmp_path: Path) -> None:
    """Its pods have the labels by which the run's manifests select their gateway: Istio looks in all namespaces."""
    seen: list[tuple[str, str]] = []

    def look(started: Command) -> None:
        until_loading(started, "01-gateway-1")
        seen.append((namespace_of(started), tenant.read_routes(cluster)))

    with tenant.second_team(cluster, in_mesh=True):
        assert tenant.wait_for(lambda: "shop.example.com" in tenant.read_routes(cluster))
        job = run_job(tmp_path, EXISTING, scenario=[GATEWAY], during=look)
        assert job.exit_code in MEASURED, job.output
    ((namespace, routes),) = seen
    assert "shop.example.com" in routes
    assert namespace not in routes
    assert "/productpage" not in routes


def test_mesh_of_a_run_does_not_inject_pods_of_others(cluster: Cluster, tmp_path: Path) -> None:
    """Not even in a namespace that requests sidecars, and has none of its own."""
    containers: list[list[str]] = []

    def create_pod(started: Command) -> None:
        until_loading(started, "01-istio-policies-1")
        spec = {"containers": [{"name": "main", "image": tenant.IMAGE}]}
        metadata = {"name": "later", "namespace": tenant.SPACES[1]}
        made = cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=True)
        every = (*made["spec"]["containers"], *made["spec"].get("initContainers", ()))
        containers.append([one["name"] for one in every])

    with tenant.second_team(cluster, in_mesh=False):
        job = run_job(tmp_path, *MESH, scenario=[POLICIES], during=create_pod)
        assert job.exit_code in MEASURED, job.output
    assert containers == [["main"]]


def test_kind_with_objects_of_a_second_team_stays(cluster: Cluster, tmp_path: Path) -> None:
    """The team made a policy of a kind that the run had brought: the kind stays, is reported with its command, and is
    removed by a cleanup after the policy."""
    policy = Ref("security.istio.io/v1", "AuthorizationPolicy", "theirs", tenant.SPACES[1])
    metadata = {"name": policy.name, "namespace": policy.namespace}

    def create_policy(started: Command) -> None:
        until_applied(started, "Namespace", name=namespace_of(started))
        cluster.create({"apiVersion": policy.api_version, "kind": policy.kind, "metadata": metadata, "spec": {}})
        started.send(signal.SIGKILL)

    with tenant.second_team(cluster, in_mesh=False):
        killed = run_job(tmp_path, *MESH, scenario=[POLICIES], during=create_policy)
        left = run_command(tmp_path, "cleanup", "--run", killed.folder)
        assert left.exit_code == 7, left.output
        name = "authorizationpolicies.security.istio.io"
        assert f"CustomResourceDefinition {name}: {policy}" in left.message
        assert f"kubectl --context {CONTEXT} delete customresourcedefinition {name}" in left.message
        assert cluster.get(policy) is not None
        delete_named(cluster, policy)
        cleaned = run_command(tmp_path, "cleanup", "--run", killed.folder)
        assert cleaned.exit_code == 0, cleaned.output
    assert list_leftovers(cluster) == []
