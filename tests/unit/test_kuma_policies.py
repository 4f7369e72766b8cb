"""Kuma's policies: read strictly, evaluated as by Kuma, translated as by its control plane."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.kuma.envoy.rbac import http_rbac_filters, network_rbac_filters
from bench.meshes.kuma.manifests import MeshTrafficPermission
from bench.meshes.kuma.policies import decide_request
from bench.meshes.kuma.policy_model import KumaPolicies
from bench.meshes.kuma.probes import certificate_names
from bench.meshes.probe import Probe
from tests import policies as folders
from tests.policies import read_kuma
from tests.sidecars import application_with

BOOKINFO = application_with("v3")
SERVICES = ("productpage", "details", "reviews", "ratings")
FORMS = {"identity": "kuma/policies", "builtin": "kuma/policies-legacy"}

HEAD = "apiVersion: kuma.io/v1alpha1\n"
MESH = HEAD + "kind: Mesh\nmetadata: {name: default}\nspec:\n  meshServices: {mode: Exclusive}\n"
OLD_MESH = (
    HEAD + "kind: Mesh\nmetadata: {name: default}\nspec:\n"
    "  mtls: {enabledBackend: ca, backends: [{name: ca, type: builtin}]}\n"
)
IDENTITY = (
    HEAD + "kind: MeshIdentity\nmetadata: {name: identity, namespace: kuma-system}\nspec:\n"
    "  selector: {dataplane: {matchLabels: {}}}\n"
    "  provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}\n"
)
ID = "spiffe://default.default.mesh.local/ns/bookinfo/sa"
ALLOW = "  rules: [{default: {allow: [{spiffeID: {type: Prefix, value: 'spiffe://default.default.mesh.local'}}]}}]\n"
NEW = HEAD + "kind: MeshTrafficPermission\nmetadata: {name: one}\nspec:\n"
OLD = HEAD + "kind: TrafficPermission\nmesh: default\nmetadata: {name: one}\nspec:\n"


def pair(source: str, destination: str) -> str:
    """The specification of a TrafficPermission."""
    sides = {"sources": source, "destinations": destination}
    return "".join(f"  {side}: [{{match: {{kuma.io/service: '{tag}'}}}}]\n" for side, tag in sides.items())


def tag(service: str) -> str:
    return f"{service}_bookinfo_svc_9080"


def permission(match: str, *, labels: str = "", name: str = "one", verb: str = "allow") -> str:
    """A MeshTrafficPermission with one entry."""
    target = f"  targetRef: {{kind: Dataplane, labels: {{{labels}}}}}\n"
    return NEW.replace("one", name) + target + f"  rules: [{{default: {{{verb}: [{{spiffeID: {match}}}]}}}}]\n"


def exactly(account: str) -> str:
    return f"{{type: Exact, value: {ID}/{account}}}"


def read(folder: Path, *texts: str) -> KumaPolicies:
    """The policies of some YAML texts, one file each: a.yaml, b.yaml and so on."""
    for name, text in zip("abcdef", texts, strict=False):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return read_kuma([folder], BOOKINFO)


def list_problems(folder: Path, *texts: str) -> list[str]:
    """The problems of some YAML texts, without the folder."""
    with pytest.raises(InputError) as caught:
        read(folder, *texts)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def shipped_policies(folder: str) -> KumaPolicies:
    return read_kuma([find_shipped("manifests") / folder], BOOKINFO)


def decide(policies: KumaPolicies, workload: str, account: str | None) -> str:
    """The decision about a call with the certificate of a service account, or in plaintext."""
    callers = {one.account: one for one in BOOKINFO.everyone}
    names = () if account is None else certificate_names(policies, BOOKINFO, callers[account])
    return decide_request(policies, BOOKINFO.workload(workload), names)


# --- the shipped manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "folder"), FORMS.items())
def test_shipped_policies_allow_only_the_calls_of_bookinfo(form: str, folder: str) -> None:
    """Any workload of the mesh may call productpage; of other pairs only the calls that make a page are allowed."""
    policies = shipped_policies(folder)
    assert policies.form == form
    allowed = {
        (caller.name, callee)
        for caller in BOOKINFO.everyone
        for callee in SERVICES
        if decide(policies, callee, caller.account) == "allowed"
    }
    assert allowed == {(one.name, "productpage") for one in BOOKINFO.everyone} | {
        ("productpage", "details"),
        ("productpage", "reviews"),
        ("reviews", "ratings"),
    }
    assert {decide(policies, callee, None) for callee in SERVICES} == {"refused"}


def test_denied_call_depends_on_the_form() -> None:
    """With a MeshIdentity it is 403; in the older form the connection is closed, 503 through the caller's sidecar."""
    for folder, statuses in (("kuma/policies", (403, 403)), ("kuma/policies-legacy", (0, 503))):
        probes = shipped_policies(folder).probes(BOOKINFO)
        denied = [probe for probe in probes if probe.policy == "ratings-viewer" and probe.status != 200]
        assert [(probe.status, probe.status_through_sidecar) for probe in denied] == [statuses]
        plain = [probe for probe in probes if probe.caller is None]
        assert [probe.workload for probe in plain] == sorted(SERVICES)
        assert {(probe.status, probe.status_through_sidecar) for probe in plain} == {(0, 0)}


