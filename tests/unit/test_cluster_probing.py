"""Probe pods and their questions, without a cluster."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from bench.application.model import read_application
from bench.errors import BadAnswerError, DeployError
from bench.files.folders import shipped
from bench.k8s.exec import Ran
from bench.meshes.protocols import Probe
from bench.targets.cluster.probes.prober import (
    OUTSIDE,
    Prober,
    Question,
    askers,
    can_ask,
    outside_objects,
    probe_objects,
    question_json,
    read_answer,
    spiffe_ids,
)

APPLICATION = read_application(shipped("manifests") / "bookinfo", "v3", namespace="run-1")


class Pods:
    """A cluster whose probe pods answer with the path that they were asked for."""

    def __init__(self, exit_code: int = 0) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.exit_code = exit_code

    def exec(self, pod: str, _argv: Sequence[str], *, namespace: str, stdin: bytes, **_: Any) -> Ran:
        questions = json.loads(stdin)
        self.asked.append((namespace, pod, len(questions)))
        body = [base64.b64encode(one["path"].encode()).decode() for one in questions]
        plain = {"status": 200, "headers": {}, "tls": None, "error": "", "message": ""}
        answers = [{**plain, "body": text} for text in body]
        return Ran(self.exit_code, json.dumps(answers).encode(), "Traceback\nSyntaxError: no\n")


def prober(pods: Pods) -> Prober:
    return Prober(pods, APPLICATION, outside="run-1-outside")  # type: ignore[arg-type]  # all that it uses


def test_each_caller_is_asked_once() -> None:
    """All questions of one caller go in one exec, and the answers come in the order of the questions."""
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


def test_a_pod_that_cannot_ask_is_named() -> None:
    """When the script fails, the pod and its last words are told."""
    with pytest.raises(DeployError, match=r"probe-locust could not ask: exit code 1: SyntaxError: no"):
        prober(Pods(exit_code=1)).ask([Question("locust", "details")])


def test_questions_go_where_the_application_goes() -> None:
    """Inside the namespace by the Service's bare name, from outside with the namespace, always with the same Host."""
    inside = question_json(Question("reviews", "ratings", "POST", "/x"), APPLICATION)
    outside = question_json(Question(OUTSIDE, "ratings", tls=True), APPLICATION)
    assert inside == {
        "host": "ratings",
        "port": 9080,
        "method": "POST",
        "path": "/x",
        "headers": {"Host": "ratings:9080"},
        "tls": False,
    }
    assert (outside["host"], outside["headers"], outside["tls"]) == (
        "ratings.run-1.svc",
        {"Host": "ratings:9080"},
        True,
    )


def test_failures_are_in_the_same_words_as_locally() -> None:
    """A closed connection, a refused one and a time-out read alike on every target."""
    nothing = {"status": 0, "headers": {}, "body": "", "tls": None, "message": "m"}
    kinds = ["ConnectionResetError", "SSLEOFError", "ConnectionRefusedError", "TimeoutError", "gaierror"]
    assert [read_answer({**nothing, "error": kind}).told for kind in kinds] == [
        "connection closed without an answer",
        "connection closed without an answer",
        "connection refused",
        "no answer within 3 s",
        "gaierror: m",
    ]


def test_who_asks_is_who_is_needed() -> None:
    """The callers of the application's own calls ask, and each account that a probe names, once."""
    probes = [
        Probe("p", "ratings", "bookinfo-details", "GET", "/ratings/0", 403),
        Probe("p", "ratings", "bookinfo-reviews", "GET", "/ratings/0", 200),
        Probe("p", "ratings", None, "GET", "/ratings/0", 0),
    ]
    assert askers(APPLICATION, ()) == ("locust", "productpage", "reviews")
    assert askers(APPLICATION, probes) == ("locust", "productpage", "reviews", "details")


def test_a_probe_pod_stands_in_for_its_workload() -> None:
    """Account, labels and port are the workload's, so that policies mean it; it is never ready, so that it serves
    nobody."""
    account, script, pod = probe_objects(APPLICATION, ["details"], image="locust:1", uid=1000)
    (container,) = pod["spec"]["containers"]
    assert (account["kind"], account["metadata"]["name"], script["kind"]) == ("ServiceAccount", "locust", "ConfigMap")
    assert {thing["metadata"]["namespace"] for thing in (account, script, pod)} == {"run-1"}
    assert pod["metadata"]["labels"] == APPLICATION.workload("details").labels
    assert pod["spec"]["serviceAccountName"] == "bookinfo-details"
    assert container["ports"] == [{"name": "http", "containerPort": 9080}]
    assert container["readinessProbe"]["initialDelaySeconds"] > 24 * 3600
    assert container["securityContext"]["runAsUser"] == 1000


def test_the_pod_outside_is_nobody() -> None:
    """It has no label that a Service or a policy could select, and no token."""
    script, pod = outside_objects("run-1-outside", image="locust:1", uid=None)
    assert "labels" not in pod["metadata"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "runAsUser" not in pod["spec"]["containers"][0]["securityContext"]
    assert "def answer" in script["data"]["asker.py"]


RUNNING = {"name": "asker", "ready": False, "state": {"running": {}}}


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
def test_a_pod_can_ask_when_its_sidecar_is_ready(
    containers: list[dict[str, Any]], inits: list[dict[str, Any]], expected: bool
) -> None:
    """Its own container only has to run; every other, native or classic, has to be ready."""
    assert can_ask({"status": {"containerStatuses": containers, "initContainerStatuses": inits}}) is expected


def test_a_certificate_without_names_has_no_identity() -> None:
    """A server that is no sidecar is told by having no SPIFFE id."""
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

    def exec(self, *_: Any, **__: Any) -> Ran:
        return Ran(0, self.output, "")


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
def test_answers_that_make_no_sense_are_one_error(output: bytes) -> None:
    """Whatever a probe pod says: it is answers to the questions, or an error with its name."""
    with pytest.raises(BadAnswerError, match="probe-locust: its answers"):
        prober(OddPods(output)).ask([Question("locust", "details", path="/1")])


@pytest.mark.parametrize("count", [10**12, -1, "a", None, [1]])
def test_a_series_is_not_longer_than_its_questions(count: object) -> None:
    """A pod does not choose how much memory its answers take here."""
    output = json.dumps([{"answers": [{**PLAIN, "count": count}]}]).encode()
    with pytest.raises(BadAnswerError, match="its answers make no sense"):
        prober(OddPods(output)).pages("", 3)
