"""Istio's policies: read strictly, evaluated as by Istio, translated as by istiod."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.application.model import Application
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.istio.authorization import Request, decide_request
from bench.meshes.istio.envoy.rbac import rbac_filters
from bench.meshes.istio.policies import parse_pattern
from bench.meshes.istio.policy_model import IstioPolicies
from tests.applications import read_bookinfo
from tests.golden import GOLDEN, MISSING, read_recorded
from tests.policies import read_istio

BOOKINFO = read_bookinfo("v3")
SHIPPED = read_istio([find_shipped("manifests") / "istio/policies"], BOOKINFO)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")
SERVICES = ("productpage", "details", "reviews", "ratings")

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one}\n"
PEER = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: one}\n"


def principal(account: str) -> str:
    return f"cluster.local/ns/bookinfo/sa/{account}"


def read(folder: Path, *texts: str, application: Application = BOOKINFO) -> IstioPolicies:
    """The policies of some YAML texts, one file each: a.yaml, b.yaml and so on."""
    for name, text in zip("abcdef", texts, strict=False):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return read_istio([folder], application)


def list_problems(folder: Path, *texts: str) -> list[str]:
    """The problems of some YAML texts, without the folder."""
    with pytest.raises(InputError) as caught:
        read(folder, *texts)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def decide(policies: IstioPolicies, workload: str, account: str | None, method: str = "GET", path: str = "/") -> str:
    """The decision about one request."""
    who = None if account is None else principal(account)
    return decide_request(policies, BOOKINFO.workload(workload), Request(who, method, path, f"{workload}:9080"))


# --- translation ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=MISSING)
@pytest.mark.parametrize("sidecar", ["productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2"])
def test_rbac_filters_equal_those_of_a_real_sidecar(sidecar: str) -> None:
    """The shipped policies become, workload by workload, the RBAC filters that istiod made of them."""
    chains = read_recorded("istio/istio-policies", sidecar)["listeners"]["virtualInbound"]["filter_chains"]
    chain = next(chain for chain in chains if chain["filter_chain_match"].get("destination_port") == 9080)
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    workload = BOOKINFO.workload(sidecar.partition("-")[0])
    ours = rbac_filters(SHIPPED, workload, inbound_port=15006)
    assert ours == [one for one in filters if one["name"] == "envoy.filters.http.rbac"]


def test_deny_comes_before_allow(tmp_path: Path) -> None:
    """DENY and ALLOW policies become one filter each, DENY first; DENY has its action, ALLOW is Envoy's default."""
    deny = HEAD.replace("one", "two") + "spec: {action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}\n"
    policies = read(tmp_path, HEAD + "spec: {rules: [{}]}\n", deny)
    filters = rbac_filters(policies, BOOKINFO.workload("details"), inbound_port=1)
    assert [one["typed_config"]["rules"].get("action", "ALLOW") for one in filters] == ["DENY", "ALLOW"]


def test_translates_every_field_of_a_rule(tmp_path: Path) -> None:
    """Hosts, methods, paths and ports, each with its negation, become permissions in istiod's order."""
    policies = read(
        tmp_path,
        HEAD + "spec: {rules: [{to: [{operation: {hosts: ['*:9080', 'x*'], methods: ['*'], notMethods: [PUT],"
        " paths: [/a*, '*b', /details/0], ports: ['9080', '1'], notPorts: ['81']}}],"
        " from: [{source: {notPrincipals: ['*/bookinfo-ratings'], namespaces: [bookinfo]}}]}]}\n",
    )
    rbac = rbac_filters(policies, BOOKINFO.workload("details"), inbound_port=20000)[0]
    policy: dict[str, Any] = rbac["typed_config"]["rules"]["policies"]["ns[bookinfo]-policy[one]-rule[0]"]
    authority = [{"suffix": ":9080", "ignore_case": True}, {"prefix": "x", "ignore_case": True}]
    assert policy["permissions"][0]["and_rules"]["rules"] == [
        {"or_rules": {"rules": [{"header": {"name": ":authority", "string_match": one}} for one in authority]}},
        {"or_rules": {"rules": [{"header": {"name": ":method", "present_match": True}}]}},
        {"not_rule": {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "PUT"}}}]}}},
        {
            "or_rules": {
                "rules": [
                    {"url_path": {"path": one}} for one in ({"prefix": "/a"}, {"suffix": "b"}, {"exact": "/details/0"})
                ]
            }
        },
        {"or_rules": {"rules": [{"destination_port": 20000}, {"destination_port": 0}]}},
        {"not_rule": {"or_rules": {"rules": [{"destination_port": 0}]}}},
    ]
    names = [{"safe_regex": {"regex": one}} for one in ("spiffe://.*/bookinfo-ratings", ".*/ns/bookinfo/.*")]
    identities = [{"ids": [{"authenticated": {"principal_name": name}}]} for name in names]
    assert policy["principals"][0]["and_ids"]["ids"] == [
        {"not_id": {"or_ids": identities[0]}},
        {"or_ids": identities[1]},
    ]


