"""What answers and objects prove about a deployment on a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.application.model import Hop, read_application
from bench.envoy import admin as proxies
from bench.files.folders import find_shipped
from bench.k8s.objects import find_restarts
from bench.results.records import Evidence
from bench.targets.cluster.probes.injection import (
    baseline_evidence,
    find_uninjected,
    injection_labels,
    is_selected,
    mesh_evidence,
    selecting_webhooks,
)
from bench.verification.checks import (
    Meshed,
    baseline_checks,
    hop_counts,
    identity_evidences,
    load_evidence,
    mesh_checks,
    prove,
    read_meshed,
    subtract_counts,
)
from bench.verification.evidence import HopCount, restarts_evidence, synced_evidence
from bench.verification.prober import OUTSIDE, Question
from bench.verification.questions import Answer, Handshake

MANIFESTS = find_shipped("manifests")
APPLICATION = read_application(MANIFESTS / "bookinfo", "v3", namespace="run-1")
WHOLE = b'ISBN-10 PublisherA Reviewer1 text-red-500" Reviewer2 text-red-500"'
REFUSED = Answer(0, b"", {}, refused="connection closed without a response")
DENIED = Answer(403, b"RBAC: access denied", {"server": "envoy"})


def meshed(name: str = "istio", *folders: str) -> Meshed:
    return read_meshed(name, [MANIFESTS / folder for folder in folders], APPLICATION)


POLICIES = meshed("istio", "istio/policies")
OWN = {name: (spiffe,) for name, spiffe in POLICIES.ids.items()}


class World:
    """A prober for a correct deployment; `changed` are its incorrect answers."""

    def __init__(self, scene: Meshed, changed: Mapping[Question, Answer] | None = None) -> None:
        self.scene = scene
        self.changed = changed or {}

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        return tuple(self.changed.get(question) or self.answer(question) for question in questions)

    def answer(self, question: Question) -> Answer:
        if question.tls:
            agreed = Handshake("TLSv1.3", "AES", "", self.scene.ids[question.workload])
            return replace(REFUSED, handshake=agreed, refused="SSLError: TLSV13_ALERT_CERTIFICATE_REQUIRED")
        if question.caller == OUTSIDE:
            mode = self.scene.policies.mode(APPLICATION.workload(question.workload))
            return REFUSED if mode == "STRICT" else Answer(200, WHOLE, {})
        account = APPLICATION.workload(question.caller).account
        asked = (question.workload, account, question.method, question.path)
        probes = {(one.workload, one.caller, one.method, one.path): one for one in self.scene.probes}
        status = probes[asked].status_through_sidecar if asked in probes else 200
        return DENIED if status == 403 else Answer(status, WHOLE, {"server": "envoy"})


def proofs(scene: Meshed, changed: Mapping[Question, Answer] | None = None) -> tuple[Evidence, ...]:
    own = {one.name: (scene.ids[one.name],) if scene.ids else () for one in APPLICATION.everyone}
    return prove(World(scene, changed), list(mesh_checks(scene, own)))  # type: ignore[arg-type]  # all that it uses


def failed(found: Sequence[Evidence]) -> list[tuple[str, str]]:
    return [(one.name, one.subject) for one in found if not one.ok]


def test_proves_mesh_with_policies() -> None:
    """Page, hops, both identities of each hop, a required certificate, refused plaintext, and each policy."""
    found = proofs(POLICIES)
    assert failed(found) == []
    names = [one.name for one in found]
    assert names.count("page") == 1
    assert names.count("through sidecars") == names.count("mutual TLS") == 4
    assert names.count("certificate required") == 4
    assert {"policy default", "policy allow-nothing", "policy details-viewer"} <= {*names}
    (tls,) = [one for one in found if one.name == "mutual TLS" and one.subject == "reviews -> ratings"]
    assert tls.expected.endswith("/sa/bookinfo-reviews to spiffe://cluster.local/ns/run-1/sa/bookinfo-ratings")


@pytest.mark.parametrize(
    ("question", "answer", "broken"),
    [
        (Question("locust", "productpage"), Answer(503, b"no healthy upstream", {"server": "envoy"}), "page"),
        (Question("productpage", "details"), Answer(200, b"", {"server": "WEBrick"}), "through sidecars"),
        (Question(OUTSIDE, "details", tls=True), REFUSED, "mutual TLS"),
        (Question(OUTSIDE, "details", tls=True), Answer(200, b"", {}), "certificate required"),
        (Question(OUTSIDE, "details", "GET", "/details/0"), Answer(200, b"", {}), "policy default"),
        (Question("details", "ratings", "GET", "/ratings/0"), Answer(200, b"", {}), "policy ratings-viewer"),
    ],
)
def test_wrong_answer_fails_its_evidence(question: Question, answer: Answer, broken: str) -> None:
    """Each property that a configuration's name promises has evidence that fails without it."""
    found = proofs(POLICIES, {question: answer})
    assert broken in {name for name, _ in failed(found)}, failed(found)


