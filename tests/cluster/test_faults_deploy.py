"""What prevents a deployment on a real cluster from becoming ready, after a pre-flight without errors: each ends the
run with exit code 4 (3 where an object is not ours) and the cluster's own message, and removes what the run has
created."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_for
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.accounts import account, token_user, write_kubeconfig
from tests.cluster.emulated import IMAGE, make_namespace, make_object
from tests.cluster.job import Job, delete_named, namespace_of, pause, run_command, run_job, until_applied, until_loading
from tests.cluster.lab import CONTEXT
from tests.cluster.lab_images import BOOKINFO, tag_image
from tests.command import Command

pytestmark = pytest.mark.usefixtures("as_before")

ADMISSION = "admissionregistration.k8s.io/v1"
SHORT = {"grace": 0.2}  # how long a state may last before it counts as final


def assert_failed(job: Job, *expected: str, exit_code: int = 4) -> None:
    """Check that the run has ended with all of this in its message, and has removed everything."""
    assert job.exit_code == exit_code, job.output
    missing = [text for text in expected if text not in job.message]
    assert not missing, job.output
    assert (job.record["status"], job.record["exit_code"], job.record["cleanup_ok"]) == ("failed", exit_code, True)
    assert f"to continue: meshbench run --resume {job.folder}" in job.message


def test_missing_image_ends_the_run(tmp_path: Path) -> None:
    """The message has the pod, the image's name, and the error of the pull."""
    name = f"docker.io/meshbench/short-lived-{secrets.token_hex(3)}:1"
    with tag_image(BOOKINFO, name) as take_away:

        def harm(started: Command) -> None:
            started.folder()
            with pause(started):
                take_away()

        job = run_job(tmp_path, "--image", f"details={name}", during=harm, timing=SHORT)
    assert_failed(job, "Pod details-v1-", "container details: waits, ", f"image {name}", "event Pod details-v1-")
    assert job.seconds < 150


def test_quota_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """The quota is one that a cluster puts into each new namespace, as many do."""
    small = {"hard": {"pods": "2"}}

    def harm(started: Command) -> None:
        place = namespace_of(started)
        until_applied(started, "Namespace", name=f"{place}-outside")
        with pause(started):
            quota = cluster.create(make_object("v1", "ResourceQuota", "small", place, spec=small))
            wait_for(
                cluster, ref_of(quota), lambda found: "hard" in found[0]["status"], timeout_s=60, watch=CancelToken()
            )

    job = run_job(tmp_path, during=harm, timing=SHORT)
    assert_failed(job, "exceeded quota: small", "limited: pods=2")


@pytest.mark.soak("cluster")
def test_admission_policy_that_refuses_pods_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """Deployments are admitted and their pods are not, so that there is no pod to read the reason from."""
    name = f"t-faults-{secrets.token_hex(3)}"
    with refusing(cluster, name, "the image of details is not approved"):
        job = run_job(tmp_path, timing=SHORT)
    assert_failed(job, "Deployment details-v1: FailedCreate", name, "the image of details is not approved")


@contextmanager
def refusing(cluster: Cluster, name: str, message: str) -> Iterator[None]:
    """From now on pods of details are refused, in all namespaces."""
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    validation = {"expression": "!has(object.metadata.labels) || !('app' in object.metadata.labels) || "
                  "object.metadata.labels['app'] != 'details'", "message": message}  # fmt: skip
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation], "failurePolicy": "Fail"}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    made = (
        make_object(ADMISSION, "ValidatingAdmissionPolicy", name, spec=spec),
        make_object(ADMISSION, "ValidatingAdmissionPolicyBinding", name, spec=binding),
    )
    try:
        for one in made:
            cluster.create(one)
        assert wait_until(lambda: _is_refused(cluster, message), timeout_s=60, watch=CancelToken(), poll_s=0.3)
        yield
    finally:
        for one in made:
            delete_named(cluster, ref_of(one))


def _is_refused(cluster: Cluster, message: str) -> bool:
    pod = make_object("v1", "Pod", "details", "default", spec={"containers": [{"name": "one", "image": IMAGE}]})
    pod["metadata"]["labels"] = {"app": "details"}
    try:
        cluster.apply(pod, dry_run=True)
    except ClusterError as error:
        return message in str(error)
    return False


def test_foreign_namespace_of_the_same_name_is_untouched(cluster: Cluster, tmp_path: Path) -> None:
    """Exit code 3; the namespace's objects are unchanged."""
    made: list[Object] = []

    def harm(started: Command) -> None:
        started.folder()
        with pause(started):
            made.append(cluster.create(make_namespace(namespace_of(started))))
            made.append(
                cluster.create(make_object("v1", "ConfigMap", "theirs", namespace_of(started), data={"a": "b"}))
            )

    job = run_job(tmp_path, during=harm)
    there = [cluster.get(ref_of(one)) for one in made]
    delete_named(cluster, ref_of(made[0]))
    assert [one and (one["metadata"]["uid"], one.get("data")) for one in there] == [
        (one["metadata"]["uid"], one.get("data")) for one in made
    ]
    assert there[0] is not None
    assert there[0]["status"]["phase"] == "Active"
    assert there[0]["metadata"].get("labels", {}).keys() == {"kubernetes.io/metadata.name"}
    assert_failed(job, f"Namespace {made[0]['metadata']['name']} exists and was not made by meshbench", exit_code=3)


@pytest.mark.soak("cluster")
def test_rights_revoked_during_the_load_end_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The run ends and names the missing right; samples until then are kept. What it could not remove is reported with
    the command that does, which an administrator may run twice."""
    with account(cluster, "run") as poor:
        config = write_kubeconfig(tmp_path / "config", token_user(poor.token("poor")))

        def harm(started: Command) -> None:
            until_loading(started, "01-baseline-1")
            poor.disarm()

        job = run_job(tmp_path, during=harm, load={"duration": "8s"}, env={"KUBECONFIG": str(config)})
    run_id = job.folder.name
    assert job.exit_code == 5, job.output
    assert "forbidden" in job.message
    assert f"meshbench cleanup --context {CONTEXT} --run-id {run_id}" in job.message
    assert (job.record["status"], job.record["cleanup_ok"]) == ("failed", False)
    assert (job.folder / "trials" / "01-baseline-1" / "samples.parquet").stat().st_size > 0
    first = run_command(tmp_path, "cleanup", "--run-id", run_id)
    again = run_command(tmp_path, "cleanup", "--run-id", run_id)
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert f"Namespace bookinfo-{run_id.rpartition('-')[2]}" in first.stdout
    assert f"no leftover objects of {run_id}" in again.stdout
    assert cluster.get(Ref("v1", "Namespace", "meshbench-lock")) is None
