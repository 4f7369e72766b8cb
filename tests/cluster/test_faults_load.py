"""Faults of the load and of the application on a real cluster: the trial reports them, keeps its samples, and the run
continues with the next one."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster, Ref
from bench.k8s.ownership import COMPONENT
from bench.results.samples import Samples, read_parquet
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.accounts import account, token_user, write_kubeconfig
from tests.cluster.job import (
    HARM,
    Job,
    assert_unchanged,
    delete_named,
    namespace_of,
    run_job,
    stop_api_server,
    until_loading,
)
from tests.cluster.lab import CONTEXT
from tests.cluster.lab_images import kill_container
from tests.command import Command
from tests.issues import read_reasons

pytestmark = pytest.mark.soak("cluster", together=True)

WINDOW_S = 10
AWAY_S = 5


@pytest.fixture(scope="module")
def harmed(cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One run of four trials, each with its own faults, by an account with only the rights that a run needs."""
    folder = tmp_path_factory.mktemp("harmed")
    config = folder / "config"
    with assert_unchanged(cluster), account(cluster, "run") as runner:
        write_kubeconfig(config, token_user(runner.token("old")))

        def another_context_and_token_and_no_api_server() -> None:
            write_kubeconfig(config, token_user(runner.token("new")))
            text = config.read_text("utf-8")
            config.write_text(text.replace(f"current-context: {CONTEXT}", "current-context: elsewhere"), "utf-8")
            runner.revoke("old")
            with stop_api_server():
                wait_until(lambda: None, timeout_s=AWAY_S, watch=CancelToken(), poll_s=0.5)

        def harm(started: Command) -> None:
            place = namespace_of(started)
            harms: Mapping[str, Callable[[], object]] = {
                "01-away-1": another_context_and_token_and_no_api_server,
                "02-killed-1": lambda: kill_container(container_of(cluster, "details", place)),
                "03-evicted-1": lambda: delete_named(
                    cluster, Ref("v1", "Pod", pod_of(cluster, "reviews", place), place)
                ),
                "04-gone-1": lambda: delete_named(cluster, Ref("v1", "Pod", "locust", place), grace_s=0),
            }
            for trial, act in harms.items():
                until_loading(started, trial, rows=20)
                act()

        return run_job(
            folder,
            scenario=[{"name": name, "mesh": "none"} for name in ("away", "killed", "evicted", "gone")],
            load={"duration": f"{WINDOW_S}s"},
            during=harm,
            env={"KUBECONFIG": str(config)},
        )


def pod_of(cluster: Cluster, app: str, place: str) -> str:
    (pod,) = cluster.list("v1", "Pod", namespace=place, labels=f"{COMPONENT}=application,app={app}")
    return str(pod["metadata"]["name"])


def container_of(cluster: Cluster, app: str, place: str) -> str:
    pod = cluster.get(Ref("v1", "Pod", pod_of(cluster, app, place), place)) or {}
    return str(pod["status"]["containerStatuses"][0]["containerID"])


def samples(job: Job, trial: str) -> Samples:
    return read_parquet(job.folder / "trials" / trial / "samples.parquet")


def reasons(job: Job, trial: str) -> str:
    record: dict[str, Any] = job.trials()[trial]
    return " | ".join(read_reasons(record))


def test_run_completes_despite_faults(harmed: Job) -> None:
    """All trials are kept, each with its issues; exit code 5, since three of them carry no result."""
    assert harmed.exit_code == 5, harmed.output
    assert harmed.record["status"] == "invalid"
    assert harmed.record["cleanup_ok"] is True
    assert list(harmed.trials()) == ["01-away-1", "02-killed-1", "03-evicted-1", "04-gone-1"]
    assert (harmed.folder / "report" / "index.html").is_file()


def test_another_context_and_a_new_token_change_nothing(harmed: Job) -> None:
    """Another shell switches the kubeconfig's context, and a token expires during the run while the kubeconfig has the
    next."""
    assert not HARM.search(reasons(harmed, "01-away-1"))


def test_api_outage_loses_no_samples(harmed: Job) -> None:
    """The load continues: requests of those seconds are among the samples, and Locust's summary agrees."""
    assert not HARM.search(reasons(harmed, "01-away-1"))
    record, rows = harmed.trials()["01-away-1"], samples(harmed, "01-away-1")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)
    ended = sorted(rows.completed_ns / 1e9)
    assert max(b - a for a, b in pairwise(ended)) < 3
    assert ended[-1] > WINDOW_S - 1


def test_killed_container_makes_trial_invalid(harmed: Job) -> None:
    """The reason has its name and exit code; requests until then are kept."""
    text = reasons(harmed, "02-killed-1")
    assert "restart: " in text
    assert "details" in text
    assert "exit code 137" in text
    assert len(samples(harmed, "02-killed-1")) >= 20


def test_evicted_pod_makes_trial_invalid(harmed: Job) -> None:
    """As on a node that is drained or short of memory: the replacement is another pod, and was not warmed up."""
    text = reasons(harmed, "03-evicted-1")
    assert "deleted meanwhile: Pod reviews-v3-" in text
    assert "proof: " not in text
    assert len(samples(harmed, "03-evicted-1")) >= 20


def test_deleted_load_pod_makes_trial_invalid(harmed: Job) -> None:
    """Samples that were fetched until then are kept, and reported as incomplete."""
    text = reasons(harmed, "04-gone-1")
    assert "generator-ended: the load pod was deleted" in text
    assert len(samples(harmed, "04-gone-1")) >= 20
