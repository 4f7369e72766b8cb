"""The values of the 2022 study."""

import pytest

from bench.report.study_2022 import P95_MS, SWEEP, thesis_level, thesis_ratio


@pytest.mark.parametrize(
    ("configuration", "ratio"), [("istio", 1.116), ("istio-policies", 1.513), ("kuma", 1.161), ("kuma-policies", 1.562)]
)
def test_ratios_are_those_of_the_study(configuration: str, ratio: float) -> None:
    """The ratios to the baseline follow from the printed values."""
    assert thesis_ratio(configuration, "baseline") == pytest.approx(ratio, abs=5e-4)


def test_unknown_names_have_no_ratio() -> None:
    """A configuration that the 2022 study does not have, or no reference, has no ratio."""
    assert thesis_ratio("mine", "baseline") is None
    assert thesis_ratio("istio", None) is None
    assert thesis_ratio("baseline", "baseline") is None


def test_baseline_equals_sweep_with_20_users() -> None:
    """The 2022 study's baseline and its sweep agree."""
    level = thesis_level(20)
    assert level is not None
    assert level.p95_ms == P95_MS["baseline"]
    assert max(SWEEP, key=lambda row: row.rps) == level
    assert thesis_level(30) is None
