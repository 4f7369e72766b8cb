"""The pre-flight on a real API server: accounts with too few rights and with the shipped roles, images, and
leftovers."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, ErrorKind, RefusedError, exit_code_of
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.ownership import OURS
from bench.k8s.wait import wait_for
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.istio.install import render
from bench.meshes.resolved import resolve_scenario
from bench.scenario.overrides import Overrides
from bench.system.cancellation import CancelToken
from bench.targets.cluster.load.pod import VARIABLES
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.preflight.cluster import examine_admission, examine_dangling
from bench.targets.cluster.preflight.examination import examine_cluster
from bench.targets.cluster.preflight.images import examine_images
from bench.targets.cluster.preflight.permissions import examine_permissions, needs_of
from bench.targets.cluster.teardown.blockers import find_dangling
from tests import command
from tests.cluster import accounts, job
from tests.cluster.accounts import token_user, write_kubeconfig
from tests.cluster.conftest import CONTEXT
from tests.cluster.job import delete_named
from tests.cluster.lab_images import MESHLAB

LOADED = "docker.io/locustio/locust:2.47.0"
ABSENT = "docker.io/meshbench/there-is-no-such-image:1"

SCENARIO = resolve_scenario("istio-policies", Overrides())
OPTIONS = ClusterOptions(context=CONTEXT, images={"bookinfo": LOADED})  # any image that the lab has

As = Callable[..., Any]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for accounts, and for test objects."""
    name = f"t-preflight-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        wait_for(cluster, Ref("v1", "ServiceAccount", "default", name), bool, timeout_s=30, watch=CancelToken())
        yield name
    finally:
        delete_named(cluster, Ref("v1", "Namespace", name))


