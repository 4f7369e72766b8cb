"""What keeps a run from starting on a real cluster: one message that says what, where and what would be right, exit
code 3 (or 2), no folder of results, and a cluster on which nothing was touched."""

import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from bench.files.folders import shipped
from bench.k8s.client import Cluster, Object, ref_of
from tests.cluster.accounts import account, with_token, write_kubeconfig
from tests.cluster.emulated import namespace, thing
from tests.cluster.job import BASELINE, ISTIO, MESH, Job, run_command, run_job
from tests.cluster.lab import CONTEXT

pytestmark = pytest.mark.usefixtures("as_before")

ABSENT = "docker.io/meshbench/there-is-no-such-image:1"


@contextmanager
def made(cluster: Cluster, one: Object) -> Iterator[str]:
    """Something of somebody else's is there meanwhile; gives its name."""
    cluster.create(one)
    try:
        yield one["metadata"]["name"]
    finally:
        cluster.delete(ref_of(one))


def refused(job: Job, *told: str, exit_code: int = 3) -> None:
    """Nothing was begun, and the message has all of this."""
    assert job.exit_code == exit_code, job.told
    assert job.run_folder is None
    missing = [text for text in told if text not in job.message]
    assert not missing, job.told


def test_a_name_that_sounds_like_production_needs_a_flag_of_its_own(tmp_path: Path) -> None:
    """`--yes` is not enough; the flag is told as it has to be written."""
    env = {"KUBECONFIG": str(write_kubeconfig(tmp_path / "config", context="shop-prod"))}
    job = run_job(tmp_path, "--context", "shop-prod", env=env)
    refused(job, "this looks like production: the context shop-prod", "--yes-this-cluster shop-prod")


def test_a_token_that_has_ended_is_told(tmp_path: Path) -> None:
    """With the context, and that a new one is needed."""
    env = {"KUBECONFIG": str(write_kubeconfig(tmp_path / "config", with_token("of-yesterday")))}
    refused(run_job(tmp_path, env=env), f"context {CONTEXT}: https://", "does not accept its credentials; log in again")


def test_an_account_without_rights_is_told_each_verb_and_resource(cluster: Cluster, tmp_path: Path) -> None:
    """With what each is for, and the role that has to be bound."""
    with account(cluster) as nobody:
        path = write_kubeconfig(tmp_path / "config", with_token(nobody.token("nobody")))
        job = run_job(tmp_path, env={"KUBECONFIG": str(path)})
    refused(
        job,
        f"context {CONTEXT}: its user may do too little for this run:",
        "not allowed: get, list, create, patch, delete namespaces (for: namespaces of the run's own)",
        " pods/exec (for: asking sidecars and probes",
        f"have an administrator apply and bind {shipped('manifests') / 'rbac' / 'run.yaml'}",
    )


def test_an_account_that_may_run_and_not_install_is_told_the_other_role(cluster: Cluster, tmp_path: Path) -> None:
    """What the first role allows is not named."""
    with account(cluster, "run") as poor:
        path = write_kubeconfig(tmp_path / "config", with_token(poor.token("poor")))
        job = run_job(tmp_path, *MESH, scenario=[ISTIO], env={"KUBECONFIG": str(path)})
    lacking = "not allowed: create, patch, delete customresourcedefinitions.apiextensions.k8s.io"
    refused(job, lacking, "install-mesh.yaml")
    assert "run.yaml" not in job.message


