"""What a manifest may have that meshbench does not translate, and for which target that is a problem."""

from pathlib import Path

import pytest

from bench.errors import InputError
from tests.policies import resolve_policies

AUTHORIZATION = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one}
"""
PERMISSION = """\
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: one}
"""


NEEDS_CLUSTER = {
    "a field that exists": (
        AUTHORIZATION + "spec:\n  targetRefs: [{kind: Service, name: details}]\n",
        ":5: spec.targetRefs: is not translated for this machine",
    ),
    "a field that may exist": (
        AUTHORIZATION + "spec:\n  qqq: {}\n",
        ":5: spec.qqq: unknown key 'qqq'; known: action, rules, selector",
    ),
    "a value": (
        AUTHORIZATION + "spec:\n  action: CUSTOM\n",
        ":5: spec.action: 'CUSTOM' is not supported (supported: ALLOW, DENY, AUDIT)",
    ),
    "a version": (
        AUTHORIZATION.replace("/v1", "/v3"),
        (
            ":1: apiVersion: unknown apiVersion 'security.istio.io/v3' of AuthorizationPolicy;"
            " did you mean security.istio.io/v1?"
        ),
    ),
    "a kind of the mesh": (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: one}\nspec: {hosts: [a.example]}\n",
        ":2: kind: ServiceEntry is not translated for this machine",
    ),
    "a kind of the Gateway API": (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one}\nspec: {}\n",
        ":2: kind: HTTPRoute is not translated for this machine",
    ),
    "a core kind": (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: one}\n---\n" + AUTHORIZATION,
        ":2: kind: Secret is not translated for this machine",
    ),
    "a route to a host outside": (
        (
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: one}\n"
            "spec: {host: a.example, subsets: [{name: v1, labels: {version: v1}}]}\n"
        ),
        ":4: spec.host: there is no service 'a.example'; known: details, productpage, ratings, reviews",
    ),
}


@pytest.mark.parametrize(("text", "problem"), NEEDS_CLUSTER.values(), ids=NEEDS_CLUSTER)
def test_what_is_not_translated_needs_a_cluster(text: str, problem: str, tmp_path: Path) -> None:
    """The scenario is valid; a run on this machine is refused with file, line and reason, one on a cluster is not."""
    resolved = resolve_policies(tmp_path, text)
    message = f"{tmp_path}/policies/a.yaml{problem}; needs a cluster: run with --context NAME"
    assert [str(one) for one in resolved.list_local_obstacles()] == [message]
    with pytest.raises(InputError, match="needs a cluster: run with --context NAME"):
        resolved.require_local()
    assert resolved.list_cluster_obstacles() == ()


def test_untranslated_object_is_applied_as_it_is_written(tmp_path: Path) -> None:
    """In the namespace of the run, with all of its fields."""
    own = resolve_policies(tmp_path, NEEDS_CLUSTER["a value"][0]).configuration("own")
    (moved,) = own.in_namespaces(own.namespaces).moved
    assert moved.value["spec"] == {"action": "CUSTOM"}
    assert [one.document for one in own.untranslated] == [moved.document]


WRONG = {
    "a misspelt field": (
        AUTHORIZATION + "spec:\n  actoin: DENY\n",
        ":5: spec.actoin: unknown key 'actoin'; did you mean action?",
    ),
    "a misspelt field that is not translated": (
        AUTHORIZATION + "spec:\n  rules:\n    - from: [{source: {ipBlock: [10.0.0.0/8]}}]\n",
        ":6: spec.rules[0].from[0].source.ipBlock: unknown key 'ipBlock'; did you mean ipBlocks?",
    ),
    "a misspelt value": (
        AUTHORIZATION + "spec:\n  action: Deny\n",
        ":5: spec.action: 'Deny' is not supported (supported: ALLOW, DENY, AUDIT); did you mean DENY?",
    ),
    "a misspelt kind": (
        AUTHORIZATION.replace("Authorization", "Authorisation"),
        ":2: kind: unknown kind 'AuthorisationPolicy'; did you mean AuthorizationPolicy?",
    ),
    "a list in place of a mapping": (
        AUTHORIZATION + "spec:\n  selector: [app]\n",
        ":5: spec.selector: must be a mapping of keys to values, not a list",
    ),
    "no object": (
        "type: MeshTrafficPermission\n",
        ":1: is not a Kubernetes object; kind, apiVersion and metadata are required",
    ),
    "an object without a name": (
        "apiVersion: v1\nkind: Secret\nmetadata: {}\n",
        ":3: metadata.name: is missing; every object needs a name",
    ),
    "a kind of another mesh": (
        PERMISSION,
        ":1: apiVersion: kuma.io/v1alpha1 is not of this configuration's mesh, whose kinds are of istio.io",
    ),
    "another namespace": (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: one, namespace: istio-system}\n",
        ":3: metadata.namespace: no workload runs in 'istio-system'; known: bookinfo",
    ),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_for_every_target(text: str, problem: str, tmp_path: Path) -> None:
    """A near miss of a known name is never applied, and neither is what is no object."""
    with pytest.raises(InputError) as raised:
        resolve_policies(tmp_path, text + "---\n" + AUTHORIZATION.replace("one", "two"))
    assert str(raised.value) == f"{tmp_path}/policies/a.yaml{problem}"


def test_value_that_resembles_a_known_one_may_exist(tmp_path: Path) -> None:
    """HTTPS is no misspelt HTTP."""
    gateway = (
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: one}\nspec:\n  selector: {app: other}\n"
    )
    servers = "  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*']}]\n"
    (found,) = resolve_policies(tmp_path, gateway + servers).list_local_obstacles()
    assert "'HTTPS' is not supported (supported: HTTP)" in str(found)


def test_policies_without_effect_are_one_warning(tmp_path: Path) -> None:
    """An identity, a selector: the run goes on, on both targets, and its remarks have one line with the number."""
    rule = "spec: {selector: {matchLabels: {app: APP}}, rules: [{from: [{source: {principals: [a/ns/b/sa/c]}}]}]}\n"
    text = "---\n".join(
        AUTHORIZATION.replace("one", name) + rule.replace("APP", name) for name in ("details", "absent", "gone")
    )
    resolved = resolve_policies(tmp_path, text)
    assert resolved.list_local_obstacles() == ()
    (issue,) = resolved.remarks
    assert (issue.code, issue.severity) == ("no-effect", "warning")
    assert issue.detail.startswith(f"{tmp_path}/policies/a.yaml:9: spec.selector.matchLabels: selects no workload")
    assert issue.detail.endswith(", and 4 more like it")


@pytest.mark.parametrize("kind", ["MeshFaultInjection", "MeshCircuitBreaker", "MeshRateLimit"])
def test_kuma_kinds_need_a_cluster(kind: str, tmp_path: Path) -> None:
    """Also in Kuma's own namespace, where most policies are."""
    text = f"apiVersion: kuma.io/v1alpha1\nkind: {kind}\nmetadata: {{name: one, namespace: kuma-system}}\nspec: {{}}\n"
    (found,) = resolve_policies(tmp_path, text, "kuma").list_local_obstacles()
    assert str(found).startswith(f"{tmp_path}/policies/a.yaml:2: kind: {kind} is not translated for this machine")
