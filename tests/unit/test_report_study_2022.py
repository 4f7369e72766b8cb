"""The values of the 2022 study."""

import pytest

from bench.report.study_2022 import P95_MS, SWEEP, study_level, study_ratio


@pytest.mark.parametrize(
    ("configuration", "ratio"), [("istio", 1.116), ("istio-policies", 1.513), ("kuma", 1.161), ("kuma-policies", 1.562)]
)
def test_ratios_are_those_of_the_study(configuration: str, ratio: float) -> None:
    """The ratios to the baseline follow from the printed values."""
    assert study_ratio(configuration, "baseline") == pytest.approx(ratio, abs=5e-4)


def test_unknown_names_have_no_ratio() -> None:
    """A configuration that the 2022 study does not have, or no reference, has no ratio."""
    assert study_ratio("mine", "baseline") is None
    assert study_ratio("istio", None) is None
    assert study_ratio("baseline", "baseline") is None


def test_baseline_equals_sweep_with_20_users() -> None:
    """The 2022 study's baseline and its sweep agree."""
    level = study_level(20)
    assert level is not None
    assert level.p95_ms == P95_MS["baseline"]
    assert max(SWEEP, key=lambda row: row.rps) == level
    assert study_level(30) is None
