"""Routing by user: the real command runs the scenario `deployment-strategy` with short windows."""

import json
import re

import pytest

from bench.results.store import StoredRun, read_run
from tests import command

pytestmark = pytest.mark.slow

NAMES = {"login", "page as Marco", "page as others"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One repeat with windows of two seconds."""
    output = tmp_path_factory.mktemp("routes") / "results"
    short = ("--repeats", "1", "--users", "4", "--warmup", "1s", "--duration", "2s", *command.ONCE)
    finished = command.run("run", "--scenario", "deployment-strategy", *short, output=output)
    assert finished.code in command.MEASURED, finished.output
    return read_run(next(output.glob("[!.]*/")))


def evidence_of(run: StoredRun, name: str) -> dict[str, dict[str, str]]:
    """What the proofs of one name found after the load, by configuration and subject."""
    return {
        trial.record.configuration: {fact.subject: fact.seen for fact in trial.proof.after if fact.name == name}
        for trial in run.trials
        if trial.proof is not None
    }


def test_every_proof_holds_in_both_meshes(run: StoredRun) -> None:
    """Each mesh routes as its manifests define, before and after the load."""
    assert {trial.record.configuration for trial in run.trials} == {"istio-by-user", "kuma-by-user"}
    for trial in run.trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()


def test_all_pages_show_the_version_of_their_user(run: StoredRun) -> None:
    """In each of 100 pages before and after the load, Marco sees the stars of v2 and other users v1 without stars."""
    wanted = {
        "page as others": "100 of 100 with reviews v1",
        "page as Marco": "100 of 100 with reviews v2",
    }
    for trial in run.trials:
        assert trial.proof is not None
        for facts in (trial.proof.before, trial.proof.after):
            assert {fact.subject: fact.seen for fact in facts if fact.name == "pages"} == wanted


def test_every_version_counts_its_users_pages(run: StoredRun) -> None:
    """Both sidecars of each hop counted the load on that route; v1 called no ratings, and v3 got no requests."""
    for configuration, counted in evidence_of(run, "requests counted").items():
        trial = next(trial for trial in run.trials if trial.record.configuration == configuration)
        samples = trial.samples()
        assert set(samples.names) == NAMES
        pages = {name: int((samples.name == number).sum()) for number, name in enumerate(samples.names)}
        numbers = {hop: [int(number) for number in re.findall(r"(\d+) by", text)] for hop, text in counted.items()}
        assert numbers["productpage -> reviews-v1"] == [pages["page as others"]] * 2
        assert numbers["productpage -> reviews-v2"] == [pages["page as Marco"]] * 2
        assert numbers["productpage -> reviews-v3"] == [0, 0]
        assert numbers["reviews-v2 -> ratings"] == [pages["page as Marco"]] * 2
        assert pages["login"] == 2


def test_half_of_the_users_log_in_before_the_window(run: StoredRun) -> None:
    """No login counts in the window; the pages of both user groups do, and none was wrong."""
    for trial in run.trials:
        samples = trial.samples().counted(trial.record.windows)
        names = {samples.names[number] for number in set(samples.name.tolist())}
        assert names == NAMES - {"login"}
        assert samples.ok.all()


def test_latencies_are_reported_per_route(run: StoredRun) -> None:
    """The summary has a line for each kind of page in each mesh."""
    summary = json.loads((run.path / "summary.json").read_text("utf-8"))
    for configuration in summary["configurations"].values():
        (repeat,) = configuration["repeats"]
        p95s = {named["name"]: named["p95_ms"] for named in repeat["by_name"]}
        assert p95s.keys() == NAMES - {"login"}
        assert all(p95s.values())