def test_closed_connection_is_503_behind_a_sidecar() -> None:
    """Where a mesh closes the connections of callers without permission, their own sidecars return 503."""
    found = proofs(meshed("kuma", "kuma/policies-legacy"))
    assert failed(found) == []
    assert {one.expected for one in found if one.name == "policy ratings-viewer"} == {"200", "503"}


def test_reports_certificate_of_another_workload() -> None:
    """A wrong server certificate breaks every hop to the workload; a missing client certificate breaks the caller's
    hops."""
    stranger = replace(REFUSED, handshake=Handshake("TLSv1.3", "AES", "", "spiffe://cluster.local/ns/x/sa/y"))
    found = proofs(POLICIES, {Question(OUTSIDE, "ratings", tls=True): stranger})
    assert failed(found) == [("mutual TLS", "reviews -> ratings")]
    own = {**OWN, "productpage": ()}
    checks = list(mesh_checks(POLICIES, own))
    without = prove(World(POLICIES), checks)  # type: ignore[arg-type]  # all that it uses
    assert {subject for _, subject in failed(without)} == {"productpage -> details", "productpage -> reviews"}
    assert failed(identity_evidences(POLICIES, own)) == [("identity", "productpage")]
    assert failed(identity_evidences(POLICIES, OWN)) == []


def test_permissive_sidecars_accept_plaintext() -> None:
    """Without policies the mesh has mutual TLS, and plaintext from outside is expected to pass."""
    plain = {Question(OUTSIDE, name): Answer(200, WHOLE, {}) for name in ("productpage", "details")}
    found = proofs(meshed(), plain)
    assert failed(found) == []
    assert [one.subject for one in found if one.name == "plaintext"] == [
        "details",
        "productpage",
        "ratings",
        "reviews",
    ]


def test_mesh_without_tls_has_no_certificates() -> None:
    """Where a mesh leaves its hops in plaintext, no certificate is requested or required."""
    found = proofs(meshed("kuma"))
    assert failed(found) == []
    assert not {"mutual TLS", "certificate required"} & {one.name for one in found}
    assert identity_evidences(meshed("kuma"), {}) == ()


def test_baseline_has_no_proxy() -> None:
    """Without a mesh the page is complete and no response has a trace of a proxy; a proxy that exists is reported."""
    own_answers = World(meshed("kuma"), {})
    direct = {check.question: Answer(200, WHOLE, {"server": "gunicorn"}) for check in baseline_checks(APPLICATION)}
    checks = list(baseline_checks(APPLICATION))
    good = prove(World(meshed("kuma"), direct), checks)  # type: ignore[arg-type]  # all that it uses
    assert failed(good) == []
    bad = prove(own_answers, checks)  # type: ignore[arg-type]  # all that it uses
    assert [name for name, _ in failed(bad)] == ["no proxy"] * 4


