"""The whole pre-flight on a cluster of two nodes: the node of the load, and requirements of this machine."""

from dataclasses import replace
from typing import Any

import pytest

from bench.meshes.resolved import ResolvedScenario, resolve_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.preflight.examination import Examination, examine_cluster, list_page_ports
from tests.shown_cluster import container, examine_two_nodes, fake, find_results, node, options, pod


def test_load_node_leaves_capacity_for_all_pods() -> None:
    """Of equal nodes the last, unless the application needs it; if none fits, that one is reported."""
    busy, full = container("3500m", "1Gi"), container("3900m", "1Gi")
    assert examine_two_nodes().load_place.node == "b"
    assert examine_two_nodes(pod(busy, at="b")).load_place.node == "b"
    assert examine_two_nodes(pod(busy, at="a")).load_place.node == "a"
    both = examine_two_nodes(pod(full, at="a"), pod(full, at="b"))
    (capacity,) = find_results("capacity", both)
    assert (both.load_place.node, capacity.status) == ("b", "error")
    assert "on b only" in capacity.detail


def test_resume_checks_the_loads_node() -> None:
    """Whatever other pods use meanwhile."""
    assert examine_two_nodes(pod(container("3500m", "1Gi"), at="b"), load_node="a").load_place.node == "a"


def duet(**changes: Any) -> ResolvedScenario:
    """The smallest shipped scenario with several configurations in no mesh, side by side."""
    resolved = resolve_scenario("istio-policies", Overrides())
    bare = tuple(
        replace(one, mesh=None, policies=None, objects=(), settings=one.settings.model_copy(update={"mesh": "none"}))
        for one in resolved.configurations
    )
    settings = tuple(one.settings for one in bare)
    scenario = resolved.scenario.model_copy(update={"design": "duet", "configurations": settings})
    return replace(resolved, scenario=scenario, configurations=bare, **changes)


def examine_duet(cpu: str, resolved: ResolvedScenario, **chosen: Any) -> Examination:
    """Run the pre-flight on one node with so many CPUs."""
    cluster = fake(objects={"Node": (node("a", cpu=cpu, memory="64Gi"),)})
    return examine_cluster(cluster, resolved, options(**chosen))


@pytest.mark.parametrize(("cpu", "share"), [("4", 1.0), ("1", 0.25)])
def test_room_for_all_configurations_at_once(cpu: str, share: float) -> None:
    """Three of them request 2.6 CPUs, a quarter of it with scaled requests."""
    examined = examine_duet(cpu, duet(), scale_requests=share)
    assert (examined.resolved.scenario.design, examined.resolved.remarks) == ("duet", ())
    (capacity,) = find_results("capacity", examined)
    assert (capacity.status, capacity.detail.split()[1]) == ("ok", "27")


@pytest.mark.parametrize("asked", [False, True])
def test_lack_of_room_makes_the_run_sequential(asked: bool) -> None:
    """Also where a duet was asked for: the report and a warning say why, and what would help."""
    examined = examine_duet("1", duet(design_asked=asked))
    assert examined.resolved.scenario.design == "sequential"
    (remark,) = examined.resolved.remarks
    assert "no room for all configurations at once" in remark.detail
    (warning,) = find_results("design", examined)
    assert (warning.status, warning.detail) == ("warning", remark.detail)
    assert "--scale-requests" in warning.detail
    (capacity,) = find_results("capacity", examined)
    assert (capacity.status, capacity.detail.split()[1]) == ("ok", "9")


def test_resumed_run_keeps_its_design() -> None:
    """Its first blocks were measured with it: without room it is not resumed."""
    examined = examine_duet("1", duet(), resumed=True)
    assert examined.resolved.scenario.design == "duet"
    (capacity,) = find_results("capacity", examined)
    assert capacity.status == "error"


def test_each_configuration_side_by_side_has_a_page_of_its_own() -> None:
    """All of a block are loaded at once; one after another they share the port."""
    ports = list_page_ports(duet().scenario, options(locust_ui=8089))
    assert [*ports] == [8089, 8090, 8091]
    assert [*list_page_ports(duet().scenario, options())] == []
    sequential = duet().scenario.model_copy(update={"design": "sequential"})
    assert [*list_page_ports(sequential, options(locust_ui=8089))] == [8089]
