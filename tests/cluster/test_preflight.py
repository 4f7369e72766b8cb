"""The pre-flight on a real API server: accounts with too few rights and with ours, images, and what others left."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, RefusedError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.ownership import OURS
from bench.k8s.wait import wait_for
from bench.meshes.istio.install import render
from bench.meshes.protocols import InstallOptions
from bench.scenario.loader import inputs_of, load_scenario
from bench.scenario.overrides import Overrides
from bench.system.cancellation import Watch
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.preflight.cluster import examine_admission, examine_residue
from bench.targets.cluster.preflight.examination import examine_cluster
from bench.targets.cluster.preflight.images import examine_images
from bench.targets.cluster.preflight.permissions import INSTALL, RUN, examine_permissions, needs_of
from bench.targets.cluster.teardown.blockers import find_residue
from tests import command
from tests.cluster import accounts, job
from tests.cluster.accounts import with_token, write_kubeconfig
from tests.cluster.conftest import CONTEXT
from tests.cluster.lab_images import MESHLAB

LOADED = "docker.io/locustio/locust:2.47.0"
ABSENT = "docker.io/meshbench/there-is-no-such-image:1"

SCENARIO = load_scenario("istio-policies", Overrides())
INPUTS = inputs_of(SCENARIO, "istio-policies")
OPTIONS = ClusterOptions(
    context=CONTEXT,
    yes_this_cluster=None,
    agreed=False,
    images={"bookinfo": LOADED},  # any image that the lab has
    registry="",
    mesh_values={},
    hub="",
    tag="",
    revision="",
    existing_mesh=False,
    keep=False,
    locust_ui=None,
    prometheus="",
)

As = Callable[..., Any]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for accounts, and for what is tried."""
    name = f"t-preflight-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        wait_for(cluster, Ref("v1", "ServiceAccount", "default", name), bool, timeout_s=30, watch=Watch())
        yield name
    finally:
        cluster.delete(Ref("v1", "Namespace", name))


