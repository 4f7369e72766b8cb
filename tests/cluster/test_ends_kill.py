"""A run on a cluster is ended by SIGKILL at every kind of step: `cleanup` removes all of it, from anywhere."""

import signal
from pathlib import Path

import pytest

from bench.k8s.client import Cluster
from tests.cluster.ends import SentSignal, clean_up_after, print_figure, signal_at, signal_at_removal
from tests.cluster.job import BASELINE, MESH, POLICIES, Job, list_leftovers, run_command, run_job, until_loading
from tests.cluster.lab import CONTEXT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_before")]

SCENARIO = [POLICIES, BASELINE]
KILL = signal.SIGKILL
RARE = pytest.mark.soak("kills")  # a unit test with the fake cluster covers every partial state
# The step after which the run is killed, and whether it is cleaned up from its own folder or from an empty one.
STEPS = [
    pytest.param("apply-done CustomResourceDefinition /sidecars", "its folder", id="kinds, half of them", marks=RARE),
    pytest.param(
        "apply-done MutatingWebhookConfiguration", "an empty folder", id="webhooks without an answer", marks=RARE
    ),
    pytest.param("apply-done AuthorizationPolicy .*/reviews-viewer", "its folder", id="policies", marks=RARE),
    pytest.param("apply-done Deployment .*/reviews", "an empty folder", id="application", marks=RARE),
    pytest.param("delete-done Namespace /bookinfo-....$", "an empty folder", id="the trial's removal", marks=RARE),
]
# Ctrl-C after the installation, and SIGKILL during the cleanup that follows.
REMOVALS = [
    pytest.param("deleted ValidatingWebhookConfiguration", id="webhooks", marks=RARE),
    pytest.param("deleted Namespace istio-system", id="control plane", marks=RARE),
]


@pytest.mark.parametrize(("step", "place"), STEPS)
def test_killed_run_is_removed(cluster: Cluster, tmp_path: Path, step: str, place: str) -> None:
    """A cleanup by the folder's name, or by the labels alone, leaves no object of the run or of its mesh."""
    killed = run_job(tmp_path, *MESH, scenario=SCENARIO, **signal_at((step, KILL)))
    assert killed.exit_code == -KILL, killed.output
    remove_from(tmp_path, place, killed, cluster=cluster)


@pytest.mark.parametrize("step", REMOVALS)
def test_run_killed_during_cleanup_is_removed(cluster: Cluster, tmp_path: Path, step: str) -> None:
    """The rest is removed, whatever was already deleted when the run was killed."""
    killed = run_job(tmp_path, *MESH, scenario=SCENARIO, **signal_at_removal((step, KILL)))
    assert killed.exit_code == -KILL, killed.output
    remove_from(tmp_path, "an empty folder", killed, cluster=cluster)


def test_run_killed_in_its_window_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    """The load ran until then: the samples that were fetched stay in the draft."""
    sent = SentSignal(KILL, lambda started: until_loading(started, "01-baseline-1"))
    killed = run_job(tmp_path, load={"duration": "60s"}, during=sent)
    assert killed.exit_code == -KILL, killed.output
    remove_from(tmp_path, "its folder", killed, cluster=cluster)
    assert (killed.folder / "trials" / "01-baseline-1.partial" / "samples.bin").stat().st_size >= 330


def remove_from(tmp_path: Path, place: str, killed: Job, *, cluster: Cluster) -> None:
    """Clean up, and check that nothing is left."""
    assert list_leftovers(cluster) != []
    cleaned = clean_up_after(killed, tmp_path, from_folder=place == "its folder")
    left = list_leftovers(cluster)
    print_figure(f"cleaned up from {place} in {cleaned.seconds:.1f} s, {len(left)} objects left")
    assert cleaned.exit_code == 0, cleaned.output
    assert f"{killed.folder.name}: removed in " in cleaned.stdout
    assert left == []


def test_run_after_killed_one_requires_cleanup(cluster: Cluster, tmp_path: Path) -> None:
    """Exit 8 with the command, which works, also where only the lock existed; the credentials that the killed run could
    not remove are removed with it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary)}
    killed = run_job(tmp_path, **signal_at(("^begin", KILL), **env))
    assert [*temporary.rglob("*.pem")] != []
    refused = run_job(tmp_path, env=env)
    assert refused.exit_code == 8, refused.output
    words = ("cleanup", "--run-id", killed.folder.name)
    assert f"meshbench cleanup --context {CONTEXT} --run-id {killed.folder.name}" in refused.message
    cleaned = run_command(tmp_path, *words, env=env)
    assert cleaned.exit_code == 0, cleaned.output
    assert [*temporary.iterdir()] == []
    again = run_command(tmp_path, *words, env=env)
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, f"no leftover objects of {killed.folder.name}")
    assert list_leftovers(cluster) == []
