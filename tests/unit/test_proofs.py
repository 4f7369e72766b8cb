"""Each proof, with a prober whose answers are written here: right answers hold, each wrong kind of answer fails."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from bench.application.model import Hop
from bench.envoy import admin
from bench.envoy.addresses import Placement
from bench.errors import BadAnswerError
from bench.meshes.probe import Probe
from bench.meshes.protocols import RequestPage
from bench.meshes.resolved import ResolvedConfiguration
from bench.results.records import Evidence
from bench.results.samples import RAW_ROW, Samples, make_samples
from bench.targets.cluster.probes.prober import ClusterProber
from bench.targets.local.prober import LocalProber
from bench.verification.checks import data_plane_of
from bench.verification.counts import found_evidence, policies_of
from bench.verification.evidence import policy_evidence
from bench.verification.prober import Prober, State, Topic
from bench.verification.prover import Prover
from bench.verification.questions import OUTSIDE, Answer, Handshake, Question
from tests.sidecars import application_with, configuration_with
from tests.toy_mesh.data_plane import ToyDataPlane

T = TypeVar("T")


def meshed(mesh: str, *folders: str) -> ResolvedConfiguration:
    return configuration_with(mesh, *folders, namespace="run-1")


BASELINE = meshed("none")
APPLICATION = BASELINE.deployed
WHOLE = b'ISBN-10 PublisherA Reviewer1 text-red-500" Reviewer2 text-red-500"'
REFUSED = Answer(0, b"", {}, refused="connection closed without a response")
DENIED = Answer(403, b"RBAC: access denied", {"server": "envoy"})
PROXIED = Answer(200, WHOLE, {"server": "envoy"})
DIRECT = Answer(200, WHOLE, {"server": "gunicorn"})
STATE = State(namespace="run-1", sidecar="istio-proxy", pods=5)

LOCAL: Prober = LocalProber(Placement(APPLICATION, {}, {}, {}), None, ())
CLUSTER: Prober = ClusterProber(None, APPLICATION, "run-1-outside")  # type: ignore[arg-type]  # never asked
TARGETS = pytest.mark.parametrize("omitted", [LOCAL.omitted, CLUSTER.omitted], ids=["local", "cluster"])


POLICIES = meshed("istio", "istio/policies")
LEGACY = meshed("kuma", "kuma/policies-legacy")


@dataclass
class Proxy:
    """What one proxy counts, and its identities."""

    ids: tuple[str, ...] = ()
    requests: dict[str, int] = field(default_factory=dict)
    versions: tuple[str, ...] = ("HTTP/1.1",)
    tls: str = "TLSv1.3"

    def page(self, path: str) -> str:
        """Return a page of Envoy's admin interface."""
        hosts = {name: [{"stats": [{"name": "rq_total", "value": count}]}] for name, count in self.requests.items()}
        opened = [
            {"name": f"cluster.{name}.upstream_cx_http{version[5]}_total", "value": 1}
            for name in self.requests
            for version in self.versions
        ]
        chain = [{"subject_alt_names": [{"uri": name} for name in self.ids]}]
        pages: dict[str, Any] = {
            admin.CLUSTERS: {"cluster_statuses": [{"name": name, "host_statuses": one} for name, one in hosts.items()]},
            admin.RETRIES: {"stats": []},
            admin.PROTOCOLS: {"stats": opened},
            admin.TLS: {"stats": [{"name": f"listener.0.0.0.0_15006.ssl.versions.{self.tls}", "value": 2}]},
            admin.CERTIFICATES: {"certificates": [{"cert_chain": chain}]},
        }
        return json.dumps(pages[path])


