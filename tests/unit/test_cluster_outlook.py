"""What `meshbench plan --context` tells: counted from the objects that a run would apply."""

import json
from typing import Any

import pytest

from bench.cli.plan_text import Elsewhere, outline, outline_json
from bench.k8s.client import Object
from bench.meshes.istio import control_plane as istio
from bench.scenario.loader import inputs_of, load_scenario
from bench.scenario.model import Scenario
from bench.scenario.overrides import Overrides
from bench.scenario.plan import make_plan
from bench.targets.cluster import dry_run as outlook
from bench.targets.cluster.dry_run import Outlook
from tests.shown_cluster import fake, node, options

NAME = "istio-policies"


def rendered(_options: Any) -> tuple[Object, ...]:
    """What istioctl would, as far as it is counted."""
    made = {"apiVersion": "v1", "metadata": {"name": "istiod", "namespace": "istio-system"}}
    template = {"spec": {"containers": [{"name": "discovery", "image": "hub.example/pilot:1.31.0"}]}}
    return ({**made, "kind": "Deployment", "spec": {"template": template}}, {**made, "kind": "ServiceAccount"})


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """An istioctl that renders two objects."""
    monkeypatch.setattr(istio, "render", rendered)
    monkeypatch.setattr(outlook, "mesh_versions", lambda meshes: dict.fromkeys(meshes, "1.31.0"))


def foreseen(scenario: Scenario, **changes: Any) -> Outlook:
    cluster = fake(objects={"Node": (node(),)})
    plan = make_plan(scenario, 1)
    return outlook.outlook(cluster, scenario, options(**changes), inputs=inputs_of(scenario, NAME), plan=plan)


def test_a_plan_counts_what_each_trial_makes() -> None:
    """Namespaces and policies too; what differs between configurations shows."""
    found = foreseen(load_scenario(NAME, Overrides()))
    assert {kinds["Namespace"] for kinds in found.trials.values()} == {2}
    assert found.trials["baseline"]["Deployment"] == 4
    assert "PeerAuthentication" not in found.trials["istio"]
    assert found.trials["istio-policies"]["PeerAuthentication"] == 1
    assert found.trials["istio-policies"]["Pod"] > found.trials["baseline"]["Pod"]


def test_a_plan_names_control_planes_images_and_room() -> None:
    """What the run installs, and would have to pull."""
    found = foreseen(load_scenario(NAME, Overrides()), images={"bookinfo": "b.example/b:1"})
    assert found.control_planes == {"istio": {"Deployment": 1, "ServiceAccount": 1}}
    assert {"b.example/b:1", "hub.example/pilot:1.31.0"} <= set(found.images)
    told = "\n".join(found.lines)
    assert "istio 1.31.0: the run makes 1 Deployment, 1 ServiceAccount, and removes them" in told
    assert "pods that ask for" in told


def test_a_mesh_that_is_there_is_not_counted_as_made() -> None:
    """With --use-existing-mesh nothing is installed, and that takes no time."""
    scenario = load_scenario(NAME, Overrides())
    found = foreseen(scenario, existing_mesh=True)
    assert found.control_planes == {"istio": {}}
    assert "there already, and stays" in "\n".join(found.lines)
    assert found.seconds < foreseen(scenario).seconds


def test_isolation_takes_the_time_of_its_installations() -> None:
    """Each trial in a mesh then has a control plane of its own."""
    shared = load_scenario(NAME, Overrides())
    full = load_scenario(NAME, Overrides(sets=("isolation=full",)))
    assert foreseen(full).seconds > foreseen(shared).seconds


def test_the_outline_says_where_and_how_long() -> None:
    """In place of this machine's processes; a program reads the same facts."""
    scenario = load_scenario(NAME, Overrides())
    there = Elsewhere("context lab: https://lab", 600.0, ("each trial makes:",), {"trials": {"baseline": {"Pod": 3}}})
    plan = make_plan(scenario, 1)
    told = outline(scenario, plan, there)
    assert "10min on context lab: https://lab" in told
    assert "127.0.0.1" not in told
    read = json.loads(outline_json(scenario, plan, there))
    assert (read["dry_run"], read["seconds"], read["cluster"]["trials"]) == (True, 600.0, {"baseline": {"Pod": 3}})
