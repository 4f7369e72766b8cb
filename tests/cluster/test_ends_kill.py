"""A run on a cluster is ended by SIGKILL at every sort of step: `cleanup` removes all of it, from anywhere."""

import signal
from pathlib import Path

import pytest

from bench.k8s.client import Cluster
from tests.cluster.ends import Sent, at, at_removal, clean_up_after, tell
from tests.cluster.job import BASELINE, MESH, POLICIES, Job, left_on_cluster, run_command, run_job, until_loading
from tests.cluster.lab import CONTEXT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("as_before")]

SCENARIO = [POLICIES, BASELINE]
KILL = signal.SIGKILL
RARE = pytest.mark.soak("kills")  # a test of the fake cluster has every half-way state
# The step after which it is killed, and whether it is cleaned up from its own folder or from an empty one.
STEPS = [
    pytest.param("apply-done CustomResourceDefinition /sidecars", "its folder", id="kinds, half of them", marks=RARE),
    pytest.param(
        "apply-done MutatingWebhookConfiguration", "an empty folder", id="webhooks without an answer", marks=RARE
    ),
    pytest.param("apply-done AuthorizationPolicy .*/reviews-viewer", "its folder", id="policies"),
    pytest.param("apply-done Deployment .*/reviews", "an empty folder", id="application", marks=RARE),
    pytest.param("delete-done Namespace /bookinfo-....$", "an empty folder", id="the trial's removal", marks=RARE),
]
# Ctrl-C after the installation, and the kill while that cleans up.
REMOVALS = [
    pytest.param("deleted ValidatingWebhookConfiguration", id="webhooks", marks=RARE),
    pytest.param("deleted Namespace istio-system", id="control plane"),
]


@pytest.mark.parametrize(("step", "place"), STEPS)
def test_a_killed_run_is_removed(cluster: Cluster, tmp_path: Path, step: str, place: str) -> None:
    """By its folder's name, and by the labels alone; no object of it or of its mesh is left."""
    killed = run_job(tmp_path, *MESH, scenario=SCENARIO, **at((step, KILL)))
    assert killed.exit_code == -KILL, killed.told
    removed_from(tmp_path, place, killed, cluster=cluster)


@pytest.mark.parametrize("step", REMOVALS)
def test_a_run_that_is_killed_while_it_cleans_up_is_removed(cluster: Cluster, tmp_path: Path, step: str) -> None:
    """Whatever was gone already when it was killed."""
    killed = run_job(tmp_path, *MESH, scenario=SCENARIO, **at_removal((step, KILL)))
    assert killed.exit_code == -KILL, killed.told
    removed_from(tmp_path, "an empty folder", killed, cluster=cluster)


def test_a_run_that_is_killed_in_its_window_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    """With the load going on until then: the samples that had come over stay in the draft."""
    sent = Sent(KILL, lambda started: until_loading(started, "01-baseline-1"))
    killed = run_job(tmp_path, load={"duration": "60s"}, during=sent)
    assert killed.exit_code == -KILL, killed.told
    removed_from(tmp_path, "its folder", killed, cluster=cluster)
    assert (killed.folder / "trials" / "01-baseline-1.partial" / "samples.bin").stat().st_size >= 330


def removed_from(tmp_path: Path, place: str, killed: Job, *, cluster: Cluster) -> None:
    """Cleans up, and sees to it that nothing is left."""
    assert left_on_cluster(cluster) != []
    cleaned = clean_up_after(killed, tmp_path, from_folder=place == "its folder")
    left = left_on_cluster(cluster)
    tell(f"cleaned up from {place} in {cleaned.seconds:.1f} s, {len(left)} objects left")
    assert cleaned.exit_code == 0, cleaned.told
    assert f"{killed.folder.name}: removed in " in cleaned.stdout
    assert left == []


def test_a_run_after_a_killed_one_is_refused_until_that_is_cleaned_up(cluster: Cluster, tmp_path: Path) -> None:
    """Exit 8 with the command, which works, also where nothing but the lock was there; the credentials that the killed
    one could not remove go with it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary)}
    killed = run_job(tmp_path, **at(("^begin", KILL), **env))
    assert [*temporary.rglob("*.pem")] != []
    refused = run_job(tmp_path, env=env)
    assert refused.exit_code == 8, refused.told
    words = ("cleanup", "--run-id", killed.folder.name)
    assert f"meshbench cleanup --context {CONTEXT} --run-id {killed.folder.name}" in refused.message
    cleaned = run_command(tmp_path, *words, env=env)
    assert cleaned.exit_code == 0, cleaned.told
    assert [*temporary.iterdir()] == []
    again = run_command(tmp_path, *words, env=env)
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, f"nothing is left of {killed.folder.name}")
    assert left_on_cluster(cluster) == []
