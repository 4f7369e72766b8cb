"""Istio's conditions, addresses and tokens: read, evaluated as by Istio, translated as by istiod.

What istiod makes of each is read from istio/istio: the recorded filters in
`pilot/pkg/security/authz/builder/testdata/http` (`extended-allow-full-rule-*`, `audit-full-rule-*`), and for tokens
`pilot/pkg/security/authn/policy_applier.go`.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.application.manifests import Source
from bench.application.model import Application
from bench.errors import InputError
from bench.files.yaml_source import read_documents
from bench.meshes.istio.authorization import Decision, Request, decide_request
from bench.meshes.istio.envoy.jwt import jwt_filters
from bench.meshes.istio.envoy.rbac import rbac_filters
from bench.meshes.istio.policy_model import IstioPolicies, mesh_objects, read_policies
from bench.meshes.probe import Outcome
from bench.meshes.rewriting import Namespaces
from bench.verification.checks import mesh_checks, page_check, plaintext_checks
from bench.verification.questions import OUTSIDE, Answer
from tests.policies import parse_folders
from tests.sidecars import application_with, bootstrap_of, configuration_with

APPLICATION = application_with("v3")
HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one}\n"
TOKENS = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\n"
PAGE = "selector: {matchLabels: {app: productpage}}"
JWKS = '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'
ISSUER = f"{{issuer: https://login.example, jwks: '{JWKS}'}}"
ONLY_READERS = (
    TOKENS + f"spec: {{{PAGE}, jwtRules: [{ISSUER}]}}\n",
    HEAD
    + f"spec: {{{PAGE}, rules: [{{from: [{{source: {{requestPrincipals: ['https://login.example/*']}}}}],"
    + " when: [{key: 'request.auth.claims[group]', values: [readers]}]}]}\n",
)


def read(folder: Path, *texts: str, application: Application = APPLICATION) -> IstioPolicies:
    """The policies of some YAML texts, one file each."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    reading = read_policies(parse_folders("istio", [folder], application), application)
    assert reading.untranslated == ()
    assert isinstance(reading.policies, IstioPolicies)
    return reading.policies


def parse(folder: Path, text: str) -> tuple[Source[Any], ...]:
    """The manifests of a YAML text."""
    (folder / "0.yaml").write_text(text, "utf-8")
    return parse_folders("istio", [folder], APPLICATION)


def rule_of(folder: Path, rule: str) -> dict[str, Any]:
    """Envoy's entry for one rule of a policy of details."""
    (policy,) = parse(folder, HEAD + f"spec: {{rules: [{rule}]}}\n")
    policies = IstioPolicies("bookinfo", authorization_policies=(policy.manifest,))
    (rbac,) = rbac_filters(policies, APPLICATION.workload("details"), inbound_port=20000)
    entry: dict[str, Any] = rbac["typed_config"]["rules"]["policies"]["ns[bookinfo]-policy[one]-rule[0]"]
    return entry


def decide(
    policies: IstioPolicies, account: str | None = "locust", *, workload: str = "details", **request: Any
) -> Decision:
    principal = None if account is None else f"cluster.local/ns/bookinfo/sa/{account}"
    return decide_request(policies, APPLICATION.workload(workload), Request(principal, "GET", "/", **request))


def named(regex: str) -> dict[str, Any]:
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": regex}}}}


