"""What prevents a run from starting on a real cluster: one message with the cause, the place and a hint, exit code 3
(or 2), no folder of results, and an unchanged cluster."""

import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from bench.files.folders import find_shipped
from bench.k8s.client import Cluster, Object, ref_of
from tests.cluster.accounts import account, token_user, write_kubeconfig
from tests.cluster.emulated import make_namespace, make_object
from tests.cluster.job import BASELINE, ISTIO, MESH, Job, delete_named, run_command, run_job
from tests.cluster.lab import CONTEXT

pytestmark = pytest.mark.usefixtures("as_before")

ABSENT = "docker.io/meshbench/there-is-no-such-image:1"


@contextmanager
def created(cluster: Cluster, one: Object) -> Iterator[str]:
    """Create an object of another user meanwhile; yield its name."""
    cluster.create(one)
    try:
        yield one["metadata"]["name"]
    finally:
        delete_named(cluster, ref_of(one))


def assert_refused(job: Job, *expected: str, exit_code: int = 3) -> None:
    """Check that nothing was begun, and that the message has all of this."""
    assert job.exit_code == exit_code, job.output
    assert job.run_folder is None
    missing = [text for text in expected if text not in job.message]
    assert not missing, job.output


def test_production_like_context_needs_its_own_flag(tmp_path: Path) -> None:
    """`--yes` is not enough; the message has the flag as it has to be written."""
    env = {"KUBECONFIG": str(write_kubeconfig(tmp_path / "config", context="shop-prod"))}
    job = run_job(tmp_path, "--context", "shop-prod", env=env)
    assert_refused(job, "this looks like production: the context shop-prod", "--yes-this-cluster shop-prod")


def test_expired_token_is_reported(tmp_path: Path) -> None:
    """The message has the context and asks for a new token."""
    env = {"KUBECONFIG": str(write_kubeconfig(tmp_path / "config", token_user("of-yesterday")))}
    assert_refused(
        run_job(tmp_path, env=env),
        f"context {CONTEXT}: https://",
        "does not accept its credentials; hint: log in again",
    )


def test_missing_rights_are_listed_by_verb_and_resource(cluster: Cluster, tmp_path: Path) -> None:
    """Each right has its purpose, and the message names the role to be bound."""
    with account(cluster) as powerless:
        path = write_kubeconfig(tmp_path / "config", token_user(powerless.token("powerless")))
        job = run_job(tmp_path, env={"KUBECONFIG": str(path)})
    assert_refused(
        job,
        f"context {CONTEXT}: its user lacks permissions for this run:",
        "not allowed: get, list, create, patch, delete namespaces (for: namespaces of the run's own)",
        " pods/exec (for: questions to sidecars and probe agents",
        f"have an administrator apply and bind {find_shipped('manifests') / 'rbac' / 'run.yaml'}",
    )


def test_account_without_install_rights_gets_the_install_role(cluster: Cluster, tmp_path: Path) -> None:
    """The rights of the first role are not listed."""
    with account(cluster, "run") as poor:
        path = write_kubeconfig(tmp_path / "config", token_user(poor.token("poor")))
        job = run_job(tmp_path, *MESH, scenario=[ISTIO], env={"KUBECONFIG": str(path)})
    lacking = "not allowed: create, patch, delete customresourcedefinitions.apiextensions.k8s.io"
    assert_refused(job, lacking, "install-mesh.yaml")
    assert "run.yaml" not in job.message


