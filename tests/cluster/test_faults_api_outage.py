"""An API server is unreachable for longer than a request waits, during phases other than the load: a run survives it,
or ends with the samples that it has."""

from pathlib import Path
from typing import Any, Final

import pytest

from bench.k8s.client import Cluster
from bench.results.samples import read_parquet
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import HARM, MEASURED, Job, assert_unchanged, run_command, run_job, until_applied
from tests.cluster.lab import CONTEXT
from tests.cluster.relay import Relay, open_relay
from tests.command import Command
from tests.issues import read_reasons

TRIAL = "01-baseline-1"
AWAY_S = 5  # a single request times out after 2 s

# Tests do not wait for the usual two minutes.
_HASTY: Final = {"request_s": 2.0}
_IMPATIENT: Final = {**_HASTY, "away_s": 4.0, "clean_s": 4.0}


def make_unreachable(link: Relay) -> None:
    link.close()
    wait_until(lambda: None, timeout_s=AWAY_S, watch=CancelToken(), poll_s=0.5)
    link.open()


def until_proving(started: Command) -> None:
    """Wait until the load is over, its samples are stored, and the proof after it runs or is about to."""
    samples = started.loading(TRIAL) / "samples.parquet"
    started.until(samples.exists, "the samples of a load that has ended")


@pytest.mark.soak("cluster")
def test_run_survives_api_outage_in_deployment_and_proof(
    cluster: Cluster, lab_kubeconfig: Path, tmp_path: Path
) -> None:
    """Interrupted steps are started again, and none of it is an issue of the trial."""

    def harm(started: Command) -> None:
        until_applied(started, "Deployment")
        make_unreachable(link)
        until_proving(started)
        make_unreachable(link)

    with assert_unchanged(cluster), open_relay(lab_kubeconfig, tmp_path / "config") as link:
        job = run_job(tmp_path, during=harm, env={"KUBECONFIG": str(tmp_path / "config")}, timing=_HASTY)
    assert job.exit_code in MEASURED, job.output
    assert not HARM.search(" | ".join(read_reasons(job.trials()[TRIAL]))), job.output
    assert job.record["cleanup_ok"] is True
    assert (job.folder / "report" / "index.html").is_file()


@pytest.fixture(scope="module")
def unreachable_run(
    cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Job]:
    """A run whose API server stays unreachable from before the proof that follows the load; and the cleanup after
    it."""
    folder = tmp_path_factory.mktemp("forsaken")

    def harm(started: Command) -> None:
        until_proving(started)
        link.close()

    with assert_unchanged(cluster):
        with open_relay(lab_kubeconfig, folder / "config") as link:
            environment: dict[str, Any] = {"KUBECONFIG": str(folder / "config")}
            job = run_job(folder, during=harm, env=environment, timing=_IMPATIENT)
        return job, run_command(folder, "cleanup", "--run-id", job.folder.name)


@pytest.mark.soak("cluster", together=True)
def test_samples_survive_a_lost_api_server(unreachable_run: tuple[Job, Job]) -> None:
    """The trial is kept with all its requests, as one without a proof after its load: exit code 5."""
    job, _ = unreachable_run
    assert job.exit_code == 5, job.output
    record = job.trials()[TRIAL]
    assert "unproven: " in " | ".join(read_reasons(record))
    assert "the state after the load could not be read: " in " | ".join(read_reasons(record, "warning"))
    rows = read_parquet(job.folder / "trials" / TRIAL / "samples.parquet")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)


@pytest.mark.soak("cluster", together=True)
def test_leftovers_are_reported_with_the_cleanup_command(unreachable_run: tuple[Job, Job]) -> None:
    """The command works as soon as the API server can be reached again."""
    job, removed = unreachable_run
    assert f"{TRIAL} is invalid, and the run cannot continue: " in job.message
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    assert job.record["cleanup_ok"] is False
    assert removed.exit_code == 0, removed.output