def test_every_permission_has_its_probes() -> None:
    """Each has a caller that passes; each that denies a caller has a caller that is denied."""
    for folder in FORMS.values():
        probes = shipped_policies(folder).probes(BOOKINFO)
        for name in ("details-viewer", "reviews-viewer", "ratings-viewer"):
            assert [probe.status == 200 for probe in probes if probe.policy == name] == [True, False]
        welcome = [probe for probe in probes if probe.policy == "productpage-viewer"]
        assert welcome == [Probe("productpage-viewer", "productpage", "locust", "GET", "/productpage", 200)]


def test_identities_have_the_form_of_the_manifests() -> None:
    """By service account with a MeshIdentity, by service and tags in the older form, none without mutual TLS."""
    new = shipped_policies("kuma/policies").identities(BOOKINFO)
    assert new["bookinfo-reviews"] == (f"{ID}/bookinfo-reviews",)
    old = shipped_policies("kuma/policies-legacy").identities(BOOKINFO)
    assert old["bookinfo-reviews"][0] == "spiffe://default/reviews_bookinfo_svc_9080"
    assert "kuma://kuma.io/service/reviews_bookinfo_svc_9080" in old["bookinfo-reviews"]
    assert "kuma://version/v3" in old["bookinfo-reviews"]
    assert old["locust"][0] == "spiffe://default/locust_bookinfo_svc"
    assert KumaPolicies(BOOKINFO).identities(BOOKINFO) == {}


def test_mesh_without_policies_is_in_plaintext() -> None:
    """Kuma's default Mesh encrypts nothing and permits everything, so it has no probe and no filter."""
    policies = read_kuma([], BOOKINFO)
    workload = BOOKINFO.workload("details")
    assert policies.mode(workload) == "DISABLE"
    assert policies.probes(BOOKINFO) == ()
    assert http_rbac_filters(policies, workload) == network_rbac_filters(policies, workload, listener="x") == []
    assert decide(policies, "details", None) == "allowed"


# --- what permissions mean -----------------------------------------------------------------------------------


def test_mutual_tls_without_permission_denies_all_calls(tmp_path: Path) -> None:
    """With a MeshIdentity alone, the filter has no entry but still denies."""
    policies = read(tmp_path, MESH, IDENTITY)
    assert {decide(policies, "details", one.account) for one in BOOKINFO.everyone} == {"denied"}
    (rbac,) = http_rbac_filters(policies, BOOKINFO.workload("details"))
    assert list(rbac["typed_config"]["matcher"]) == ["on_no_match"]


