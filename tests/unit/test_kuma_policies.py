"""Kuma's policies: read strictly, evaluated as meant, translated as its control plane does it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import InputError
from bench.files.folders import shipped
from bench.meshes import MESHES
from bench.meshes.kuma.envoy.rbac import http_rbac_filters, network_rbac_filters
from bench.meshes.kuma.manifests import MeshTrafficPermission
from bench.meshes.kuma.policies import Policies, decision
from bench.meshes.kuma.probes import names_of
from bench.meshes.protocols import Probe
from tests.sidecars import application_with

KUMA = MESHES["kuma"]
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


def read(folder: Path, *texts: str) -> Policies:
    """The policies of some YAML texts, one file each: a.yaml, b.yaml and so on."""
    for name, text in zip("abcdef", texts, strict=False):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    policies: Policies = KUMA.read_policies([folder], BOOKINFO)
    return policies


def said(folder: Path, *texts: str) -> list[str]:
    """The problems of some YAML texts, without the folder."""
    with pytest.raises(InputError) as caught:
        read(folder, *texts)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def shipped_policies(folder: str) -> Policies:
    policies: Policies = KUMA.read_policies([shipped("manifests") / folder], BOOKINFO)
    return policies


def asked(policies: Policies, workload: str, account: str | None) -> str:
    """What becomes of a call with the certificate of a service account, or in plain text."""
    names = () if account is None else names_of(policies, BOOKINFO, account)
    return decision(policies, BOOKINFO.workload(workload), names)


# --- the shipped manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "folder"), FORMS.items())
def test_the_shipped_policies_let_through_what_bookinfo_does_and_nothing_else(form: str, folder: str) -> None:
    """Anyone in the mesh may call productpage; of all other pairs only those that make a page are allowed."""
    policies = shipped_policies(folder)
    assert policies.form == form
    allowed = {
        (caller.name, callee)
        for caller in BOOKINFO.everyone
        for callee in SERVICES
        if asked(policies, callee, caller.account) == "allowed"
    }
    assert allowed == {(one.name, "productpage") for one in BOOKINFO.everyone} | {
        ("productpage", "details"),
        ("productpage", "reviews"),
        ("reviews", "ratings"),
    }
    assert {asked(policies, callee, None) for callee in SERVICES} == {"refused"}


def test_a_denied_call_looks_as_its_form_has_it() -> None:
    """With a MeshIdentity it is 403; in the older form the connection is closed, 503 through the caller's sidecar."""
    for folder, statuses in (("kuma/policies", (403, 403)), ("kuma/policies-legacy", (0, 503))):
        probes = KUMA.probes(shipped_policies(folder), BOOKINFO)
        denied = [probe for probe in probes if probe.policy == "ratings-viewer" and probe.status != 200]
        assert [(probe.status, probe.status_through_sidecar) for probe in denied] == [statuses]
        plain = [probe for probe in probes if probe.caller is None]
        assert [probe.workload for probe in plain] == sorted(SERVICES)
        assert {(probe.status, probe.status_through_sidecar) for probe in plain} == {(0, 0)}


def test_every_permission_is_shown_from_both_sides() -> None:
    """Each has a caller that passes; each that turns somebody away has a caller that is turned away."""
    for folder in FORMS.values():
        probes = KUMA.probes(shipped_policies(folder), BOOKINFO)
        for name in ("details-viewer", "reviews-viewer", "ratings-viewer"):
            assert [probe.status == 200 for probe in probes if probe.policy == name] == [True, False]
        welcome = [probe for probe in probes if probe.policy == "productpage-viewer"]
        assert welcome == [Probe("productpage-viewer", "productpage", "locust", "GET", "/productpage", 200)]


def test_identities_are_of_the_form_that_the_manifests_say() -> None:
    """By service account with a MeshIdentity, by service and tags in the older form, none without mutual TLS."""
    new = KUMA.identities(shipped_policies("kuma/policies"), BOOKINFO)
    assert new["bookinfo-reviews"] == (f"{ID}/bookinfo-reviews",)
    old = KUMA.identities(shipped_policies("kuma/policies-legacy"), BOOKINFO)
    assert old["bookinfo-reviews"][0] == "spiffe://default/reviews_bookinfo_svc_9080"
    assert "kuma://kuma.io/service/reviews_bookinfo_svc_9080" in old["bookinfo-reviews"]
    assert "kuma://version/v3" in old["bookinfo-reviews"]
    assert old["locust"][0] == "spiffe://default/locust_bookinfo_svc"
    assert KUMA.identities(Policies(BOOKINFO), BOOKINFO) == {}


