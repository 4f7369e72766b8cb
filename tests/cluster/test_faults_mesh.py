"""A mesh that differs from its configuration, on a real cluster: there is no result, the message names what is wrong
and where, and the existing mesh stays unchanged.

The mesh belongs to another user, who causes these faults while a run uses it.
"""

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from bench.files.folders import find_shipped
from bench.k8s.client import Cluster, Object, Ref
from tests.cluster.emulated import make_object
from tests.cluster.foreign_mesh import SYSTEM, replace_fields, without_injection, without_istiod
from tests.cluster.job import (
    BASELINE,
    HARM,
    ISTIO,
    MEASURED,
    POLICIES,
    Job,
    delete_named,
    namespace_of,
    pause,
    run_job,
    until_applied,
    until_loading,
)
from tests.command import Command
from tests.issues import read_reasons

pytestmark = pytest.mark.usefixtures("existing_istio", "as_before")

SECURITY = "security.istio.io/v1"
CONFIG = Ref("v1", "ConfigMap", "istio", SYSTEM)
EXISTING = "--use-existing-mesh"
LONGER = {"duration": "6s"}  # time for faults in the window
SHORT = {"settle_s": 6.0}


def assert_failed(job: Job, *expected: str) -> None:
    """Check for exit code 4, all of this in the message, and that everything of the run was deleted."""
    assert job.exit_code == 4, job.output
    missing = [text for text in expected if not re.search(text, job.message)]
    assert not missing, job.output
    assert (job.record["status"], job.record["cleanup_ok"]) == ("failed", True)


