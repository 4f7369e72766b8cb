"""Where the pods of a run may be: read from a scenario, applied to manifests, and compared with the nodes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.conditions import find_condition_differences, find_run_differences
from bench.analysis.night import read_conditions
from bench.cli.plan_text import format_plan
from bench.errors import InputError
from bench.k8s.client import Object
from bench.k8s.scheduling import NodeConstraints, find_exclusion, read_constraints, schedulable_nodes
from bench.meshes.resolved import ResolvedScenario, resolve_scenario
from bench.results.records import ClusterRecord
from bench.scenario.loader import load_scenario
from bench.scenario.model import Scenario
from bench.scenario.overrides import Overrides
from bench.scenario.placement import NO_PLACEMENT, PARTS, Placement
from bench.scenario.plan import make_plan
from bench.targets.cluster.dry_run import DryRun
from bench.targets.cluster.load.placement import UNDECIDED, place_load
from bench.targets.cluster.options import read_options
from bench.targets.cluster.pod_placement import constraints_of, place_mesh, place_pods
from bench.targets.cluster.preflight.capacity import PodRequest, Resources, find_free, subtract_daemons
from bench.targets.cluster.preflight.cluster import examine_nodes
from bench.targets.cluster.preflight.examination import Examination, examine_cluster
from bench.targets.cluster.trial_manifests import TrialManifests, build_trial_manifests
from tests.factory import RunSpec, make_run
from tests.shown_cluster import fake, find_results, node, options

TAINT = {"key": "role", "value": "workload", "effect": "NoSchedule"}
LOAD_TAINT = {"key": "role", "value": "benchmark", "effect": "NoSchedule"}
SCENARIO = """\
name: mine
title: Mine
configurations:
  - {name: baseline, mesh: none}
  - {name: istio, mesh: istio}
reference: baseline
placement:
"""


def read(tmp_path: Path, *lines: str) -> ResolvedScenario:
    """Resolve a scenario with these lines below `placement`."""
    file = tmp_path / "mine.yaml"
    file.write_text(SCENARIO + "".join(f"  {line}\n" for line in lines), "utf-8")
    return resolve_scenario(str(file), Overrides())


def placement(tmp_path: Path, *lines: str) -> Placement:
    return read(tmp_path, *lines).scenario.placement


def labelled(name: str, *, taints: tuple[Object, ...] = (), cpu: str = "8", **labels: str) -> Object:
    """Make a node with these labels."""
    made = node(name, cpu=cpu, memory="64Gi", taints=list(taints))
    return {**made, "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}}


def dedicated_nodes() -> tuple[Object, ...]:
    """Return the node groups of benchmarks of meshes: two for the workload and one for the load, all tainted."""
    workload = (labelled(name, taints=(TAINT,), role="workload") for name in ("a", "b"))
    return (*workload, labelled("c", taints=(LOAD_TAINT,), role="benchmark"))


def test_parts_default_to_the_application(tmp_path: Path) -> None:
    """What a part leaves out is the application's, key by key; an empty value means no limit."""
    found = placement(
        tmp_path,
        "application: {node_selector: {role: workload}, tolerations: [a=b:NoExecute]}",
        "load: {node_selector: {role: benchmark}}",
        "probes: {node_selector: {}}",
    )
    assert found.of("mesh") == found.of("gateway") == found.application
    assert (found.of("load").labels, found.of("load").tolerations) == (
        {"role": "benchmark"},
        found.application.tolerations,
    )
    assert found.of("probes").labels == {}
    assert found.describe() == (
        "application: nodes with role=workload and taints a=b:NoExecute",
        "load: nodes with role=benchmark and taints a=b:NoExecute",
        "probes: taints a=b:NoExecute",
    )