def test_counts_requests_at_both_ends() -> None:
    """Clusters have the mesh's own names, and requests from before the load do not count."""
    scene = meshed("istio")
    before: dict[str, dict[str, int]] = {one.name: {} for one in APPLICATION.everyone}
    now = {
        "locust": {"outbound|9080||productpage.run-1.svc.cluster.local": 10},
        "productpage": {
            "inbound|9080||": 10,
            "outbound|9080||details.run-1.svc.cluster.local": 10,
            "outbound|9080||reviews.run-1.svc.cluster.local": 10,
        },
        "details": {"inbound|9080||": 13},
        "reviews": {"inbound|9080||": 10, "outbound|9080||ratings.run-1.svc.cluster.local": 10},
        "ratings": {"inbound|9080||": 10},
    }
    before["details"] = {"inbound|9080||": 3}
    moved = subtract_counts(hop_counts(scene, before), hop_counts(scene, now))
    assert moved[Hop("productpage", "details")] == HopCount(10, 10)
    tls = {"details": {"listener.0.0.0.0_15006.ssl.versions.TLSv1.3": 2}, "ratings": {}}
    found = list(load_evidence(scene, moved, tls, requests=dict.fromkeys(moved, 10), errors=0))
    assert failed(found) == [("handshakes", "ratings")]
    assert failed(list(load_evidence(scene, moved, {}, requests=dict.fromkeys(moved, 11), errors=0)))


def test_accepts_tls_12_between_kuma_sidecars() -> None:
    """Only the questions of the prober use a newer version."""
    scene = meshed("kuma", "kuma/policies")
    versions = "listener.inbound:10.0.0.1:9080.ssl.versions"
    for counters, ok in (
        ({f"{versions}.TLSv1.2": 3, f"{versions}.TLSv1.3": 1}, True),
        ({f"{versions}.TLSv1.3": 1}, False),
        ({f"{versions}.TLSv1.1": 1, f"{versions}.TLSv1.2": 1}, False),
    ):
        (found,) = load_evidence(scene, {}, {"details": counters}, requests={}, errors=0)
        assert found.ok is ok, counters


def test_reads_identities_of_sidecar_certificates() -> None:
    """Each SPIFFE id of a sidecar's own certificates is returned once; roots have no identity."""
    chain = {"subject_alt_names": [{"uri": "spiffe://a/b"}, {"uri": "kuma://x/y"}]}
    root = {"ca_cert": [{"subject_alt_names": [{"uri": "spiffe://root"}]}]}
    assert proxies.identities({"certificates": [{**root, "cert_chain": [chain]}, {"cert_chain": [chain]}, root]}) == (
        "spiffe://a/b",
    )
    assert proxies.identities({"certificates": []}) == ()


def pod(name: str = "details-v1-x", *, labels: Any = None, **status: Any) -> dict[str, Any]:
    containers = [{"name": "details"}, *({"name": one["name"]} for one in status.get("initContainerStatuses", ()))]
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": containers},
        "status": status,
    }


def namespace(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "run-1", "labels": {"kubernetes.io/metadata.name": "run-1", **labels}}}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, ()),
        ({"istio-injection": "enabled"}, ("istio-injection=enabled",)),
        ({"istio-injection": "disabled"}, ()),
        ({"istio.io/rev": "canary"}, ("istio.io/rev=canary",)),
        ({"istio.io/dataplane-mode": "ambient"}, ("istio.io/dataplane-mode=ambient",)),
        ({"kuma.io/sidecar-injection": "true"}, ("kuma.io/sidecar-injection=true",)),
    ],
)
def test_finds_injection_labels_of_namespace(labels: dict[str, str], expected: tuple[str, ...]) -> None:
    """Every label by which a namespace joins a mesh counts, and one that declines does not."""
    assert injection_labels(namespace(**labels)) == expected


PODS_RULE = {"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}


def webhook(name: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, "rules": [PODS_RULE], **rest}


def test_finds_webhooks_for_the_namespace() -> None:
    """Only webhooks of a mesh that would be called for these pods in this namespace count."""
    none = [{"key": "istio-injection", "operator": "DoesNotExist"}]
    asks = {"matchLabels": {"sidecar.istio.io/inject": "true"}}
    hooks = [
        webhook(
            "namespace.sidecar-injector.istio.io", namespaceSelector={"matchLabels": {"istio-injection": "enabled"}}
        ),
        webhook("object.sidecar-injector.istio.io", namespaceSelector={"matchExpressions": none}, objectSelector=asks),
        webhook("everyone.kuma.io"),
        webhook("everyone.example.org"),
        {"name": "services.kuma.io", "rules": [{**PODS_RULE, "resources": ["services"]}]},
    ]
    configurations = [{"webhooks": hooks}, {}]
    assert selecting_webhooks(namespace(), [pod()], configurations) == ("everyone.kuma.io",)
    wanting = pod(labels={"sidecar.istio.io/inject": "true"})
    assert "object.sidecar-injector.istio.io" in selecting_webhooks(namespace(), [wanting], configurations)
    labelled = namespace(**{"istio-injection": "enabled"})
    assert "namespace.sidecar-injector.istio.io" in selecting_webhooks(labelled, [pod()], configurations)


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", None, {"k": ""}, True),
        ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True),
        ("DoesNotExist", None, {"k": "a"}, False),
    ],
)
def test_selectors_match_as_in_kubernetes(
    operator: str, values: list[str] | None, labels: dict[str, str], expected: bool
) -> None:
    """A missing key is not in any list, and an empty selector matches everything."""
    expression = {"key": "k", "operator": operator, **({"values": values} if values else {})}
    assert is_selected({"matchExpressions": [expression]}, labels) is expected
    assert is_selected({}, labels)
    assert is_selected(None, labels)