@dataclass
class Scripted:
    """A prober for a correct deployment; `changed` are its wrong answers, `counted` its proxies."""

    scene: ResolvedConfiguration
    omitted: Mapping[Topic, str]
    changed: Mapping[Question, Answer] = field(default_factory=dict)
    state: State = STATE
    counted: dict[str, Proxy] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.scene.mesh and not self.counted:
            ids = self.scene.ids
            self.counted = {one.name: Proxy((ids[one.name],) if ids else ()) for one in APPLICATION.everyone}

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        self.asked += questions
        return tuple(self.changed.get(question) or self._answer(question) for question in questions)

    def _answer(self, question: Question) -> Answer:
        scene = self.scene
        if scene.mesh is None:
            return DIRECT
        if question.tls and question.caller == OUTSIDE:
            agreed = Handshake("TLSv1.3", "AES", "", scene.ids[question.workload])
            return replace(REFUSED, handshake=agreed, refused="SSLError: TLSV13_ALERT_CERTIFICATE_REQUIRED")
        if question.caller == OUTSIDE:
            mode = scene.mode(APPLICATION.workload(question.workload))
            return REFUSED if mode == "STRICT" else DIRECT
        account = APPLICATION.workload(question.caller).account
        probes = {(one.workload, one.caller, one.method, one.path): one for one in scene.probes}
        probe = probes.get((question.workload, account, question.method, question.path))
        if question.tls:
            status = probe.status if probe else 200
            agreed = Handshake("TLSv1.3", "AES", scene.ids[question.caller], scene.ids[question.workload])
        else:
            status, agreed = probe.status_through_sidecar if probe else 200, Handshake("", "", "", "")
        answers = {0: REFUSED, 403: DENIED}
        return replace(answers.get(status, replace(PROXIED, status=status)), handshake=agreed)

    def pages(self, user: str, count: int) -> tuple[Answer, ...]:  # noqa: ARG002  # one group of users
        return (PROXIED,) * count

    def read_state(self) -> State:
        return self.state

    def proxies(self) -> Mapping[str, RequestPage]:
        return {name: proxy.page for name, proxy in self.counted.items()}

    def read_configurations(self, kept: Path) -> Mapping[str, str]:
        raise NotImplementedError

    def retry(self, act: Callable[[], T]) -> T:
        return act()


def prover(prober: Scripted) -> Prover:
    return Prover(prober, prober.scene)


def prove(prober: Scripted) -> tuple[Evidence, ...]:
    return prover(prober).prove()


def failed(found: Sequence[Evidence]) -> list[tuple[str, str]]:
    return [(one.name, one.subject) for one in found if not one.ok]


def names_of(found: Sequence[Evidence]) -> set[str]:
    return {one.name for one in found}


# --- before a load --------------------------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize(
    "scene",
    [meshed("istio"), POLICIES, meshed("kuma"), meshed("kuma", "kuma/policies"), LEGACY],
    ids=["istio", "istio-policies", "kuma", "kuma-policies", "kuma-legacy"],
)
def test_right_answers_prove_every_configuration(scene: ResolvedConfiguration, omitted: Mapping[Topic, str]) -> None:
    """On each target: page, hops, both identities of each hop, a required certificate, plaintext, and each policy."""
    prober = Scripted(scene, omitted)
    found = prove(prober)
    assert failed(found) == []
    names = [one.name for one in found]
    assert (names.count("page"), names.count("through sidecars")) == (1, 4)
    assert names.count("mutual TLS") == names.count("certificate required") == (4 if scene.ids else 0)
    assert {one.policy for one in scene.probes} == {name[7:] for name in names if name.startswith("policy ")}
    assert len({*prober.asked}) == len(prober.asked)


@TARGETS
def test_right_answers_prove_the_baseline(omitted: Mapping[Topic, str]) -> None:
    """Without a mesh: the page, no sidecar, and on each hop the service itself."""
    found = prove(Scripted(BASELINE, omitted))
    assert failed(found) == []
    assert {"page", "no sidecar", "no proxy"} <= names_of(found)


def test_targets_differ_only_in_topics_that_do_not_apply() -> None:
    """What a target is not asked about is declared with a reason, and all else is proven on both."""
    of_cluster = {"sidecars", "no restarts", "synced", "identity"}
    local, cluster = (names_of(prove(Scripted(POLICIES, one.omitted))) for one in (LOCAL, CLUSTER))
    assert cluster - local == of_cluster
    assert local <= cluster
    local, cluster = (names_of(prove(Scripted(BASELINE, one.omitted))) for one in (LOCAL, CLUSTER))
    assert cluster - local == {"no injection label", "no mesh webhook", "no restarts"}
    assert all(reason for one in (LOCAL, CLUSTER) for reason in one.omitted.values())