def test_without_policies_a_mesh_is_in_plain_text() -> None:
    """Kuma's default Mesh encrypts nothing and permits everything: nothing to show, nothing to filter."""
    policies: Policies = KUMA.read_policies([], BOOKINFO)
    workload = BOOKINFO.workload("details")
    assert KUMA.mode(policies, workload) == "DISABLE"
    assert KUMA.probes(policies, BOOKINFO) == ()
    assert http_rbac_filters(policies, workload) == network_rbac_filters(policies, workload, listener="x") == []
    assert asked(policies, "details", None) == "allowed"


# --- what permissions mean -----------------------------------------------------------------------------------


def test_mutual_tls_without_a_permission_denies_everyone(tmp_path: Path) -> None:
    """A MeshIdentity alone turns away all; its filter has no entry but still denies."""
    policies = read(tmp_path, MESH, IDENTITY)
    assert {asked(policies, "details", one.account) for one in BOOKINFO.everyone} == {"denied"}
    (rbac,) = http_rbac_filters(policies, BOOKINFO.workload("details"))
    assert list(rbac["typed_config"]["matcher"]) == ["on_no_match"]


def test_the_older_form_without_a_permission_closes_every_connection(tmp_path: Path) -> None:
    """Empty rules: nobody."""
    policies = read(tmp_path, OLD_MESH)
    assert {asked(policies, "details", one.account) for one in BOOKINFO.everyone} == {"refused"}
    (rbac,) = network_rbac_filters(policies, BOOKINFO.workload("details"), listener="x")
    assert rbac["typed_config"]["rules"] == {}


def test_deny_wins_whatever_the_order(tmp_path: Path) -> None:
    """A matching deny beats a matching allow of another permission, and stands before it in the filter."""
    deny = permission(exactly("bookinfo-reviews"), name="two", verb="deny")
    policies = read(tmp_path, MESH, IDENTITY, NEW + ALLOW, deny)
    assert asked(policies, "ratings", "bookinfo-reviews") == "denied"
    assert asked(policies, "ratings", "locust") == "allowed"
    (rbac,) = http_rbac_filters(policies, BOOKINFO.workload("ratings"))
    actions = [
        entry["on_match"]["action"]["typed_config"]
        for entry in rbac["typed_config"]["matcher"]["matcher_list"]["matchers"]
    ]
    assert [(one["name"], one.get("action", "ALLOW")) for one in actions] == [
        ("kri_mtp_default_default_bookinfo_two_", "DENY"),
        ("kri_mtp_default_default_bookinfo_one_", "ALLOW"),
    ]


