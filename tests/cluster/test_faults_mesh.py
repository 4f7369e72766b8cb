"""A mesh that does not do what a configuration's name says, on a real cluster: no number comes out of it, the message
names what is wrong and where, and everybody else's mesh stays as it was.

The mesh is somebody else's, who does these things to it while a run uses it.
"""

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from bench.files.folders import shipped
from bench.k8s.client import Cluster, Object, Ref
from tests.cluster.emulated import thing
from tests.cluster.job import (
    BASELINE,
    HARM,
    ISTIO,
    POLICIES,
    Job,
    held,
    namespace_of,
    run_job,
    until_applied,
    until_loading,
)
from tests.cluster.theirs import SYSTEM, replaced, without_injection, without_istiod
from tests.command import Command

pytestmark = pytest.mark.usefixtures("existing_istio", "as_before")

SECURITY = "security.istio.io/v1"
CONFIG = Ref("v1", "ConfigMap", "istio", SYSTEM)
EXISTING = "--use-existing-mesh"
LONGER = {"duration": "6s"}  # for what happens in the window
SHORT = {"settle_s": 6.0}


def failed(job: Job, *told: str) -> None:
    """Exit code 4, all of this in the message, and everything of the run is gone."""
    assert job.exit_code == 4, job.told
    missing = [text for text in told if not re.search(text, job.message)]
    assert not missing, job.told
    assert (job.record["status"], job.record["cleanup_ok"]) == ("failed", True)


def test_a_control_plane_that_goes_away_between_trials(cluster: Cluster, tmp_path: Path) -> None:
    """Its webhook is named, since nobody gets a pod made without its answer; the trial before it is kept, though its
    load pod went in its window."""

    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_loading(started, "01-istio-1")
            cluster.delete(Ref("v1", "Pod", "locust", namespace_of(started)), grace_s=0)
            until_drafted(started, "02-istio-2")
            with held(started):
                stack.enter_context(without_istiod(cluster))

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], repeats=2, load=LONGER, during=harm)
    webhook = r'failed calling webhook "[a-z.-]+sidecar-injector\.istio\.io"'
    failed(job, webhook, r'Post "https://istiod\.istio-system\.svc:443/inject')
    assert f"complete trials are kept; to look at them: meshbench report {job.folder}" in job.message
    (first,) = job.trials().values()
    assert first["trial"] == "01-istio-1"
    assert "generator-ended: the load pod is gone" in " ".join(first["reasons"])


def until_drafted(started: Command, trial: str) -> None:
    """Until a trial has begun: nothing of it is on the cluster."""
    draft = started.folder() / "trials" / f"{trial}.partial"
    started.until(draft.exists, f"the beginning of {trial}")


def test_pods_that_come_without_sidecars(cluster: Cluster, tmp_path: Path) -> None:
    """A mesh without its sidecars would be the fastest of all: they are made once more, then no load is sent, and the
    pods are named."""
    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_applied(started, "Namespace")
            with held(started):
                stack.enter_context(without_injection(cluster))

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], during=harm)
    failed(job, "sidecars, all pods: expected istio-proxy in every pod, ready; saw none in details-v1-")
    assert job.seconds < 105


@pytest.mark.soak("cluster")
def test_pods_that_come_without_sidecars_once(cluster: Cluster, tmp_path: Path) -> None:
    """A webhook that was late costs some seconds: pods in their place have sidecars, and the trial is as any other."""
    with ExitStack() as stack:

        def harm(started: Command) -> None:
            until_applied(started, "Namespace")
            with held(started):
                stack.enter_context(without_injection(cluster))
            started.line("apply-done", kind="Pod", name="locust")
            with held(started):
                stack.close()

        job = run_job(tmp_path, EXISTING, scenario=[ISTIO], during=harm)
    assert job.exit_code in (0, 5), job.told
    assert not HARM.search(" ".join(job.trials()["01-istio-1"]["reasons"])), job.told


