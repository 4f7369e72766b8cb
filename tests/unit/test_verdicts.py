"""The verdicts of a comparison."""

import math
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from bench.analysis.contrast import Side, contrast, judge, within_interval
from bench.analysis.stats import Comparison
from bench.analysis.validity import format_issues
from bench.results.summary_records import Metric, RepeatSummary
from bench.scenario.types import Design
from tests.issues import codes, issue

MARGIN = 0.1


def compared(low: float, high: float, *, low90: float | None = None, high90: float | None = None) -> Comparison:
    inner = (low if low90 is None else low90, high if high90 is None else high90)
    return Comparison((low * high) ** 0.5, (low, high), inner, 0.2, "")


def repeat(block: int, p95_ms: float | None, *, rps: float = 100.0, valid: bool = True) -> RepeatSummary:
    numbers = dict.fromkeys(("mean_ms", "p50_ms", "p75_ms", "p90_ms", "max_ms", "thesis_p95_ms"), p95_ms)
    return RepeatSummary(
        trial=f"0{block}-x-{block}",
        block=block,
        valid=valid,
        issues=() if valid else (issue("stall"),),
        requests=1000,
        errors=0,
        window_s=120.0,
        rps=rps,
        p95_ms=p95_ms,
        p99_ms=None,
        p999_ms=None,
        corrected_p95_ms=p95_ms,
        stall_s=0,
        lateness_p95_ms=0.1,
        generator_cpu=0.1,
        resources=(),
        **numbers,
    )


def side(name: str, *p95s: float, mesh: str = "none", invalid: tuple[int, ...] = ()) -> Side:
    repeats = [repeat(block, p95, valid=block not in invalid) for block, p95 in enumerate(p95s, start=1)]
    return Side(name, mesh, repeats)


BASELINE = side("baseline", 10.0, 10.2, 9.9)


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (compared(1.11, 1.30), "slower"),
        (compared(0.70, 0.89), "faster"),
        (compared(1.02, 1.20), "different"),
        (compared(0.80, 0.97), "different"),
        (compared(1.02, 1.12, low90=1.03, high90=1.09), "different"),
        (compared(0.96, 1.04), "equivalent"),
        (compared(1.02, 1.06), "equivalent"),
        (compared(0.89, 1.08, low90=0.92, high90=1.05), "equivalent"),
        (compared(0.92, 1.15), "inconclusive"),
        (compared(0.50, 1.90), "inconclusive"),
        (compared(1.10, 1.30), "different"),
        (Comparison(1.5, None, None, None, "one repeat"), "inconclusive"),
    ],
)
def test_verdicts_follow_the_intervals(comparison: Comparison, verdict: str) -> None:
    """Slower, faster, different, equivalent and inconclusive mean what the documentation says."""
    assert judge(comparison, MARGIN) == verdict


@given(low=st.floats(0.3, 3), width=st.floats(1.0001, 2), shift=st.floats(1, 3))
def test_slower_system_has_no_better_verdict(low: float, width: float, shift: float) -> None:
    """When the interval moves up, the verdict moves towards slower, never back."""
    order = {"faster": 0, "slower": 2}
    before = order.get(judge(compared(low, low * width), MARGIN), 1)
    after = order.get(judge(compared(low * shift, low * width * shift), MARGIN), 1)
    assert after >= before


@given(low=st.floats(0.3, 3), width=st.floats(1.0001, 2), margin=st.floats(0.01, 0.5), more=st.floats(0, 0.4))
def test_wider_margin_makes_no_difference(low: float, width: float, margin: float, more: float) -> None:
    """An equivalent contrast stays so with a wider margin; one that is not slower does not become slower."""
    narrow, wide = (judge(compared(low, low * width), m) for m in (margin, margin + more))
    assert not (narrow == "equivalent" and wide != "equivalent")
    assert not (wide in ("slower", "faster") and narrow != wide)


def test_less_throughput_is_slower() -> None:
    """For throughput more is better: a ratio beyond the margin downwards is slower."""
    assert judge(compared(0.70, 0.85), MARGIN, higher_is_better=True) == "slower"
    assert judge(compared(1.15, 1.30), MARGIN, higher_is_better=True) == "faster"


