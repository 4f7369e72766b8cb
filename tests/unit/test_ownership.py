"""The owner of an object on a cluster; foreign objects are never changed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.errors import RefusedError
from bench.k8s.client import Object, Ref
from bench.k8s.ownership import Owner, add_run_labels, run_of, run_selector
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal, read_journal
from tests.fake_cluster import FakeCluster, make_object

RUN, OTHER = "20261123T031500Z-mine-7f3a", "20261123T041500Z-theirs-0b1c"
NOW = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
LABELS = {
    "app.kubernetes.io/managed-by": "meshbench",
    "meshbench.dev/run-id": RUN,
    "meshbench.dev/component": "application",
}
CONFIG = Ref("v1", "ConfigMap", "settings", "app")
Act = Callable[[Owner, Object, str], Object]


def _plain() -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "app"}}


@pytest.fixture
def fake() -> FakeCluster:
    """A cluster with one namespace."""
    fake = FakeCluster()
    fake.add([make_object("v1", "Namespace", "app")])
    return fake


@pytest.fixture
def owner(fake: FakeCluster, tmp_path: Path) -> Iterator[Owner]:
    """The owner of a run's objects."""
    journal = Journal(tmp_path / "journal.jsonl")
    yield Owner(fake.cluster, RUN, journal, CancelToken())
    journal.close()


def test_adds_labels_and_annotations_of_the_run() -> None:
    """The object's own labels and annotations stay; the manifest itself is not changed."""
    plain = _plain()
    plain["metadata"] |= {"labels": {"app": "details"}, "annotations": None}
    metadata = add_run_labels(plain, "application", run_id=RUN, now=NOW)["metadata"]
    assert metadata["labels"] == {"app": "details", **LABELS}
    assert metadata["annotations"] == {"meshbench.dev/created-at": "2026-11-23T03:15:00+00:00"}
    assert plain["metadata"]["labels"] == {"app": "details"}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Job"])
def test_labels_pods_of_a_workload(kind: str) -> None:
    """The pods are found by their labels; the workload's selector stays unchanged."""
    workload = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "details"},
        "spec": {
            "selector": {"matchLabels": {"app": "details"}},
            "template": {"metadata": {"labels": {"app": "details"}}},
        },
    }
    spec = add_run_labels(workload, "application", run_id=RUN, now=NOW)["spec"]
    assert spec["template"]["metadata"]["labels"] == {"app": "details", **LABELS}
    assert spec["selector"] == {"matchLabels": {"app": "details"}}


def test_labels_pods_of_a_cron_job() -> None:
    """They are two templates deep, and neither needs metadata."""
    job: Object = {"template": {"spec": {}}}
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "x"},
        "spec": {"jobTemplate": {"spec": job}},
    }
    template = add_run_labels(cron, "application", run_id=RUN, now=NOW)["spec"]["jobTemplate"]
    assert template["metadata"]["labels"] == LABELS
    assert template["spec"]["template"]["metadata"]["labels"] == LABELS


def test_does_not_change_other_templates() -> None:
    """A policy may have a field of that name."""
    policy = {
        "apiVersion": "example.com/v1",
        "kind": "Policy",
        "metadata": {"name": "x"},
        "spec": {"template": {"a": 1}},
    }
    assert add_run_labels(policy, "policy", run_id=RUN, now=NOW)["spec"] == {"template": {"a": 1}}


