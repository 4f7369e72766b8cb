"""Ctrl-C and SIGTERM in every phase of a run on a cluster: samples are kept, and no object stays there."""

import signal
import time
from pathlib import Path

import pytest

from bench.k8s.client import Cluster, Ref
from bench.results.samples import read_parquet
from bench.system.cancellation import CancelToken, wait_until
from tests import command
from tests.cluster.ends import SentSignal, print_figure, seconds_until_empty
from tests.cluster.job import ISTIO, MESH, Job, list_leftovers, run_command, run_job, until_loading
from tests.cluster.lab import CONTEXT
from tests.command import Command
from tests.issues import read_reasons

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_before")]

LONG = {"duration": "120s"}
CI_BUDGET_S = 10.0  # between a CI system's SIGTERM and its SIGKILL


def assert_interrupted(job: Job, number: signal.Signals) -> None:
    """Check that exit code and record have the signal, and that the message has a hint to resume."""
    assert job.exit_code == 128 + number, job.output
    record = job.record
    assert (record["status"], record["exit_code"]) == ("interrupted", 128 + number)
    assert f"to continue: meshbench run --resume {job.folder}" in job.message


def test_ctrl_c_in_preflight_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Case 49: in the pre-flight, after the cluster was named."""

    def interrupt(started: Command) -> None:
        assert started.popen.stderr
        assert started.popen.stderr.readline().startswith(f"context {CONTEXT}: ")
        started.send(signal.SIGINT)

    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=interrupt)
    assert (job.exit_code, job.run_folder) == (130, None), job.output
    assert job.message == "interrupted\n"
    assert list_leftovers(cluster) == []


@pytest.mark.soak("cluster")
def test_ctrl_c_during_installation_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """Case 50: istiod exists and does not run yet."""
    sent = SentSignal(signal.SIGINT, lambda started: started.line("apply-done", kind="Deployment", name="istiod"))
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=sent)
    ended_s = time.monotonic() - sent.at_s
    assert list_leftovers(cluster) == []
    print_figure(f"Ctrl-C in the installation: ended, with an empty cluster, after {ended_s:.1f} s")
    assert_interrupted(job, signal.SIGINT)
    assert job.record["cleanup_ok"] is True


def test_ctrl_c_in_the_window_keeps_samples(cluster: Cluster, tmp_path: Path) -> None:
    """Case 50: the samples are kept as a trial that is marked as interrupted."""
    sent = SentSignal(signal.SIGINT, lambda started: until_loading(started, "01-baseline-1"))
    job = run_job(tmp_path, load=LONG, during=sent)
    ended_s = time.monotonic() - sent.at_s
    assert list_leftovers(cluster) == []
    print_figure(f"Ctrl-C in the window: ended, with an empty cluster, after {ended_s:.1f} s")
    assert_interrupted(job, signal.SIGINT)
    draft = job.folder / "trials" / "01-baseline-1.partial"
    assert len(read_parquet(draft / "samples.parquet")) >= 10
    trial = command.read_trial_record(job.folder, draft.name)
    assert (trial["status"], read_reasons(trial)) == ("interrupted", ["interrupted: ended by SIGINT"])


@pytest.mark.soak("cluster")
def test_sigterm_during_rollout_ends_within_short_deadline(cluster: Cluster, tmp_path: Path) -> None:
    """Case 51: objects that could not be deleted in that time are reported with the command that deletes them."""
    sent = SentSignal(signal.SIGTERM, lambda started: started.line("apply-done", kind="Pod", name="locust"))
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=sent)
    ended_s = time.monotonic() - sent.at_s
    left = list_leftovers(cluster)
    print_figure(f"SIGTERM in the rollout: ended after {ended_s:.1f} s, {len(left)} objects left")
    assert_interrupted(job, signal.SIGTERM)
    assert ended_s < CI_BUDGET_S
    if job.record["cleanup_ok"]:
        assert left == []
    else:
        assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.output
    print_figure(f"SIGTERM in the rollout: empty after {seconds_until_empty(cluster, sent.at_s):.1f} s")


@pytest.mark.soak("cluster")
def test_second_ctrl_c_ends_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """The run ends at once and prints the command for the rest, which removes it."""
    sent = SentSignal(signal.SIGINT, lambda started: started.line("apply-done", kind="MutatingWebhookConfiguration"))
    second = SentSignal(signal.SIGINT, lambda _: until_terminating(cluster, "istio-system"))

    def twice(started: Command) -> None:
        sent(started)
        second(started)

    job = run_job(tmp_path, *MESH, scenario=[ISTIO], during=twice)
    ended_s = time.monotonic() - second.at_s
    print_figure(f"a second Ctrl-C: ended after {ended_s:.1f} s, {len(list_leftovers(cluster))} objects left")
    assert_interrupted(job, signal.SIGINT)
    assert ended_s < 3
    assert job.record["cleanup_ok"] is False
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    cleaned = run_command(tmp_path, "cleanup")
    assert cleaned.exit_code == 0, cleaned.output
    assert list_leftovers(cluster) == []


def until_terminating(cluster: Cluster, namespace: str) -> None:
    def is_going() -> bool:
        place = cluster.get(Ref("v1", "Namespace", namespace))
        return place is not None and "deletionTimestamp" in place["metadata"]

    assert wait_until(is_going, timeout_s=60, watch=CancelToken(), poll_s=0.1)