def claim(*path: str, value: Any) -> dict[str, Any]:
    keys = [{"key": key} for key in ("payload", *path)]
    return {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": keys, "value": value}}


# --- translation ---------------------------------------------------------------------------------------------


def test_source_becomes_principals_in_istiods_order(tmp_path: Path) -> None:
    """Request principals, namespaces, remote and direct addresses, each with its negation, then the conditions."""
    rule = rule_of(
        tmp_path,
        "{from: [{source: {ipBlocks: [10.0.0.1, 'fd00::/8'], notIpBlocks: [10.9.0.0/16], remoteIpBlocks: [9.0.0.0/8],"
        " namespaces: ['shop-*'], notRequestPrincipals: ['*'], requestPrincipals: ['https://a.example/*', '*/me']}}],"
        " when: [{key: 'request.headers[X-Kind]', values: [a*], notValues: ['*']},"
        " {key: source.ip, values: [1.2.3.4]}]}",
    )
    everything = {"string_match": {"safe_regex": {"regex": ".+"}}}
    anybody = {"and_ids": {"ids": [claim("iss", value=everything), claim("sub", value=everything)]}}
    issued = claim("iss", value={"string_match": {"exact": "https://a.example"}})
    me = claim("sub", value={"string_match": {"exact": "me"}})
    wanted = [
        {"and_ids": {"ids": [issued, claim("sub", value=everything)]}},
        {"and_ids": {"ids": [claim("iss", value=everything), me]}},
    ]
    blocks = [{"address_prefix": "10.0.0.1", "prefix_len": 32}, {"address_prefix": "fd00::", "prefix_len": 8}]
    assert rule["principals"][0]["and_ids"]["ids"] == [
        {"or_ids": {"ids": wanted}},
        {"not_id": anybody},
        {"or_ids": {"ids": [named(".*/ns/shop-.*/.*")]}},
        {"or_ids": {"ids": [{"remote_ip": {"address_prefix": "9.0.0.0", "prefix_len": 8}}]}},
        {"or_ids": {"ids": [{"direct_remote_ip": block} for block in blocks]}},
        {"not_id": {"or_ids": {"ids": [{"direct_remote_ip": {"address_prefix": "10.9.0.0", "prefix_len": 16}}]}}},
        {"or_ids": {"ids": [{"header": {"name": "X-Kind", "string_match": {"prefix": "a"}}}]}},
        {"not_id": {"or_ids": {"ids": [{"header": {"name": "X-Kind", "present_match": True}}]}}},
        {"or_ids": {"ids": [{"direct_remote_ip": {"address_prefix": "1.2.3.4", "prefix_len": 32}}]}},
    ]
    assert rule["permissions"] == [{"and_rules": {"rules": [{"any": True}]}}]


def test_service_accounts_match_in_any_trust_domain(tmp_path: Path) -> None:
    """An account without a namespace is of the policy's own."""
    rule = rule_of(tmp_path, "{from: [{source: {serviceAccounts: [bookinfo-reviews, shop/api]}}]}")
    names = ("bookinfo/(.+/|)sa/bookinfo-reviews", "shop/(.+/|)sa/api")
    regexes = [f"spiffe://.+/ns/{name}(/.+)?" for name in names]
    assert rule["principals"][0]["and_ids"]["ids"] == [{"or_ids": {"ids": [named(regex) for regex in regexes]}}]


def test_condition_on_destination_becomes_permission(tmp_path: Path) -> None:
    """It comes after the operation of each `to`, with the port at which the sidecar listens here."""
    rule = rule_of(
        tmp_path,
        "{to: [{operation: {methods: [GET]}}, {operation: {methods: [POST]}}],"
        " when: [{key: destination.port, values: ['9080']}, {key: connection.sni, notValues: ['*.example']}]}",
    )
    common = [
        {"or_rules": {"rules": [{"destination_port": 20000}]}},
        {"not_rule": {"or_rules": {"rules": [{"requested_server_name": {"suffix": ".example"}}]}}},
    ]
    methods = [{"header": {"name": ":method", "string_match": {"exact": one}}} for one in ("GET", "POST")]
    assert rule["permissions"] == [
        {"and_rules": {"rules": [{"or_rules": {"rules": [method]}}, *common]}} for method in methods
    ]
    assert rule["principals"] == [{"and_ids": {"ids": [{"any": True}]}}]


def test_claims_match_texts_and_lists(tmp_path: Path) -> None:
    """A claim may be one text or a list; nested claims are a path, audiences the claim `aud`."""
    rule = rule_of(
        tmp_path,
        "{when: [{key: 'request.auth.claims[a][b]', values: [x]}, {key: request.auth.audiences, values: [you, 'z*']}]}",
    )
    one = {"string_match": {"exact": "x"}}
    some = {"or_match": {"value_matchers": [{"string_match": {"exact": "you"}}, {"string_match": {"prefix": "z"}}]}}
    assert rule["principals"][0]["and_ids"]["ids"] == [
        claim("a", "b", value={"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}}),
        claim("aud", value={"or_match": {"value_matchers": [{"list_match": {"one_of": some}}, some]}}),
    ]


def test_audit_has_a_filter_of_its_own_before_all_others(tmp_path: Path) -> None:
    """Its action is LOG; it decides nothing, and has no probe."""
    policies = read(
        tmp_path,
        HEAD + "spec: {action: AUDIT, rules: [{to: [{operation: {methods: [GET]}}]}]}\n",
        HEAD.replace("one", "two") + "spec: {action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}\n",
    )
    filters = rbac_filters(policies, APPLICATION.workload("details"), inbound_port=1)
    assert [one["typed_config"]["rules"]["action"] for one in filters] == ["LOG", "DENY"]
    assert decide(policies) == "allowed"
    assert {probe.policy for probe in policies.probes(APPLICATION)} == {"two"}


def test_token_filter_comes_before_authorization(tmp_path: Path) -> None:
    """The issuer's keys are in the filter; a request without a token passes it, one with an invalid token does not."""
    policies = read(tmp_path, *ONLY_READERS)
    manager = bootstrap_of("istio", "productpage", APPLICATION, policies)["static_resources"]["listeners"][1]
    filters = manager["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [one["name"] for one in filters[:2]] == ["envoy.filters.http.jwt_authn", "envoy.filters.http.rbac"]
    settings = filters[0]["typed_config"]
    assert settings["providers"] == {
        "origins-0": {
            "issuer": "https://login.example",
            "local_jwks": {"inline_string": JWKS},
            "payload_in_metadata": "payload",
            "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope"]},
        }
    }
    requirements = [{"provider_name": "origins-0"}, {"allow_missing": {}}]
    assert settings["rules"] == [
        {"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": requirements}}}
    ]
    assert settings["bypass_cors_preflight"] is True
    assert jwt_filters(policies, APPLICATION.workload("details")) == []


