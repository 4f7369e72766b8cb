"""Probe pods and their questions, without a cluster."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.errors import BadAnswerError, DeployError
from bench.k8s.exec import ExecResult
from bench.meshes.probe import Probe
from bench.targets.cluster.probes.pods import find_callers, is_probe_ready, outside_objects, probe_objects
from bench.targets.cluster.probes.prober import ClusterProber, question_json, read_answer, spiffe_ids
from bench.verification.questions import OUTSIDE, Question
from tests.applications import read_bookinfo

APPLICATION = read_bookinfo("v3", namespace="run-1")


class Pods:
    """A cluster whose probe pods answer with the path that they were asked for."""

    def __init__(self, exit_code: int = 0) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.exit_code = exit_code

    def exec(self, pod: str, _argv: Sequence[str], *, namespace: str, stdin: bytes, **_: Any) -> ExecResult:
        questions = json.loads(stdin)
        self.asked.append((namespace, pod, len(questions)))
        body = [base64.b64encode(one["path"].encode()).decode() for one in questions]
        plain = {"status": 200, "headers": {}, "tls": None, "error": "", "message": ""}
        answers = [{**plain, "body": text} for text in body]
        return ExecResult(self.exit_code, json.dumps(answers).encode(), "Traceback\nSyntaxError: no\n")


def prober(pods: Pods) -> ClusterProber:
    return ClusterProber(pods, APPLICATION, outside="run-1-outside")  # type: ignore[arg-type]  # all that it uses


def test_sends_one_exec_per_caller() -> None:
    """All questions of one caller go in one exec, and the answers have the order of the questions."""
    pods = Pods()
    questions = [Question("locust", "details", path="/1"), Question(OUTSIDE, "details", path="/2")]
    questions += [Question("locust", "ratings", path="/3"), Question("reviews", "ratings")]
    answers = prober(pods).ask(questions)
    assert [answer.body for answer in answers] == [b"/1", b"/2", b"/3", b"/ratings/0"]
    assert pods.asked == [
        ("run-1", "probe-locust", 2),
        ("run-1-outside", "probe-outside", 1),
        ("run-1", "probe-reviews", 1),
    ]


def test_reports_pod_whose_agent_fails() -> None:
    """The error has the name of the pod and the end of its output."""
    with pytest.raises(DeployError, match=r"probe-locust: the probe agent failed: exit code 1: SyntaxError: no"):
        prober(Pods(exit_code=1)).ask([Question("locust", "details")])


def test_questions_have_the_services_host() -> None:
    """Inside the namespace they use the Service's bare name, outside also its namespace, always with the same Host."""
    inside = question_json(Question("reviews", "ratings", "POST", "/x"), APPLICATION)
    outside = question_json(Question(OUTSIDE, "ratings", tls=True), APPLICATION, "istio")
    assert inside == {
        "host": "ratings",
        "port": 9080,
        "method": "POST",
        "path": "/x",
        "headers": {"Host": "ratings:9080"},
        "tls": False,
        "alpn": [],
    }
    assert (outside["host"], outside["headers"], outside["tls"], outside["alpn"]) == (
        "ratings.run-1.svc",
        {"Host": "ratings:9080"},
        True,
        ["istio"],
    )


def test_failures_have_the_same_text_as_locally() -> None:
    """A closed connection, a refused one and a timeout read the same on every target."""
    nothing = {"status": 0, "headers": {}, "body": "", "tls": None, "message": "m"}
    kinds = ["ConnectionResetError", "SSLEOFError", "ConnectionRefusedError", "TimeoutError", "gaierror"]
    assert [read_answer({**nothing, "error": kind}).detail for kind in kinds] == [
        "connection closed without a response",
        "connection closed without a response",
        "connection refused",
        "no response within 3 s",
        "gaierror: m",
    ]


def test_callers_and_probe_accounts_have_probe_pods() -> None:
    """The callers of the application's own calls, and each account that a probe names, once."""
    probes = [
        Probe("p", "ratings", "bookinfo-details", "GET", "/ratings/0", 403),
        Probe("p", "ratings", "bookinfo-reviews", "GET", "/ratings/0", 200),
        Probe("p", "ratings", None, "GET", "/ratings/0", 0),
    ]
    assert find_callers(APPLICATION, ()) == ("locust", "productpage", "reviews")
    assert find_callers(APPLICATION, probes) == ("locust", "productpage", "reviews", "details")


def test_probe_pod_has_identity_of_its_workload() -> None:
    """Account, labels and port are the workload's, so that policies select it; it is never ready, so that it serves no
    requests."""
    account, script, pod = probe_objects(APPLICATION, ["details"], image="locust:1", uid=1000)
    (container,) = pod["spec"]["containers"]
    assert (account["kind"], account["metadata"]["name"], script["kind"]) == ("ServiceAccount", "locust", "ConfigMap")
    assert {thing["metadata"]["namespace"] for thing in (account, script, pod)} == {"run-1"}
    assert pod["metadata"]["labels"] == APPLICATION.workload("details").labels
    assert pod["spec"]["serviceAccountName"] == "bookinfo-details"
    assert container["ports"] == [{"name": "http", "containerPort": 9080}]
    assert container["readinessProbe"]["initialDelaySeconds"] > 24 * 3600
    assert container["securityContext"]["runAsUser"] == 1000


