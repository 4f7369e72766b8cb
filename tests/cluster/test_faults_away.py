"""An API server that cannot be reached for longer than a request waits, where the load is not: a run outlasts it, or
ends with what it has."""

from pathlib import Path
from typing import Any, Final

import pytest

from bench.k8s.client import Cluster
from bench.results.samples import read_parquet
from bench.system.cancellation import Watch, wait_until
from tests.cluster.job import HARM, Job, run_command, run_job, unchanged, until_applied
from tests.cluster.lab import CONTEXT
from tests.cluster.way import Way, relay
from tests.command import Command

TRIAL = "01-baseline-1"
AWAY_S = 5  # a request alone is given up after 2 s

# Nobody waits for two minutes in a test.
_HASTY: Final = {"request_s": 2.0}
_IMPATIENT: Final = {**_HASTY, "away_s": 4.0, "clean_s": 4.0}


def away(way: Way) -> None:
    way.close()
    wait_until(lambda: None, timeout_s=AWAY_S, watch=Watch(), poll_s=0.5)
    way.open()


def until_proving(started: Command) -> None:
    """The load is over, its samples are stored, and the proof after it goes on or is about to."""
    samples = started.loading(TRIAL) / "samples.parquet"
    started.until(samples.exists, "the samples of a load that has ended")


def test_a_run_outlasts_an_absence_in_the_deployment_and_in_the_proof(
    cluster: Cluster, lab_kubeconfig: Path, tmp_path: Path
) -> None:
    """What was cut is begun anew; nothing of it is a doubt about the trial."""

    def harm(started: Command) -> None:
        until_applied(started, "Deployment")
        away(way)
        until_proving(started)
        away(way)

    with unchanged(cluster), relay(lab_kubeconfig, tmp_path / "config") as way:
        job = run_job(tmp_path, during=harm, env={"KUBECONFIG": str(tmp_path / "config")}, timing=_HASTY)
    assert job.exit_code in (0, 5), job.told
    assert not HARM.search(" | ".join(job.trials()[TRIAL]["reasons"])), job.told
    assert job.record["cleanup_ok"] is True
    assert (job.folder / "report" / "index.html").is_file()


@pytest.fixture(scope="module")
def forsaken(cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Job]:
    """A run whose API server goes away for good before the proof that follows the load; and the cleanup after it."""
    folder = tmp_path_factory.mktemp("forsaken")

    def harm(started: Command) -> None:
        until_proving(started)
        way.close()

    with unchanged(cluster):
        with relay(lab_kubeconfig, folder / "config") as way:
            environment: dict[str, Any] = {"KUBECONFIG": str(folder / "config")}
            job = run_job(folder, during=harm, env=environment, timing=_IMPATIENT)
        return job, run_command(folder, "cleanup", "--run-id", job.folder.name)


def test_samples_outlive_the_api_server(forsaken: tuple[Job, Job]) -> None:
    """The trial is kept with all its requests, as one of which nobody knows what it was: exit code 5."""
    job, _ = forsaken
    assert job.exit_code == 5, job.told
    record = job.trials()[TRIAL]
    assert "unproven: " in " | ".join(record["reasons"])
    assert "what it was after the load could not be found out: " in " | ".join(record["warnings"])
    rows = read_parquet(job.folder / "trials" / TRIAL / "samples.parquet")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)


def test_what_could_not_be_removed_is_told_with_the_command_that_does(forsaken: tuple[Job, Job]) -> None:
    """It works as soon as the API server can be reached again."""
    job, removed = forsaken
    assert f"{TRIAL} is invalid, and the run cannot go on: " in job.message
    assert f"meshbench cleanup --context {CONTEXT} --run-id {job.folder.name}" in job.message
    assert job.record["cleanup_ok"] is False
    assert removed.exit_code == 0, removed.told