@pytest.mark.parametrize(
    ("written", "manifest"),
    [
        ("role=workload:NoSchedule", {"key": "role", "operator": "Equal", "value": "workload", "effect": "NoSchedule"}),
        ("role=workload", {"key": "role", "operator": "Equal", "value": "workload"}),
        ("dedicated:NoExecute", {"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}),
        ("example.com/gpu", {"key": "example.com/gpu", "operator": "Exists"}),
        ("{operator: Exists}", {"operator": "Exists"}),
        (
            "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 60}",
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
        ),
    ],
)
def test_tolerations_are_written_as_taints_or_as_in_pods(
    tmp_path: Path, written: str, manifest: dict[str, Any]
) -> None:
    """Either form becomes what a pod has."""
    found = placement(tmp_path, f"application: {{tolerations: [{written!r}]}}".replace("'{", "{").replace("}'", "}"))
    assert [one.manifest for one in found.application.tolerated] == [manifest]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "application: {node_selector: {role: true}}",
            "mine.yaml:8: placement.application.node_selector.role: must be",
        ),
        ("application: {node_selector: [role]}", "write KEY=VALUE, not 'role'"),
        ("application: {node_selector: [role=a, role=b]}", "role is given twice"),
        ("application: {node_selector: {'a b': c}}", "'a b' is not the key of a label"),
        ("application: {node_selector: {a: -b}}", "'-b' is not the value of a label"),
        ("application: {tolerations: ['=x']}", "'=x' is not a taint; write KEY=VALUE:EFFECT"),
        ("application: {tolerations: ['a=b:Nosched']}", "effect: 'Nosched' is not supported"),
        ("application: {tolerations: [{operator: Equal}]}", "needs a key"),
        ("application: {tolerations: [{key: a, operator: Exists, value: b}]}", "`operator: Exists` does not compare"),
        ("application: {tolerations: [{key: a, tolerationSeconds: 1}]}", "which need `effect: NoExecute`"),
        ("application: {nodeSelector: {}}", "unknown key 'nodeSelector'; did you mean node_selector?"),
        ("aplication: {}", "unknown key 'aplication'; did you mean application?"),
        ("namespaces: {labels: {kubernetes.io/metadata.name: x}}", "is set by Kubernetes; leave it out"),
        ("namespaces: {annotations: {meshbench.dev/run-id: x}}", "is set by meshbench; leave it out"),
    ],
)
def test_rejects_invalid_placement(tmp_path: Path, line: str, message: str) -> None:
    """Each has a message with file and line, before a cluster is asked."""
    with pytest.raises(InputError) as raised:
        read(tmp_path, line)
    assert message in str(raised.value)
    assert "mine.yaml:8" in str(raised.value)


@pytest.mark.parametrize(
    ("key", "mesh"),
    [
        ("istio-injection", "Istio"),
        ("istio.io/rev", "Istio"),
        ("topology.istio.io/network", "Istio"),
        ("kuma.io/mesh", "Kuma"),
        ("kuma.io/sidecar-injection", "Kuma"),
    ],
)
@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_rejects_namespace_settings_that_a_mesh_reads(tmp_path: Path, kind: str, key: str, mesh: str) -> None:
    """The baseline would get sidecars, or a configuration those of another mesh."""
    with pytest.raises(InputError) as raised:
        read(tmp_path, f"namespaces: {{{kind}: {{{key}: x}}}}")
    assert str(raised.value).endswith(
        f"mine.yaml:8: placement.namespaces.{kind}.{key}: {mesh} reads it, and the mesh of a namespace is that of its "
        "configuration; leave it out"
    )


def test_overrides_have_the_short_forms() -> None:
    """A shipped scenario is placed by `--set` alone, also with labels that have a domain."""
    sets = (
        "placement.application.node_selector=[example.com/role=workload]",
        "placement.application.tolerations=[role=workload:NoSchedule]",
        "placement.load.node_selector=role=benchmark",
    )
    found = load_scenario("istio-policies", Overrides(sets=sets)).placement
    assert found.application.labels == {"example.com/role": "workload"}
    assert found.of("load").labels == {"role": "benchmark"}


