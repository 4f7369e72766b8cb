"""The whole pre-flight on a cluster of two nodes: where the load goes, and what a run asks of this machine."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.check_result import CheckResult
from bench.k8s.client import Object
from bench.scenario.loader import inputs_of, load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.preflight.examination import Examined, examine_cluster
from tests.shown_cluster import container, fake, node, options, pod

Examine = Callable[..., Examined]


@pytest.fixture
def examine() -> Examine:
    """Looks at nodes `a` and `b` with these pods of others, for the smallest scenario."""
    smoke = load_scenario("smoke", Overrides())

    def look(*pods: Object, **chosen: Any) -> Examined:
        cluster = fake(objects={"Node": (node("a"), node("b")), "Pod": pods})
        return examine_cluster(cluster, smoke, options(**chosen), inputs_of(smoke, "smoke"))

    return look


def of(what: str, examined: Examined) -> list[CheckResult]:
    return [finding for finding in examined.findings if finding.name == what]


def test_the_load_goes_where_it_and_everything_else_have_room(examine: Examine) -> None:
    """Of equal nodes the last, unless that is where the application has to go; where none will do, that one is told."""
    busy, full = container("3500m", "1Gi"), container("3900m", "1Gi")
    assert examine().load_place.node == "b"
    assert examine(pod(busy, at="b")).load_place.node == "b"
    assert examine(pod(busy, at="a")).load_place.node == "a"
    both = examine(pod(full, at="a"), pod(full, at="b"))
    (room,) = of("room", both)
    assert (both.load_place.node, room.status) == ("b", "error")
    assert "on b only" in room.detail


def test_a_run_that_goes_on_is_looked_at_with_the_node_that_it_had(examine: Examine) -> None:
    """Whatever others take meanwhile."""
    assert examine(pod(container("3500m", "1Gi"), at="b"), load_node="a").load_place.node == "a"