@pytest.fixture
def account(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> As:
    """Opens the lab as a new service account with copies of the shipped roles of these names."""

    @contextmanager
    def opened(*roles: str) -> Iterator[Cluster]:
        with accounts.account(cluster, *roles) as mine:
            path = write_kubeconfig(tmp_path / f"{mine.namespace}.kubeconfig", with_token(mine.token("token")))
            monkeypatch.setenv("KUBECONFIG", str(path))
            with open_cluster(CONTEXT, private_folder=tmp_path) as opened_:
                yield opened_

    return opened


def test_an_account_without_rights_is_refused_with_the_missing_verbs_and_resources(account: As) -> None:
    """Exit code 3, before anything is looked at that it may not see; every line names verbs, resource and purpose."""
    with account() as mine, pytest.raises(RefusedError) as refused:
        examine_cluster(mine, SCENARIO, OPTIONS, INPUTS)
    assert refused.value.exit_code == 3
    assert "get, list, create, patch, delete deployments.apps" in str(refused.value)
    assert "manifests/rbac/run.yaml" in str(refused.value)


def test_doctor_and_run_refuse_an_account_without_rights(account: As, tmp_path: Path) -> None:
    """Exit code 3 with the verb and the resource, as one message and no traceback."""
    with account():
        looked = command.call("doctor", "--context", CONTEXT, output=tmp_path / "results")
        ran = command.call("run", "--scenario", "smoke", "--context", CONTEXT, "--yes", output=tmp_path / "results")
    for finished in (looked, ran):
        assert finished.code == 3, finished.told
        assert "not allowed: get, list, create, patch, delete namespaces" in finished.err
        assert "Traceback" not in finished.err


def test_a_run_that_nobody_agreed_to_touches_nothing(lab_kubeconfig: Path, tmp_path: Path) -> None:
    """Without a terminal and without --yes it is told which cluster it would be, and exit code 3."""
    environment = {"KUBECONFIG": str(lab_kubeconfig)}
    arguments = ("run", "--scenario", "smoke", "--context", CONTEXT)
    finished = command.call(*arguments, output=tmp_path / "results", env=environment)
    assert finished.code == 3, finished.told
    assert f"context {CONTEXT}: https://" in finished.err
    assert "add --yes" in finished.err
    assert not (tmp_path / "results").exists()


def test_the_shipped_roles_give_every_right_that_is_asked_for(account: As) -> None:
    """The API server itself says yes to each verb of the table, by name where the table has names."""
    with account("run", "install") as mine:
        (finding,) = examine_permissions(mine, (*RUN, *INSTALL))
    assert finding.status == "ok"


def test_who_only_runs_may_not_install(account: As) -> None:
    """With the first role alone, a run that installs a mesh is refused, and one on a mesh that is there is not."""
    with account("run") as mine:
        assert [one.status for one in examine_permissions(mine, needs_of(("istio", "kuma"), install=False))] == ["ok"]
        lacking = examine_permissions(mine, needs_of(("istio",), install=True))
    assert "create, patch, delete mutatingwebhookconfigurations" in " ".join(one.detail for one in lacking)
    assert all("install-mesh.yaml" in one.hint for one in lacking)


def test_the_roles_carry_the_pre_flight_itself(account: As, lab_path: None) -> None:
    """An account with both roles gets to the end of the pre-flight: nothing in it asks for more."""
    options = replace(OPTIONS, mesh_values={"istio": (MESHLAB.parent / "istio-values.yaml",)})
    with account("run", "install") as mine:
        findings = examine_cluster(mine, SCENARIO, options, INPUTS).findings
    kinds = {finding.name for finding in findings}
    assert {"permissions", "version", "nodes", "istioctl", "earlier runs", "istio", "admission", "room"} <= kinds


def test_a_prometheus_that_is_not_there_ends_a_run_before_it_begins(account: As, tmp_path: Path) -> None:
    """Exit code 3: first for the right to ask it, which has a role of its own, then for the service itself."""
    place = "default/no-such-prometheus:9090"
    arguments = ("run", "--scenario", "smoke", "--context", CONTEXT, "--yes", "--prometheus", place)
    with account("run"):
        refused = command.call(*arguments, output=tmp_path / "results")
    assert refused.code == 3, refused.told
    assert "get services/proxy named no-such-prometheus:9090 in namespace default" in refused.err
    assert "prometheus.yaml" in refused.err
    looking = ("doctor", "--context", CONTEXT, "--use-existing-mesh", "--prometheus", place)
    with account("run", "prometheus"):
        missing = command.call(*looking, output=tmp_path / "results")
    assert missing.code == 3, missing.told
    assert f"{place} does not answer as one" in missing.out
    assert not (tmp_path / "results").exists()


def test_a_plan_for_a_cluster_makes_nothing(account: As, lab_path: None, cluster: Cluster, tmp_path: Path) -> None:
    """It counts what a run would make, with an account that may not install anything, and asks nobody."""
    values = MESHLAB.parent / "istio-values.yaml"
    arguments = ("plan", "--scenario", "istio-policies", "--context", CONTEXT, "--mesh-values", values)
    with account("run"):
        before = job.everything(cluster)
        finished = command.call(*arguments, output=tmp_path / "results")
        changed = job.changes(before, job.everything(cluster))
    assert [one for one in changed if "t-account-" not in one] == []  # accounts of other tests may still be going
    assert finished.code == 0, finished.told
    assert "2 Namespace" in finished.out
    assert "istio 1." in finished.out
    assert "the run makes " in finished.out
    assert f"on context {CONTEXT}: https://" in finished.out


def test_the_roles_are_enough_to_give_istio_its_own_rights(account: As, lab_path: None, namespace: str) -> None:
    """Kubernetes lets the account write and bind the roles that istioctl renders (by dry runs), and no other role."""
    kinds = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    rights = [thing for thing in render(InstallOptions()) if thing["kind"] in kinds]
    assert {thing["kind"] for thing in rights} == set(kinds)
    with account("run", "install") as mine:
        for thing in rights:
            mine.apply(_moved(thing, namespace), dry_run=True)
            with pytest.raises(ClusterError) as refused:
                mine.apply(_moved(thing, namespace, name=f"{namespace}-other"), dry_run=True)
            assert refused.value.status == 403


def test_the_roles_are_enough_for_the_secret_that_kuma_brings(account: As, namespace: str) -> None:
    """One name may be written; under any other it may not, and none may be listed."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kuma-tls-cert", "namespace": namespace}}
    with account("run", "install") as mine:
        mine.apply(secret, dry_run=True)
        with pytest.raises(ClusterError) as written:
            mine.apply(_moved(secret, namespace, name="other"), dry_run=True)
        with pytest.raises(ClusterError) as listed:
            mine.list("v1", "Secret")
    assert (written.value.status, listed.value.status) == (403, 403)


def _moved(thing: Object, namespace: str, *, name: str = "") -> Object:
    """The same in a namespace that is there, where it is in one; under another name if one is given."""
    metadata = {**thing["metadata"], "name": name or thing["metadata"]["name"]}
    placed = {"namespace": namespace} if "namespace" in metadata else {}
    return {**thing, "metadata": {**metadata, **placed}}


@pytest.fixture
def lab_path(monkeypatch: pytest.MonkeyPatch, lab_kubeconfig: Path) -> None:
    """The lab's istioctl on PATH."""
    monkeypatch.setenv("PATH", str(lab_kubeconfig.parents[1] / "cli"), prepend=":")


def _webhook(name: str, *, policy: str) -> Object:
    """One that would be asked about Deployments of one namespace that does not exist, by a service that does not."""
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
def test_a_leftover_webhook_is_found_with_the_command_that_removes_it(
    cluster: Cluster, policy: str, state: str
) -> None:
    """One whose service is gone and that refuses what it cannot ask about stops a run before it starts."""
    name = f"t-preflight-{secrets.token_hex(3)}"
    cluster.create(_webhook(name, policy=policy))
    try:
        residue = [one for one in find_residue(cluster) if one.found.ref.name == name]
        (finding,) = examine_residue(residue, RUN, cluster.context)
    finally:
        cluster.delete(Ref("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name))
    assert finding.status == state
    assert "service t-preflight-gone/gone does not exist" in finding.detail
    assert finding.hint.endswith(f"kubectl --context {CONTEXT} delete validatingwebhookconfiguration {name}")


def test_an_image_that_cannot_be_pulled_is_found_by_trying(cluster: Cluster) -> None:
    """The registry's answer is told; what nodes have is not tried; nothing stays of the pod that tried."""
    findings = examine_images(cluster, [LOADED, ABSENT], cluster.list("v1", "Node"), pull=True)
    assert [(one.status, one.name) for one in findings] == [("ok", "images"), ("error", "image")]
    assert findings[1].detail.startswith(f"{ABSENT} cannot be pulled: ")
    left = [
        one for one in cluster.list("v1", "Namespace", labels=OURS) if "meshbench-images" in one["metadata"]["name"]
    ]
    assert all(one["metadata"].get("deletionTimestamp") for one in left)


def test_an_image_that_can_be_had_is_pulled_without_running_it(cluster: Cluster) -> None:
    """A node that names fewer images than it has is asked by the same pod: its container never starts."""
    nodes = [{**node, "status": {**node["status"], "images": []}} for node in cluster.list("v1", "Node")]
    (finding,) = examine_images(cluster, [LOADED], nodes, pull=True)
    assert (finding.status, finding.detail) == ("ok", f"{LOADED} can be had: a pod found or pulled it")


def test_the_lab_lets_pods_with_sidecars_in(cluster: Cluster) -> None:
    """A dry run: no pod is made to find out."""
    (finding,) = examine_admission(cluster, cluster.kinds())
    assert finding.status == "ok"
    assert cluster.get(Ref("v1", "Pod", "meshbench-admission", "default")) is None