@pytest.mark.soak("cluster")
def test_control_plane_lost_between_trials_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The message names its webhook, without whose response no pod is created; the trial before it is kept, though its
    load pod was deleted in its window."""

    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_loading(started, "01-istio-1")
            delete_named(cluster, Ref("v1", "Pod", "locust", namespace_of(started)), grace_s=0)
            until_drafted(started, "02-istio-2")
            with pause(started):
                stack.enter_context(without_istiod(cluster))

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], repeats=2, load=LONGER, during=harm)
    webhook = r'failed calling webhook "[a-z.-]+sidecar-injector\.istio\.io"'
    assert_failed(job, webhook, r'Post "https://istiod\.istio-system\.svc:443/inject')
    assert f"complete trials are kept; to report them: meshbench report {job.folder}" in job.message
    (first,) = job.trials().values()
    assert first["trial"] == "01-istio-1"
    assert "generator-ended: the load pod was deleted" in " ".join(read_reasons(first))


def until_drafted(started: Command, trial: str) -> None:
    """Wait until a trial has begun: nothing of it is on the cluster."""
    draft = started.folder() / "trials" / f"{trial}.partial"
    started.until(draft.exists, f"the beginning of {trial}")


def test_pods_without_sidecars_end_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """A mesh without its sidecars would be the fastest of all: the pods are recreated once, then no load is sent, and
    they are named."""
    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_applied(started, "Namespace")
            with pause(started):
                stack.enter_context(without_injection(cluster))

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], during=harm)
    assert_failed(job, "sidecars, all pods: expected istio-proxy in every pod, ready; got none in details-v1-")
    assert job.seconds < 200


@pytest.mark.soak("cluster")
def test_pods_without_sidecars_are_recreated_once(cluster: Cluster, tmp_path: Path) -> None:
    """A late webhook costs some seconds: the new pods have sidecars, and the trial is valid."""
    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_applied(started, "Namespace")
            with pause(started):
                stack.enter_context(without_injection(cluster))
            started.line("apply-done", kind="Pod", name="locust")
            with pause(started):
                stack.close()

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], during=harm)
    assert job.exit_code in MEASURED, job.output
    assert not HARM.search(" ".join(read_reasons(job.trials()["01-istio-1"]))), job.output


def test_unenforced_mtls_and_deleted_policy_invalidate_trial(cluster: Cluster, tmp_path: Path) -> None:
    """Plaintext that gets a response, and a page of which a part is denied, make the trial invalid: each line has the
    request, the expected and the actual answer. (Open connections may keep the deleted policy for a while.)"""

    def harm(started: Command) -> None:
        place = namespace_of(started)
        until_loading(started, "01-istio-policies-1")
        cluster.create(permissive("ratings", place))
        delete_named(cluster, Ref(SECURITY, "AuthorizationPolicy", "details-viewer", place))

    job = run_job(tmp_path, EXISTING, scenario=[POLICIES], load=LONGER, during=harm)
    assert job.exit_code == 4, job.output
    assert (job.record["status"], job.record["cleanup_ok"]) == ("invalid", True)
    reasons = "\n".join(read_reasons(job.trials()["01-istio-policies-1"]))
    for pattern in (
        r"proof: policy default of GET /ratings/\d+ at ratings as no identity, in plaintext: .*refused .*, seen 403",
        r"proof: page of productpage: expected a complete page, seen page says: Error fetching product details",
    ):
        assert re.search(pattern, reasons), reasons


@pytest.mark.soak("cluster")
def test_policy_deleted_before_the_load_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """Case 33: a request that it must deny gets a response, so no load is sent, and the message names policy and
    request."""

    def harm(started: Command) -> None:
        until_applied(started, "Deployment")  # so that pods have the policy when they start
        with pause(started):
            cluster.create(
                make_object(SECURITY, "AuthorizationPolicy", "all-callers", namespace_of(started), spec={"rules": [{}]})
            )

    job = run_job(tmp_path, EXISTING, scenario=[POLICIES], during=harm, timing=SHORT)
    assert_failed(
        job,
        "istio-policies: proof failed, so no load was sent:",
        r"policy details-viewer, GET /details/\d+ at details as bookinfo-details: expected 403 from RBAC; got 200",
    )


@pytest.mark.soak("cluster")
def test_policies_that_deny_the_page_invalidate_only_their_configuration(tmp_path: Path) -> None:
    """Case 34: all requests fail, the load is ended early, the other configuration is measured, and the exit code is
    5."""
    place = tmp_path / "closed"
    place.mkdir()
    for name in ("allow-nothing", "peer-authentication"):
        shutil.copy(find_shipped("manifests") / "istio" / "policies" / f"{name}.yaml", place)
    closed = {"name": "closed", "mesh": "istio", "manifests": ["closed"]}
    load = {"duration": "8s"}
    job = run_job(tmp_path, EXISTING, scenario=[closed, BASELINE], load=load, timing=SHORT)
    assert job.exit_code == 5, job.output
    trials = job.trials()
    (reason,) = read_reasons(trials["01-closed-1"])
    assert re.match(r"all-failed: all \d+ requests failed \(status 403: \d+\)", reason)
    assert not HARM.search(" ".join(read_reasons(trials["02-baseline-1"]))), job.output
    assert (job.record["status"], job.record["cleanup_ok"]) == ("invalid", True)


def test_rejected_policy_ends_the_run_first(tmp_path: Path) -> None:
    """Case 13: the cluster's message is printed before the first trial, although that is of another configuration."""
    place = tmp_path / "odd"
    place.mkdir()
    policy = yaml.safe_load(
        (find_shipped("manifests") / "istio" / "mtls" / "peer-authentication.yaml").read_text("utf-8")
    )
    policy["metadata"]["labels"] = {"for": "no such label!"}
    (place / "policy.yaml").write_text(yaml.safe_dump(policy), "utf-8")
    odd = {"name": "odd", "mesh": "istio", "manifests": ["odd"]}
    job = run_job(tmp_path, EXISTING, scenario=[BASELINE, odd])
    assert_failed(
        job,
        "the cluster does not accept a policy:",
        r"odd: \S*policy.yaml:4: metadata.labels: applying PeerAuthentication .*no such label!",
    )
    assert "Namespace" not in (job.folder / "journal.jsonl").read_text("utf-8")


def permissive(app: str, place: str) -> Object:
    """A policy that allows plaintext again, for one workload."""
    spec = {"selector": {"matchLabels": {"app": app}}, "mtls": {"mode": "PERMISSIVE"}}
    return make_object(SECURITY, "PeerAuthentication", f"{app}-permissive", place, spec=spec)


@pytest.mark.soak("cluster")
def test_crashing_sidecar_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    """The message has pod, container, how it ended, and its last log lines."""
    config = cluster.get(CONFIG)
    assert config is not None
    mesh = yaml.safe_load(config["data"]["mesh"])
    mesh["defaultConfig"]["binaryPath"] = "/usr/local/bin/no-such-envoy"
    with replace_fields(cluster, CONFIG, data={**config["data"], "mesh": yaml.safe_dump(mesh)}):
        job = run_job(tmp_path, EXISTING, scenario=[ISTIO])
    assert_failed(job, r"container istio-proxy: .*ended with exit code \d.*; \d restarts", r"\| .*no-such-envoy")