def test_the_permission_that_names_a_destination_most_closely_counts_alone(tmp_path: Path) -> None:
    """For ratings the one for ratings, not the one for all: permissions of the older form do not add up."""
    everyone = OLD.replace("one", "everyone") + pair("*", "*")
    policies = read(tmp_path, OLD_MESH, everyone, OLD + pair(tag("reviews"), tag("ratings")))
    assert asked(policies, "ratings", "bookinfo-reviews") == "allowed"
    assert asked(policies, "ratings", "locust") == "refused"
    assert asked(policies, "details", "locust") == "allowed"
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
def test_the_filter_decides_as_the_rules_do(entries: list[tuple[str, str, str]]) -> None:
    """The first entry of the filter that matches says the same as the rules, for every mix of allow and deny."""
    policies = Policies(
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
        assert (action == "ALLOW") == (asked(policies, "details", account) == "allowed")


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

UNTRANSLATED = "is not translated by meshbench: the local target could not be true to it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NEW + "  from: []\n" + ALLOW, f"c.yaml:5: spec.from: {UNTRANSLATED}"),
        (NEW + "  rulez: []\n" + ALLOW, "c.yaml:5: spec.rulez: unknown field; did you mean rules?"),
        (
            NEW + "  targetRef: {kind: MeshService, name: details}\n" + ALLOW,
            "c.yaml:5: spec.targetRef.kind: 'MeshService' is not translated; one of 'Dataplane' is",
        ),
        (
            permission(exactly("bookinfo-productpage"), labels="app: revews"),
            "c.yaml:5: spec.targetRef.labels: selects no workload of the application; did you mean reviews?",
        ),
        (
            permission(exactly("bookinfo-review")),
            (
                "c.yaml:6: spec.rules[0].default.allow[0].spiffeID.value: nobody has the identity"
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
            "c.yaml:3: metadata.namespace: nothing runs in 'shop'; known: bookinfo, kuma-system",
        ),
        (
            (NEW + ALLOW).replace("{name: one}", "{name: one, labels: {kuma.io/mesh: other}}"),
            "c.yaml:3: metadata.labels: kuma.io/mesh is 'other'; the application is in the mesh 'default'",
        ),
        (
            (NEW + ALLOW).replace("{name: one}", "{name: one, labels: {kuma.io/effect: shadow}}"),
            "c.yaml:3: metadata.labels: kuma.io/effect changes what the policy does; meshbench does not translate it",
        ),
        (OLD + pair("*", "*"), "c.yaml:2: kind: a TrafficPermission does nothing without Mesh.mtls"),
        (OLD_MESH, "c.yaml:3: metadata.name: a Mesh stands in a.yaml:3"),
        (
            HEAD.replace("v1alpha1", "v1") + "kind: Mesh\n",
            "c.yaml:1: apiVersion: unknown apiVersion 'kuma.io/v1' of Mesh; did you mean kuma.io/v1alpha1?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    """What cannot be translated, or could not do anything, is refused with file, line, field and what is wrong."""
    assert next(line.replace(f"{tmp_path}/", "") for line in said(tmp_path, MESH, IDENTITY, text)) == message


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
        (NEW + ALLOW, "b.yaml:2: kind: a MeshTrafficPermission does nothing without a MeshIdentity"),
        (
            OLD_MESH.replace("type: builtin", "type: builtin, mode: PERMISSIVE"),
            "b.yaml:5: spec.mtls.backends[0].mode: 'PERMISSIVE' is not translated; one of 'STRICT' is",
        ),
    ],
)
def test_a_mistake_in_the_older_form_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    """A permission for a service that is not there, a tag or a mode that is not translated, the other form."""
    assert said(tmp_path, OLD_MESH, text)[0] == message


@pytest.mark.parametrize(
    ("mesh", "text", "message"),
    [
        (
            "kuma",
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: one}\n",
            "a.yaml:1: apiVersion: security.istio.io/v1 is Istio's; the mesh of this configuration is Kuma",
        ),
        (
            "istio",
            MESH,
            "a.yaml:1: apiVersion: kuma.io/v1alpha1 is Kuma's; the mesh of this configuration is Istio",
        ),
    ],
)
def test_a_manifest_of_the_other_mesh_is_refused(mesh: str, text: str, message: str, tmp_path: Path) -> None:
    """Both meshes are named, with file and line."""
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        MESHES[mesh].read_policies([tmp_path], BOOKINFO)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [message]


def test_the_forms_do_not_mix(tmp_path: Path) -> None:
    """A MeshIdentity needs exclusive MeshServices, and makes Mesh.mtls pointless."""
    both = OLD_MESH + "  meshServices: {mode: Exclusive}\n"
    assert said(tmp_path, both, IDENTITY) == [
        "a.yaml:5: spec.mtls: has no effect beside a MeshIdentity; keep one of the two"
    ]
    assert said(tmp_path, MESH.replace("Exclusive", "Disabled"), IDENTITY) == [
        "b.yaml:3: metadata.name: does not become ready without a Mesh whose meshServices.mode is Exclusive"
    ]
    (tmp_path / "b.yaml").unlink()
    assert said(tmp_path, both) == ["a.yaml:5: spec.mtls: is translated with meshServices.mode Disabled only"]
    assert said(tmp_path, OLD_MESH.replace("enabledBackend: ca,", "enabledBackend: cb,")) == [
        "a.yaml:5: spec.mtls.enabledBackend: no backend 'cb'; known: ca"
    ]


def test_two_policies_in_each_others_place_are_refused(tmp_path: Path) -> None:
    """The same permission twice, or two that name a destination equally closely: a cluster would choose by age."""
    doubled = said(tmp_path, MESH, IDENTITY, NEW + ALLOW, NEW + ALLOW)
    assert doubled == ["d.yaml:3: metadata.name: the same MeshTrafficPermission stands in c.yaml:3"]
    for name in "cd":
        (tmp_path / f"{name}.yaml").unlink()
    two = OLD.replace("one", "two") + pair("*", tag("details"))
    assert said(tmp_path, OLD_MESH, two, OLD + pair(tag("productpage"), tag("details")))[-1:] == [
        "c.yaml:7: spec.destinations: names the same destinations as the one in b.yaml:1"
    ]


def test_a_permission_that_nothing_can_show_is_refused(tmp_path: Path) -> None:
    """An allow that another permission's deny always beats, and denies nobody itself, has no proof."""
    deny = NEW.replace("one", "deny") + ALLOW.replace("allow", "deny")
    assert said(tmp_path, MESH, IDENTITY, NEW + ALLOW, deny) == [
        "c.yaml:3: metadata.name: no request of the application could show that this permission works"
    ]
