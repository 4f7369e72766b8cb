"""The whole pre-flight on a cluster of two nodes: the node of the load, and requirements of this machine."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.check_result import CheckResult
from bench.k8s.client import Object
from bench.scenario.loader import find_inputs, load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.preflight.examination import Examination, examine_cluster
from tests.shown_cluster import container, fake, node, options, pod

Examine = Callable[..., Examination]


@pytest.fixture
def examine() -> Examine:
    """The pre-flight of nodes `a` and `b` with these pods of others, for the smallest scenario."""
    smoke = load_scenario("smoke", Overrides())

    def look(*pods: Object, **chosen: Any) -> Examination:
        cluster = fake(objects={"Node": (node("a"), node("b")), "Pod": pods})
        return examine_cluster(cluster, smoke, options(**chosen), find_inputs(smoke, "smoke"))

    return look


def of(what: str, examined: Examination) -> list[CheckResult]:
    return [finding for finding in examined.findings if finding.name == what]


def test_load_node_leaves_capacity_for_all_pods(examine: Examine) -> None:
    """Of equal nodes the last, unless the application needs it; if none fits, that one is reported."""
    busy, full = container("3500m", "1Gi"), container("3900m", "1Gi")
    assert examine().load_place.node == "b"
    assert examine(pod(busy, at="b")).load_place.node == "b"
    assert examine(pod(busy, at="a")).load_place.node == "a"
    both = examine(pod(full, at="a"), pod(full, at="b"))
    (capacity,) = of("capacity", both)
    assert (both.load_place.node, capacity.status) == ("b", "error")
    assert "on b only" in capacity.detail


def test_resume_checks_the_loads_node(examine: Examine) -> None:
    """Whatever other pods use meanwhile."""
    assert examine(pod(container("3500m", "1Gi"), at="b"), load_node="a").load_place.node == "a"