def test_stored_scenario_has_the_same_placement(tmp_path: Path) -> None:
    """A resumed run reads it from its record."""
    scenario = read(
        tmp_path,
        "application: {node_selector: {role: workload}, tolerations: ['a:NoExecute']}",
        "namespaces: {labels: {team: a}}",
    ).scenario
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


def test_load_node_option_replaces_the_loads_selector(tmp_path: Path) -> None:
    """The application keeps its nodes, and a taint of the label's name is tolerated."""
    scenario = read(tmp_path, "application: {node_selector: {role: workload}}").scenario
    chosen = read_options({"context": "lab", "load_selector": "role=benchmark"}, scenario)
    assert chosen.placement.of("load").labels == {"role": "benchmark"}
    assert chosen.placement.of("application").labels == {"role": "workload"}
    assert not find_exclusion(dedicated_nodes()[2], constraints_of(chosen.placement.of("load")))
    for text in ("benchmark", "a b=c", "=x"):
        with pytest.raises(InputError, match=r"--load-node .*: write LABEL=VALUE"):
            read_options({"context": "lab", "load_selector": text}, scenario)


def manifests(resolved: ResolvedScenario, name: str) -> TrialManifests:
    names = resolved.name_configurations(existing_mesh=False)[name]
    chosen = options(placement=resolved.scenario.placement)
    return build_trial_manifests(resolved, name, options=chosen, names=names, load_place=UNDECIDED)


def pods_by_name(made: TrialManifests) -> dict[str, Object]:
    """Return the spec of each pod of a trial, by the name of its object."""
    things = (thing for part in made.pods(None).values() for thing in part if thing["kind"] in ("Deployment", "Pod"))
    return {
        thing["metadata"]["name"]: thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
        for thing in things
    }


def test_every_pod_of_a_trial_is_placed(tmp_path: Path) -> None:
    """Load and application by their own keys, probes as the application."""
    resolved = read(
        tmp_path, "application: {node_selector: {role: workload}}", "load: {node_selector: {role: benchmark}}"
    )
    selectors = {name: spec["nodeSelector"] for name, spec in pods_by_name(manifests(resolved, "istio")).items()}
    assert selectors.pop("locust") == {"role": "benchmark"}
    assert {"details-v1", "probe-outside"} <= selectors.keys()
    assert all(one == {"role": "workload"} for one in selectors.values())


def test_both_namespaces_have_the_labels(tmp_path: Path) -> None:
    """Pod Security and quotas apply to the namespace outside the mesh, too; the mesh's own label stays."""
    resolved = read(tmp_path, "namespaces: {labels: {team: a}, annotations: {cost: '7'}}")
    inside, outside = (one["metadata"] for one in manifests(resolved, "istio").namespaces())
    assert inside["labels"] == {"team": "a", "istio-injection": "enabled"}
    assert outside["labels"] == {"team": "a"}
    assert inside["annotations"] == outside["annotations"] == {"cost": "7"}


def test_pods_keep_their_own_constraints(tmp_path: Path) -> None:
    """Selectors are merged, tolerations added, and a node has to meet the affinity of both."""
    found = placement(tmp_path, "application: {node_selector: {role: workload}, tolerations: ['x:NoExecute']}")
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    spec = {
        "containers": [],
        "nodeSelector": {"disk": "ssd", "role": "other"},
        "tolerations": [{"key": "own", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}, "nodeAffinity": {required: {"nodeSelectorTerms": zones}}},
    }
    away = place_load([labelled("a"), labelled("b")]).application
    made = place_pods({"kind": "StatefulSet", "spec": {"template": {"spec": spec}}}, found.application, away)["spec"][
        "template"
    ]["spec"]
    assert made["nodeSelector"] == {"disk": "ssd", "role": "workload"}
    assert [one["key"] for one in made["tolerations"]] == ["own", "x", "role"]
    terms = made["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert [[one["key"] for one in term["matchExpressions"]] for term in terms] == [
        ["zone", "kubernetes.io/hostname"],
        ["zone", "kubernetes.io/hostname"],
    ]
    assert "podAntiAffinity" in made["affinity"]


