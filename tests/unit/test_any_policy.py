"""Policies that meshbench does not understand, on a cluster: moved or refused, applied, and not probed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.envoy.admin import decisions
from bench.errors import InputError
from bench.files.yaml_source import parse_documents
from bench.k8s.connection import KindInfo
from bench.meshes.istio.control_plane import decision_annotations, pod_annotations
from bench.meshes.rewriting import Namespaces
from bench.system.redaction import redact
from bench.targets.cluster.preflight.permissions import OBJECTS, needs_of, needs_of_objects
from bench.targets.cluster.refusals import format_refused_field
from bench.targets.cluster.side_by_side import settle_obstacles
from bench.verification.checks import mesh_checks, page_check
from bench.verification.evidence import applied_evidence, entered_evidence
from bench.verification.questions import Answer
from tests.moving import Object, move_documents, move_objects
from tests.policies import resolve_policies

CUSTOM = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ext-authz}
spec: {action: CUSTOM, provider: {name: sample}, rules: [{to: [{operation: {paths: [/productpage]}}]}]}
"""
FILTER = """\
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: one, namespace: istio-system}
spec: {configPatches: []}
"""
LOGS = """\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: istio-system}
spec: {hosts: [a.example]}
"""


def place(value: Any, *path: str | int) -> Any:
    for step in path:
        value = value[step]
    return value


def istio(kind: str, spec: str, group: str = "networking.istio.io/v1") -> Object:
    written: Object = yaml.safe_load(
        f"{{apiVersion: {group}, kind: {kind}, metadata: {{name: one}}, spec: {spec}}}",
    )
    return written


MOVED = {
    "mirror": (
        istio("VirtualService", "{http: [{mirror: {host: ratings.bookinfo.svc.cluster.local}}]}"),
        ("spec", "http", 0, "mirror", "host"),
        "ratings.run-1.svc.cluster.local",
    ),
    "cluster of an EnvoyFilter": (
        istio(
            "EnvoyFilter", "{configPatches: [{match: {cluster: {name: outbound|80||a.bookinfo.svc.cluster.local}}}]}"
        ),
        ("spec", "configPatches", 0, "match", "cluster", "name"),
        "outbound|80||a.run-1.svc.cluster.local",
    ),
    "egress of a Sidecar": (
        istio("Sidecar", "{egress: [{hosts: [bookinfo/*]}]}"),
        ("spec", "egress", 0, "hosts", 0),
        "run-1/*",
    ),
    "keys of a token's issuer": (
        istio("RequestAuthentication", "{jwtRules: [{jwksUri: 'http://keys.bookinfo.svc.cluster.local:80/jwks'}]}"),
        ("spec", "jwtRules", 0, "jwksUri"),
        "http://keys.run-1.svc.cluster.local:80/jwks",
    ),
    "condition on a namespace": (
        istio("AuthorizationPolicy", "{rules: [{when: [{key: source.namespace, values: [bookinfo]}]}]}"),
        ("spec", "rules", 0, "when", 0, "values", 0),
        "run-1",
    ),
    "condition on a header of the same text": (
        istio("AuthorizationPolicy", "{rules: [{when: [{key: 'request.headers[a]', values: [bookinfo]}]}]}"),
        ("spec", "rules", 0, "when", 0, "values", 0),
        "bookinfo",
    ),
    "backend of a route of the Gateway API": (
        istio(
            "HTTPRoute",
            "{parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a, namespace: bookinfo}]}]}",
            "gateway.networking.k8s.io/v1",
        ),
        ("spec", "rules", 0, "backendRefs", 0, "namespace"),
        "run-1",
    ),
    "subject of a RoleBinding": (
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "one"},
            "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "bookinfo"}],
        },
        ("subjects", 0, "namespace"),
        "run-1",
    ),
}


@pytest.mark.parametrize(("written", "path", "runs"), MOVED.values(), ids=MOVED)
def test_istio_objects_have_the_names_of_the_run(written: Object, path: tuple[str | int, ...], runs: str) -> None:
    """Where a namespace, a host or an identity stands, and nowhere else."""
    (moved,) = move_objects("istio", [written], "run-1")
    assert place(moved, *path) == runs
    assert moved["metadata"]["namespace"] == "run-1"


def kuma(kind: str, **parts: Any) -> Object:
    return {"apiVersion": "kuma.io/v1alpha1", "kind": kind, "metadata": {"name": "one"}, **parts}


