"""What a report's heading says of the cluster on which it was measured."""

import pytest

from bench.targets.cluster.session import target_record
from bench.verification.evidence import alone_evidence


@pytest.mark.parametrize(
    ("isolation", "existing", "told"),
    [
        ("shared", False, "control planes were installed once and stayed"),
        ("full", False, "each trial installed its own control plane and removed it"),
        ("full", True, "the mesh was there before and stays"),
    ],
)
def test_the_heading_says_what_the_baseline_was_measured_beside(isolation: str, *, existing: bool, told: str) -> None:
    """An idle control plane takes some of the nodes; a mesh that stays cannot be isolated."""
    record = target_record("v1.34.2", 1, placement="one node", isolation=isolation, existing=existing)
    assert record.caveats[0] == "one node"
    assert record.caveats[1].startswith(told)


def test_without_a_mesh_there_is_nothing_beside_the_baseline() -> None:
    """And so nothing is said of it."""
    assert target_record("v1.34.2", 1, placement="one node", isolation="", existing=False).caveats == ("one node",)


def test_a_control_plane_that_should_not_be_there_fails_the_proof() -> None:
    """With what of it was seen."""
    fact = alone_evidence("istio", "namespace istio-system")
    assert (fact.ok, fact.seen) == (False, "namespace istio-system")
    assert alone_evidence("istio", "").ok
