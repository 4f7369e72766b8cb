"""Whose an object on a cluster is, and what is done to those of others: nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.errors import RefusedError
from bench.k8s.client import Object, Ref
from bench.k8s.ownership import Owner, labelled, run_of, selector
from bench.system.cancellation import Watch
from bench.system.journal import Journal, read_journal
from tests.fake_cluster import FakeCluster, thing

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
NOW = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
LABELS = {
    "app.kubernetes.io/managed-by": "meshbench",
    "meshbench.dev/run-id": RUN,
    "meshbench.dev/component": "application",
}
CONFIG = Ref("v1", "ConfigMap", "settings", "app")


def _plain() -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "app"}}


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster with nothing on it."""
    return FakeCluster()


@pytest.fixture
def owner(fake: FakeCluster, tmp_path: Path) -> Iterator[Owner]:
    """Who makes objects on it."""
    journal = Journal(tmp_path / "journal.jsonl")
    yield Owner(fake.cluster, RUN, journal, Watch())
    journal.close()


def test_an_object_says_whose_it_is_besides_what_it_said_before() -> None:
    """Its own labels and annotations stay; the manifest that was read is not changed."""
    plain = _plain()
    plain["metadata"] |= {"labels": {"app": "details"}, "annotations": None}
    metadata = labelled(plain, "application", run_id=RUN, now=NOW)["metadata"]
    assert metadata["labels"] == {"app": "details", **LABELS}
    assert metadata["annotations"] == {"meshbench.dev/created-at": "2026-11-23T03:15:00+00:00"}
    assert plain["metadata"]["labels"] == {"app": "details"}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job"])
def test_the_pods_of_a_workload_say_it_too(kind: str) -> None:
    """They are found, and hurried, by their labels; the workload's selector stays as it is."""
    workload = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "details"},
        "spec": {
            "selector": {"matchLabels": {"app": "details"}},
            "template": {"metadata": {"labels": {"app": "details"}}},
        },
    }
    spec = labelled(workload, "application", run_id=RUN, now=NOW)["spec"]
    assert spec["template"]["metadata"]["labels"] == {"app": "details", **LABELS}
    assert spec["selector"] == {"matchLabels": {"app": "details"}}


def test_the_pods_of_a_cron_job_say_it_too() -> None:
    """They are two templates deep, and neither needs to have metadata."""
    job: Object = {"template": {"spec": {}}}
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "x"},
        "spec": {"jobTemplate": {"spec": job}},
    }
    template = labelled(cron, "application", run_id=RUN, now=NOW)["spec"]["jobTemplate"]
    assert template["metadata"]["labels"] == LABELS
    assert template["spec"]["template"]["metadata"]["labels"] == LABELS


def test_a_template_that_is_not_of_pods_stays_as_it_is() -> None:
    """As in a policy that happens to have such a field."""
    policy = {
        "apiVersion": "example.com/v1",
        "kind": "Policy",
        "metadata": {"name": "x"},
        "spec": {"template": {"a": 1}},
    }
    assert labelled(policy, "policy", run_id=RUN, now=NOW)["spec"] == {"template": {"a": 1}}


@pytest.mark.parametrize(
    ("labels", "run"),
    [
        (LABELS, RUN),
        (None, ""),
        ({"meshbench.dev/run-id": RUN}, ""),
        ({"app.kubernetes.io/managed-by": "Helm", "meshbench.dev/run-id": RUN}, ""),
        ({"app.kubernetes.io/managed-by": "meshbench"}, ""),
    ],
)
def test_an_object_is_a_runs_by_both_labels_or_not_at_all(labels: dict[str, str] | None, run: str) -> None:
    """One of them may be anybody's."""
    assert run_of({"metadata": {"labels": labels}}) == run


def test_an_object_is_in_the_journal_before_it_is_on_the_cluster(
    fake: FakeCluster, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies in between is found by the journal, too: context, server and name are in it."""
    seen: list[str] = []

    def look(one: Object) -> Object:
        seen.extend(line["step"] for line in read_journal(owner.journal.path))
        return one

    monkeypatch.setattr(fake, "apply", look)
    owner.apply(_plain(), "application")
    lines = read_journal(owner.journal.path)
    assert seen == ["apply"]
    assert [line["step"] for line in lines] == ["apply", "apply-done"]
    facts = {key: lines[0][key] for key in ("api_version", "kind", "name", "namespace", "context", "server")}
    assert facts == {
        "api_version": "v1",
        "kind": "ConfigMap",
        "name": "settings",
        "namespace": "app",
        "context": "fake",
        "server": "https://fake.invalid",
    }


def test_an_object_of_this_run_is_changed(fake: FakeCluster, owner: Owner) -> None:
    """A second apply is no mistake."""
    owner.apply_all([_plain(), {**_plain(), "data": {"new": "yes"}}], "application")
    assert fake.things[CONFIG]["data"] == {"new": "yes"}


def test_somebody_elses_object_is_refused_and_stays_as_it_is(fake: FakeCluster, owner: Owner) -> None:
    """Neither adopted nor removed, and nothing is in the journal that could make a cleanup think so."""
    theirs = thing("v1", "ConfigMap", "settings", namespace="app")
    fake.add([theirs])
    with pytest.raises(RefusedError, match=r"ConfigMap app/settings exists and was not made by meshbench"):
        owner.apply(_plain(), "application")
    assert fake.things[CONFIG] is theirs
    assert read_journal(owner.journal.path) == ()


def test_another_runs_object_is_refused_with_the_command_that_removes_it(fake: FakeCluster, owner: Owner) -> None:
    """It is meshbench's, but that run has to be cleaned up first."""
    fake.add([thing("v1", "ConfigMap", "settings", namespace="app", run=OTHER)])
    with pytest.raises(RefusedError, match=f"first: meshbench cleanup --context fake --run-id {OTHER}$"):
        owner.apply(_plain(), "application")


def test_a_namespace_of_ours_that_is_going_is_waited_for(fake: FakeCluster, owner: Owner) -> None:
    """The next trial's namespace may have the name of the last one's."""
    going = thing("v1", "Namespace", "app", run=RUN)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    fake.add([going, thing("v1", "Pod", "slow", namespace="app", run=RUN)])
    owner.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}}, "namespace")
    assert list(fake.things) == [Ref("v1", "Namespace", "app")]
    assert "deletionTimestamp" not in fake.things[Ref("v1", "Namespace", "app")]["metadata"]


def test_only_an_object_of_this_run_is_removed(fake: FakeCluster, owner: Owner) -> None:
    """Another run's, nobody's and one that is gone are left alone, without a line in the journal."""
    others = [thing("v1", "ConfigMap", name, run=run) for name, run in (("theirs", OTHER), ("nobodys", ""))]
    fake.add([*others, thing("v1", "ConfigMap", "ours", run=RUN)])
    for name in ("theirs", "nobodys", "ours", "gone"):
        owner.remove(Ref("v1", "ConfigMap", name), grace_s=1)
    assert {ref.name for ref in fake.things} == {"theirs", "nobodys"}
    assert fake.log == [(Ref("v1", "ConfigMap", "ours"), 1)]
    assert [line["name"] for line in read_journal(owner.journal.path)] == ["ours", "ours"]


def test_a_runs_objects_are_selected_by_both_labels(owner: Owner) -> None:
    """As the API server reads it."""
    assert owner.mine() == selector(RUN) == f"app.kubernetes.io/managed-by=meshbench,meshbench.dev/run-id={RUN}"