def test_any_of_several_issuers_is_enough(tmp_path: Path) -> None:
    """Issuers are sorted by name; a valid token of one is an invalid one of the others."""
    header = "fromHeaders: [{name: x-token, prefix: 'T '}]"
    second = f"{{issuer: https://a.example, jwks: '{JWKS}', {header}, audiences: [me]}}"
    policies = read(tmp_path, TOKENS + f"spec: {{jwtRules: [{ISSUER}, {second}]}}\n")
    (built,) = jwt_filters(policies, APPLICATION.workload("details"))
    settings = built["typed_config"]
    assert [one["issuer"] for one in settings["providers"].values()] == ["https://a.example", "https://login.example"]
    assert settings["providers"]["origins-0"]["from_headers"] == [{"name": "x-token", "value_prefix": "T "}]
    assert settings["providers"]["origins-0"]["audiences"] == ["me"]
    names = [{"provider_name": "origins-0"}, {"provider_name": "origins-1"}]
    each = [{"requires_any": {"requirements": [name, {"allow_missing": {}}]}} for name in names]
    (rule,) = settings["rules"]
    assert rule["requires"] == {"requires_any": {"requirements": [*names, {"requires_all": {"requirements": each}}]}}


# --- meaning -------------------------------------------------------------------------------------------------


def test_address_is_unknown_before_a_run(tmp_path: Path) -> None:
    """A decision that depends on it is unknown; one that does not is known, and so are probes."""
    spec = "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}], to: [{operation: {methods: [GET]}}]}]"
    (policy,) = parse(tmp_path, HEAD + f"spec: {{selector: {{matchLabels: {{app: details}}}}, {spec}}}\n")
    policies = IstioPolicies("bookinfo", authorization_policies=(policy.manifest,))
    known = {address: decide(policies, address=address) for address in (None, "10.1.2.3", "127.0.0.1")}
    assert known == {None: "unknown", "10.1.2.3": "allowed", "127.0.0.1": "denied"}
    probes = policies.probes(APPLICATION)
    assert {probe.status for probe in probes} == {403}
    assert "GET" not in {probe.method for probe in probes}


def test_header_decides(tmp_path: Path) -> None:
    """A header that no request of ours has is missing; one that clients or proxies set themselves is unknown."""
    policies = read(tmp_path, HEAD + "spec: {rules: [{when: [{key: 'request.headers[X-Key]', values: [open*]}]}]}\n")
    assert decide(policies) == "denied"
    assert decide(policies, headers={"x-key": "opened"}) == "allowed"
    agent = read(tmp_path, HEAD + "spec: {rules: [{when: [{key: 'request.headers[User-Agent]', values: [x]}]}]}\n")
    assert decide(agent) == "unknown"


def test_every_condition_of_a_rule_must_hold(tmp_path: Path) -> None:
    """Conditions are combined with and, values with or; `notValues` exclude."""
    when = "[{key: source.namespace, values: ['book*']}, {key: source.principal, notValues: ['*/bookinfo-ratings']}]"
    policies = read(tmp_path, HEAD + f"spec: {{rules: [{{when: {when}}}]}}\n")
    decisions = {account: decide(policies, account) for account in ("locust", "bookinfo-ratings", None)}
    assert decisions == {"locust": "allowed", "bookinfo-ratings": "denied", None: "denied"}


