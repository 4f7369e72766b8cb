"""The control planes of a cluster in a report's heading."""

import pytest

from bench.targets.cluster.session import target_record


@pytest.mark.parametrize(
    ("isolation", "existing", "expected"),
    [
        ("shared", False, "control planes were installed once and stayed"),
        ("full", False, "each trial installed its own control plane and deleted it"),
        ("full", True, "the mesh was there before and stays"),
    ],
)
def test_heading_has_control_planes_of_the_baseline(isolation: str, *, existing: bool, expected: str) -> None:
    """An idle control plane uses some of the nodes; an existing mesh cannot be isolated."""
    record = target_record("v1.34.2", 1, placement="one node", isolation=isolation, existing=existing)
    assert record.caveats[0] == "one node"
    assert record.caveats[1].startswith(expected)


def test_scenario_without_a_mesh_has_no_such_caveat() -> None:
    """There is no control plane next to the baseline."""
    assert target_record("v1.34.2", 1, placement="one node", isolation="", existing=False).caveats == ("one node",)