def test_kuma_objects_have_the_names_of_the_run() -> None:
    """Tags and references of kinds that are not translated, and the older kinds' own."""
    tag = {"kuma.io/service": "web_bookinfo_svc_80"}
    limit = kuma("MeshRateLimit", spec={"targetRef": {"kind": "MeshSubset", "tags": tag}})
    (moved,) = move_objects("kuma", [limit], "run-1")
    assert moved["spec"]["targetRef"]["tags"] == {"kuma.io/service": "web_run-1_svc_80"}
    old = kuma("FaultInjection", mesh="default", spec={"sources": [{"match": tag}], "destinations": [{"match": tag}]})
    (moved,) = move_objects("kuma", [old], "run-1", "run-mesh")
    assert (moved["mesh"], moved["metadata"]) == ("run-mesh", {"name": "one-run-mesh"})
    assert moved["spec"]["sources"][0]["match"] == {"kuma.io/service": "web_run-1_svc_80"}


def test_policy_of_the_root_namespace_is_in_every_namespace_of_a_run_without_a_mesh_of_its_own() -> None:
    """It then has the same effect on the application, and none on others; each copy is listed as a rewrite."""
    names = Namespaces({"bookinfo": "run-1", "shop": "run-1-shop"}, "run-mesh")
    found = move_documents("istio", [yaml.safe_load(FILTER)], names)
    assert [one.value["metadata"]["namespace"] for one in found] == ["run-1", "run-1-shop"]
    assert {(one.written, one.runs) for each in found for one in each.rewrites} == {
        ("istio-system", "run-1"),
        ("istio-system", "run-1-shop"),
    }
    (own,) = move_documents("istio", [yaml.safe_load(FILTER)], Namespaces({"bookinfo": "run-1"}))
    assert own.value["metadata"]["namespace"] == "istio-system"


def test_object_that_would_mean_something_else_is_refused_in_an_existing_mesh(tmp_path: Path) -> None:
    """A short name of a route or an entry is that of its own namespace; a run that installs the mesh may have it."""
    resolved = resolve_policies(tmp_path, RULE)
    assert resolved.list_cluster_obstacles() == ()
    (problem,) = resolved.list_cluster_obstacles(existing_mesh=True)
    assert str(problem).startswith(f"{tmp_path}/policies/a.yaml:3: metadata.namespace: in an existing mesh nothing is")


ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec: {hosts: [api.example.com], EXTRA, tls: [{match: [{sniHosts: [api.example.com]}], route: []}]}
"""
PARENT = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec: {parentRefs: [{name: shared, namespace: infra}]}
"""


@pytest.mark.parametrize("existing_mesh", [True, False])
@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (ROUTE.replace("EXTRA", "gateways: [production/public]"), "4: spec.gateways[0]", "production/public"),
        (ROUTE.replace("EXTRA", "exportTo: [., production]"), "4: spec.exportTo[1]", "production"),
        (PARENT, "4: spec.parentRefs[0].namespace", "infra"),
    ],
)
def test_object_that_names_a_gateway_or_namespace_of_others_is_refused(
    text: str, where: str, what: str, existing_mesh: bool, tmp_path: Path
) -> None:
    """Their gateway would get the run's routes, and their callers would follow them."""
    (problem,) = resolve_policies(tmp_path, text).list_cluster_obstacles(existing_mesh=existing_mesh)
    assert str(problem).startswith(f"{tmp_path}/policies/a.yaml:{where}: {what} is not the run's")


@pytest.mark.parametrize("extra", ["gateways: [mesh, own, bookinfo/own, ./own]", "exportTo: ['*', ., bookinfo]"])
def test_object_that_names_gateways_and_namespaces_of_the_run_is_accepted(extra: str, tmp_path: Path) -> None:
    """With or without the namespace in which the manifests have them."""
    assert resolve_policies(tmp_path, ROUTE.replace("EXTRA", extra)).list_cluster_obstacles(existing_mesh=True) == ()


@pytest.mark.parametrize(
    ("kind", "written", "runs"),
    [
        ("VirtualService", None, ["run-1", "run-1-shop"]),
        ("DestinationRule", ["*"], ["run-1", "run-1-shop"]),
        ("ServiceEntry", [".", "*"], ["run-1", "run-1-shop"]),
        ("ServiceEntry", ["."], ["."]),
        ("VirtualService", ["bookinfo"], ["run-1"]),
    ],
)
def test_sidecars_of_others_do_not_see_what_a_run_exports(
    kind: str, written: list[str] | None, runs: list[str]
) -> None:
    """In a mesh that is not the run's alone, a host such as api.example.com would go to the run for all."""
    spec = {"hosts": ["api.example.com"], **({"exportTo": written} if written else {})}
    thing = {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "api"}, "spec": spec}
    names = Namespaces({"bookinfo": "run-1", "shop": "run-1-shop"}, "run-mesh")
    (own,) = move_documents("istio", [thing], names)
    assert own.value["spec"]["exportTo"] == runs
    assert [(one.path, one.runs) for one in own.rewrites if "exportTo" in one.path] or runs == ["."]
    (alone,) = move_documents("istio", [thing], replace(names, run_mesh=""))
    assert alone.value["spec"].get("exportTo", ["*"]) != ["run-1", "run-1-shop"]


