"""Kuma's policies as its own guides write them: read, evaluated and translated as kuma-cp 2.14 does.

What kuma-cp makes of them is read from kumahq/kuma: `pkg/plugins/policies/meshtrafficpermission/xds` for `from`,
`pkg/plugins/policies/meshtimeout/plugin/xds` and `meshretry/plugin/xds` for timeouts and retries. The default values
are those of the recorded sidecars.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.meshes.kuma.naming import builtin_ids
from bench.meshes.kuma.policies import decide_request
from bench.meshes.kuma.policy_model import KumaPolicies, mesh_objects, read_policies
from bench.meshes.rewriting import Namespaces
from tests.policies import parse_folders
from tests.sidecars import application_with, bootstrap_of

APPLICATION = application_with("v3")
HEAD = "apiVersion: kuma.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
MTLS = """apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}
"""
RULES = """apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {meshServices: {mode: Exclusive}}
---
apiVersion: kuma.io/v1alpha1
kind: MeshIdentity
metadata: {name: identity, namespace: kuma-system, labels: {kuma.io/mesh: default}}
spec:
  selector: {dataplane: {matchLabels: {}}}
  spiffeID: {trustDomain: "{{ .Mesh }}.mesh.local"}
  provider:
    type: Bundled
    bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}, meshTrustCreation: Enabled}
---
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: allow-all, namespace: kuma-system}
spec:
  targetRef: {kind: Mesh}
  rules: [{default: {allow: [{spiffeID: {type: Prefix, value: "spiffe://default.mesh.local"}}]}}]
"""
PRODUCTPAGE, REVIEWS = "productpage_bookinfo_svc_9080", "reviews_bookinfo_svc_9080"


def policy(kind: str, spec: str, name: str = "one") -> str:
    body = "".join(f"  {line}\n" for line in spec.splitlines())
    return HEAD.format(kind=kind, name=name) + body


def callers(*entries: str, target: str = "{kind: Mesh}", name: str = "one") -> str:
    """A permission with entries such as `Allow` or `Deny SERVICE`."""
    lines = []
    for entry in entries:
        action, _, service = entry.partition(" ")
        to = f"{{kind: MeshSubset, tags: {{kuma.io/service: {service}}}}}" if service else "{kind: Mesh}"
        lines.append(f"  - {{targetRef: {to}, default: {{action: {action}}}}}")
    return policy("MeshTrafficPermission", "\n".join([f"targetRef: {target}", "from:", *lines]), name)


def read(folder: Path, *texts: str) -> KumaPolicies:
    """The policies of some YAML texts, all of which are translated."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    reading = read_policies(parse_folders("kuma", [folder], APPLICATION), APPLICATION)
    assert reading.untranslated == ()
    assert isinstance(reading.policies, KumaPolicies)
    return reading.policies


def list_obstacles(folder: Path, *texts: str) -> list[str]:
    """Why some texts are not translated, without the folder."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    reading = read_policies(parse_folders("kuma", [folder], APPLICATION), APPLICATION)
    return [str(one).replace(f"{folder}/", "") for each in reading.untranslated for one in each.problems]


def resources_of(policies: KumaPolicies, sidecar: str) -> dict[str, Any]:
    resources: dict[str, Any] = bootstrap_of("kuma", sidecar, APPLICATION, policies)["static_resources"]
    return resources


def route_of(policies: KumaPolicies, sidecar: str, service: str) -> dict[str, Any]:
    """The action of a sidecar's route to a service, or to its own application."""
    for listener in resources_of(policies, sidecar)["listeners"]:
        manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
        action: dict[str, Any] = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        if action["cluster"] == service:
            return {**action, "request_headers_timeout": manager["request_headers_timeout"]}
    raise KeyError(service)


def rbac_of(policies: KumaPolicies, sidecar: str) -> dict[str, Any]:
    """The rules of the filter in front of a workload, which is the only one."""
    chain = resources_of(policies, sidecar)["listeners"][-1]["filter_chains"][0]
    assert [one["name"] for one in chain["filters"]] == ["envoy.filters.network.http_connection_manager"]
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    assert [one["name"] for one in filters] == ["envoy.filters.http.rbac", "envoy.filters.http.router"]
    rules: dict[str, Any] = filters[0]["typed_config"]["rules"]
    return rules


