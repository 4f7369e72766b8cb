"""Policies in the namespaces of an application: in another one than ours, and in one of several."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.application.manifests import Source
from bench.application.model import Application
from bench.files.yaml_source import read_documents
from bench.meshes import MESHES
from bench.meshes.istio.policy_model import IstioPolicies
from bench.meshes.istio.routing import destination_rule_of
from bench.meshes.kuma.policies import Policies as KumaPolicies
from bench.meshes.resolved import ResolvedScenario, resolve_file
from tests.sidecars import application_with

SCENARIO = """\
name: docs-namespace-default
title: Policies as the tutorials have them
application: {name: bookinfo, namespaces: [default]}
load: {users: 5, warmup: 5s, duration: 20s}
repeats: 1
reference: baseline
configurations:
  - {name: baseline, mesh: none}
  - {name: with-policy, mesh: istio, manifests: [policies]}
"""
POLICIES = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-nothing, namespace: default}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: productpage-viewer, namespace: default}
spec: {selector: {matchLabels: {app: productpage}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details-viewer, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]
      to: [{operation: {methods: [GET]}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: every, namespace: default}
spec: {host: "*.default.svc.cluster.local", trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
"""
PEER = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: one, namespace: NAMESPACE}
spec: {mtls: {mode: STRICT}}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: one, namespace: NAMESPACE}
spec: {host: HOST, trafficPolicy: {}}
"""
PERMISSION = """\
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: one, namespace: NAMESPACE}
spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: "spiffe://default.default.mesh.local"}}]}}]}
"""


@pytest.fixture
def tutorial(tmp_path: Path) -> ResolvedScenario:
    """Bookinfo in the namespace of the tutorials."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.yaml").write_text(POLICIES, "utf-8")
    (tmp_path / "own.yaml").write_text(SCENARIO, "utf-8")
    return resolve_file(tmp_path / "own.yaml")


def test_policies_of_the_applications_namespace_are_translated(tutorial: ResolvedScenario) -> None:
    """Identities and hosts are those of that namespace, and every rule is proven."""
    own = tutorial.configuration("with-policy")
    assert tutorial.list_local_obstacles() == ()
    assert own.ids["productpage"] == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
    statuses = {(probe.policy, probe.status) for probe in own.probes}
    assert statuses >= {("allow-nothing", 403), ("details-viewer", 200), ("details-viewer", 403)}


def test_policies_move_from_the_applications_namespace(tutorial: ResolvedScenario) -> None:
    """A run has a namespace of its own, and a rule for all hosts of the written one is for all of the run's."""
    (names,) = [
        one for name, one in tutorial.name_configurations("7f3a", existing_mesh=False).items() if name == "with-policy"
    ]
    own = tutorial.configuration("with-policy").in_namespaces(names)
    text = str([moved.value for moved in own.moved])
    assert "/ns/default/" not in text
    assert f"*.{names.home}.svc.cluster.local" in text
    assert {moved.value["metadata"]["namespace"] for moved in own.moved} == {names.home}
    services = own.deployed.services
    assert isinstance(own.policies, IstioPolicies)
    assert all(destination_rule_of(own.policies, own.deployed, one) for one in services)


def two_namespaces() -> Application:
    """Bookinfo with ratings in a namespace of its own."""
    known = application_with("v3")
    moved = {one: replace(one, namespace="shop") if one.name == "ratings" else one for one in known.workloads}
    services = tuple(replace(one, workloads=tuple(moved[each] for each in one.workloads)) for one in known.services)
    return replace(known, workloads=tuple(moved.values()), services=services)


def parse(folder: Path, mesh: str, text: str) -> IstioPolicies | KumaPolicies:
    """The policies of a text in the application with two namespaces."""
    (folder / "a.yaml").write_text(text, "utf-8")
    application = two_namespaces()
    kinds = MESHES[mesh].policies.KINDS
    documents = read_documents(folder / "a.yaml")
    sources = [
        Source(kinds[one.value["kind"]].model.model_validate_json(json.dumps(one.value)), one) for one in documents
    ]
    policies = MESHES[mesh].policies.read_policies(sources, application).policies
    assert isinstance(policies, IstioPolicies | KumaPolicies)
    return policies


@pytest.mark.parametrize(
    ("namespace", "strict"), [("shop", {"ratings"}), ("bookinfo", {"productpage", "details", "reviews"})]
)
def test_policy_applies_to_workloads_of_its_namespace(namespace: str, strict: set[str], tmp_path: Path) -> None:
    """In one of several namespaces it is about the workloads there, and in the root namespace about all."""
    application = two_namespaces()
    policies = parse(tmp_path, "istio", PEER.replace("NAMESPACE", namespace))
    assert isinstance(policies, IstioPolicies)
    assert {one.name for one in application.workloads if policies.mode(one) == "STRICT"} == strict
    everywhere = parse(tmp_path, "istio", PEER.replace("NAMESPACE", "istio-system"))
    assert isinstance(everywhere, IstioPolicies)
    assert {everywhere.mode(one) for one in application.workloads} == {"STRICT"}


@pytest.mark.parametrize(
    ("namespace", "host", "found"),
    [
        ("shop", "ratings", {"ratings"}),
        ("bookinfo", "ratings", set[str]()),
        ("bookinfo", "ratings.shop.svc.cluster.local", {"ratings"}),
        ("bookinfo", "*.shop.svc.cluster.local", {"ratings"}),
        ("shop", "details", set[str]()),
    ],
)
def test_short_host_is_of_the_rules_namespace(namespace: str, host: str, found: set[str], tmp_path: Path) -> None:
    """A full name is the same everywhere, a short one is completed with the namespace of its manifest."""
    application = two_namespaces()
    policies = parse(tmp_path, "istio", RULE.replace("NAMESPACE", namespace).replace("HOST", f'"{host}"'))
    assert isinstance(policies, IstioPolicies)
    services = application.services
    assert {one.name for one in services if destination_rule_of(policies, application, one)} == found


def test_permission_protects_workloads_of_its_namespace(tmp_path: Path) -> None:
    """The same in Kuma."""
    application = two_namespaces()
    policies = parse(tmp_path, "kuma", PERMISSION.replace("NAMESPACE", "shop"))
    assert isinstance(policies, KumaPolicies)
    assert {one.name for one in application.workloads if policies.permissions_for(one)} == {"ratings"}
