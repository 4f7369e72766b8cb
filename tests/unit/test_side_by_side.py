"""Whether the configurations of a scenario can be deployed side by side on a cluster, and what happens where not."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.errors import InputError
from bench.files.yaml_source import Document, parse_documents
from bench.meshes.protocols import Mesh
from bench.meshes.resolved import ResolvedScenario, resolve_scenario
from bench.meshes.rewriting import Moved, Namespaces
from bench.results.issues import IssueCode
from bench.scenario.overrides import Overrides
from bench.targets.cluster.side_by_side import list_obstacles, settle_obstacles

POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  template:
    spec:
      FIELD
      containers:
        - name: api
          ports: [{containerPort: 80, PORT}]
"""
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {ports: [{port: 80, nodePort: 30080}]}}"
ROLE = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\n"
POLICY = "{{apiVersion: toy.example/v1, kind: Toy, metadata: {{name: all, namespace: toy-system}}, spec: {{mode: {}}}}}"


def side_by_side(name: str = "istio-policies", **changes: Any) -> ResolvedScenario:
    """A shipped scenario as a duet; `changes` are of its scenario."""
    resolved = resolve_scenario(name, Overrides())
    scenario = resolved.scenario.model_copy(update={"design": "duet", **changes})
    return replace(resolved, scenario=scenario, remarks=())


def read(text: str) -> tuple[Document, ...]:
    return parse_documents(text, file="made.yaml")


def in_application(text: str) -> ResolvedScenario:
    resolved = side_by_side()
    return replace(resolved, objects=(*resolved.objects, *read(text)))


def keep_in_place(documents: Sequence[Document], _names: Namespaces) -> tuple[Moved, ...]:
    """Move nothing: the policies of a mesh without a form for one namespace."""
    return tuple(Moved(one, one.value) for one in documents)


def in_mesh(**policies: str) -> ResolvedScenario:
    """The configurations `istio` and `istio-policies` in a mesh whose policies stay in its root namespace."""
    resolved = side_by_side()
    mesh = cast("Mesh", SimpleNamespace(policies=SimpleNamespace(mesh_objects=keep_in_place)))
    configurations = tuple(
        replace(one, mesh=mesh, objects=read(policies[one.name.replace("-", "_")])) if one.mesh else one
        for one in resolved.configurations
    )
    return replace(resolved, configurations=configurations)


@pytest.mark.parametrize("name", ["istio-policies", "kuma-policies", "gateway", "istio-vs-kuma-equalised"])
def test_shipped_scenarios_have_no_obstacle(name: str) -> None:
    """Their policies for the whole mesh have a form for one namespace, or for a Mesh of their own."""
    assert list_obstacles(side_by_side(name)) == ()


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (
            in_application(POD.replace("FIELD", "").replace("PORT", "hostPort: 8080")),
            "made.yaml:10: Deployment api, spec.template.spec.containers[0].ports[0].hostPort: one pod of a node",
        ),
        (
            in_application(POD.replace("FIELD", "hostNetwork: true").replace("PORT", "name: http")),
            "made.yaml:7: Deployment api, spec.template.spec.hostNetwork: pods in the network of their node",
        ),
        (in_application(SERVICE), "made.yaml:1: Service api, spec.ports[0].nodePort: one Service of a cluster"),
        (in_application(ROLE), "made.yaml:2: ClusterRole reader, kind: the object is of the whole cluster"),
        (
            in_mesh(istio=POLICY.format("A"), istio_policies=POLICY.format("A")),
            "made.yaml:1: Toy all, metadata.name: applies to the whole mesh, and has no form for one namespace",
        ),
        (
            in_mesh(istio=POLICY.format("A"), istio_policies=POLICY.format("B")),
            "made.yaml:1: Toy all, metadata.name: is a setting of the whole mesh, and differs between configurations",
        ),
    ],
    ids=["hostPort", "hostNetwork", "nodePort", "cluster-scoped", "mesh-wide", "differing"],
)
def test_obstacle_is_named_with_its_place(resolved: ResolvedScenario, expected: str) -> None:
    """Each row of the table, once, with file and line where there is one."""
    (found,) = list_obstacles(resolved)
    assert found.startswith(expected)


def test_numberless_node_port_is_no_obstacle() -> None:
    """The API server chooses a free one for each Service."""
    assert list_obstacles(in_application(SERVICE.replace(", nodePort: 30080", ""))) == ()


def test_default_design_falls_back_to_sequential() -> None:
    """Where no duet was asked for, the run is measured as it can be, with a remark."""
    settled = settle_obstacles(in_application(SERVICE))
    assert settled.scenario.design == "sequential"
    (remark,) = settled.remarks
    assert remark.code is IssueCode.DESIGN
    assert "made.yaml:1: Service api" in remark.detail


def test_fallback_has_the_times_of_a_sequential_run() -> None:
    """Eight quick blocks of a duet would be many trials, one after another."""
    resolved = resolve_scenario("istio-policies", Overrides(quick=True))
    assert (resolved.scenario.design, resolved.scenario.repeats) == ("duet", 8)
    alone = resolved.with_design("sequential", "there is no room")
    assert (alone.scenario.design, alone.scenario.repeats) == ("sequential", 3)
    assert {one.load.users for one in alone.configurations} == {resolved.scenario.load.users}
    assert "sequential in place of duet: there is no room" in alone.remarks[-1].detail


def test_design_that_was_asked_for_is_refused() -> None:
    """Before anything starts, with all obstacles."""
    asked = replace(in_application(f"{SERVICE}\n---\n{ROLE}"), design_asked=True)
    with pytest.raises(InputError, match=r"Service api.*\n.*ClusterRole reader") as raised:
        settle_obstacles(asked)
    assert "hint: use `design: sequential`" in str(raised.value)


def test_sequential_run_has_no_obstacle() -> None:
    """One configuration at a time has its port for itself."""
    resolved = replace(in_application(SERVICE), design_asked=True)
    sequential = replace(resolved, scenario=resolved.scenario.model_copy(update={"design": "sequential"}))
    assert settle_obstacles(sequential) is sequential


def test_design_of_a_file_or_option_is_asked_for() -> None:
    """A default is not."""
    assert not resolve_scenario("istio-policies", Overrides()).design_asked
    assert resolve_scenario("istio-policies", Overrides(sets=("design=duet",))).design_asked