# --- meaning -------------------------------------------------------------------------------------------------


@given(
    workload=st.sampled_from(SERVICES),
    account=st.sampled_from([one.account for one in BOOKINFO.everyone]),
    method=st.sampled_from(METHODS),
    path=st.sampled_from(["/productpage", "/login", "/details/0", "/reviews/0", "/ratings/0", "/login/x", "/"]),
)
def test_shipped_policies_are_those_of_the_study(workload: str, account: str, method: str, path: str) -> None:
    """Any caller may read pages and log in; only productpage reads details and reviews, only reviews reads ratings."""
    readers = {"details": "bookinfo-productpage", "reviews": "bookinfo-productpage", "ratings": "bookinfo-reviews"}
    if workload == "productpage":
        intended = method == "GET" or (method == "POST" and path == "/login")
    else:
        intended = method == "GET" and account == readers[workload]
    assert decide(SHIPPED, workload, account, method, path) == ("allowed" if intended else "denied")


@given(workload=st.sampled_from(SERVICES), method=st.sampled_from(METHODS), account=st.sampled_from(["locust", None]))
def test_everything_passes_without_policies(workload: str, method: str, account: str | None) -> None:
    """Without a policy every request is allowed, in plaintext as well."""
    assert decide(IstioPolicies("bookinfo"), workload, account, method) == "allowed"


def test_strict_refuses_plaintext_and_disable_refuses_tls(tmp_path: Path) -> None:
    """A connection of the wrong kind is refused before a request is examined."""
    strict = read(tmp_path, PEER + "spec: {mtls: {mode: STRICT}}\n")
    assert (decide(strict, "details", None), decide(strict, "details", "locust")) == ("refused", "allowed")
    disabled = read(tmp_path, PEER + "spec: {mtls: {mode: DISABLE}}\n")
    assert (decide(disabled, "details", None), decide(disabled, "details", "locust")) == ("allowed", "refused")


def test_narrowest_peer_authentication_wins(tmp_path: Path) -> None:
    """Port before workload before namespace before mesh; UNSET defers to the next."""
    selector = "selector: {matchLabels: {app: %s}}, "
    policies = read(
        tmp_path,
        PEER.replace("{name: one}", "{name: mesh, namespace: istio-system}") + "spec: {mtls: {mode: STRICT}}\n",
        PEER.replace("one", "namespace") + "spec: {mtls: {mode: DISABLE}}\n",
        PEER.replace("one", "details") + f"spec: {{{selector % 'details'}mtls: {{mode: PERMISSIVE}}}}\n",
        PEER.replace("one", "ratings")
        + f"spec: {{{selector % 'ratings'}mtls: {{mode: DISABLE}}, portLevelMtls: {{'9080': {{mode: STRICT}}}}}}\n",
        PEER.replace("one", "reviews") + f"spec: {{{selector % 'reviews'}mtls: {{mode: UNSET}}}}\n",
    )
    modes = {name: policies.mode(BOOKINFO.workload(name)) for name in SERVICES}
    assert modes == {"productpage": "DISABLE", "details": "PERMISSIVE", "ratings": "STRICT", "reviews": "DISABLE"}


