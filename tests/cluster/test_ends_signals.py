"""Ctrl-C and SIGTERM in every phase of a run on a cluster: what was measured is kept, and nothing stays there."""

import signal
import time
from pathlib import Path

import pytest

from bench.k8s.client import Cluster, Ref
from bench.results.samples import read_parquet
from bench.system.cancellation import Watch, wait_until
from tests import command
from tests.cluster.ends import Sent, seconds_until_empty, tell
from tests.cluster.job import ISTIO, MESH, Job, left_on_cluster, run_command, run_job, until_loading
from tests.cluster.lab import CONTEXT
from tests.command import Command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("as_before")]

LONG = {"duration": "120s"}
CI_BUDGET_S = 10.0  # between a CI system's SIGTERM and its SIGKILL


def assert_interrupted(job: Job, number: signal.Signals) -> None:
    """Exit code and record say which signal it was, and the message how to go on."""
    assert job.exit_code == 128 + number, job.told
    record = job.record
    assert (record["status"], record["exit_code"]) == ("interrupted", 128 + number)
    assert f"to go on: meshbench run --resume {job.folder}" in job.message


def test_ctrl_c_before_anything_is_made_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Case 49: in the pre-flight, after the cluster was named."""

    def interrupt(started: Command) -> None:
        assert started.popen.stderr
        assert started.popen.stderr.readline().startswith(f"context {CONTEXT}: ")
        started.send(signal.SIGINT)

    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=interrupt)
    assert (job.exit_code, job.run_folder) == (130, None), job.told
    assert "interrupted; nothing was left behind" in job.message
    assert left_on_cluster(cluster) == []


def test_ctrl_c_in_the_installation_ends_with_an_empty_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Case 50: istiod is there and does not run yet."""
    sent = Sent(signal.SIGINT, lambda started: started.line("apply-done", kind="Deployment", name="istiod"))
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=sent)
    ended_s = time.monotonic() - sent.at_s
    assert left_on_cluster(cluster) == []
    tell(f"Ctrl-C in the installation: ended, with an empty cluster, after {ended_s:.1f} s")
    assert_interrupted(job, signal.SIGINT)
    assert job.record["cleanup_ok"] is True


def test_ctrl_c_in_the_window_keeps_its_samples(cluster: Cluster, tmp_path: Path) -> None:
    """Case 50: as a trial that is marked as interrupted."""
    sent = Sent(signal.SIGINT, lambda started: until_loading(started, "01-baseline-1"))
    job = run_job(tmp_path, load=LONG, during=sent)
    ended_s = time.monotonic() - sent.at_s
    assert left_on_cluster(cluster) == []
    tell(f"Ctrl-C in the window: ended, with an empty cluster, after {ended_s:.1f} s")
    assert_interrupted(job, signal.SIGINT)
    draft = job.folder / "trials" / "01-baseline-1.partial"
    assert len(read_parquet(draft / "samples.parquet")) >= 10
    trial = command.trial_record(job.folder, draft.name)
    assert (trial["status"], trial["reasons"]) == ("interrupted", ["interrupted: ended by SIGINT"])


def test_sigterm_in_the_rollout_ends_within_a_ci_systems_time(cluster: Cluster, tmp_path: Path) -> None:
    """Case 51: what could not go in that time is told with the command for it, which removes it."""
    sent = Sent(signal.SIGTERM, lambda started: started.line("apply-done", kind="Pod", name="locust"))
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=sent)
    ended_s = time.monotonic() - sent.at_s
    left = left_on_cluster(cluster)
    tell(f"SIGTERM in the rollout: ended after {ended_s:.1f} s, {len(left)} objects left")
    assert_interrupted(job, signal.SIGTERM)
    assert ended_s < CI_BUDGET_S
    if job.record["cleanup_ok"]:
        assert left == []
    else:
        assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.told
    tell(f"SIGTERM in the rollout: empty after {seconds_until_empty(cluster, sent.at_s):.1f} s")


def test_a_second_ctrl_c_waits_for_nobody(cluster: Cluster, tmp_path: Path) -> None:
    """It ends at once, tells the command for the rest, and that removes it."""
    sent = Sent(signal.SIGINT, lambda started: started.line("apply-done", kind="MutatingWebhookConfiguration"))
    second = Sent(signal.SIGINT, lambda _: until_going(cluster, "istio-system"))

    def twice(started: Command) -> None:
        sent(started)
        second(started)

    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=twice)
    ended_s = time.monotonic() - second.at_s
    tell(f"a second Ctrl-C: ended after {ended_s:.1f} s, {len(left_on_cluster(cluster))} objects left")
    assert_interrupted(job, signal.SIGINT)
    assert ended_s < 3
    assert job.record["cleanup_ok"] is False
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.told
    assert left_on_cluster(cluster) == []


def until_going(cluster: Cluster, namespace: str) -> None:
    def is_going() -> bool:
        place = cluster.get(Ref("v1", "Namespace", namespace))
        return place is not None and "deletionTimestamp" in place["metadata"]

    assert wait_until(is_going, timeout_s=60, watch=Watch(), poll_s=0.1)