def test_documents_list_what_does_not_apply() -> None:
    """The page has each topic and its reason as the code has them, and no other."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "local-target.md").read_text("utf-8")
    table = page.partition("| target | not proven | because |\n|---|---|---|\n")[2].partition("\n\n")[0]
    targets = {"local": LOCAL, "cluster": CLUSTER}
    rows = [f"| {name} | {topic} | {why} |" for name, one in targets.items() for topic, why in one.omitted.items()]
    assert table.splitlines() == rows


IDS = POLICIES.ids
STRANGER = "spiffe://cluster.local/ns/x/sa/y"


def handshake(*, own: str = IDS["productpage"], peer: str = IDS["details"], version: str = "TLSv1.3") -> Answer:
    return replace(PROXIED, handshake=Handshake(version, "AES", own, peer))


@TARGETS
@pytest.mark.parametrize(
    ("question", "answer", "name", "seen"),
    [
        (Question("locust", "productpage"), Answer(503, b"no healthy", {}), "page", "503 no healthy"),
        (Question("productpage", "details"), Answer(200, b"", {"server": "x"}), "through sidecars", "200 through x"),
        (Question("productpage", "details"), replace(PROXIED, status=500), "through sidecars", "500 through envoy"),
        (Question(OUTSIDE, "details", tls=True), Answer(200, b"", {}), "certificate required", "200"),
        (Question(OUTSIDE, "details", "GET", "/details/0"), Answer(200, b"", {}), "policy default", "200"),
        (Question(OUTSIDE, "productpage", "GET", "/productpage"), DENIED, "policy default", "403 RBAC: access denied"),
    ],
)
def test_wrong_answer_fails_its_proof(
    omitted: Mapping[Topic, str], question: Question, answer: Answer, name: str, seen: str
) -> None:
    """The evidence has the text of what came."""
    found = prove(Scripted(POLICIES, omitted, {question: answer}))
    assert seen in {one.seen for one in found if not one.ok and one.name == name}, failed(found)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (REFUSED, "no TLS, no cipher, no identity to no identity"),
        (handshake(own=STRANGER), f"TLSv1.3, AES, {STRANGER} to {IDS['details']}"),
        (handshake(peer=STRANGER), f"TLSv1.3, AES, {IDS['productpage']} to {STRANGER}"),
        (handshake(version="TLSv1.2"), f"TLSv1.2, AES, {IDS['productpage']} to {IDS['details']}"),
    ],
)
def test_wrong_handshake_fails_mutual_tls(answer: Answer, seen: str) -> None:
    """With a caller's certificate: no handshake, another identity on either side, an older version."""
    found = prove(Scripted(POLICIES, LOCAL.omitted, {Question("productpage", "details", tls=True): answer}))
    assert [(one.name, one.seen) for one in found if not one.ok] == [("mutual TLS", seen)]


def test_wrong_certificates_of_sidecars_fail_mutual_tls() -> None:
    """A wrong server certificate breaks every hop to the workload; a missing client certificate breaks the caller's
    hops, and is reported itself."""
    stranger = replace(REFUSED, handshake=Handshake("TLSv1.3", "AES", "", STRANGER))
    found = prove(Scripted(POLICIES, CLUSTER.omitted, {Question(OUTSIDE, "ratings", tls=True): stranger}))
    assert failed(found) == [("mutual TLS", "reviews -> ratings")]
    prober = Scripted(POLICIES, CLUSTER.omitted)
    prober.counted["productpage"].ids = ()
    assert failed(prove(prober)) == [
        ("identity", "productpage"),
        ("mutual TLS", "productpage -> details"),
        ("mutual TLS", "productpage -> reviews"),
    ]


@pytest.mark.parametrize(("target", "denied"), [(LOCAL, "refused without a response"), (CLUSTER, "503")])
def test_expects_status_by_the_path_of_the_probe(target: Prober, denied: str) -> None:
    """Where a mesh closes connections, the caller gets no response at the callee's sidecar, and 503 from its own."""
    found = prove(Scripted(LEGACY, target.omitted))
    assert {one.expected for one in found if one.name == "policy ratings-viewer"} == {"200", denied}
    wrong = Question("details", "ratings", "GET", "/ratings/0", tls=target is LOCAL)
    broken = prove(Scripted(LEGACY, target.omitted, {wrong: PROXIED}))
    assert [(one.name, one.seen) for one in broken if not one.ok] == [("policy ratings-viewer", "200")]