def test_deny_wins_over_allow(tmp_path: Path) -> None:
    """A request that a DENY rule matches is denied although an ALLOW rule matches too; the rest is allowed."""
    deny = HEAD.replace("one", "two") + "spec: {action: DENY, rules: [{to: [{operation: {paths: [/health]}}]}]}\n"
    policies = read(tmp_path, HEAD + "spec: {rules: [{}]}\n", deny)
    assert decide(policies, "details", "locust", path="/health") == "denied"
    assert decide(policies, "details", "locust", path="/details/0") == "allowed"


def test_namespace_rule_needs_an_identity(tmp_path: Path) -> None:
    """Sources are identified by certificate: a plaintext connection is in no namespace."""
    policies = read(tmp_path, HEAD + "spec: {rules: [{from: [{source: {namespaces: [bookinfo]}}]}]}\n")
    assert (decide(policies, "details", "locust"), decide(policies, "details", None)) == ("allowed", "denied")


@given(text=st.text("abc/*", max_size=6), value=st.text("abc/", max_size=6))
def test_patterns_match_by_their_asterisk(text: str, value: str) -> None:
    """`*` is any text that is not empty, `x*` a start, `*x` an end, all else itself; other asterisks are refused."""
    if text == "*":
        expected = value != ""
    elif text.startswith("*") and "*" not in text[1:]:
        expected = value.endswith(text[1:])
    elif text.endswith("*") and "*" not in text[:-1]:
        expected = value.startswith(text[:-1])
    elif "*" in text:
        with pytest.raises(ValueError, match="an asterisk must be at"):
            parse_pattern(text)
        return
    else:
        expected = value == text
    assert parse_pattern(text).matches(value) == expected


# --- probes --------------------------------------------------------------------------------------------------


def test_every_shipped_policy_has_allowed_and_denied_probe() -> None:
    """Each rule has a request that passes and one that is denied; a rule that denies everything has the latter only."""
    statuses: dict[str, set[int]] = {}
    for probe in SHIPPED.probes(BOOKINFO):
        statuses.setdefault(probe.policy, set()).add(probe.status)
    assert statuses == {
        "default": {0},
        "allow-nothing": {403},
        "productpage-login rule 0": {200, 403},
        "productpage-login rule 1": {302, 403},
        "details-viewer": {200, 403},
        "reviews-viewer": {200, 403},
        "ratings-viewer": {200, 403},
    }


def test_principal_rule_is_probed_with_another_caller() -> None:
    """The denied request of a rule with principals differs from the allowed one in the caller alone."""
    passes, fails = (probe for probe in SHIPPED.probes(BOOKINFO) if probe.policy == "ratings-viewer")
    assert (passes.method, passes.path, passes.caller) == ("GET", "/ratings/0", "bookinfo-reviews")
    assert (fails.method, fails.path) == (passes.method, passes.path)
    assert fails.caller != passes.caller