def test_objects_without_a_placement_are_unchanged() -> None:
    """A scenario without `placement` deploys what it did before there was one."""
    thing = {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": []}}}}
    assert place_pods(thing, Placement().application) == thing
    assert place_pods({"kind": "Service"}, Placement().application) == {"kind": "Service"}


def test_control_plane_is_placed_and_its_daemons_tolerate_every_part(tmp_path: Path) -> None:
    """A CNI plugin has to be on the node of each pod, and on no label's nodes alone."""
    found = placement(
        tmp_path, "application: {node_selector: {role: workload}}", "load: {node_selector: {role: benchmark}}"
    )
    template: Object = {"template": {"spec": {"containers": []}}}
    istiod, plugin, other = place_mesh(
        [{"kind": kind, "spec": template} for kind in ("Deployment", "DaemonSet", "ConfigMap")], found
    )
    assert istiod["spec"]["template"]["spec"]["nodeSelector"] == {"role": "workload"}
    daemon = plugin["spec"]["template"]["spec"]
    assert "nodeSelector" not in daemon
    assert {one["value"] for one in daemon["tolerations"]} == {"workload", "benchmark"}
    assert other["spec"] == template


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "taint role=workload:NoSchedule"),
        ({"tolerations": [{"key": "role", "operator": "Equal", "value": "workload"}]}, ""),
        ({"tolerations": [{"key": "role", "value": "other"}]}, "taint role=workload:NoSchedule"),
        (
            {"tolerations": [{"key": "role", "operator": "Exists", "effect": "NoExecute"}]},
            "taint role=workload:NoSchedule",
        ),
        ({"tolerations": [{"operator": "Exists"}]}, ""),
        ({"nodeName": "b", "tolerations": [{"operator": "Exists"}]}, "not b"),
        ({"nodeSelector": {"role": "benchmark"}}, "no label role=benchmark"),
    ],
)
def test_taints_and_labels_exclude_nodes(spec: Object, why: str) -> None:
    """As in the scheduler: an effect or key that is left out means each of them."""
    assert find_exclusion(dedicated_nodes()[0], read_constraints(spec)) == why


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd"]}, "a"),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, "bc"),
        ({"key": "disk", "operator": "Exists"}, "ab"),
        ({"key": "disk", "operator": "DoesNotExist"}, "c"),
        ({"key": "cores", "operator": "Gt", "values": ["4"]}, "b"),
        ({"key": "cores", "operator": "Lt", "values": ["4"]}, "a"),
    ],
)
def test_required_node_affinity_excludes_nodes(expression: Object, names: str) -> None:
    """Of the terms one has to hold, of its expressions all."""
    nodes = [labelled("a", disk="ssd", cores="2"), labelled("b", disk="hdd", cores="8"), labelled("c", cores="many")]
    terms = ({"matchExpressions": [expression]},)
    assert "".join(one["metadata"]["name"] for one in schedulable_nodes(nodes, NodeConstraints(terms=terms))) == names
    assert schedulable_nodes(nodes, NodeConstraints(terms=({},))) == ()
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}
    assert schedulable_nodes(nodes, NodeConstraints(terms=(*terms, by_name)))[-1]["metadata"]["name"] in ("b", "c")


def test_load_has_a_node_of_its_placement(tmp_path: Path) -> None:
    """Also one that takes no pod of the application, which then keeps all of its own."""
    found = placement(
        tmp_path, "application: {node_selector: {role: workload}}", "load: {node_selector: {role: benchmark}}"
    )
    place = place_load(
        dedicated_nodes(), load=constraints_of(found.of("load")), application=constraints_of(found.application)
    )
    assert (place.node, place.sentence[-13:]) == ("c", "other 2 nodes")
    same = constraints_of(found.application)
    assert place_load(dedicated_nodes(), load=same, application=same).node == "b"
    one = dedicated_nodes()[:1]
    assert place_load(one, load=same, application=same).node == ""