@pytest.mark.parametrize("scene", [BASELINE, meshed("istio")], ids=["baseline", "istio"])
def test_expected_status_is_the_applications(scene: ResolvedConfiguration) -> None:
    """A service may answer its usual request with any status; then 200 is wrong, directly and through a proxy."""
    endpoints = {**APPLICATION.definition.endpoints, "details": {"GET /details/0": 204}}
    definition = APPLICATION.definition.model_copy(update={"endpoints": endpoints})
    other = replace(scene, application=replace(scene.application, definition=definition))
    called = [Question(caller, "details") for caller in ("productpage", OUTSIDE)]
    right = replace(PROXIED if scene.mesh else DIRECT, status=204)
    assert failed(prove(Scripted(other, CLUSTER.omitted, dict.fromkeys(called, right)))) == []
    wrong = failed(prove(Scripted(other, CLUSTER.omitted)))
    hop = "productpage -> details"
    assert wrong == ([("through sidecars", hop), ("plaintext", "details")] if scene.mesh else [("no proxy", hop)])


@TARGETS
def test_permissive_sidecars_accept_plaintext(omitted: Mapping[Topic, str]) -> None:
    """Without policies the mesh has mutual TLS, and plaintext from outside is expected to pass."""
    found = prove(Scripted(meshed("istio"), omitted))
    workloads = ["details", "productpage", "ratings", "reviews"]
    assert [one.subject for one in found if one.name == "plaintext"] == workloads
    refused = prove(Scripted(meshed("istio"), omitted, {Question(OUTSIDE, "details"): REFUSED}))
    assert [(one.name, one.seen) for one in refused if not one.ok] == [("plaintext", REFUSED.refused)]


@TARGETS
def test_proxy_in_the_baseline_is_reported(omitted: Mapping[Topic, str]) -> None:
    """A response with a trace of a proxy, and one that is not the service's."""
    changed = {
        Question("productpage", "details"): replace(DIRECT, headers={"server": "x", "x-envoy-decorator": "y"}),
        Question("reviews", "ratings"): replace(DIRECT, status=404),
    }
    found = prove(Scripted(BASELINE, omitted, changed))
    assert [one.seen for one in found if not one.ok] == ["200 from x through a proxy", "404 from gunicorn"]


@pytest.mark.parametrize(
    ("scene", "change", "name", "seen"),
    [
        (BASELINE, {"others": {"istio": "istiod"}}, "no control plane", "istiod"),
        (BASELINE, {"labels": ("istio-injection=enabled",)}, "no injection label", "istio-injection=enabled"),
        (BASELINE, {"webhooks": ("x.istio.io",)}, "no mesh webhook", "x.istio.io"),
        (BASELINE, {"running": ("istio-proxy in a",)}, "no sidecar", "istio-proxy in a"),
        (BASELINE, {"restarts": ("a ended",)}, "no restarts", "a ended"),
        (POLICIES, {"others": {"kuma": "kuma-cp"}}, "no control plane", "kuma-cp"),
        (POLICIES, {"missing": ("not ready in a",)}, "sidecars", "not ready in a"),
        (POLICIES, {"pods": 0}, "sidecars", "istio-proxy in 0 of 0 pods"),
        (POLICIES, {"restarts": ("a ended",)}, "no restarts", "a ended"),
        (POLICIES, {"unsynced": "a: listeners"}, "synced", "a: listeners"),
    ],
)
def test_wrong_state_fails_its_proof(
    scene: ResolvedConfiguration, change: dict[str, Any], name: str, seen: str
) -> None:
    """What the target reports of a deployment has evidence of its own."""
    found = prove(Scripted(scene, CLUSTER.omitted, state=replace(STATE, **change)))
    assert [(one.name, one.seen) for one in found if not one.ok] == [(name, seen)]