def named(service: str) -> dict[str, Any]:
    return {"authenticated": {"principal_name": {"exact": f"spiffe://default/{service}"}}}


# --- permissions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "principals"),
    [
        (["Allow"], [{"any": True}]),
        (["Deny"], []),
        ([f"Allow {PRODUCTPAGE}"], [named(PRODUCTPAGE)]),
        (["Allow", f"Deny {PRODUCTPAGE}"], [{"not_id": named(PRODUCTPAGE)}]),
        (["Deny", f"Allow {PRODUCTPAGE}"], [named(PRODUCTPAGE)]),
        (
            ["Allow", f"Deny {PRODUCTPAGE}", f"Deny {REVIEWS}"],
            [{"and_ids": {"ids": [{"not_id": named(PRODUCTPAGE)}, {"not_id": named(REVIEWS)}]}}],
        ),
    ],
)
def test_from_becomes_principals(entries: list[str], principals: list[Any], tmp_path: Path) -> None:
    """The last entry that matches a caller counts; no entry means denied. Evaluation and filter agree."""
    policies = read(tmp_path, MTLS, callers(*entries))
    rules = rbac_of(policies, "details")
    permitted = {"permissions": [{"any": True}], "principals": principals}
    assert rules == ({"policies": {"MeshTrafficPermission": permitted}} if principals else {})
    for caller in ("productpage", "reviews", "ratings"):
        tag = f"{caller}_bookinfo_svc_9080"
        matching = [one for one in entries if one.partition(" ")[2] in ("", tag)]
        expected = "allowed" if matching and matching[-1].startswith("Allow") else "denied"
        names = builtin_ids(APPLICATION, APPLICATION.workload(caller).account)
        assert decide_request(policies, APPLICATION.workload("details"), names) == expected


def test_narrower_permission_overrides_wider_one(tmp_path: Path) -> None:
    """One that selects workloads comes after one for the mesh; a denied caller gets 403, not a closed connection."""
    policies = read(
        tmp_path,
        MTLS,
        callers("Allow", name="all"),
        callers("Deny", f"Allow {REVIEWS}", target="{kind: Dataplane, labels: {app: ratings}}", name="ratings"),
    )
    assert rbac_of(policies, "ratings")["policies"]["MeshTrafficPermission"]["principals"] == [named(REVIEWS)]
    statuses = {(probe.policy, probe.status) for probe in policies.probes(APPLICATION) if probe.workload == "ratings"}
    assert ("ratings from 0", 403) in statuses
    assert ("ratings from 1", 200) in statuses


def test_equal_permissions_need_a_cluster(tmp_path: Path) -> None:
    """Which of two permissions of the same width overrides the other is decided by name and age."""
    found = list_obstacles(tmp_path, MTLS, callers("Allow"), callers("Deny", name="two"))
    assert found == ["2.yaml:5: spec.targetRef: selects the same workloads as the one in 1.yaml:1"]


def test_rules_of_a_mesh_protect_every_workload(tmp_path: Path) -> None:
    """`targetRef: Mesh` is every workload, and a MeshIdentity may name its trust domain."""
    policies = read(tmp_path, RULES)
    names = policies.identities(APPLICATION)
    assert names["locust"] == ("spiffe://default.mesh.local/ns/bookinfo/sa/locust",)
    workloads = APPLICATION.workloads
    assert {decide_request(policies, one, names["locust"]) for one in workloads} == {"allowed"}
    listener = resources_of(policies, "details")["listeners"][-1]
    context = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    validator = context["validation_context"]["custom_validator_config"]["typed_config"]
    assert [one["name"] for one in validator["trust_domains"]] == ["default.mesh.local"]


