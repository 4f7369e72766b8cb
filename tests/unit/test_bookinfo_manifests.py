"""Bookinfo's manifests, for the local target and for a cluster."""

from typing import Any

import pytest
import yaml

from bench.files.folders import find_shipped, is_definition

FILES = sorted(one for one in (find_shipped("manifests") / "bookinfo").glob("*.yaml") if not is_definition(one))
OBJECTS: list[dict[str, Any]] = [one for file in FILES for one in yaml.safe_load_all(file.read_text())]
DEPLOYMENTS = [one for one in OBJECTS if one["kind"] == "Deployment"]
SERVICES = [one for one in OBJECTS if one["kind"] == "Service"]
NAMES = ["details", "productpage", "ratings", "reviews"]


def names(kind: str) -> list[str]:
    return sorted(one["metadata"]["name"] for one in OBJECTS if one["kind"] == kind)


def test_has_all_objects_once() -> None:
    """Four Services and accounts, six Deployments, and nothing else."""
    assert names("Service") == NAMES
    assert names("ServiceAccount") == [f"bookinfo-{name}" for name in NAMES]
    assert names("Deployment") == [
        "details-v1",
        "productpage-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    ]
    assert len(OBJECTS) == 14


def test_objects_have_no_namespace() -> None:
    """The namespace is set when the objects are applied, never in the files."""
    assert not [one for one in OBJECTS if "namespace" in one["metadata"]]


@pytest.mark.parametrize("service", SERVICES, ids=lambda one: one["metadata"]["name"])
def test_services_are_http(service: dict[str, Any]) -> None:
    """Both meshes treat every hop as HTTP: Istio by the port's name, Kuma by its protocol."""
    (port,) = service["spec"]["ports"]
    assert (port["name"], port["port"], port["appProtocol"]) == ("http", 9080, "http")
    assert service["spec"]["selector"] == {"app": service["metadata"]["name"]}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_pods_match_service_and_account(deployment: dict[str, Any]) -> None:
    """Labels, selector, account and image name the same service and version."""
    labels = deployment["metadata"]["labels"]
    app, version = labels["app"], labels["version"]
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert deployment["metadata"]["name"] == f"{app}-{version}"
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == labels
    assert pod["spec"]["serviceAccountName"] == f"bookinfo-{app}"
    assert container["image"].endswith(f"/examples-bookinfo-{app}-{version}:1.20.3")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_pods_are_restricted(deployment: dict[str, Any]) -> None:
    """The container, not the pod, meets restricted Pod Security, as the first container of a mesh may have to be root;
    no uid is fixed, so that OpenShift can choose one."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "runAsUser" not in container["securityContext"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_pods_are_ready_when_they_respond(deployment: dict[str, Any]) -> None:
    """Every pod is probed on /health, has requests, and is never restarted by a probe: not under load, nor on a node
    that is slow to start it."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 180
    assert (
        startup["httpGet"]
        == container["readinessProbe"]["httpGet"]
        == {
            "path": "/health",
            "port": "http",
        }
    )
    assert "livenessProbe" not in container
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