def test_pod_without_sidecar_ends_the_proof() -> None:
    """A sidecar that was never created cannot be asked: only what is known is reported."""
    prober = Scripted(POLICIES, CLUSTER.omitted, state=replace(STATE, missing=("none in a",), askable=False))
    assert [one.name for one in prove(prober)] == ["sidecars", "no restarts"]
    assert prober.asked == []


def test_page_alone_shows_when_a_deployment_is_ready() -> None:
    """One question; with a mesh the policies are asked as well."""
    prober = Scripted(POLICIES, CLUSTER.omitted)
    assert prover(prober).page().ok
    assert prober.asked == [Question("locust", "productpage")]
    assert {"page", "policy default"} <= names_of(prover(prober).prove_ready(3))


# --- after a load ---------------------------------------------------------------------------------------------


def load(count: int, *, errors: int = 0) -> Samples:
    rows = np.zeros(count, RAW_ROW)
    rows["ok"] = True
    rows["ok"][:errors] = False
    return make_samples(rows, ("page",))


def loaded(scene: ResolvedConfiguration, count: int, **settings: Any) -> dict[str, Proxy]:
    """The proxies after a load of `count` pages."""
    application, policies, data_plane = scene.deployed, policies_of(scene), data_plane_of(scene)
    proxies = {one.name: Proxy(**settings) for one in application.everyone}
    for caller, callee in application.calls:
        cluster = policies.outbound_cluster(application, application.service(callee))
        proxies[caller].requests[cluster] = count
        proxies[callee].requests[data_plane.inbound_cluster(application.workload(callee))] = count
    for proxy in proxies.values():
        proxy.ids = (scene.ids and tuple(scene.ids.values())) or ()
    return proxies


def prove_load(
    scene: ResolvedConfiguration, samples: Samples, after: dict[str, Proxy], *, before: int = 0
) -> tuple[Evidence, ...]:
    prober = Scripted(scene, CLUSTER.omitted, counted=loaded(scene, before))
    proven = prover(prober)
    proven.start_counting()
    prober.counted = after
    return proven.prove(samples)


ENTRY = "outbound|9080||productpage.run-1.svc.cluster.local"


def test_both_sides_of_each_hop_counted_the_load() -> None:
    """Requests from before the load do not count; each hop has its protocol, each callee its handshakes."""
    found = prove_load(POLICIES, load(10), loaded(POLICIES, 13), before=3)
    assert failed(found) == []
    (entry,) = (one for one in found if (one.name, one.subject) == ("requests counted", "locust -> productpage"))
    assert (entry.expected, entry.seen) == ("10 on both sides", "10 by locust's proxy, 10 by productpage's")
    spoken = {one.subject: one.seen for one in found if one.name == "protocol between sidecars"}
    assert spoken["reviews -> ratings"] == "HTTP/1.1 x1"
    assert {one.seen for one in found if one.name == "handshakes"} == {"TLSv1.3 x2"}


@pytest.mark.parametrize(
    ("proxy", "cluster", "count", "subject", "seen"),
    [
        ("locust", ENTRY, 9, "locust -> productpage", "9 by locust's proxy, 10 by productpage's"),
        ("ratings", "inbound|9080||", 11, "reviews -> ratings", "10 by reviews's proxy, 11 by ratings's"),
        ("ratings", "inbound|9080||", 0, "reviews -> ratings", "10 by reviews's proxy, 0 by ratings's"),
    ],
)
def test_wrong_count_fails_its_hop(proxy: str, cluster: str, count: int, subject: str, seen: str) -> None:
    """One request too few or too many, at either side."""
    after = loaded(POLICIES, 10)
    after[proxy].requests[cluster] = count
    found = prove_load(POLICIES, load(10), after)
    assert [(one.name, one.subject, one.seen) for one in found if not one.ok] == [("requests counted", subject, seen)]


def test_failed_requests_may_be_missing_on_the_path() -> None:
    """Each may have been retried or closed; more may not."""
    after = loaded(POLICIES, 10)
    after["ratings"].requests["inbound|9080||"] = 8
    assert failed(prove_load(POLICIES, load(10, errors=1), after)) == []
    after["ratings"].requests["inbound|9080||"] = 7
    assert failed(prove_load(POLICIES, load(10, errors=1), after)) == [("requests counted", "reviews -> ratings")]