def examine(resolved: ResolvedScenario, nodes: tuple[Object, ...]) -> Examination:
    """Run the pre-flight without a mesh on these nodes."""
    cluster = fake(objects={"Node": nodes})
    return examine_cluster(cluster, resolved, options(placement=resolved.scenario.placement))


def smoke(*sets: str) -> ResolvedScenario:
    return resolve_scenario("smoke", Overrides(sets=sets))


def test_preflight_names_the_taints_to_tolerate() -> None:
    """A cluster of dedicated node groups only: the message has the option that makes them usable."""
    found = find_results("nodes", examine(smoke(), dedicated_nodes()))
    reasons = "taint role=workload:NoSchedule on 2 nodes, taint role=benchmark:NoSchedule on 1 node"
    assert [(one.status, one.detail) for one in found] == [("error", f"0 of 3 nodes ready and open to pods: {reasons}")]
    assert "--set 'placement.application.tolerations=[role=workload:NoSchedule]'" in found[0].hint
    hinted = smoke("placement.application.tolerations=[role=workload:NoSchedule]")
    (nodes,) = find_results("nodes", examine(hinted, dedicated_nodes()))
    assert (nodes.status, nodes.detail) == ("ok", "2 of 3 nodes ready and open to pods")


def test_preflight_reports_a_part_without_a_node() -> None:
    """Each part that has a placement of its own, by its name."""
    resolved = smoke("placement.application.node_selector=role=workload", "placement.load.node_selector=role=benchmrk")
    (found,) = find_results("nodes", examine(resolved, dedicated_nodes()))
    assert found.detail == "0 of 3 nodes ready and open to pods of the load: no label role=benchmrk on 3 nodes"
    assert examine_nodes(dedicated_nodes(), resolved.scenario.placement, context="lab")[0].status == "error"


def test_capacity_counts_the_nodes_of_each_part() -> None:
    """A large node that the application may not use is no room for it."""
    small = tuple(labelled(name, taints=(TAINT,), cpu="100m", role="workload") for name in ("a", "b"))
    resolved = smoke("placement.application.node_selector=role=workload", "placement.load.node_selector=role=benchmark")
    roomy, full = examine(resolved, dedicated_nodes()), examine(resolved, (*small, dedicated_nodes()[2]))
    assert [one.status for one in find_results("capacity", roomy)] == ["ok"]
    assert roomy.load_place.node == full.load_place.node == "c"
    (capacity,) = find_results("capacity", full)
    assert capacity.status == "error"
    assert "no label role=workload on 1 node, not on c" in capacity.detail


def test_daemons_take_room_where_they_may_be() -> None:
    """A DaemonSet with a node selector has no pod on other nodes, whose room stays."""
    pod = PodRequest("agent", Resources(1.0, 0.0), constraints=NodeConstraints(labels={"role": "benchmark"}))
    anywhere = replace(pod, constraints=NodeConstraints(tolerations=({"operator": "Exists"},)))
    free = find_free(dedicated_nodes(), [])
    benchmark = replace(pod, constraints=replace(pod.constraints, tolerations=({"operator": "Exists"},)))
    for daemons, cpus in (((pod,), [8, 8, 8]), ((benchmark,), [8, 8, 7]), ((anywhere, benchmark), [7, 7, 6])):
        assert [one.resources.cpu for one in subtract_daemons(daemons, free)] == cpus