@pytest.fixture
def account(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> As:
    """A function that opens the lab as a new service account with copies of the shipped roles of these names."""

    @contextmanager
    def opened(*roles: str) -> Iterator[Cluster]:
        with accounts.account(cluster, *roles) as mine:
            path = write_kubeconfig(tmp_path / f"{mine.namespace}.kubeconfig", token_user(mine.token("token")))
            monkeypatch.setenv("KUBECONFIG", str(path))
            with open_cluster(CONTEXT, private_folder=tmp_path) as opened_:
                yield opened_

    return opened


def test_account_without_rights_is_refused(account: As) -> None:
    """Exit code 3, before anything is read that it may not read; every line names verbs, resource and purpose."""
    with account() as mine, pytest.raises(RefusedError) as refused:
        examine_cluster(mine, SCENARIO, OPTIONS)
    assert exit_code_of(refused.value) == 3
    assert "get, list, create, patch, delete deployments.apps" in str(refused.value)
    assert "manifests/rbac/run.yaml" in str(refused.value)


def test_doctor_and_run_refuse_an_account_without_rights(account: As, tmp_path: Path) -> None:
    """Exit code 3 with the verb and the resource, as one message and no traceback."""
    with account():
        looked = command.call("doctor", "--context", CONTEXT, output=tmp_path / "results")
        ran = command.call("run", "--scenario", "smoke", "--context", CONTEXT, "--yes", output=tmp_path / "results")
    for finished in (looked, ran):
        assert finished.code == 3, finished.output
        assert "not allowed: get, list, create, patch, delete namespaces" in finished.err
        assert "Traceback" not in finished.err


def test_unconfirmed_run_changes_nothing(lab_kubeconfig: Path, tmp_path: Path) -> None:
    """Without a terminal and without --yes the message names the cluster, with exit code 3."""
    environment = {"KUBECONFIG": str(lab_kubeconfig)}
    arguments = ("run", "--scenario", "smoke", "--context", CONTEXT)
    finished = command.call(*arguments, output=tmp_path / "results", env=environment)
    assert finished.code == 3, finished.output
    assert f"context {CONTEXT}: https://" in finished.err
    assert "add --yes" in finished.err
    assert not (tmp_path / "results").exists()


def test_shipped_roles_grant_every_required_right(account: As) -> None:
    """The API server allows each verb of the table, by name where the table has names."""
    with account("run", "install") as mine:
        (finding,) = examine_permissions(mine, needs_of(MESHES, install=True))
    assert finding.status == "ok"


def test_run_role_may_write_the_secret_of_the_load_alone(account: As) -> None:
    """A Secret of any other name is neither written nor read, in a namespace of the run's own."""
    namespace = f"t-secret-{secrets.token_hex(3)}"
    made: dict[str, Object] = {
        name: {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
        for name in (VARIABLES, "other")
    }
    with account("run") as mine:
        mine.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            mine.apply(made[VARIABLES])
            assert mine.get(ref_of(made[VARIABLES])) is not None
            with pytest.raises(ClusterError) as written:
                mine.apply(made["other"])
            with pytest.raises(ClusterError) as read:
                mine.get(ref_of(made["other"]))
            assert {written.value.kind, read.value.kind} == {ErrorKind.FORBIDDEN}
        finally:
            delete_named(mine, Ref("v1", "Namespace", namespace))


def test_run_role_may_not_install(account: As) -> None:
    """With the first role alone, a run that installs a mesh is refused, and one on an existing mesh is not."""
    with account("run") as mine:
        assert [one.status for one in examine_permissions(mine, needs_of(("istio", "kuma"), install=False))] == ["ok"]
        lacking = examine_permissions(mine, needs_of(("istio",), install=True))
    assert "create, patch, delete mutatingwebhookconfigurations" in " ".join(one.detail for one in lacking)
    assert all("install-mesh.yaml" in one.hint for one in lacking)


def test_roles_suffice_for_the_preflight(account: As, lab_path: None) -> None:
    """An account with both roles completes the pre-flight, which needs no other right."""
    options = replace(OPTIONS, mesh_values={"istio": (MESHLAB.parent / "istio-values.yaml",)})
    with account("run", "install") as mine:
        findings = examine_cluster(mine, SCENARIO, options).findings
    kinds = {finding.name for finding in findings}
    assert {"permissions", "version", "nodes", "istioctl", "earlier runs", "istio", "admission", "capacity"} <= kinds


def test_missing_prometheus_refuses_the_run(account: As, tmp_path: Path) -> None:
    """Exit code 3: first for the right to query it, which has its own role, then for the service itself."""
    place = "default/no-such-prometheus:9090"
    arguments = ("run", "--scenario", "smoke", "--context", CONTEXT, "--yes", "--prometheus", place)
    with account("run"):
        refused = command.call(*arguments, output=tmp_path / "results")
    assert refused.code == 3, refused.output
    assert "get services/proxy named no-such-prometheus:9090 in namespace default" in refused.err
    assert "prometheus.yaml" in refused.err
    looking = ("doctor", "--context", CONTEXT, "--use-existing-mesh", "--prometheus", place)
    with account("run", "prometheus"):
        missing = command.call(*looking, output=tmp_path / "results")
    assert missing.code == 3, missing.output
    assert f"{place} does not answer as Prometheus" in missing.out
    assert not (tmp_path / "results").exists()


def test_cluster_plan_creates_nothing(account: As, lab_path: None, cluster: Cluster, tmp_path: Path) -> None:
    """It counts what a run would create, with an account that may not install anything, and without a confirmation."""
    values = MESHLAB.parent / "istio-values.yaml"
    arguments = ("plan", "--scenario", "istio-policies", "--context", CONTEXT, "--mesh-values", values)
    with account("run"):
        before = job.list_objects(cluster)
        finished = command.call(*arguments, output=tmp_path / "results")
        changed = job.find_changes(before, job.list_objects(cluster))
    assert [one for one in changed if "t-account-" not in one] == []  # accounts of other tests may still be terminating
    assert finished.code == 0, finished.output
    assert "2 Namespace" in finished.out
    assert "istio 1." in finished.out
    assert "the run creates " in finished.out
    assert f"on context {CONTEXT}: https://" in finished.out


def test_roles_suffice_to_grant_istio_its_rights(account: As, lab_path: None, namespace: str) -> None:
    """Kubernetes lets the account write and bind the roles that istioctl renders (by dry runs), and no other role."""
    kinds = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    rights = [thing for thing in render(InstallOptions()) if thing["kind"] in kinds]
    assert {thing["kind"] for thing in rights} == set(kinds)
    with account("run", "install") as mine:
        for thing in rights:
            mine.apply(_moved(thing, namespace), dry_run=True)
            with pytest.raises(ClusterError) as refused:
                mine.apply(_moved(thing, namespace, name=f"{namespace}-other"), dry_run=True)
            assert refused.value.kind is ErrorKind.FORBIDDEN


def test_roles_suffice_for_the_secret_of_kuma(account: As, namespace: str) -> None:
    """The account may write this one name and no other, and may list none."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kuma-tls-cert", "namespace": namespace}}
    with account("run", "install") as mine:
        mine.apply(secret, dry_run=True)
        with pytest.raises(ClusterError) as written:
            mine.apply(_moved(secret, namespace, name="other"), dry_run=True)
        with pytest.raises(ClusterError) as listed:
            mine.list("v1", "Secret")
    assert {written.value.kind, listed.value.kind} == {ErrorKind.FORBIDDEN}


def _moved(thing: Object, namespace: str, *, name: str = "") -> Object:
    """Return the object in an existing namespace, if it has one; under another name if one is given."""
    metadata = {**thing["metadata"], "name": name or thing["metadata"]["name"]}
    placed = {"namespace": namespace} if "namespace" in metadata else {}
    return {**thing, "metadata": {**metadata, **placed}}


@pytest.fixture
def lab_path(monkeypatch: pytest.MonkeyPatch, lab_kubeconfig: Path) -> None:
    """The lab's istioctl on PATH."""
    monkeypatch.setenv("PATH", str(lab_kubeconfig.parents[1] / "cli"), prepend=":")


def _webhook(name: str, *, policy: str) -> Object:
    """Return a webhook for Deployments of one namespace that does not exist, with a service that does not exist."""
    client = {"service": {"name": "gone", "namespace": "t-preflight-gone", "path": "/", "port": 443}}
    rule = {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
    webhook = {
        "name": "gone.meshbench.dev",
        "clientConfig": client,
        "rules": [rule],
        "failurePolicy": policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "t-preflight-gone"}},
    }
    kind = "ValidatingWebhookConfiguration"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [webhook],
    }


