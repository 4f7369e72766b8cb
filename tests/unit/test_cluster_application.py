"""Bookinfo's objects for a cluster."""

from importlib.metadata import version
from typing import Any

import pytest

from bench.files.folders import find_shipped
from bench.k8s.objects import names_of
from bench.targets.cluster.application_manifests import application_objects, read_image_ids
from tests.applications import read_bookinfo
from tests.moving import move_bookinfo
from tests.policies import read_policies

SPACE = "bookinfo-7f3a"


def objects(reviews: str | tuple[str, ...] = "v3", **options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What is applied, by kind and name."""
    application = read_bookinfo(reviews, namespace=SPACE)
    things = application_objects(application, move_bookinfo(application), **{"images": {}, **options})
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


def container(thing: dict[str, Any]) -> dict[str, Any]:
    (one,) = thing["spec"]["template"]["spec"]["containers"]
    return dict(one)


@pytest.mark.parametrize("reviews", ["v1", "v2", "v3"])
def test_applies_one_version_of_reviews(reviews: str) -> None:
    """Only the chosen version of reviews is applied, accounts before Services before pods."""
    names = ["details", "productpage", "ratings", "reviews"]
    kinds = [kind for kind, _ in objects(reviews)]
    assert kinds == ["ServiceAccount"] * 4 + ["Service"] * 4 + ["Deployment"] * 4
    deployments = {name for kind, name in objects(reviews) if kind == "Deployment"}
    assert deployments == {f"{name}-{reviews if name == 'reviews' else 'v1'}" for name in names}


def test_applies_several_versions_with_own_services() -> None:
    """The requested versions are applied, and no other, in addition to the common Service."""
    applied = objects(("v1", "v2"))
    of_reviews = {(kind, name) for kind, name in applied if name.startswith("reviews")}
    services = {("Service", name) for name in ("reviews", "reviews-v1", "reviews-v2")}
    assert of_reviews == services | {("Deployment", "reviews-v1"), ("Deployment", "reviews-v2")}
    assert applied["Service", "reviews-v2"]["spec"]["ports"][0]["appProtocol"] == "http"


def test_everything_is_in_the_runs_namespace() -> None:
    """Every object, and every identity that a policy names, has the namespace of the run."""
    assert {thing["metadata"]["namespace"] for thing in objects().values()} == {SPACE}
    application = read_bookinfo("v3", namespace=SPACE)
    ids = read_policies("istio", [], application).identities(application)
    assert ids["bookinfo-details"] == (f"spiffe://cluster.local/ns/{SPACE}/sa/bookinfo-details",)
    assert read_bookinfo("v3").namespace == "bookinfo"


def test_replaces_only_images() -> None:
    """A workload's own image replaces its image, a mirror the others'; nothing else of the container changes."""
    plain, changed = objects(), objects(images={"details": "example.org/mine:1"}, registry="mirror.example:5000/x")
    assert container(changed["Deployment", "details-v1"])["image"] == "example.org/mine:1"
    ratings = container(changed["Deployment", "ratings-v1"])
    assert ratings["image"] == "mirror.example:5000/x/release/examples-bookinfo-ratings-v1:1.20.3"
    assert {**ratings, "image": ""} == {**container(plain["Deployment", "ratings-v1"]), "image": ""}


def test_one_image_serves_all_services() -> None:
    """`bookinfo` stands for all four, and an option of each pod names its service."""
    deployments = [thing for (kind, _), thing in objects(images={"bookinfo": "mine:1"}).items() if kind == "Deployment"]
    containers = {
        (
            one["metadata"]["labels"]["app"],
            *(container(one)["image"], *_variables(one, "SERVICE_NAME", "SERVICE_VERSION")),
        )
        for one in deployments
    }
    assert containers == {(n, "mine:1", n, "v3" if n == "reviews" else "v1") for n in _NAMES}


_NAMES = ("productpage", "details", "reviews", "ratings")


def _variables(deployment: dict[str, Any], *names: str) -> tuple[str, ...]:
    env = {entry["name"]: entry["value"] for entry in container(deployment)["env"]}
    return tuple(env[name] for name in names)


def test_pods_end_quickly_and_have_mesh_annotations() -> None:
    """Pods end within a second after a trial, and the mesh's annotations are on the pods alone."""
    thing = objects(annotations={"a.example/b": "c"})["Deployment", "details-v1"]
    template = thing["spec"]["template"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 1
    assert template["metadata"]["annotations"] == {"a.example/b": "c"}
    assert "annotations" not in thing["metadata"]
    workload = {"meshbench.dev/workload": "details"}
    assert template["metadata"]["labels"] == {**thing["spec"]["selector"]["matchLabels"], **workload}


def test_reports_images_by_container() -> None:
    """Sidecars, native ones too, are counted by the image ids that the nodes report."""
    pods: list[dict[str, Any]] = [
        {
            "metadata": {"name": "details-v1-x", "labels": {"app": "details", "version": "v1"}},
            "status": {
                "containerStatuses": [{"name": "details", "imageID": "docker-pullable://example.org/d@sha256:1"}],
                "initContainerStatuses": [{"name": "istio-proxy", "imageID": "example.org/p@sha256:2"}],
            },
        },
        {"metadata": {"name": "ratings"}, "status": {"containerStatuses": [{"name": "ratings", "imageID": ""}]}},
        {"metadata": {"name": "new"}},
    ]
    assert read_image_ids(pods) == {"details": "example.org/d@sha256:1", "istio-proxy": "example.org/p@sha256:2"}


def test_versions_have_own_names() -> None:
    """Where pods of several versions run, the version is in the name; where one does, it is not."""

    def pod(app: str, version: str) -> dict[str, Any]:
        image = {"name": app, "imageID": f"example.org/{app}@sha256:{version}"}
        metadata = {"name": f"{app}-{version}-x", "labels": {"app": app, "version": version}}
        return {"metadata": metadata, "status": {"containerStatuses": [image]}}

    pods = [pod("reviews", "v1"), pod("reviews", "v2"), pod("details", "v1")]
    assert list(names_of(pods).values()) == ["reviews-v1", "reviews-v2", "details"]
    assert list(names_of(pods[1:]).values()) == ["reviews", "details"]
    assert read_image_ids(pods) == {
        "details": "example.org/details@sha256:v1",
        "reviews-v1": "example.org/reviews@sha256:v1",
        "reviews-v2": "example.org/reviews@sha256:v2",
    }


def test_containers_of_one_name_have_own_images() -> None:
    """Where pods of several workloads call their containers alike, none hides the image of another."""

    def pod(name: str, image: str) -> dict[str, Any]:
        metadata = {"name": f"{name}-x", "labels": {"meshbench.dev/workload": name}}
        statuses = [{"name": "main", "imageID": image}, {"name": "proxy", "imageID": "p@sha256:1"}]
        return {"metadata": metadata, "status": {"containerStatuses": statuses}}

    pods = [pod("web", "a@sha256:1"), pod("api", "b@sha256:1"), pod("web", "a@sha256:1")]
    assert read_image_ids(pods) == {"api-main": "b@sha256:1", "main": "a@sha256:1", "proxy": "p@sha256:1"}


def test_load_image_has_the_installed_locust() -> None:
    """Load on a cluster and on one machine comes from the same version of Locust."""
    text = (find_shipped("manifests") / "load" / "pod.yaml").read_text("utf-8")
    assert f"locustio/locust:{version('locust')}\n" in text
