"""`meshbench plan --context`: the report about the objects that a run would apply."""

import json
from typing import Any

import pytest

from bench.cli.plan_text import ClusterPlan, format_plan, format_plan_json
from bench.k8s.client import Object
from bench.meshes.istio import control_plane as istio
from bench.meshes.resolved import resolve
from bench.scenario.loader import find_inputs, load_scenario
from bench.scenario.model import Scenario
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from bench.targets.cluster import dry_run as outlook
from bench.targets.cluster.dry_run import DryRun
from tests.shown_cluster import fake, node, options

NAME = "istio-policies"


def rendered(_options: Any) -> tuple[Object, ...]:
    """What istioctl would render, as far as it is counted."""
    made = {"apiVersion": "v1", "metadata": {"name": "istiod", "namespace": "istio-system"}}
    template = {"spec": {"containers": [{"name": "discovery", "image": "hub.example/pilot:1.31.0"}]}}
    return ({**made, "kind": "Deployment", "spec": {"template": template}}, {**made, "kind": "ServiceAccount"})


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """An istioctl that renders two objects."""
    monkeypatch.setattr(istio, "render", rendered)
    monkeypatch.setattr(outlook, "tool_versions", lambda meshes: dict.fromkeys(meshes, "1.31.0"))


def foreseen(scenario: Scenario, **changes: Any) -> DryRun:
    cluster = fake(objects={"Node": (node(),)})
    plan = make_plan(scenario, 1)
    return outlook.dry_run(cluster, resolve(scenario, find_inputs(scenario, NAME)), options(**changes), plan=plan)


def test_counts_objects_of_each_trial() -> None:
    """Namespaces and policies are counted, and configurations may differ."""
    found = foreseen(load_scenario(NAME, Overrides()))
    assert {kinds["Namespace"] for kinds in found.trials.values()} == {2}
    assert found.trials["baseline"]["Deployment"] == 4
    assert "PeerAuthentication" not in found.trials["istio"]
    assert found.trials["istio-policies"]["PeerAuthentication"] == 1
    assert found.trials["istio-policies"]["Pod"] > found.trials["baseline"]["Pod"]


def test_reports_control_planes_images_and_capacity() -> None:
    """The report has what the run installs, and the images that it would have to pull."""
    found = foreseen(load_scenario(NAME, Overrides()), images={"bookinfo": "b.example/b:1"})
    assert found.control_planes == {"istio": {"Deployment": 1, "ServiceAccount": 1}}
    assert {"b.example/b:1", "hub.example/pilot:1.31.0"} <= set(found.images)
    text = "\n".join(found.lines)
    assert "istio 1.31.0: the run creates 1 Deployment, 1 ServiceAccount, and deletes them" in text
    assert "pods that request" in text


def test_does_not_count_existing_mesh() -> None:
    """With --use-existing-mesh nothing is installed, and that takes no time."""
    scenario = load_scenario(NAME, Overrides())
    found = foreseen(scenario, existing_mesh=True)
    assert found.control_planes == {"istio": {}}
    assert "exists already, and stays" in "\n".join(found.lines)
    assert found.seconds < foreseen(scenario).seconds


def test_isolation_adds_installation_time() -> None:
    """With `full` each trial in a mesh has a control plane of its own."""
    shared = load_scenario(NAME, Overrides())
    full = load_scenario(NAME, Overrides(sets=("isolation=full",)))
    assert foreseen(full).seconds > foreseen(shared).seconds


def test_side_by_side_needs_room_for_all_configurations() -> None:
    """Those of a block are there at once, each in namespaces of its own, and take less time than one after another."""
    sequential = foreseen(load_scenario(NAME, Overrides(sets=("design=sequential",))))
    duet = foreseen(load_scenario(NAME, Overrides(sets=("design=duet", "repeats=3"))))
    pods, at_once = (int(one.asked.partition(" ")[0]) for one in (sequential, duet))
    assert at_once > 2 * pods
    assert duet.lines[0] == (
        "each block creates at once, each configuration in two namespaces of its own, and deletes again:"
    )
    assert duet.seconds < sequential.seconds / 2


def test_plan_text_has_context_and_duration() -> None:
    """They replace the processes of this machine; JSON has the same facts."""
    scenario = load_scenario(NAME, Overrides())
    there = ClusterPlan("context lab: https://lab", 600.0, ("each trial makes:",), {"trials": {"baseline": {"Pod": 3}}})
    plan = make_plan(scenario, 1)
    resolved = resolve(scenario, find_inputs(scenario, NAME))
    text = format_plan(resolved, plan, there)
    assert "10min on context lab: https://lab" in text
    assert "127.0.0.1" not in text
    read = json.loads(format_plan_json(resolved, plan, there))
    assert (read["dry_run"], read["seconds"], read["cluster"]["trials"]) == (True, 600.0, {"baseline": {"Pod": 3}})