def test_other_protocol_fails_its_hop() -> None:
    """Another version of HTTP or of TLS, or none."""
    after = loaded(POLICIES, 10)
    after["reviews"].versions = ("HTTP/1.1", "HTTP/2")
    after["locust"].versions = ()
    after["details"].tls = "TLSv1.2"
    found = prove_load(POLICIES, load(10), after)
    assert [(one.name, one.subject, one.seen) for one in found if not one.ok] == [
        ("protocol between sidecars", "locust -> productpage", "no connection"),
        ("protocol between sidecars", "reviews -> ratings", "HTTP/1.1 x1, HTTP/2 x1"),
        ("handshakes", "details", "TLSv1.2 x2"),
    ]


@pytest.mark.parametrize(("tls", "ok"), [("TLSv1.2", True), ("TLSv1.3", False), ("TLSv1.1", False)])
def test_load_has_the_sidecars_version_of_tls(tls: str, *, ok: bool) -> None:
    """Kuma's sidecars agree on TLS 1.2; only the questions of the prober use a newer version."""
    scene = meshed("kuma", "kuma/policies")
    found = prove_load(scene, load(10), loaded(scene, 10, versions=("HTTP/2",), tls=tls))
    assert {one.ok for one in found if one.name == "handshakes"} == {ok}


def test_invalid_page_of_a_proxy_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the name of the workload."""
    prober = Scripted(POLICIES, CLUSTER.omitted)
    monkeypatch.setattr(prober.counted["details"], "page", lambda _path: "no json")
    with pytest.raises(BadAnswerError, match=r"the proxy of details: its answers are invalid .GET /clusters"):
        prover(prober).start_counting()


# --- calls that are not known ---------------------------------------------------------------------------------


def prove_unknown(
    scene: ResolvedConfiguration, after: dict[str, Proxy], *, sent: int = 10, errors: int = 0
) -> dict[str, Evidence]:
    """The evidence of an application of which only the entry is known, by subject."""
    counted = {name: proxy.requests for name, proxy in after.items()}
    pages = {name: proxy.page for name, proxy in after.items()}
    entry = Hop("locust", "productpage")
    found = found_evidence(scene, pages, counted, entry=entry, sent=sent, errors=errors)
    return {one.subject: one for one in found if one.name == "requests counted"}


def test_finds_hops_that_the_sidecars_counted() -> None:
    """Both sides agree, and the entry counted the load; a workload without requests has no hop."""
    after = loaded(POLICIES, 10)
    for name in ("reviews", "ratings"):  # the calls of reviews depend on the answer: 4 of 10
        after[name].requests = {cluster: 4 if "ratings" in cluster or name == "ratings" else 10
                                for cluster in after[name].requests}  # fmt: skip
    found = prove_unknown(POLICIES, after)
    assert all(one.ok for one in found.values())
    assert {subject: one.seen for subject, one in found.items()} == {
        "locust -> productpage": "10 by locust's proxy, 10 by productpage's",
        "productpage -> details": "10 by productpage's proxy, 10 by details's",
        "productpage -> reviews": "10 by productpage's proxy, 10 by reviews's",
        "reviews -> ratings": "4 by reviews's proxy, 4 by ratings's",
    }
    assert found["locust -> productpage"].expected == "as many on both sides, 10 of locust"


def test_application_without_known_calls_is_proven_by_what_was_counted() -> None:
    """The definition decides: without `calls` no exact numbers are expected of hops behind the entry."""
    application = POLICIES.application
    unknown = application.definition.model_copy(update={"calls": None})
    entered = replace(application, definition=unknown, calls=application.calls[:1])
    after = loaded(POLICIES, 10)
    after["reviews"].requests = {name: 4 if "ratings" in name else n for name, n in after["reviews"].requests.items()}
    after["ratings"].requests = dict.fromkeys(after["ratings"].requests, 4)
    assert failed(prove_load(POLICIES, load(10), after)) == [("requests counted", "reviews -> ratings")]
    assert failed(prove_load(replace(POLICIES, application=entered), load(10), after)) == []


@pytest.mark.parametrize(
    ("proxy", "cluster", "count", "subject"),
    [
        ("ratings", "inbound|9080||", 9, "reviews -> ratings"),
        ("productpage", "inbound|9080||", 11, "locust -> productpage"),
        ("locust", ENTRY, 0, "locust -> productpage"),
        ("reviews", "outbound|9080||ratings.run-1.svc.cluster.local", 0, "outside -> ratings"),
    ],
)
def test_sides_that_disagree_fail(proxy: str, cluster: str, count: int, subject: str) -> None:
    """Also where one side counted nothing."""
    after = loaded(POLICIES, 10)
    after[proxy].requests[cluster] = count
    found = prove_unknown(POLICIES, after)
    assert [one.subject for one in found.values() if not one.ok] == [subject]


def test_entry_counts_the_load_and_callers_share_a_callee() -> None:
    """Both sides agree on another number than the load's; several callers of a workload are compared together."""
    assert [one.subject for one in prove_unknown(POLICIES, loaded(POLICIES, 10), sent=12).values() if not one.ok] == [
        "locust -> productpage"
    ]
    assert all(one.ok for one in prove_unknown(POLICIES, loaded(POLICIES, 10), sent=12, errors=1).values())
    after = loaded(POLICIES, 10)
    after["details"].requests["outbound|9080||ratings.run-1.svc.cluster.local"] = 3
    after["ratings"].requests["inbound|9080||"] = 13
    found = prove_unknown(POLICIES, after)
    assert found["details, reviews -> ratings"].seen == "3 by details's proxy, 10 by reviews's proxy, 13 by ratings's"
    assert all(one.ok for one in found.values())