def test_older_form_without_permission_closes_connections(tmp_path: Path) -> None:
    """Empty rules deny every caller."""
    policies = read(tmp_path, OLD_MESH)
    assert {decide(policies, "details", one.account) for one in BOOKINFO.everyone} == {"refused"}
    (rbac,) = network_rbac_filters(policies, BOOKINFO.workload("details"), listener="x")
    assert rbac["typed_config"]["rules"] == {}


def test_deny_wins_in_any_order(tmp_path: Path) -> None:
    """A matching deny overrides a matching allow of another permission, and comes before it in the filter."""
    deny = permission(exactly("bookinfo-reviews"), name="two", verb="deny")
    policies = read(tmp_path, MESH, IDENTITY, NEW + ALLOW, deny)
    assert decide(policies, "ratings", "bookinfo-reviews") == "denied"
    assert decide(policies, "ratings", "locust") == "allowed"
    (rbac,) = http_rbac_filters(policies, BOOKINFO.workload("ratings"))
    actions = [
        entry["on_match"]["action"]["typed_config"]
        for entry in rbac["typed_config"]["matcher"]["matcher_list"]["matchers"]
    ]
    assert [(one["name"], one.get("action", "ALLOW")) for one in actions] == [
        ("kri_mtp_default_default_bookinfo_two_", "DENY"),
        ("kri_mtp_default_default_bookinfo_one_", "ALLOW"),
    ]


def test_narrowest_permission_applies_alone(tmp_path: Path) -> None:
    """For ratings the one for ratings, not the one for all: permissions of the older form do not add up."""
    everyone = OLD.replace("one", "everyone") + pair("*", "*")
    policies = read(tmp_path, OLD_MESH, everyone, OLD + pair(tag("reviews"), tag("ratings")))
    assert decide(policies, "ratings", "bookinfo-reviews") == "allowed"
    assert decide(policies, "ratings", "locust") == "refused"
    assert decide(policies, "details", "locust") == "allowed"
    (rbac,) = network_rbac_filters(policies, BOOKINFO.workload("ratings"), listener="x")
    assert list(rbac["typed_config"]["rules"]["policies"]) == ["one"]


ACCOUNTS = [workload.account for workload in BOOKINFO.everyone]
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["allow", "deny"]), st.sampled_from(["Exact", "Prefix"]), st.sampled_from(ACCOUNTS)),
    min_size=1,
    max_size=4,
)


SHIPPED = shipped_policies("kuma/policies")


@given(ENTRIES)
def test_filter_decides_like_the_rules(entries: list[tuple[str, str, str]]) -> None:
    """The first entry of the filter that matches has the decision of the rules, for every mix of allow and deny."""
    policies = KumaPolicies(
        BOOKINFO,
        identity=SHIPPED.identity,
        permissions=tuple(
            _parsed(f"p{index}", verb=verb, kind=kind, account=account)
            for index, (verb, kind, account) in enumerate(entries)
        ),
    )
    (rbac,) = http_rbac_filters(policies, BOOKINFO.workload("details"))
    matchers = rbac["typed_config"]["matcher"]["matcher_list"]["matchers"]
    for account in ACCOUNTS:
        spiffe_id = f"{ID}/{account}"
        hits = [one for one in matchers if _hits(one["predicate"]["single_predicate"]["value_match"], spiffe_id)]
        action = hits[0]["on_match"]["action"]["typed_config"].get("action", "ALLOW") if hits else "DENY"
        assert (action == "ALLOW") == (decide(policies, "details", account) == "allowed")


def _parsed(name: str, *, verb: str, kind: str, account: str) -> MeshTrafficPermission:
    entry = {verb: ({"spiffeID": {"type": kind, "value": f"{ID}/{account}"}},)}
    return MeshTrafficPermission.model_validate(
        {
            "apiVersion": "kuma.io/v1alpha1",
            "kind": "MeshTrafficPermission",
            "metadata": {"name": name},
            "spec": {"rules": ({"default": entry},)},
        }
    )


