"""The whole pre-flight on a cluster of two nodes: the node of the load, and requirements of this machine."""

from tests.shown_cluster import container, examine_two_nodes, find_results, pod


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