def test_versions_behind_one_service_are_compared_together() -> None:
    """Without routes a caller's proxy does not count by version."""
    scene = replace(POLICIES, application=application_with("v1", "v2"))
    after = {one.name: Proxy() for one in scene.application.everyone}
    after["locust"].requests = {ENTRY: 10}
    after["productpage"].requests = {"inbound|9080||": 10, "outbound|9080||reviews.run-1.svc.cluster.local": 10}
    after["reviews-v1"].requests = {"inbound|9080||": 6}
    after["reviews-v2"].requests = {"inbound|9080||": 4}
    found = prove_unknown(scene, after)
    assert all(one.ok for one in found.values())
    assert found["productpage -> reviews-v1, reviews-v2"].seen == (
        "10 by productpage's proxy, 6 by reviews-v1's, 4 by reviews-v2's"
    )


def test_proves_an_application_whose_calls_are_not_known() -> None:
    """Before the load the entry's hop, every workload's certificate and plaintext, and every policy; after it also the
    hops that were counted."""
    application = POLICIES.application
    definition = application.definition.model_copy(update={"calls": None})
    unknown = replace(application, definition=definition, calls=application.calls[:1])
    scene = replace(POLICIES, application=unknown)
    found = prove_load(scene, load(10), loaded(POLICIES, 13), before=3)
    assert failed(found) == []
    subjects = {name: [one.subject for one in found if one.name == name] for name in names_of(found)}
    entry = ["locust -> productpage"]
    assert subjects["through sidecars"] == subjects["mutual TLS"] == entry
    assert {*subjects["certificate required"]} == {"details", "productpage", "ratings", "reviews"}
    hops = [*entry, "productpage -> details", "productpage -> reviews", "reviews -> ratings"]
    assert sorted(subjects["requests counted"]) == sorted(subjects["protocol between sidecars"]) == sorted(hops)


@pytest.mark.parametrize(("body", "envoy"), [(b"RBAC: access denied", True), (b"forbidden", False)])
def test_denial_is_recognised_as_the_proxys_own(body: bytes, envoy: bool) -> None:
    """A 403 of the application is no proof of a policy; a proxy whose denials show nothing is known by its 403."""
    probe, answer = Probe("deny", "details", "reviews", "GET", "/", 403), Answer(403, body, {})
    assert policy_evidence(probe, data_plane_of(POLICIES), answer).ok is envoy
    shown = policy_evidence(probe, ToyDataPlane(), answer)
    assert (shown.ok, shown.expected) == (True, f"403 from {ToyDataPlane.title}")