@pytest.mark.parametrize(
    ("version", "expected"), [("", "istioctl: not on PATH"), ("1.21.6", "1.21.6 ({path}) is too old")]
)
def test_missing_or_old_tool_is_named_with_required_version(tmp_path: Path, version: str, expected: str) -> None:
    """The message has the found version, the required version, and where that comes from."""
    tool = tmp_path / "bin" / "istioctl"
    tool.parent.mkdir()
    if version:
        tool.write_text(f"#!/bin/sh\necho client version: {version}\n", "utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], env={"PATH": f"{tool.parent}:/usr/bin:/bin"})
    assert_refused(job, expected.format(path=tool), "install istioctl 1.22 or later: https://istio.io/")


def test_policies_of_another_mesh_are_refused_with_file_and_line(tmp_path: Path) -> None:
    """Exit code 2, before more than the cluster's name is read."""
    wrong = {"name": "wrong", "mesh": "istio", "manifests": ["kuma/policies"]}
    assert_refused(
        run_job(tmp_path, *MESH, scenario=[BASELINE, wrong]), "manifests/kuma/policies/", ".yaml:", exit_code=2
    )


def test_foreign_control_plane_namespace_refuses_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The namespace of a mesh's control plane exists and belongs to another user, or is left of an earlier mesh."""
    with created(cluster, make_namespace("istio-system")):
        job = run_job(tmp_path, *MESH, scenario=[ISTIO])
    assert_refused(job, "istio: on the cluster already: namespace istio-system", "--use-existing-mesh")


def test_dangling_webhook_refuses_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The message has the missing service, and the command that removes the webhook."""
    name = f"t-faults-{secrets.token_hex(3)}"
    with created(cluster, dead_webhook(name)):
        job = run_job(tmp_path)
    assert_refused(
        job,
        f"webhook: MutatingWebhookConfiguration {name}: its service t-faults-gone/injector does not exist",
        f"kubectl --context {CONTEXT} delete mutatingwebhookconfiguration {name}",
    )


def dead_webhook(name: str) -> Object:
    """What an uninstalled mesh left; it applies only to one namespace, which does not exist."""
    service = {"namespace": "t-faults-gone", "name": "injector", "path": "/", "port": 443}
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    webhook = {
        "name": "injector.meshbench.dev",
        "clientConfig": {"service": service},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "t-faults-gone"}},
    }
    return make_object("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", name, webhooks=[webhook])


def test_nonexistent_image_refuses_the_run(tmp_path: Path) -> None:
    """The message comes before any rollout, with the image's name, the registry's error, and the flags for another
    image."""
    job = run_job(tmp_path, "--image", f"details={ABSENT}")
    assert_refused(job, f"image: {ABSENT} cannot be pulled: ", "--image NAME=REF, --registry MIRROR")
    assert job.seconds < 150


def test_unschedulable_pods_are_named(tmp_path: Path) -> None:
    """The message has what the pods request and what is free."""
    values = tmp_path / "greedy.yaml"
    resources = {"requests": {"cpu": "1000", "memory": "128Mi"}}
    spec = {"values": {"pilot": {"resources": resources}}}
    head = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator"}
    values.write_text(yaml.safe_dump({**head, "spec": spec}), "utf-8")
    job = run_job(tmp_path, *MESH, "--mesh-values", values, scenario=[ISTIO])
    assert_refused(
        job,
        "capacity: unschedulable: istiod (1,000 CPU and 128 MiB)",
        "add a node, or lower the requests (--scale-requests, --mesh-values)",
    )


def test_cordoned_node_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    """The node is cordoned, as while it is drained."""
    (node,) = cluster.list("v1", "Node")
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": node_name(node), "spec": {"unschedulable": True}})
    try:
        job = run_job(tmp_path)
    finally:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": node_name(node), "spec": {}})
    assert_refused(job, "nodes: 0 of 1 node ready and open to pods", f"kubectl --context {CONTEXT} describe nodes")


def node_name(node: Object) -> Object:
    return {"name": node["metadata"]["name"]}


def test_doctor_reports_all_problems_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """One line for each problem; exit code 3."""
    name = f"t-faults-{secrets.token_hex(3)}"
    with created(cluster, dead_webhook(name)), created(cluster, make_namespace("istio-system")):
        job = run_command(tmp_path, "doctor", "--scenario", "istio-policies", *MESH)
    assert job.exit_code == 3, job.output
    assert f"MutatingWebhookConfiguration {name}" in job.stdout
    assert "namespace istio-system" in job.stdout
    assert "a run cannot start here" in job.message