def test_page_that_needs_a_token_is_denied_without_one(tmp_path: Path) -> None:
    """The proof is the 403: meshbench has no token, and the load brings its own."""
    for number, text in enumerate(ONLY_READERS):
        (tmp_path / f"{number}.yaml").write_text(text, "utf-8")
    scene = configuration_with("istio", tmp_path)
    assert scene.outcome("locust", "productpage") == Outcome(403, needs_token=True)
    assert scene.outcome("productpage", "details") == Outcome(200)
    denied = Answer(403, b"RBAC: access denied", {"server": "istio-envoy"})
    assert page_check(scene).judge(denied).ok
    assert not page_check(scene).judge(Answer(200, b"a page", {"server": "istio-envoy"})).ok
    own = {name: (spiffe,) for name, spiffe in scene.ids.items()}
    through = [one.judge(denied) for one in mesh_checks(scene, own, ()) if one.question.caller == "locust"]
    assert [one.ok for one in through if one.name == "through sidecars"] == [True]
    probes = [(probe.workload, probe.method, probe.status) for probe in scene.probes]
    assert probes == [("productpage", "GET", 401), ("productpage", "GET", 403)]
    assert [probe.headers for probe in scene.probes] == [(("Authorization", "Bearer meshbench"),), ()]


def test_plaintext_is_proven_as_policies_decide(tmp_path: Path) -> None:
    """Where a policy denies callers without an identity, plaintext gets 403, not the application's status."""
    (tmp_path / "a.yaml").write_text(
        HEAD
        + "spec: {selector: {matchLabels: {app: details}}, rules: [{from: [{source: {namespaces: [bookinfo]}}]}]}\n"
    )
    checks = {one.question.workload: one for one in plaintext_checks(configuration_with("istio", tmp_path))}
    assert {one.question.caller for one in checks.values()} == {OUTSIDE}
    denied = Answer(403, b"RBAC: access denied", {})
    assert {name: one.judge(denied).ok for name, one in checks.items()} == {
        "productpage": False,
        "details": True,
        "reviews": False,
        "ratings": False,
    }


@pytest.mark.parametrize(
    "source",
    ["ipBlocks: [10.0.0.0/8]", "notRemoteIpBlocks: [127.0.0.1]"],
)
def test_addresses_that_deny_a_call_here_need_a_cluster(source: str, tmp_path: Path) -> None:
    """All workloads of this machine have one address: a policy that refuses it would measure denials."""
    text = HEAD + f"spec: {{{PAGE}, rules: [{{from: [{{source: {{{source}}}}}]}}]}}\n"
    reading = read_policies(parse(tmp_path, text), APPLICATION)
    (left,) = reading.untranslated
    (problem,) = left.problems
    message = "its addresses deny locust -> productpage here, where every connection comes from 127.0.0.1"
    assert (problem.line, problem.path, problem.message) == (4, "spec.rules", message)
    fits = text.replace("10.0.0.0/8", "0.0.0.0/0").replace("[127.0.0.1]", "[10.0.0.0/8]")
    assert read_policies(parse(tmp_path, fits), APPLICATION).untranslated == ()


def test_values_move_into_the_runs_namespaces(tmp_path: Path) -> None:
    """Those of conditions, too, by their key; a header that looks like a namespace stays."""
    (tmp_path / "a.yaml").write_text(
        HEAD + "spec: {rules: [{from: [{source: {serviceAccounts: [bookinfo/api, api]}}], when: ["
        "{key: source.namespace, values: [bookinfo]}, {key: 'request.headers[x-a]', values: [bookinfo]},"
        " {key: source.principal, notValues: [cluster.local/ns/bookinfo/sa/api]}]}]}\n"
    )
    (moved,) = mesh_objects(read_documents(tmp_path / "a.yaml"), Namespaces({"bookinfo": "run-1"}))
    (rule,) = moved.value["spec"]["rules"]
    assert rule["from"][0]["source"]["serviceAccounts"] == ["run-1/api", "api"]
    values = [[*one.get("values", ()), *one.get("notValues", ())] for one in rule["when"]]
    assert values == [["run-1"], ["bookinfo"], ["cluster.local/ns/run-1/sa/api"]]


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "spec: {rules: [{from: [{source: {ipBlocks: [10.0.0.300]}}]}]}\n",
            (
                "0.yaml:4: spec.rules[0].from[0].source.ipBlocks[0]:"
                " '10.0.0.300' is no IP address, and no block such as 10.0.0.0/8"
            ),
        ),
        (
            HEAD + "spec: {rules: [{when: [{key: request.header, values: [a]}]}]}\n",
            "0.yaml:4: spec.rules[0].when[0]: 'request.header' is no attribute that meshbench translates",
        ),
        (
            HEAD + "spec: {rules: [{when: [{key: source.ip}]}]}\n",
            "0.yaml:4: spec.rules[0].when[0]: must have values or notValues",
        ),
        (
            TOKENS + "spec: {jwtRules: [{issuer: a, jwks: '{}'}]}\n",
            '0.yaml:4: spec.jwtRules[0].jwks: is no JSON Web Key Set; write {"keys": [...]}',
        ),
    ],
)
def test_reports_error_with_line(text: str, message: str, tmp_path: Path) -> None:
    """What Istio would not understand is refused with file, line and field."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [message]