def test_probes_expect_the_decision_of_all_policies() -> None:
    """The expected status of a probe is that of the whole set of policies."""
    outcome = {0: "refused", 403: "denied"}
    for probe in SHIPPED.probes(BOOKINFO):
        expected = outcome.get(probe.status, "allowed")
        assert decide(SHIPPED, probe.workload, probe.caller, probe.method, probe.path) == expected


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "spec:\n  selectr: {}\n", "a.yaml:5: spec.selectr: unknown key 'selectr'; did you mean selector?"),
        (
            HEAD + "spec:\n  action: CUSTOM\n",
            "a.yaml:5: spec.action: 'CUSTOM' is not supported (supported: ALLOW, DENY, AUDIT)",
        ),
        (
            HEAD + "spec:\n  targetRefs: []\n",
            "a.yaml:5: spec.targetRefs: is not translated for this machine",
        ),
        (
            HEAD + "spec:\n  rules:\n    - from:\n        - source: {trustDomains: [other]}\n",
            ("a.yaml:7: spec.rules[0].from[0].source.trustDomains: is not translated for this machine"),
        ),
        (
            HEAD + "spec:\n  selector:\n    matchLabels: {app: revews}\n",
            "a.yaml:6: spec.selector.matchLabels: selects no workload of the application",
        ),
        (
            HEAD
            + "spec:\n  rules:\n    - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/bookinfo-review]}}]\n",
            (
                "a.yaml:6: spec.rules[0].from[0].source.principals[0]: no workload has the identity"
                " 'cluster.local/ns/bookinfo/sa/bookinfo-review';"
                " did you mean cluster.local/ns/bookinfo/sa/bookinfo-reviews?"
            ),
        ),
        (
            HEAD + "spec:\n  action: DENY\n",
            "a.yaml:5: spec.action: a DENY policy without rules denies nothing",
        ),
        (
            HEAD.replace("{name: one}", "{name: one, namespace: shop}") + "spec: {}\n",
            (
                "a.yaml:3: metadata.namespace: no workload runs in 'shop'; known: bookinfo, istio-system; hint: if the"
                " application is meant to be there: --set application.namespaces=shop"
            ),
        ),
        (
            HEAD.replace("{name: one}", "{name: one, annotations: {istio.io/dry-run: 'true'}}") + "spec: {}\n",
            "a.yaml:3: metadata.annotations: is not translated for this machine",
        ),
        (
            HEAD.replace("security.istio.io/v1", "security.istio.io/v3"),
            (
                "a.yaml:1: apiVersion: unknown apiVersion 'security.istio.io/v3' of AuthorizationPolicy;"
                " did you mean security.istio.io/v1?"
            ),
        ),
        (
            HEAD.replace("AuthorizationPolicy", "AuthorisationPolicy"),
            "a.yaml:2: kind: unknown kind 'AuthorisationPolicy'; did you mean AuthorizationPolicy?",
        ),
        (
            HEAD + "spec:\n  rules:\n    - to: [{operation: {paths: [/a*b]}}]\n",
            (
                "a.yaml:6: spec.rules[0].to[0].operation.paths[0]:"
                " '/a*b': an asterisk must be at the start or the end, once"
            ),
        ),
        (
            PEER + "spec:\n  mtls: {mode: strict}\n",
            (
                "a.yaml:5: spec.mtls.mode: 'strict' is not supported (supported: UNSET, DISABLE, PERMISSIVE, STRICT);"
                " did you mean STRICT?"
            ),
        ),
        (
            PEER + "spec:\n  portLevelMtls: {'9080': {mode: STRICT}}\n",
            "a.yaml:5: spec.portLevelMtls.9080: needs a selector; Istio rejects it without one",
        ),
    ],
)
def test_reports_error_with_line(text: str, message: str, tmp_path: Path) -> None:
    """A policy that cannot be translated, or has no effect, is refused with file, line, field and reason."""
    assert list_problems(tmp_path, text) == [message]


def test_refuses_conflicting_policies(tmp_path: Path) -> None:
    """The same policy twice, or two that select the same workloads equally: a cluster would choose by age."""
    assert list_problems(tmp_path, HEAD + "spec: {}\n", HEAD + "spec: {}\n") == [
        f"b.yaml:3: metadata.name: the same AuthorizationPolicy is already defined in {tmp_path}/a.yaml:3".replace(
            f"{tmp_path}/", ""
        )
    ]
    rivals = list_problems(tmp_path, PEER + "spec: {}\n", PEER.replace("one", "two") + "spec: {}\n")
    assert rivals == ["b.yaml:4: spec: selects the same workloads as the one in a.yaml:1"]


def test_refuses_policy_without_a_probe(tmp_path: Path) -> None:
    """Without a request that distinguishes the policy from its absence there is no proof, and so no measurement."""
    blind = list_problems(tmp_path, HEAD + "spec: {}\n", HEAD.replace("one", "all") + "spec: {rules: [{}]}\n")
    assert blind == ["a.yaml:3: metadata.name: no request of the application could prove that this policy is in force"]


def test_reports_errors_of_all_files(tmp_path: Path) -> None:
    """Errors in two files are reported together, each with its file."""
    problems = list_problems(tmp_path, HEAD + "spec: {rulez: []}\n", PEER + "spec: {mtl: {}}\n")
    assert [line.split(":")[0] for line in problems] == ["a.yaml", "b.yaml"]


def test_refuses_folder_without_manifests(tmp_path: Path) -> None:
    """A configuration that names an empty or missing folder would measure none of its policies."""
    for folder, reason in ((tmp_path, "has no manifest"), (tmp_path / "no", "is not a folder of manifests")):
        with pytest.raises(InputError, match=reason):
            read_istio([folder], BOOKINFO)