def _hits(match: dict[str, str], spiffe_id: str) -> bool:
    ((kind, value),) = match.items()
    return spiffe_id == value if kind == "exact" else spiffe_id.startswith(value)


# --- mistakes ------------------------------------------------------------------------------------------------

UNTRANSLATED = "is not translated for this machine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            NEW + "  targetRef: {kind: Dataplane, proxyTypes: []}\n" + ALLOW,
            f"c.yaml:5: spec.targetRef.proxyTypes: {UNTRANSLATED}",
        ),
        (NEW + "  rulez: []\n" + ALLOW, "c.yaml:5: spec.rulez: unknown key 'rulez'; did you mean rules?"),
        (
            NEW + "  targetRef: {kind: MeshService, name: details}\n" + ALLOW,
            "c.yaml:5: spec.targetRef.kind: 'MeshService' is not supported (supported: Dataplane, Mesh)",
        ),
        (
            permission(exactly("bookinfo-productpage"), labels="app: revews"),
            "c.yaml:5: spec.targetRef.labels: selects no workload of the application; did you mean reviews?",
        ),
        (
            permission(exactly("bookinfo-review")),
            (
                "c.yaml:6: spec.rules[0].default.allow[0].spiffeID.value: no workload has the identity"
                f" '{ID}/bookinfo-review'; did you mean {ID}/bookinfo-reviews?"
            ),
        ),
        (
            permission("{type: Prefix, value: 'spiffe://default.default.mesh.local/'}"),
            (
                "c.yaml:6: spec.rules[0].default.allow[0].spiffeID.value: 'spiffe://default.default.mesh.local/' is no"
                " SPIFFE id; write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"
            ),
        ),
        (
            (NEW + ALLOW).replace("{name: one}", "{name: one, namespace: shop}"),
            (
                "c.yaml:3: metadata.namespace: no workload runs in 'shop'; known: bookinfo, kuma-system; hint: if the"
                " application is meant to be there: --set application.namespaces=shop"
            ),
        ),
        (
            (NEW + ALLOW).replace("{name: one}", "{name: one, labels: {kuma.io/mesh: other}}"),
            "c.yaml:3: metadata.labels: kuma.io/mesh is 'other'; the application is in the mesh 'default'",
        ),
        (
            (NEW + ALLOW).replace("{name: one}", "{name: one, labels: {kuma.io/effect: shadow}}"),
            "c.yaml:3: metadata.labels: kuma.io/effect changes what the policy does; meshbench does not translate it",
        ),
        (OLD + pair("*", "*"), "c.yaml:2: kind: a TrafficPermission has no effect without Mesh.mtls"),
        (OLD_MESH, "c.yaml:3: metadata.name: a Mesh is already defined in a.yaml:3"),
        (
            HEAD.replace("v1alpha1", "v1") + "kind: Mesh\nmetadata: {name: default}\n",
            "c.yaml:1: apiVersion: unknown apiVersion 'kuma.io/v1' of Mesh; did you mean kuma.io/v1alpha1?",
        ),
    ],
)
def test_reports_error_with_line(text: str, message: str, tmp_path: Path) -> None:
    """A policy that cannot be translated, or has no effect, is refused with file, line, field and reason."""
    assert next(line.replace(f"{tmp_path}/", "") for line in list_problems(tmp_path, MESH, IDENTITY, text)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OLD + pair(tag("productpage"), tag("detials")),
            (
                "b.yaml:7: spec.destinations[0].match.kuma.io/service: there is no service 'detials_bookinfo_svc_9080';"
                " did you mean details_bookinfo_svc_9080?"
            ),
        ),
        (
            OLD + pair("stranger", tag("details")),
            (
                "b.yaml:6: spec.sources[0].match.kuma.io/service: there is no service 'stranger'; known:"
                " details_bookinfo_svc_9080, locust_bookinfo_svc, productpage_bookinfo_svc_9080,"
                " ratings_bookinfo_svc_9080, reviews_bookinfo_svc_9080"
            ),
        ),
        (
            OLD + pair("*", tag("details")).replace("kuma.io/service: '*'", "kuma.io/service: '*', version: v1"),
            f"b.yaml:6: spec.sources[0].match.version: {UNTRANSLATED}",
        ),
        (NEW + ALLOW, "b.yaml:2: kind: a MeshTrafficPermission has no effect without a MeshIdentity"),
        (
            OLD_MESH.replace("type: builtin", "type: builtin, mode: PERMISSIVE"),
            "b.yaml:5: spec.mtls.backends[0].mode: 'PERMISSIVE' is not supported (supported: STRICT)",
        ),
    ],
)
def test_reports_error_of_older_form_with_line(text: str, message: str, tmp_path: Path) -> None:
    """A permission for a missing service, an unsupported tag or mode, the other form."""
    assert list_problems(tmp_path, OLD_MESH, text)[0] == message


