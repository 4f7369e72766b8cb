"""Objects that a run creates on a real cluster: they have the run's labels, and other objects are not touched."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import RefusedError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.ownership import Owner, run_of
from bench.k8s.wait import wait_until_deleted
from bench.system.cancellation import CancelToken, wait_until
from bench.system.journal import Journal, read_journal
from tests.cluster.job import delete_named

IMAGE = "docker.io/meshlab/python:3.11"


@pytest.fixture
def owner(cluster: Cluster, tmp_path: Path) -> Iterator[Owner]:
    """The owner of objects of one test's run."""
    journal = Journal(tmp_path / "journal.jsonl")
    yield Owner(cluster, f"t-ownership-{secrets.token_hex(3)}", journal, CancelToken())
    journal.close()


@pytest.fixture
def place(cluster: Cluster, owner: Owner) -> Iterator[Ref]:
    """A namespace's name, free at first; the namespace is removed in the end, whoever owns it."""
    ref = Ref("v1", "Namespace", owner.run_id)
    yield ref
    delete_named(cluster, ref)
    wait_until_deleted(cluster, ref.name, timeout_s=60, watch=CancelToken())


def _namespace(ref: Ref) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ref.name}}


def _deployment(namespace: str) -> Object:
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    labels = {"app": "sleeper"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sleeper", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def test_namespace_workload_and_pods_carry_the_runs_labels(cluster: Cluster, owner: Owner, place: Ref) -> None:
    """One selector finds all of them, including the ReplicaSet and the pods that controllers create."""
    owner.apply_all([_namespace(place), _deployment(place.name)], "application")

    def pods() -> tuple[Object, ...]:
        return cluster.list("v1", "Pod", namespace=place.name, labels=owner.mine())

    (pod,) = wait_until(pods, timeout_s=30, watch=CancelToken(), poll_s=0.2) or (None,)
    assert pod is not None
    assert pod["metadata"]["labels"]["meshbench.dev/component"] == "application"
    assert len(cluster.list("apps/v1", "ReplicaSet", namespace=place.name, labels=owner.mine())) == 1
    assert [one["metadata"]["name"] for one in cluster.list("v1", "Namespace", labels=owner.mine())] == [place.name]


def test_foreign_namespace_is_neither_used_nor_removed(cluster: Cluster, owner: Owner, place: Ref) -> None:
    """It is refused before anything is done to it, whatever its name is."""
    before = cluster.create(_namespace(place))
    with pytest.raises(RefusedError, match=f"Namespace {place.name} exists and was not made by meshbench"):
        owner.apply(_namespace(place), "namespace")
    owner.remove(place)
    after = cluster.get(place)
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (after["status"]["phase"], run_of(after)) == ("Active", "")
    assert "delete" not in {line["step"] for line in read_journal(owner.journal.path)}


def test_terminating_namespace_is_recreated(cluster: Cluster, owner: Owner, place: Ref) -> None:
    """As between two trials that use one name."""
    first = owner.apply(_namespace(place), "namespace")
    owner.remove(place)
    second = owner.apply(_namespace(place), "namespace")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert second["status"]["phase"] == "Active"