@pytest.mark.parametrize(("policy", "state"), [("Fail", "error"), ("Ignore", "warning")])
def test_dangling_webhook_is_found_with_its_command(cluster: Cluster, policy: str, state: str) -> None:
    """A webhook without its service that fails closed refuses a run before it starts."""
    name = f"t-preflight-{secrets.token_hex(3)}"
    cluster.create(_webhook(name, policy=policy))
    try:
        residue = [one for one in find_dangling(cluster) if one.found.ref.name == name]
        (finding,) = examine_dangling(residue, needs_of(MESHES, install=False), cluster.context)
    finally:
        delete_named(cluster, Ref("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name))
    assert finding.status == state
    assert "service t-preflight-gone/gone does not exist" in finding.detail
    assert finding.hint.endswith(f"kubectl --context {CONTEXT} delete validatingwebhookconfiguration {name}")


def test_unpullable_image_is_found_by_a_pull(cluster: Cluster) -> None:
    """The registry's error is reported; images that nodes have are not pulled; nothing stays of the pod that pulled."""
    findings = examine_images(cluster, [LOADED, ABSENT], cluster.list("v1", "Node"), pull=True)
    assert [(one.status, one.name) for one in findings] == [("ok", "images"), ("error", "image")]
    assert findings[1].detail.startswith(f"{ABSENT} cannot be pulled: ")
    left = [
        one for one in cluster.list("v1", "Namespace", labels=OURS) if "meshbench-images" in one["metadata"]["name"]
    ]
    assert all(one["metadata"].get("deletionTimestamp") for one in left)


def test_image_is_pulled_without_running_it(cluster: Cluster) -> None:
    """The same pod checks a node that lists fewer images than it has: its container never starts."""
    nodes = [{**node, "status": {**node["status"], "images": []}} for node in cluster.list("v1", "Node")]
    (finding,) = examine_images(cluster, [LOADED], nodes, pull=True)
    assert (finding.status, finding.detail) == ("ok", f"{LOADED} is available: a pod found or pulled it")


def test_lab_admits_pods_with_sidecars(cluster: Cluster) -> None:
    """A dry run finds that out without a pod."""
    (finding,) = examine_admission(cluster, cluster.kinds())
    assert finding.status == "ok"
    assert cluster.get(Ref("v1", "Pod", "meshbench-admission", "default")) is None
