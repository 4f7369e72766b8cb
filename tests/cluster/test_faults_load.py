"""What happens to the load and to what is loaded on a real cluster: the trial tells, keeps its samples, and the run
goes on with the next one."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster, Ref
from bench.k8s.ownership import COMPONENT
from bench.results.samples import Samples, read_parquet
from bench.system.cancellation import Watch, wait_until
from tests.cluster.accounts import account, with_token, write_kubeconfig
from tests.cluster.job import HARM, Job, namespace_of, run_job, stopped_api_server, unchanged, until_loading
from tests.cluster.lab import CONTEXT
from tests.cluster.lab_images import kill_container
from tests.command import Command

WINDOW_S, SHORT_S = 10, 6
AWAY_S = 5


@pytest.fixture(scope="module")
def harmed(cluster: Cluster, lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One run of four trials, each with faults of its own, by an account that may do no more than a run needs."""
    folder = tmp_path_factory.mktemp("harmed")
    config = folder / "config"
    with unchanged(cluster), account(cluster, "run") as runner:
        write_kubeconfig(config, with_token(runner.token("old")))

        def another_context_and_token_and_no_api_server() -> None:
            write_kubeconfig(config, with_token(runner.token("new")))
            text = config.read_text("utf-8")
            config.write_text(text.replace(f"current-context: {CONTEXT}", "current-context: elsewhere"), "utf-8")
            runner.revoke("old")
            with stopped_api_server():
                wait_until(lambda: None, timeout_s=AWAY_S, watch=Watch(), poll_s=0.5)

        def harm(started: Command) -> None:
            place = namespace_of(started)
            harms: Mapping[str, Callable[[], object]] = {
                "01-away-1": another_context_and_token_and_no_api_server,
                "02-killed-1": lambda: kill_container(container_of(cluster, "details", place)),
                "03-evicted-1": lambda: cluster.delete(Ref("v1", "Pod", pod_of(cluster, "reviews", place), place)),
                "04-gone-1": lambda: cluster.delete(Ref("v1", "Pod", "locust", place), grace_s=0),
            }
            for trial, act in harms.items():
                until_loading(started, trial, rows=20)
                act()

        return run_job(
            folder,
            scenario=[
                {"name": "away", "mesh": "none", "load": {"duration": f"{WINDOW_S}s"}},
                *({"name": name, "mesh": "none"} for name in ("killed", "evicted", "gone")),
            ],
            load={"duration": f"{SHORT_S}s"},
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
    return " | ".join(record["reasons"])


def test_the_run_goes_on_to_its_end(harmed: Job) -> None:
    """All trials are kept, each with its doubts; exit code 5, since three of them carry no result."""
    assert harmed.exit_code == 5, harmed.told
    assert harmed.record["status"] == "invalid"
    assert harmed.record["cleanup_ok"] is True
    assert list(harmed.trials()) == ["01-away-1", "02-killed-1", "03-evicted-1", "04-gone-1"]
    assert (harmed.folder / "report" / "index.html").is_file()


def test_another_context_and_a_new_token_change_nothing(harmed: Job) -> None:
    """A kubeconfig that another shell switches, and a token that ends in mid-run while the kubeconfig has the next."""
    assert not HARM.search(reasons(harmed, "01-away-1"))


def test_nothing_is_lost_while_the_api_server_is_away(harmed: Job) -> None:
    """The load goes on: requests of those seconds are among the samples, and Locust's account agrees."""
    assert not HARM.search(reasons(harmed, "01-away-1"))
    record, rows = harmed.trials()["01-away-1"], samples(harmed, "01-away-1")
    assert record["generator"]["locust_requests"] == record["generator"]["recorded"] == len(rows)
    ended = sorted(rows.completed_ns / 1e9)
    assert max(b - a for a, b in pairwise(ended)) < 3
    assert ended[-1] > WINDOW_S - 1


def test_a_container_that_was_killed_makes_its_trial_invalid(harmed: Job) -> None:
    """With its name and exit code; requests until then are kept."""
    told = reasons(harmed, "02-killed-1")
    assert "restart: " in told
    assert "details" in told
    assert "exit code 137" in told
    assert len(samples(harmed, "02-killed-1")) >= 20


def test_a_pod_that_was_evicted_makes_its_trial_invalid(harmed: Job) -> None:
    """As from a node that is drained or short of memory: what takes its place is another pod, and was not warm."""
    told = reasons(harmed, "03-evicted-1")
    assert "no longer there: Pod reviews-v3-" in told
    assert "proof: " not in told
    assert len(samples(harmed, "03-evicted-1")) >= 20


def test_a_load_pod_that_is_gone_makes_its_trial_invalid(harmed: Job) -> None:
    """What came over until then is kept, and told as not whole."""
    told = reasons(harmed, "04-gone-1")
    assert "generator-ended: the load pod is gone" in told
    assert len(samples(harmed, "04-gone-1")) >= 20