@pytest.mark.parametrize(
    ("mesh", "text", "message"),
    [
        (
            "kuma",
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: one}\n",
            "apiVersion: security.istio.io/v1 is not of this configuration's mesh, whose kinds are of kuma.io",
        ),
        (
            "istio",
            MESH,
            "apiVersion: kuma.io/v1alpha1 is not of this configuration's mesh, whose kinds are of istio.io",
        ),
    ],
)
def test_refuses_manifest_of_the_other_mesh(mesh: str, text: str, message: str, tmp_path: Path) -> None:
    """The error names the groups of both meshes, with file and line."""
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        folders.read_policies(mesh, [tmp_path], BOOKINFO)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [f"a.yaml:1: {message}"]


def test_refuses_mixed_forms(tmp_path: Path) -> None:
    """A MeshIdentity needs exclusive MeshServices, and excludes Mesh.mtls."""
    both = OLD_MESH + "  meshServices: {mode: Exclusive}\n"
    assert list_problems(tmp_path, both, IDENTITY) == [
        "a.yaml:5: spec.mtls: has no effect in addition to a MeshIdentity; hint: keep one of the two"
    ]
    assert list_problems(tmp_path, MESH.replace("Exclusive", "Disabled"), IDENTITY) == [
        "b.yaml:3: metadata.name: does not become ready without a Mesh whose meshServices.mode is Exclusive"
    ]
    (tmp_path / "b.yaml").unlink()
    assert list_problems(tmp_path, both) == ["a.yaml:5: spec.mtls: is translated with meshServices.mode Disabled only"]
    assert list_problems(tmp_path, OLD_MESH.replace("enabledBackend: ca,", "enabledBackend: cb,")) == [
        "a.yaml:5: spec.mtls.enabledBackend: no backend 'cb'; known: ca"
    ]


def test_refuses_conflicting_policies(tmp_path: Path) -> None:
    """The same permission twice, or two that name a destination equally closely: a cluster would choose by age."""
    doubled = list_problems(tmp_path, MESH, IDENTITY, NEW + ALLOW, NEW + ALLOW)
    assert doubled == ["d.yaml:3: metadata.name: the same MeshTrafficPermission is already defined in c.yaml:3"]
    for name in "cd":
        (tmp_path / f"{name}.yaml").unlink()
    two = OLD.replace("one", "two") + pair("*", tag("details"))
    assert list_problems(tmp_path, OLD_MESH, two, OLD + pair(tag("productpage"), tag("details")))[-1:] == [
        "c.yaml:7: spec.destinations: names the same destinations as the one in b.yaml:1"
    ]


def test_refuses_permission_without_a_probe(tmp_path: Path) -> None:
    """An allow that another permission's deny always overrides, and that denies no caller, has no proof."""
    deny = NEW.replace("one", "deny") + ALLOW.replace("allow", "deny")
    assert list_problems(tmp_path, MESH, IDENTITY, NEW + ALLOW, deny) == [
        "c.yaml:3: metadata.name: no request of the application could prove that this permission is in force"
    ]