def test_mutual_tls_that_is_not_enforced_and_a_policy_that_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    """Plain text that gets an answer, and a page that is refused a part, make the trial invalid: each line has what was
    asked of whom, what was expected and what was seen. (Open connections may keep the policy that is gone for a while.)
    """

    def harm(started: Command) -> None:
        place = namespace_of(started)
        until_loading(started, "01-istio-policies-1")
        cluster.create(permissive("ratings", place))
        cluster.delete(Ref(SECURITY, "AuthorizationPolicy", "details-viewer", place))

    job = run_job(tmp_path, EXISTING, scenario=[POLICIES], load=LONGER, during=harm)
    assert job.exit_code == 4, job.told
    assert (job.record["status"], job.record["cleanup_ok"]) == ("invalid", True)
    told = "\n".join(job.trials()["01-istio-policies-1"]["reasons"])
    for pattern in (
        r"proof: policy default of GET /ratings/\d+ at ratings as nobody, in plain text: expected refused .*, seen 403",
        r"proof: page of productpage: expected a whole page, seen page says: Error fetching product details",
    ):
        assert re.search(pattern, told), told


def test_a_policy_that_somebody_undoes_before_the_load(cluster: Cluster, tmp_path: Path) -> None:
    """Case 33: what it has to deny is answered, so no load is sent, and the message names policy and request."""

    def harm(started: Command) -> None:
        until_applied(started, "Deployment")  # pods know it from their start on
        with held(started):
            cluster.create(
                thing(SECURITY, "AuthorizationPolicy", "everybody", namespace_of(started), spec={"rules": [{}]})
            )

    job = run_job(tmp_path, EXISTING, scenario=[POLICIES], during=harm, timing=SHORT)
    failed(
        job,
        "istio-policies is not what its name says, so no load was sent:",
        r"policy details-viewer, GET /details/\d+ at details as bookinfo-details: expected 403 from RBAC; saw 200",
    )


def test_policies_that_refuse_the_page_cost_their_own_configuration_its_result(tmp_path: Path) -> None:
    """Case 34: all requests fail, the load is ended early, the other configuration is measured, and the exit code is
    5."""
    place = tmp_path / "closed"
    place.mkdir()
    for name in ("allow-nothing", "peer-authentication"):
        shutil.copy(shipped("manifests") / "istio" / "policies" / f"{name}.yaml", place)
    closed = {"name": "closed", "mesh": "istio", "manifests": ["closed"]}
    load = {"duration": "8s"}
    job = run_job(tmp_path, EXISTING, scenario=[closed, BASELINE], load=load, timing=SHORT)
    assert job.exit_code == 5, job.told
    trials = job.trials()
    (reason,) = trials["01-closed-1"]["reasons"]
    assert re.match(r"all-failed: all \d+ requests failed \(status 403: \d+\)", reason)
    assert not HARM.search(" ".join(trials["02-baseline-1"]["reasons"])), job.told
    assert (job.record["status"], job.record["cleanup_ok"]) == ("invalid", True)


def test_a_policy_that_the_cluster_does_not_accept(tmp_path: Path) -> None:
    """Case 13: it is told in the cluster's words, before the first trial, which is another configuration's."""
    place = tmp_path / "odd"
    place.mkdir()
    policy = yaml.safe_load((shipped("manifests") / "istio" / "mtls" / "peer-authentication.yaml").read_text("utf-8"))
    policy["metadata"]["labels"] = {"for": "no such label!"}
    (place / "policy.yaml").write_text(yaml.safe_dump(policy), "utf-8")
    odd = {"name": "odd", "mesh": "istio", "manifests": ["odd"]}
    job = run_job(tmp_path, EXISTING, scenario=[BASELINE, odd])
    failed(job, r"odd: the cluster does not accept a policy: .*PeerAuthentication .*no such label!")
    assert "Namespace" not in (job.folder / "journal.jsonl").read_text("utf-8")


def permissive(app: str, place: str) -> Object:
    """Somebody lets plain text in again, for one workload."""
    spec = {"selector": {"matchLabels": {"app": app}}, "mtls": {"mode": "PERMISSIVE"}}
    return thing(SECURITY, "PeerAuthentication", f"{app}-permissive", place, spec=spec)


def test_a_sidecar_that_keeps_ending(cluster: Cluster, tmp_path: Path) -> None:
    """With pod, container, how it ended, and its last words."""
    config = cluster.get(CONFIG)
    assert config is not None
    mesh = yaml.safe_load(config["data"]["mesh"])
    mesh["defaultConfig"]["binaryPath"] = "/usr/local/bin/no-such-envoy"
    with replaced(cluster, CONFIG, data={**config["data"], "mesh": yaml.safe_dump(mesh)}):
        job = run_job(tmp_path, EXISTING, scenario=[ISTIO])
    failed(job, r"container istio-proxy: .*ended with exit code \d.*; \d restarts", r"\| .*no-such-envoy")