@pytest.mark.parametrize(("version", "told"), [("", "istioctl: not on PATH"), ("1.21.6", "1.21.6 ({path}) is too old")])
def test_a_tool_that_is_missing_or_too_old_is_named_with_the_one_that_serves(
    tmp_path: Path, version: str, told: str
) -> None:
    """What was found, what is needed, and where that is from."""
    tool = tmp_path / "bin" / "istioctl"
    tool.parent.mkdir()
    if version:
        tool.write_text(f"#!/bin/sh\necho client version: {version}\n", "utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    job = run_job(tmp_path, *MESH, scenario=[ISTIO], env={"PATH": f"{tool.parent}:/usr/bin:/bin"})
    refused(job, told.format(path=tool), "install istioctl 1.22 or later: https://istio.io/")


def test_policies_of_another_mesh_are_told_with_file_and_line(tmp_path: Path) -> None:
    """Exit code 2, before the cluster is looked at for more than its name."""
    wrong = {"name": "wrong", "mesh": "istio", "manifests": ["kuma/policies"]}
    refused(run_job(tmp_path, *MESH, scenario=[BASELINE, wrong]), "manifests/kuma/policies/", ".yaml:", exit_code=2)


def test_a_namespace_of_somebody_else_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    """Where a mesh's control plane would go: there is one, or was, and it is not ours to judge."""
    with made(cluster, namespace("istio-system")):
        job = run_job(tmp_path, *MESH, scenario=[ISTIO])
    refused(job, "istio: on the cluster already: namespace istio-system", "--use-existing-mesh")


def test_a_webhook_that_nobody_answers_stops_a_run_before_it_starts(cluster: Cluster, tmp_path: Path) -> None:
    """With the service that is gone, and the command that removes the webhook."""
    name = f"t-faults-{secrets.token_hex(3)}"
    with made(cluster, dead_webhook(name)):
        job = run_job(tmp_path)
    refused(
        job,
        f"webhook: MutatingWebhookConfiguration {name}: its service t-faults-gone/injector does not exist",
        f"kubectl --context {CONTEXT} delete mutatingwebhookconfiguration {name}",
    )


def dead_webhook(name: str) -> Object:
    """What an uninstalled mesh left; it means one namespace only, which does not exist."""
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
    return thing("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", name, webhooks=[webhook])


def test_an_image_that_does_not_exist_is_found_before_anything_is_deployed(tmp_path: Path) -> None:
    """Within a minute, with its name, what the registry said, and the flags that give another."""
    job = run_job(tmp_path, "--image", f"details={ABSENT}")
    refused(job, f"image: {ABSENT} cannot be pulled: ", "--image NAME=REF, --registry MIRROR")
    assert job.seconds < 60


def test_pods_that_no_node_has_room_for_are_named(tmp_path: Path) -> None:
    """With what they ask for and what there is."""
    values = tmp_path / "greedy.yaml"
    resources = {"requests": {"cpu": "1000", "memory": "128Mi"}}
    spec = {"values": {"pilot": {"resources": resources}}}
    head = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator"}
    values.write_text(yaml.safe_dump({**head, "spec": spec}), "utf-8")
    job = run_job(tmp_path, *MESH, "--mesh-values", values, scenario=[ISTIO])
    refused(job, "room: none for istiod (1,000 CPU and 128 MiB)", "add a node, or ask for less (--mesh-values)")


def test_a_node_that_takes_no_pods_is_told(cluster: Cluster, tmp_path: Path) -> None:
    """As while somebody drains it."""
    (node,) = cluster.list("v1", "Node")
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": node_name(node), "spec": {"unschedulable": True}})
    try:
        job = run_job(tmp_path)
    finally:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": node_name(node), "spec": {}})
    refused(job, "nodes: 0 of 1 node ready and open to pods", "kubectl describe nodes")


def node_name(node: Object) -> Object:
    return {"name": node["metadata"]["name"]}


def test_doctor_says_the_same_and_more(cluster: Cluster, tmp_path: Path) -> None:
    """All that is missing at once, one line for each; exit code 3."""
    name = f"t-faults-{secrets.token_hex(3)}"
    with made(cluster, dead_webhook(name)), made(cluster, namespace("istio-system")):
        job = run_command(tmp_path, "doctor", "--scenario", "istio-policies", *MESH)
    assert job.exit_code == 3, job.told
    assert f"MutatingWebhookConfiguration {name}" in job.stdout
    assert "namespace istio-system" in job.stdout
    assert "a run would not start here" in job.message