def test_trust_domain_has_the_name_of_the_runs_mesh(tmp_path: Path) -> None:
    """In an existing mesh the run has a Mesh of its own, and permissions name its trust domain."""
    (tmp_path / "a.yaml").write_text(RULES, "utf-8")
    moved = mesh_objects(read_documents(tmp_path / "a.yaml"), Namespaces({"bookinfo": "run-1"}, "run-1"))
    (rule,) = moved[-1].value["spec"]["rules"]
    assert rule["default"]["allow"][0]["spiffeID"]["value"] == "spiffe://run-1.mesh.local"


# --- timeouts and retries ------------------------------------------------------------------------------------


def test_timeouts_override_defaults_field_by_field(tmp_path: Path) -> None:
    """`to` is about the caller's cluster and route; a field that no policy names has Kuma's default."""
    spec = (
        "to:\n  - {targetRef: {kind: Mesh}, default: {connectionTimeout: 2s, http: {requestTimeout: 3s}}}\n"
        f"  - {{targetRef: {{kind: MeshService, name: {REVIEWS}}}, default: {{idleTimeout: 1m, http: {{"
        "streamIdleTimeout: 4s, maxStreamDuration: 5s, maxConnectionDuration: 6s, requestHeadersTimeout: 7s}}}\n"
    )
    policies = read(tmp_path, policy("MeshTimeout", "targetRef: {kind: Mesh}\n" + spec))
    action = route_of(policies, "productpage", REVIEWS)
    timeouts = [action[name] for name in ("timeout", "idle_timeout", "request_headers_timeout")]
    assert timeouts == ["3s", "4s", "7s"]
    clusters = {one["name"]: one for one in resources_of(policies, "productpage")["clusters"]}
    (options,) = clusters[REVIEWS]["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {
        "idle_timeout": "60s",
        "max_stream_duration": "5s",
        "max_connection_duration": "6s",
    }
    assert {one["connect_timeout"] for name, one in clusters.items() if name.endswith("_9080")} == {"2s"}
    other = route_of(policies, "productpage", REVIEWS.replace("reviews", "details"))
    assert (other["timeout"], other["idle_timeout"], other["request_headers_timeout"]) == ("3s", "1800s", "0s")


@pytest.mark.parametrize("form", ["from: [{targetRef: {kind: Mesh}, default: %s}]", "rules: [{default: %s}]"])
def test_timeouts_of_a_workload_are_of_its_own_cluster(form: str, tmp_path: Path) -> None:
    """`from` and `rules` are about what the sidecar passes to its application; only of selected workloads."""
    default = "{connectionTimeout: 1s, idleTimeout: 2s, http: {requestTimeout: 3s, streamIdleTimeout: 4s}}"
    spec = "targetRef: {kind: Dataplane, labels: {app: reviews}}\n" + form % default
    policies = read(tmp_path, policy("MeshTimeout", spec))
    action = route_of(policies, "reviews", "localhost:9080")
    assert (action["timeout"], action["idle_timeout"]) == ("3s", "4s")
    own = next(one for one in resources_of(policies, "reviews")["clusters"] if one["name"] == "localhost:9080")
    assert own["connect_timeout"] == "1s"
    assert route_of(policies, "details", "localhost:9080")["timeout"] == "0s"


def test_retries_override_defaults_field_by_field(tmp_path: Path) -> None:
    """Status codes and methods among the conditions become fields of their own."""
    http = "{numRetries: 3, backOff: {baseInterval: 15ms}, retryOn: ['5xx', '503', HttpMethodGet, RefusedStream]}"
    spec = f"targetRef: {{kind: Mesh}}\nto: [{{targetRef: {{kind: Mesh}}, default: {{http: {http}}}}}]"
    policy_of = route_of(read(tmp_path, policy("MeshRetry", spec)), "productpage", REVIEWS)["retry_policy"]
    assert policy_of == {
        "retry_on": "5xx,refused-stream,retriable-status-codes",
        "num_retries": 3,
        "per_try_timeout": "16s",
        "retry_back_off": {"base_interval": "0.015s", "max_interval": "0.250s"},
        "retriable_status_codes": [503],
        "retriable_request_headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
    }