@pytest.mark.parametrize("selector", [None, {"matchExpressions": [{"key": "inject", "operator": "Exists"}]}])
def test_webhooks_select_namespaces_of_the_run(selector: Object | None) -> None:
    """A mesh that a run installs would else inject sidecars into the pods that others create meanwhile."""
    hooks = [{"name": "inject.example.com"} if selector is None else {"namespaceSelector": selector}]
    thing = {"apiVersion": "x/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "x"}, "webhooks": hooks}
    (webhook,) = add_run_labels(thing, "istio", run_id=RUN, now=NOW)["webhooks"]
    *others, own = webhook["namespaceSelector"]["matchExpressions"]
    assert own == {"key": "meshbench.dev/run-id", "operator": "In", "values": [RUN]}
    assert others == (selector or {}).get("matchExpressions", [])


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
def test_owned_object_has_both_labels(labels: dict[str, str] | None, run: str) -> None:
    """An object with only one of them may belong to anyone."""
    assert run_of({"metadata": {"labels": labels}}) == run


def test_writes_journal_before_creating_object(
    fake: FakeCluster, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in between is found by context, server and name in the journal."""
    seen: list[str] = []

    def look(one: Object) -> Object:
        seen.extend(line["step"] for line in read_journal(owner.journal.path))
        return one

    monkeypatch.setattr(fake, "create", look)
    owner.create(_plain(), "application")
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


def test_changes_own_object(fake: FakeCluster, owner: Owner) -> None:
    """A second apply is no error; it makes the object what it says, and nothing else."""
    owner.apply_all([{**_plain(), "data": {"old": "yes"}}, {**_plain(), "data": {"new": "yes"}}], "policy")
    assert fake.things[CONFIG]["data"] == {"new": "yes"}


@pytest.mark.parametrize("act", [Owner.create, Owner.apply])
def test_repeated_creation_is_the_same_step(fake: FakeCluster, owner: Owner, act: Act) -> None:
    """The answer to the first may have been lost in an outage."""
    first = act(owner, _plain(), "policy")
    assert act(owner, _plain(), "policy")["metadata"]["uid"] == first["metadata"]["uid"]
    assert len(fake.things) == 2


def test_repeated_creation_leaves_the_object_as_it_is(fake: FakeCluster, owner: Owner) -> None:
    """A webhook or a controller may have completed it meanwhile."""
    owner.create(_plain(), "application")
    fake.things[CONFIG]["data"] = {"completed": "yes"}
    assert owner.create(_plain(), "application")["data"] == {"completed": "yes"}


@pytest.mark.parametrize("act", [Owner.create, Owner.apply])
def test_refuses_object_of_another_step(owner: Owner, act: Act) -> None:
    """Two steps of a run that name the same object are a mistake: the second would take over the first one's."""
    owner.create(_plain(), "application")
    with pytest.raises(RefusedError, match="of the run's policy, is there already as its app"):
        act(owner, _plain(), "policy")


@pytest.mark.parametrize("act", [Owner.create, Owner.apply])
def test_refuses_foreign_object(fake: FakeCluster, owner: Owner, act: Act) -> None:
    """It is neither adopted nor removed, whatever was there when the run began."""
    theirs = make_object("v1", "ConfigMap", "settings", namespace="app")
    fake.add([theirs])
    with pytest.raises(RefusedError, match=r"ConfigMap app/settings exists and was not made by meshbench"):
        act(owner, _plain(), "application")
    assert fake.things[CONFIG] is theirs


@pytest.mark.parametrize("manager", ["kubectl-edit", "argocd-controller"])
def test_refuses_fields_of_others(fake: FakeCluster, owner: Owner, manager: str) -> None:
    """What another program has changed stays as it is; metadata and status are their controllers'."""
    owner.apply(_plain(), "policy")
    metadata = fake.things[CONFIG]["metadata"]
    metadata["managedFields"] = [
        {"manager": "meshbench", "fieldsV1": {"f:data": {}}},
        {"manager": "controller", "fieldsV1": {"f:metadata": {}, "f:status": {}}},
    ]
    owner.apply({**_plain(), "data": {"a": "1"}}, "policy")
    fake.things[CONFIG]["metadata"]["managedFields"].append({"manager": manager, "fieldsV1": {"f:data": {}}})
    with pytest.raises(RefusedError, match=f"ConfigMap app/settings is this run's, but {manager} has changed it"):
        owner.apply({**_plain(), "data": {"a": "2"}}, "policy")
    assert fake.things[CONFIG]["data"] == {"a": "1"}


def test_deletes_only_the_object_that_was_read(fake: FakeCluster, owner: Owner) -> None:
    """Not another one that has its name by the time of the request."""
    owner.create(_plain(), "application")
    theirs = make_object("v1", "ConfigMap", "settings", namespace="app")
    fake.before_delete = lambda ref: fake.things.update({ref: theirs})
    owner.remove(CONFIG)
    assert fake.things[CONFIG] is theirs


def test_refuses_object_of_another_run(fake: FakeCluster, owner: Owner) -> None:
    """The error has the command that cleans up that run."""
    fake.add([make_object("v1", "ConfigMap", "settings", namespace="app", run=OTHER)])
    with pytest.raises(RefusedError, match=f"first run: meshbench cleanup --context fake --run-id {OTHER}$"):
        owner.apply(_plain(), "application")


def test_waits_for_own_terminating_namespace(fake: FakeCluster, owner: Owner) -> None:
    """The namespace of the next trial may have the name of the last one's."""
    going = make_object("v1", "Namespace", "app", run=RUN, component="namespace")
    going["metadata"]["deletionTimestamp"] = "2026-11-23T03:15:00Z"
    fake.add([going, make_object("v1", "Pod", "slow", namespace="app", run=RUN)])
    owner.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}}, "namespace")
    assert list(fake.things) == [Ref("v1", "Namespace", "app")]
    assert "deletionTimestamp" not in fake.things[Ref("v1", "Namespace", "app")]["metadata"]


def test_deletes_only_own_objects(fake: FakeCluster, owner: Owner) -> None:
    """Another run's, unlabelled and missing objects are left alone, without a line in the journal."""
    others = [make_object("v1", "ConfigMap", name, run=run) for name, run in (("theirs", OTHER), ("nobodys", ""))]
    fake.add([*others, make_object("v1", "ConfigMap", "ours", run=RUN)])
    for name in ("theirs", "nobodys", "ours", "gone"):
        owner.remove(Ref("v1", "ConfigMap", name), grace_s=1)
    assert {ref.name for ref in fake.things} == {"app", "theirs", "nobodys"}
    assert fake.log == [(Ref("v1", "ConfigMap", "ours"), 1)]
    assert [line["name"] for line in read_journal(owner.journal.path)] == ["ours", "ours"]


def test_selects_objects_by_both_labels(owner: Owner) -> None:
    """The selector has the syntax of the API server."""
    assert owner.mine() == run_selector(RUN) == f"app.kubernetes.io/managed-by=meshbench,meshbench.dev/run-id={RUN}"