READY = {"name": "istio-proxy", "ready": True, "restartCount": 0, "state": {"running": {}}}
APP = {"name": "details", "ready": True, "restartCount": 0, "state": {"running": {}}}


def test_proves_baseline_without_a_mesh() -> None:
    """A label, a webhook, a sidecar and a restart each fail a piece of evidence of their own."""
    clean = baseline_evidence(namespace(), [pod(containerStatuses=[APP])], [], own={"details"})
    assert failed(clean) == []
    found = baseline_evidence(
        namespace(**{"istio-injection": "enabled"}),
        [pod(containerStatuses=[{**APP, "restartCount": 1}], initContainerStatuses=[READY])],
        [{"webhooks": [webhook("x.istio.io")]}],
        own={"details"},
    )
    assert [one.ok for one in found] == [False] * 4
    assert [one.seen for one in found][:3] == [
        "istio-injection=enabled",
        "x.istio.io",
        "istio-proxy in details-v1-x",
    ]


@pytest.mark.parametrize("key", ["containerStatuses", "initContainerStatuses"])
def test_finds_native_and_classic_sidecars(key: str) -> None:
    """A native sidecar is an init container, a classic one is not; each pod needs a ready one."""
    good = pod("a", **{key: [READY]})
    assert failed(mesh_evidence([good], "istio-proxy")) == []
    waiting, bare = pod("b", **{key: [{**READY, "ready": False}]}), pod("c", containerStatuses=[APP])
    sidecars, _ = mesh_evidence([good, waiting, bare], "istio-proxy")
    assert (sidecars.ok, sidecars.seen) == (False, "not ready in b, none in c")
    assert not mesh_evidence([], "istio-proxy")[0].ok


@pytest.mark.parametrize("key", ["containers", "initContainers"])
def test_reports_pod_without_a_sidecar(key: str) -> None:
    """No sidecar is added later, whatever the status of the pod."""
    spec: dict[str, Any] = {"containers": [{"name": "details"}]}
    meshed_spec = {**spec, key: [*spec.get(key, []), {"name": "istio-proxy"}]}
    pods = [{**pod("a"), "spec": meshed_spec}, {**pod("b"), "spec": spec}]
    assert find_uninjected(pods, "istio-proxy") == ("b",)


def test_restarts_have_container_and_reason() -> None:
    """A container that ended is reported with its reason, also while it waits; a completed init container is not."""
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    done = {"name": "istio-init", "ready": True, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    pods = [
        pod("a", containerStatuses=[{**APP, "restartCount": 1, "lastState": killed}], initContainerStatuses=[done]),
        pod("b", containerStatuses=[{**APP, "state": killed}]),
        pod("c", containerStatuses=[APP]),
    ]
    lines = find_restarts(pods)
    assert lines == ("details in a (OOMKilled, exit code 137) ended", "details in b (OOMKilled, exit code 137) ended")
    assert not restarts_evidence(lines).ok
    assert restarts_evidence(()).ok


def test_reports_unsynced_sidecars() -> None:
    """A sidecar that has not acknowledged the newest configuration fails its evidence."""
    assert synced_evidence("").ok
    assert synced_evidence("details-v1-x: listeners").seen == "details-v1-x: listeners"
    assert not synced_evidence("details-v1-x: listeners").ok