def test_no_retries_means_no_policy(tmp_path: Path) -> None:
    """`numRetries: 0` takes the retries of Kuma's default policy away, from the selected caller alone."""
    spec = (
        "targetRef: {kind: Dataplane, labels: {app: productpage}}\n"
        "to: [{targetRef: {kind: Mesh}, default: {http: {numRetries: 0}}}]"
    )
    policies = read(tmp_path, policy("MeshRetry", spec))
    assert "retry_policy" not in route_of(policies, "productpage", REVIEWS)
    assert route_of(policies, "locust", REVIEWS)["retry_policy"]["num_retries"] == 5


def test_services_have_the_names_of_the_mesh(tmp_path: Path) -> None:
    """With exclusive MeshServices `to` has the name of a Service; a service tag is a name without it."""
    exclusive = (find_shipped("manifests") / "kuma/mtls").glob("*.yaml")
    spec = "to: [{targetRef: {kind: MeshService, name: reviews}, default: {http: {requestTimeout: 1s}}}]"
    policies = read(tmp_path, *(path.read_text("utf-8") for path in exclusive), policy("MeshTimeout", spec))
    cluster = "default_reviews_bookinfo_default_msvc_9080"
    assert route_of(policies, "productpage", cluster)["timeout"] == "1s"


def test_traffic_policies_move_into_the_runs_namespaces(tmp_path: Path) -> None:
    """Service tags have the run's namespace, in `to` and in `from`."""
    to = f"to: [{{targetRef: {{kind: MeshService, name: {REVIEWS}}}, default: {{http: {{numRetries: 1}}}}}}]"
    (tmp_path / "a.yaml").write_text(policy("MeshRetry", to) + "---\n" + callers(f"Allow {PRODUCTPAGE}"), "utf-8")
    retry, permission = mesh_objects(read_documents(tmp_path / "a.yaml"), Namespaces({"bookinfo": "run-1"}))
    assert retry.value["spec"]["to"][0]["targetRef"]["name"] == "reviews_run-1_svc_9080"
    tags = permission.value["spec"]["from"][0]["targetRef"]["tags"]
    assert tags == {"kuma.io/service": "productpage_run-1_svc_9080"}


# --- what needs a cluster, and what is wrong -----------------------------------------------------------------


def test_policy_beside_the_default_one_needs_a_cluster(tmp_path: Path) -> None:
    """In the system namespace it depends on names and ages whether Kuma's default policy overrides it."""
    spec = "targetRef: {kind: Mesh}\nto: [{targetRef: {kind: Mesh}, default: {http: {numRetries: 1}}}]"
    text = policy("MeshRetry", spec).replace("{name: one}", "{name: one, namespace: kuma-system}")
    message = "kuma-system has a default policy of this kind; hint: use the application's namespace"
    assert list_obstacles(tmp_path, text) == [f"0.yaml:3: metadata.namespace: {message}"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            callers("Allow web_bookinfo_svc_80"),
            (
                "0.yaml:7: spec.from[0].targetRef: there is no service 'web_bookinfo_svc_80';"
                " did you mean reviews_bookinfo_svc_9080?"
            ),
        ),
        (
            policy("MeshRetry", "to: [{targetRef: {kind: MeshService, name: x}, default: {http: {numRetries: 1}}}]"),
            (
                "0.yaml:5: spec.to[0].targetRef.name: there is no service 'x'; known: details_bookinfo_svc_9080,"
                " productpage_bookinfo_svc_9080, ratings_bookinfo_svc_9080, reviews_bookinfo_svc_9080"
            ),
        ),
    ],
)
def test_unknown_service_is_a_warning(text: str, warning: str, tmp_path: Path) -> None:
    """A policy about a service that does not exist has no effect."""
    (tmp_path / "0.yaml").write_text(text, "utf-8")
    (tmp_path / "1.yaml").write_text(MTLS, "utf-8")
    reading = read_policies(parse_folders("kuma", [tmp_path], APPLICATION), APPLICATION)
    assert [str(one).replace(f"{tmp_path}/", "") for one in reading.warnings] == [warning]