def test_outside_pod_has_no_labels_and_no_token() -> None:
    """No Service and no policy can select it."""
    script, pod = outside_objects("run-1-outside", image="locust:1", uid=None)
    assert "labels" not in pod["metadata"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "runAsUser" not in pod["spec"]["containers"][0]["securityContext"]
    assert "def answer" in script["data"]["agent.py"]


RUNNING = {"name": "probe-agent", "ready": False, "state": {"running": {}}}


@pytest.mark.parametrize(
    ("containers", "inits", "expected"),
    [
        ([RUNNING], [], True),
        ([RUNNING], [{"name": "istio-proxy", "ready": True, "state": {"running": {}}}], True),
        ([RUNNING], [{"name": "istio-proxy", "ready": False, "state": {"running": {}}}], False),
        ([RUNNING, {"name": "istio-proxy", "ready": False, "state": {"waiting": {}}}], [], False),
        ([{**RUNNING, "state": {"waiting": {"reason": "ErrImagePull"}}}], [], False),
        ([], [], False),
    ],
)
def test_pod_is_ready_for_probes_with_its_sidecar(
    containers: list[dict[str, Any]], inits: list[dict[str, Any]], expected: bool
) -> None:
    """Its own container only has to run; every other, native or classic, has to be ready."""
    assert is_probe_ready({"status": {"containerStatuses": containers, "initContainerStatuses": inits}}) is expected


def test_certificate_without_names_has_no_identity() -> None:
    """A server without a SPIFFE id is not a sidecar."""
    assert spiffe_ids(base64.b64decode(_NAMELESS)) == ()


_NAMELESS = (
    "MIIBAzCBq6ADAgECAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAXgwHhcNMjUwMTAxMDAwMDAwWhcNMzUwMTAxMDAwMDAwWjAM"
    "MQowCAYDVQQDDAF4MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYVbw7e6FazmZCKutvVn8Uk+YHM7g5J8yJl+fr0v1w+KEBL4M"
    "1kbAMD5fbO5ERvCzoL1XhbEP7tQltFY009lfyzAKBggqhkjOPQQDAgNHADBEAiBlFVgcvFGRgEW6TwNM+fAJ4TIphj6p9+yTcZKE"
    "o6tnBQIgUqJO8giIvgsb6cpK+3X1eXJdn4lhiA+ZIPb3fvVZhZI="
)


class OddPods(Pods):
    """A cluster whose probe pods answer with this."""

    def __init__(self, output: bytes) -> None:
        super().__init__()
        self.output = output

    def exec(self, *_: Any, **__: Any) -> ExecResult:
        return ExecResult(0, self.output, "")


PLAIN = {"status": 200, "headers": {}, "tls": None, "error": "", "message": "", "body": ""}
ODD: list[Any] = [
    None,
    3,
    {},
    [],
    [3],
    [{}],
    [PLAIN, PLAIN],
    [{**PLAIN, "body": 3}],
    [{**PLAIN, "body": "a"}],
    [{**PLAIN, "tls": 3}],
]


@pytest.mark.parametrize(
    "output", [b"", b"no json", b"\xff", b"[" * 100_000, *(json.dumps(one).encode() for one in ODD)]
)
def test_invalid_answers_are_one_error(output: bytes) -> None:
    """Whatever a probe pod returns: it is the answers to the questions, or an error with its name."""
    with pytest.raises(BadAnswerError, match="probe-locust: its answers"):
        prober(OddPods(output)).ask([Question("locust", "details", path="/1")])


@pytest.mark.parametrize("count", [10**12, -1, "a", None, [1]])
def test_answers_are_limited_in_size(count: object) -> None:
    """A pod cannot choose how much memory its answers use here."""
    output = json.dumps([{"answers": [{**PLAIN, "count": count}]}]).encode()
    with pytest.raises(BadAnswerError, match="its answers are invalid"):
        prober(OddPods(output)).pages("", 3)


def test_a_service_of_another_namespace_is_called_by_its_full_name() -> None:
    """Inside the mesh a caller of another namespace names it, in the Host header too; so does the pod outside."""
    workloads = tuple(replace(one, namespace="db") if one.name == "ratings" else one for one in APPLICATION.workloads)
    known = {one.name: one for one in workloads}
    services = tuple(
        replace(one, workloads=tuple(known[two.name] for two in one.workloads)) for one in APPLICATION.services
    )
    application = replace(APPLICATION, workloads=workloads, services=services, namespaces={"db": "db-1"})
    inside = question_json(Question("reviews", "ratings"), application)
    assert (inside["host"], inside["headers"]["Host"]) == ("ratings.db-1", "ratings.db-1:9080")
    assert question_json(Question(OUTSIDE, "ratings"), application)["host"] == "ratings.db-1.svc"
    objects = probe_objects(application, ["ratings", "details"], image="locust:1")
    spaces = {one["metadata"]["name"]: one["metadata"]["namespace"] for one in objects if one["kind"] == "Pod"}
    assert spaces == {"probe-ratings": "db-1", "probe-details": "run-1"}


def test_no_pod_stands_in_for_a_daemon_set() -> None:
    """Its controller would take a pod with its labels for one of its own, and delete it."""
    daemons = tuple(replace(one, kind="DaemonSet") if one.name == "reviews" else one for one in APPLICATION.workloads)
    application = replace(APPLICATION, workloads=daemons)
    probes = [Probe("p", "ratings", "bookinfo-reviews", "GET", "/ratings/0", 200)]
    assert find_callers(application, probes) == ("locust", "productpage")