def test_warns_where_a_gateways_pods_cannot_be_placed() -> None:
    """Kuma makes the pods of its built-in gateway; a placement that asks for theirs is an error."""
    where = "placement.application.node_selector=role=workload"
    resolved = resolve_scenario("gateway", Overrides(sets=(where,)))
    (warning,) = find_results("gateway", examine(resolved, dedicated_nodes()))
    assert (warning.status, "MeshGatewayInstance" in warning.detail) == ("warning", True)
    asked = resolve_scenario("gateway", Overrides(sets=("placement.gateway.node_selector=role=workload",)))
    assert [one.status for one in find_results("gateway", examine(asked, dedicated_nodes()))] == ["error"]


def test_warns_of_a_placement_without_effect() -> None:
    """A control plane that is there already stays where it is, and not every scenario has a mesh or a gateway."""
    sets = ("placement.mesh.node_selector=role=workload", "placement.gateway.node_selector=role=workload")
    resolved, cluster = smoke(*sets), fake(objects={"Node": dedicated_nodes()})
    chosen = options(placement=resolved.scenario.placement, existing_mesh=True)
    found = find_results("placement", examine_cluster(cluster, resolved, chosen))
    assert [(one.status, one.detail) for one in found] == [
        ("warning", "placement.mesh has no effect: the mesh is installed already, and stays where it is"),
        ("warning", "placement.gateway has no effect: no configuration has a gateway"),
    ]
    assert find_results("placement", examine(smoke(), dedicated_nodes())) == []


def test_plan_and_report_say_where_pods_are() -> None:
    """A line for each part that differs, in `plan --context` and in the heading of every report."""
    lines = NO_PLACEMENT.load_on("role=benchmark").describe()
    planned = DryRun("lab", 1.0, {}, {}, {}, images=(), asked="9 pods", placement=lines)
    assert planned.lines[planned.lines.index("placement of pods:") + 1] == "  load: nodes with role=benchmark"
    assert "placement of pods:" not in replace(planned, placement=()).lines


def test_every_part_has_a_key() -> None:
    """The table of parts and the model have the same names."""
    assert {*PARTS, "namespaces"} == {*Placement.model_fields}
    assert replace(options(), placement=Placement()) == options()


CLUSTER = ClusterRecord(version="v1.34.2", nodes=3, images={}, mesh_values={}, mesh_versions={})


@pytest.mark.parametrize(
    "changed",
    [
        {"scenario": {"placement": Placement().load_on("role=benchmark")}},
        {"cluster": {"load_selector": "role=benchmark"}},
    ],
)
def test_placement_is_a_condition(tmp_path: Path, changed: dict[str, dict[str, Any]]) -> None:
    """Runs on other nodes are never compared, by `compare`, by builds or by a gate; however it was chosen."""
    run = make_run(tmp_path, RunSpec(repeats=3, warmup_s=1.0, duration_s=2.0))
    before = replace(run, record=run.record.model_copy(update={"cluster": CLUSTER}))
    record = before.record
    updates = {key: getattr(record, key).model_copy(update=update) for key, update in changed.items()}
    after = replace(run, record=record.model_copy(update=updates))
    expected = "placement: any node / load: nodes with role=benchmark"
    assert find_run_differences(record, after.record) == (expected,)
    assert expected in find_condition_differences(before, after)
    conditions = [read_conditions(one) for one in (before, after)]
    assert "placement" not in conditions[0]
    assert conditions[1] == {**conditions[0], "placement": "load: nodes with role=benchmark"}


def test_placement_means_nothing_on_one_machine(tmp_path: Path) -> None:
    """A scenario with it measures the same there as without; `plan` says that it is ignored."""
    run = make_run(tmp_path, RunSpec(repeats=1, warmup_s=1.0, duration_s=2.0))
    scenario = run.record.scenario.model_copy(update={"placement": Placement().load_on("role=benchmark")})
    assert find_run_differences(run.record, run.record.model_copy(update={"scenario": scenario})) == ()
    resolved = smoke("placement.load.node_selector=role=benchmark")
    assert "placement is for a cluster" in format_plan(resolved, make_plan(resolved.scenario, seed=1))
    assert "placement" not in format_plan(smoke(), make_plan(smoke().scenario, seed=1))