def test_object_of_the_root_namespace_makes_the_run_sequential(tmp_path: Path) -> None:
    """Side by side, two configurations would both have it."""
    resolved = resolve_policies(tmp_path, RULE)
    assert resolved.scenario.is_paired
    settled = settle_obstacles(resolved)
    assert settled.scenario.design == "sequential"
    assert f"{tmp_path}/policies/a.yaml:3" in settled.remarks[-1].detail


def test_object_of_the_whole_cluster_is_refused_by_every_target(tmp_path: Path) -> None:
    """A run creates objects in its own namespaces only."""
    resolved = resolve_policies(tmp_path, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n" + CUSTOM)
    (problem,) = resolved.list_cluster_obstacles()
    assert (problem.line, problem.path) == (2, "kind")
    assert problem.message.startswith("a Namespace is of the whole cluster")
    assert resolved.list_local_obstacles()


def test_page_is_not_judged_where_a_policy_is_not_understood(tmp_path: Path) -> None:
    """A provider that does not exist denies all: the response is noted, and no other check needs an allowed request."""
    own = resolve_policies(tmp_path, CUSTOM).configuration("own")
    assert own.unproven == {"requests"}
    page = page_check(own).judge(Answer(403, b"RBAC: access denied", {}))
    assert (page.ok, page.expected, page.seen) == (True, "any response", "403 RBAC: access denied")
    assert not page_check(own).judge(Answer(0, b"", {}, refused="connection refused")).ok
    checks = [*mesh_checks(own, {}, ())]
    assert checks
    assert all(check.question.tls for check in checks)


def test_proofs_are_derived_where_an_object_cannot_change_the_answers(tmp_path: Path) -> None:
    """Telemetry leaves the policies beside it alone."""
    deny = CUSTOM.replace("ext-authz", "deny").replace("action: CUSTOM, provider: {name: sample}", "action: DENY")
    own = resolve_policies(tmp_path, LOGS + "---\n" + deny.replace("/productpage", "/reviews/0")).configuration("own")
    assert [one.document.value["kind"] for one in own.untranslated] == ["Telemetry"]
    assert own.unproven == frozenset()
    assert own.probes


def test_says_once_what_is_not_probed(tmp_path: Path) -> None:
    """In the remarks of the run, which the plan and the report have."""
    (remark,) = resolve_policies(tmp_path, CUSTOM + "---\n" + LOGS).remarks
    assert (remark.code, remark.severity) == ("unprobed", "warning")
    applied = "AuthorizationPolicy ext-authz: applied, accepted by the control plane, not probed, and 1 more like it"
    note = "sidecars of all configurations count decisions"
    assert remark.detail == f"{tmp_path}/policies/a.yaml:1: {applied}; {note}"


@pytest.mark.parametrize(("counted", "ok"), [(100, True), (95, True), (94, False)])
def test_first_proxy_counts_the_load(counted: int, ok: bool, tmp_path: Path) -> None:
    """It may have answered itself what failed, and nothing else."""
    own = resolve_policies(tmp_path, CUSTOM).configuration("own")
    evidence = entered_evidence(own.deployed.hops[0], counted, sent=100, errors=5)
    assert (evidence.ok, evidence.expected) == (ok, "at least 95 requests")


@pytest.mark.parametrize(
    ("message", "line", "path"),
    [
        ('unknown field "spec.qqq"', 4, "spec"),
        (".spec.rules[0].to: field not declared in schema", 4, "spec.rules[0].to"),
        ('admission webhook "validation.istio.io" denied the request: bad spec', 1, ""),
    ],
)
def test_refusal_of_the_api_server_has_file_and_line(message: str, line: int, path: str) -> None:
    """That of the field which the message names, else that of the object."""
    (document,) = parse_documents(CUSTOM, file="a.yaml")
    where = f"a.yaml:{line}: {path}: " if path.count(".") else f"a.yaml:{line}: "
    assert format_refused_field(document, message).startswith(where)
    assert format_refused_field(document, message).endswith(message)


def test_permissions_follow_from_the_kinds_of_the_manifests() -> None:
    """A kind that no run needs otherwise is asked for, with the plural that the server has, or would have."""
    objects = [yaml.safe_load(text) for text in (CUSTOM, FILTER, LOGS)]
    served = [KindInfo("telemetry.istio.io/v1", "Telemetry", "telemetries", namespaced=True, verbs=frozenset())]
    found = needs_of_objects(objects, served, needs_of(("istio",), install=False))
    assert [(one.group, one.resource, one.purpose) for one in found] == [
        ("networking.istio.io", "envoyfilters", OBJECTS),
        ("telemetry.istio.io", "telemetries", OBJECTS),
    ]


AUTHORIZER = """\
apiVersion: v1
kind: Service
metadata: {name: authz}
spec: {ports: [{port: 8000}], selector: {app: authz}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: authz}
spec:
  selector: {matchLabels: {app: authz}}
  template: {metadata: {labels: {app: authz}}, spec: {containers: [{name: authz, image: authz}]}}
---
"""


def test_server_beside_the_policies_is_applied(tmp_path: Path) -> None:
    """A Service without a gateway is of something else, such as a server that decides about requests."""
    resolved = resolve_policies(tmp_path, AUTHORIZER + CUSTOM)
    own = resolved.configuration("own")
    assert [one.document.value["kind"] for one in own.untranslated] == ["Deployment", "AuthorizationPolicy", "Service"]
    assert len(own.in_namespaces(own.namespaces).moved) == 3
    assert any("no gateway has this Service; needs a cluster" in str(one) for one in resolved.list_local_obstacles())


UNIVERSAL = """\
type: MeshRateLimit
mesh: default
name: limit
spec:
  targetRef: {kind: Mesh}
  from: [{targetRef: {kind: Mesh}, default: {local: {http: {requestRate: {num: 5, interval: 10s}}}}}]
---
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends: [{name: ca-1, type: builtin}]
"""


def test_universal_form_is_read_as_the_object_of_kubernetes(tmp_path: Path) -> None:
    """In Kuma's own namespace, of its mesh; problems have the lines of the file."""
    own = resolve_policies(tmp_path, UNIVERSAL, "kuma").configuration("own")
    moved = {one.value["kind"]: one.value for one in own.in_namespaces(own.namespaces).moved}
    assert moved["Mesh"]["spec"]["mtls"]["enabledBackend"] == "ca-1"
    assert moved["MeshRateLimit"]["metadata"] == {
        "name": "limit",
        "namespace": "kuma-system",
        "labels": {"kuma.io/mesh": "default"},
    }
    (limit,) = own.untranslated
    assert limit.document.line_of(("spec", "from", 0)) == 6
    assert limit.problems[0].line == 1


def test_reports_wrong_field_of_the_universal_form_with_its_line(tmp_path: Path) -> None:
    """A misspelt key of a Mesh, which has no spec there."""
    with pytest.raises(InputError) as raised:
        resolve_policies(tmp_path, UNIVERSAL.replace("mtls:", "mtsl:"), "kuma")
    assert str(raised.value).startswith(
        f"{tmp_path}/policies/a.yaml:10: spec.mtsl: unknown key 'mtsl'; did you mean mtls?"
    )


def test_decisions_of_filters_are_added_up() -> None:
    """By filter and decision, whatever listener they are of; counters of single rules are left out."""
    names = {
        "http.inbound_0.0.0.0_9080;.rbac.allowed": 3,
        "http.inbound_0.0.0.0_9090;.rbac.allowed": 4,
        "http.outbound.jwt_authn.denied": 2,
        "http.inbound.rbac.policy.one.allowed": 9,
        "cluster.rbac.upstream_rq_total": 1,
    }
    stats = {"stats": [{"name": name, "value": value} for name, value in names.items()]}
    assert decisions(stats) == {"rbac.allowed": 7, "jwt_authn.denied": 2}
    seen = applied_evidence("AuthorizationPolicy one", "applied", decisions(stats)).seen
    assert seen == "applied; the proxies counted jwt_authn.denied 2, rbac.allowed 7"


@pytest.mark.parametrize(("text", "counts"), [(CUSTOM, True), ("", False)])
def test_all_sidecars_count_decisions_or_none(text: str, counts: bool, tmp_path: Path) -> None:
    """Only for an object that nothing proves: the counters cost CPU."""
    understood = CUSTOM.replace("CUSTOM, provider: {name: sample}", "DENY")
    resolved = resolve_policies(tmp_path, text or understood)
    assert resolved.counts_decisions is counts
    annotations = {**pod_annotations(), **(decision_annotations() if counts else {})}
    assert ("jwt_authn" in annotations["sidecar.istio.io/statsInclusionRegexps"]) is counts


def test_no_log_shows_the_value_of_a_secret_beside_policies(tmp_path: Path) -> None:
    """A configuration's own Secrets are as secret as the application's."""
    value = "k3y-that-only-Th1s-test-has"
    resolve_policies(
        tmp_path, f"{LOGS}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: k}}\nstringData: {{k: {value}}}\n"
    )
    assert value not in redact(f"the proxy printed {value} at its start")
