"""The pre-flight examines what a cluster needs for an application's own objects."""

from typing import Any, Final

import pytest

from bench.k8s.connection import KindInfo
from bench.meshes.rights import KEEP
from bench.targets.cluster.preflight.application import (
    application_needs,
    examine_application,
    list_claims,
    list_pull_secrets,
)
from tests.shown_cluster import fake
from tests.unit.test_application_objects import Object, make, make_pods

VERBS: Final = frozenset({"list"})
KINDS: Final = (
    KindInfo("v1", "Pod", "pods", namespaced=True, verbs=VERBS),
    KindInfo("v1", "Secret", "secrets", namespaced=True, verbs=VERBS),
    KindInfo("v1", "PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True, verbs=VERBS),
    KindInfo("apps/v1", "StatefulSet", "statefulsets", namespaced=True, verbs=VERBS),
    KindInfo("example.org/v1", "Site", "sites", namespaced=False, verbs=VERBS),
)


def claim(storage_class: str | None = None) -> Object:
    spec: Object = {} if storage_class is None else {"storageClassName": storage_class}
    return make("PersistentVolumeClaim", "data", spec=spec)


def storage_class(name: str, policy: str = "Delete", *, default: bool = False) -> Object:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "reclaimPolicy": policy}


def examine(*things: Object, classes: tuple[Object, ...] = ()) -> list[str]:
    """Format the results for these objects on a cluster with these StorageClasses."""
    options: dict[str, Any] = {"objects": {"StorageClass": classes}, "kind_infos": KINDS}
    found = examine_application(fake(**options), things)
    return [f"{one.status}: {one.detail}; {one.hint}" for one in found]


def test_needs_the_kinds_that_no_other_run_has() -> None:
    """Each further kind has to be kept, and volumes have to be listed where there are any."""
    database = make_pods("db", "StatefulSet", spec={"volumeClaimTemplates": [claim()]})
    assert application_needs([make_pods("a", "Pod")], KINDS) == ()
    needs = application_needs([make_pods("a", "Pod"), database, make("Secret", "b")], KINDS)
    assert [(one.resource_name, one.verbs) for one in needs] == [
        ("statefulsets.apps", KEEP),
        ("secrets", KEEP),
        ("persistentvolumes", ("list",)),
        ("storageclasses.storage.k8s.io", ("list",)),
    ]
    assert list_claims(database) == (claim(),)


def test_takes_another_version_than_the_preferred_one() -> None:
    """A cluster lists each kind in one version; whether it serves that of the manifest, a dry run finds out."""
    assert examine(make_pods("a", "StatefulSet") | {"apiVersion": "apps/v1beta2"}) == []


def test_refuses_kinds_that_the_cluster_has_not() -> None:
    """A kind that no CRD defines, or that is of the whole cluster, is an error with a hint."""
    assert examine(
        make_pods("a", "Pod"), make("Monitor", "b", "example.org/v1"), make("Site", "c", "example.org/v1")
    ) == [
        (
            "error: the cluster has no Monitor of example.org, which b is; install what defines the kind, or leave"
            " the object out"
        ),
        (
            "error: Site c is of the whole cluster, where a run makes nothing for an application; apply it before the"
            " run, and leave it out of the manifests"
        ),
    ]


@pytest.mark.parametrize(
    ("wanted", "classes", "message"),
    [
        (None, (storage_class("fast", default=True),), ""),
        ("fast", (storage_class("fast"),), ""),
        (None, (storage_class("fast"),), "names no StorageClass, and the cluster has no default one; set"),
        ("slow", (storage_class("fast"),), "the cluster has no StorageClass slow; known: fast"),
        (
            "fast",
            (storage_class("fast", "Retain"),),
            "volumes of the StorageClass fast would stay when the run is deleted",
        ),
    ],
)
def test_examines_the_class_of_volumes(wanted: str | None, classes: tuple[Object, ...], message: str) -> None:
    """A volume has to be made, and to be deleted with the run."""
    found = examine(claim(wanted), classes=classes)
    assert [message in one and one.startswith("error: PersistentVolumeClaim data") for one in found] == [True] * bool(
        message
    )


def test_finds_secrets_of_registries() -> None:
    """Images of a private registry are tried with the Secrets that its pods have."""
    registry = make("Secret", "registry", type="kubernetes.io/dockerconfigjson")
    assert list_pull_secrets([registry, make("Secret", "other")]) == (registry,)