def test_contrast_has_ratio_difference_and_blocks() -> None:
    """Ratio, difference in ms and the ratio inside each block agree."""
    mesh = side("istio", 14.0, 14.6, 14.1, mesh="istio")
    found = contrast(mesh, BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.verdict == "slower"
    assert found.n == (3, 3)
    assert found.block_ratios == pytest.approx((1.4, 14.6 / 10.2, 14.1 / 9.9))
    scale = (10.0 * 10.2 * 9.9) ** (1 / 3)
    assert found.ratio is not None
    assert found.delta_ms == pytest.approx((found.ratio - 1) * scale)
    assert found.delta_rps is None
    assert found.issues == ()


@given(
    values=st.lists(st.floats(5, 20), min_size=2, max_size=5),
    references=st.lists(st.floats(5, 20), min_size=2, max_size=5),
)
def test_difference_and_ratio_agree(values: list[float], references: list[float]) -> None:
    """The interval in ms leaves out 0 exactly where the ratio's leaves out 1."""
    found = contrast(side("a", *values), side("b", *references), metric="p95_ms", margin=MARGIN, confirmatory=True)
    if found.ratio_low is None or found.ratio_high is None:
        assert (found.delta_low_ms, found.delta_high_ms) == (None, None)
        return
    assert found.delta_low_ms is not None
    assert found.delta_high_ms is not None
    assert (found.delta_low_ms > 0) == (found.ratio_low > 1)
    assert (found.delta_high_ms < 0) == (found.ratio_high < 1)


def test_throughput_differs_in_requests_per_second() -> None:
    """A contrast of throughput has its difference in 1/s, and none in ms."""
    slow = Side("slow", "istio", [repeat(block, 10.0, rps=80.0 + block) for block in (1, 2, 3)])
    quick = Side("quick", "none", [repeat(block, 10.0, rps=100.0 + block) for block in (1, 2, 3)])
    found = contrast(slow, quick, metric="rps", margin=MARGIN, confirmatory=False)
    assert found.verdict == "slower"
    assert found.delta_rps == pytest.approx(-20, abs=0.1)
    assert found.delta_ms is None


def test_leaves_out_and_names_invalid_repeats() -> None:
    """An invalid repeat changes no number, and the contrast names it as missing."""
    mesh = side("istio", 14.0, 99.0, 14.1, mesh="istio", invalid=(2,))
    found = contrast(mesh, BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.ratio is not None
    assert found.ratio < 1.5
    assert found.n == (2, 3)
    assert found.block_ratios[1] is None
    assert found.issues == (issue("excluded-repeats", "2 of 3 repeats of istio are valid"),)


@pytest.mark.parametrize("broken", ["istio", "baseline"])
def test_no_valid_repeat_is_an_invalid_contrast(broken: str) -> None:
    """A side with no valid repeat makes the contrast invalid, without any number."""
    values = {name: (1, 2, 3) if name == broken else () for name in ("istio", "baseline")}
    mesh = side("istio", 14.0, 14.6, 14.1, mesh="istio", invalid=values["istio"])
    reference = side("baseline", 10.0, 10.2, 9.9, invalid=values["baseline"])
    found = contrast(mesh, reference, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.verdict == "invalid"
    assert (found.ratio, found.delta_ms, found.mde) == (None, None, None)
    assert found.issues == (issue("no-valid-repeat", f"{broken} has no valid repeat"),)


def test_configuration_without_trials_is_invalid() -> None:
    """A run that ended before a configuration's first trial has an invalid contrast, not an error."""
    found = contrast(side("istio", mesh="istio"), BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.verdict == "invalid"
    assert found.block_ratios == (None, None, None)


def test_single_repeat_has_ratio_without_verdict() -> None:
    """With one repeat a side there is a ratio, no interval, and the reason."""
    found = contrast(side("istio", 14.0), side("baseline", 10.0), metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.ratio == pytest.approx(1.4)
    assert (found.ratio_low, found.delta_low_ms, found.mde) == (None, None, None)
    assert found.verdict == "inconclusive"
    assert "one repeat" in format_issues(found.issues)


def test_equal_repeats_have_no_interval() -> None:
    """Zero variance is a matter of resolution: no interval of width zero is ever shown."""
    found = contrast(side("a", 3.0, 3.0, 3.0), BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.ratio_low is None
    assert "resolution" in format_issues(found.issues)


@pytest.mark.parametrize("metric", ["p99_ms"])
def test_metric_with_too_few_requests_is_inconclusive(metric: Metric) -> None:
    """Too few requests for P99 withhold that contrast, not the whole configuration."""
    found = contrast(side("istio", 14.0, 14.1), BASELINE, metric=metric, margin=MARGIN, confirmatory=False)
    assert found.verdict == "inconclusive"
    assert "too few requests for p99_ms" in format_issues(found.issues)


def test_warns_about_faster_mesh() -> None:
    """Less latency with a mesh than without is reported as noise."""
    mesh = side("istio", 8.0, 8.1, 7.9, mesh="istio")
    found = contrast(mesh, BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert found.verdict == "faster"
    assert "treat this as noise" in format_issues(found.issues)
    other = contrast(side("quick", 8.0, 8.1, 7.9), BASELINE, metric="p95_ms", margin=MARGIN, confirmatory=True)
    assert other.issues == ()


def test_interval_within_blocks_uses_complete_blocks() -> None:
    """A block in which one configuration is invalid is left out for all."""
    whole = [side("baseline", 10.0, 20.0, 9.9), side("istio", 14.0, 28.2, 14.1), side("kuma", 15.0, 30.2, 15.2)]
    holed = [side("baseline", 10.0, 20.0, 9.9, 55.0), *whole[1:2], side("kuma", 15.0, 30.2, 15.2, 16.0, invalid=(4,))]
    low, high = within_interval(whole, "istio", "baseline", metric="p95_ms")
    assert low is not None
    assert high is not None
    assert 1.35 < low < 1.41 < high < 1.5
    assert within_interval(holed, "istio", "baseline", metric="p95_ms") == (low, high)


PAIRED: Final[tuple[Design, ...]] = ("duet", "interleaved")


@pytest.mark.parametrize("design", PAIRED)
def test_paired_contrast_is_of_blocks(design: Design) -> None:
    """Blocks that differ by 2 have the narrow interval of their ratios, and the method names the design."""
    mesh, base = side("istio", 14.0, 28.4, 14.2, mesh="istio"), side("baseline", 10.0, 20.0, 9.9)
    found = contrast(mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True, design=design)
    expected = ttest_rel(np.log([14.0, 28.4, 14.2]), np.log([10.0, 20.0, 9.9])).confidence_interval(0.95)
    assert (found.ratio_low, found.ratio_high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert (found.verdict, found.n) == ("slower", (3, 3))
    assert "paired t interval" in found.method
    assert ("same time" in found.method) == (design == "duet")
    scale = (10.0 * 20.0 * 9.9) ** (1 / 3)
    assert found.delta_low_ms == pytest.approx(((found.ratio_low or 0) - 1) * scale)
    assert (found.effective_n, found.lag_1, found.median_ratio) == (3, None, None)


def test_block_counts_when_both_sides_are_valid() -> None:
    """A block with one invalid side is in no number of a paired contrast, and is named."""
    mesh = side("istio", 14.0, 99.0, 14.1, 14.3, mesh="istio", invalid=(2,))
    base = side("baseline", 10.0, 10.2, 55.0, 9.9, invalid=(3,))
    found = contrast(mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True, design="duet")
    assert found.n == (2, 2)
    assert found.ratio == pytest.approx((1.4 * 14.3 / 9.9) ** 0.5)
    assert found.block_ratios == pytest.approx((1.4, None, None, 14.3 / 9.9))
    assert found.issues == (issue("excluded-repeats", "2 of 4 blocks do not count"),)


def test_no_block_in_which_both_are_valid_is_invalid() -> None:
    """Sides that are never valid in the same block cannot be paired."""
    mesh, base = side("istio", 14.0, 14.1, invalid=(1,)), side("baseline", 10.0, 10.1, invalid=(2,))
    found = contrast(mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True, design="duet")
    assert (found.verdict, found.ratio, found.n) == ("invalid", None, (0, 0))
    assert "no block in which both are valid" in format_issues(found.issues)
    assert contrast(mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True).ratio == pytest.approx(1.41)


def test_correlated_blocks_are_an_issue() -> None:
    """Blocks that drift in the order of time count for fewer, and the contrast has the reason; the order of numbers
    does not matter."""
    mesh, base = side("istio", *(15 + block for block in range(8))), side("baseline", *[10.0] * 8)
    found = contrast(mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True, design="duet")
    assert codes(found.issues) == ["correlated"]
    assert found.effective_n is not None
    assert found.effective_n < 8
    other = contrast(
        mesh, base, metric="p95_ms", margin=MARGIN, confirmatory=True, design="duet", order=(1, 8, 3, 6, 4, 7, 2, 5)
    )
    assert (codes(other.issues), other.effective_n) == ([], 8)
    assert other.block_ratios == found.block_ratios
    assert other.median_ratio == found.median_ratio == pytest.approx(1.85)


def test_metric_of_scarce_requests_is_inconclusive_in_a_paired_run() -> None:
    """Too few requests for P99 are not called invalid blocks."""
    sides = side("istio", 14.0, 14.1), side("baseline", 10.0, 10.1)
    found = contrast(*sides, metric="p99_ms", margin=MARGIN, confirmatory=False, design="duet")
    assert (found.verdict, codes(found.issues)) == ("inconclusive", ["no-percentile", "no-percentile"])


def test_no_complete_block_has_no_interval_within() -> None:
    """Configurations that are never valid in the same block have no common block effect."""
    sides = [side("baseline", 10.0, 10.1, invalid=(1,)), side("istio", 14.0, 14.1, invalid=(2,))]
    assert within_interval(sides, "istio", "baseline", metric="p95_ms") == (None, None)
