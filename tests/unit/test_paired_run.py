"""The numbers of a run whose configurations share its blocks."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean, geometric_mean

import numpy as np
import pytest
import scipy.stats

from bench.analysis.conditions import find_run_differences
from bench.analysis.design_costs import estimate_designs, estimate_minutes, measure_half_width
from bench.analysis.proxy_cost import estimate_hop_costs
from bench.analysis.run_summary import compute_blocks_for_margin, summarise
from bench.analysis.trial_summary import digest, make_headline
from bench.cli.plan_text import format_plan, list_detectable_effects
from bench.frames.run import Run
from bench.meshes.resolved import resolve
from bench.report.model import Report
from bench.report.tables import make_tables
from bench.results.records import PathLength, Window
from bench.results.store import StoredRun
from bench.results.summary_records import Contrast, SummaryRecord
from bench.scenario.loader import find_inputs
from bench.scenario.plan import make_plan
from bench.scenario.types import Design
from tests.factory import ISTIO_POLICIES, RunSpec, make_run, make_scenario
from tests.issues import codes
from tests.summaries import configuration, repeat

S = 1_000_000_000
# Blocks differ by 30 %, the configurations of a block by little: as on a machine whose noise is shared.
SPEC = RunSpec(design="duet", repeats=8, warmup_s=2, duration_s=10, block_sd=0.3, run_sd=0.03, users=18)
PATHS = {"baseline": PathLength(hops=4, proxies=0), "istio": PathLength(hops=4, proxies=8)}


@pytest.fixture(scope="module")
def duet(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_run(tmp_path_factory.mktemp("duet"), SPEC)


@pytest.fixture(scope="module")
def summary(duet: StoredRun) -> SummaryRecord:
    return summarise(duet)[0]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[RunSpec], StoredRun]:
    return lambda made: make_run(tmp_path, made)


def find(summary: SummaryRecord, name: str = "istio", metric: str = "p95_ms") -> Contrast:
    """The contrast of a configuration with the baseline."""
    return next(c for c in summary.contrasts if (c.configuration, c.reference, c.metric) == (name, "baseline", metric))


def test_contrasts_of_a_duet_are_of_its_blocks(summary: SummaryRecord) -> None:
    """Each contrast is a paired t interval of its blocks' ratios, far narrower than that of separate repeats."""
    assert summary.design == "duet"
    for contrast in (found for found in summary.contrasts if found.metric == "p95_ms"):
        logs = np.log([ratio for ratio in contrast.block_ratios if ratio is not None])
        assert contrast.n == (8, 8)
        assert contrast.ratio == pytest.approx(math.exp(logs.mean()))
        widening = math.sqrt(8 / (contrast.effective_n or 0))
        half = scipy.stats.t.ppf(0.975, 7) * logs.std(ddof=1) / math.sqrt(8) * widening
        assert measure_half_width(contrast) == pytest.approx(half)
        assert contrast.median_low is not None
        assert contrast.median_low <= (contrast.median_ratio or 0) <= (contrast.median_high or 0)
        assert (contrast.within_low, contrast.within_high) == (None, None)


def test_sequential_run_has_no_number_of_blocks(make: Callable[[RunSpec], StoredRun]) -> None:
    """Welch's interval keeps its method, and what only pairs have is missing."""
    made = make(replace(SPEC, design="sequential", repeats=3))
    contrast = find(summarise(made)[0])
    assert contrast.method == "ratio of geometric means over repeats, 95 % Welch t interval on logarithms"
    assert contrast.within_low is not None
    nothing = (contrast.median_ratio, contrast.lag_1, contrast.effective_n, contrast.sequential_minutes)
    assert nothing == (None, None, None, None)


def test_sequential_minutes_are_those_of_the_shortest_run(duet: StoredRun, summary: SummaryRecord) -> None:
    """With one repeat fewer, a sequential run of this spread would know the ratio less well."""
    contrast = find(summary)
    base, istio = ([r.p95_ms or 0 for r in summary.configurations[name].repeats] for name in ("baseline", "istio"))
    variances = [float(np.var(np.log(values), ddof=1)) for values in (istio, base)]

    def half_width(repeats: int) -> float:
        df = (repeats - 1) * sum(variances) ** 2 / sum(variance**2 for variance in variances)
        return float(scipy.stats.t.ppf(0.975, df)) * math.sqrt(sum(variances) / repeats)

    assert contrast.sequential_minutes is not None
    per_repeat = estimate_minutes(duet.record, "sequential", 1)
    repeats = round(contrast.sequential_minutes / per_repeat)
    assert half_width(repeats) <= (measure_half_width(contrast) or 0) < half_width(repeats - 1)
    assert per_repeat == pytest.approx(3 * (2 + 10 + 3.5) / 60)


def test_designs_are_estimated_where_the_data_can_tell(make: Callable[[RunSpec], StoredRun]) -> None:
    """A paired run knows its own width and that of separate repeats; a sequential one only its own."""
    known: dict[Design, set[Design]] = {
        "duet": {"duet", "sequential"},
        "interleaved": {"interleaved", "sequential"},
        "sequential": {"sequential"},
    }
    for design, expected in known.items():
        run = make(replace(SPEC, design=design, repeats=6, name=design))
        summary, _ = summarise(run)
        found = {one.design: one for one in estimate_designs(run.record, find(summary), summary.configurations)}
        assert {name for name, one in found.items() if one.half_width is not None} == expected
        assert [name for name, one in found.items() if one.measured] == [design]
        assert found[design].half_width == measure_half_width(find(summary))
        assert found["duet"].minutes < found["interleaved"].minutes
        if design != "sequential":
            assert (found["sequential"].half_width or 0) > 2 * (found[design].half_width or 0)


def test_more_blocks_are_needed_the_wider_the_spread(summary: SummaryRecord) -> None:
    """The number of blocks for a margin follows from the spread of the blocks' ratios; a sequential contrast has
    none."""
    contrast = find(summary)
    few, many = (compute_blocks_for_margin(contrast, margin) for margin in (0.1, 0.02))
    assert few is not None
    assert many is not None
    assert few < many
    assert compute_blocks_for_margin(contrast.model_copy(update={"effective_n": None}), 0.1) is None


def test_resolution_of_a_paired_run_is_in_blocks(make: Callable[[RunSpec], StoredRun]) -> None:
    """Where the blocks are too few for the margin, the warning names the number of blocks that would do."""
    summary, _ = summarise(make(replace(SPEC, repeats=3, run_sd=0.1)))
    details = [one.detail for one in summary.issues if one.code == "resolution"]
    assert details
    assert all("3 blocks of this spread find" in detail and detail.endswith("blocks") for detail in details)


def test_blocks_are_in_the_order_of_time(duet: StoredRun) -> None:
    """A resumed run may measure a block after its successors: the correlation of neighbours follows the time."""
    order = (5, 1, 4, 8, 2, 7, 3, 6)
    late = {block: timedelta(hours=place) for place, block in enumerate(order)}
    moved = tuple(
        replace(t, record=t.record.model_copy(update={"started_at": t.record.started_at + late[t.record.block]}))
        for t in duet.trials
    )
    contrast = find(summarise(replace(duet, trials=moved))[0])
    ratios = np.log([contrast.block_ratios[block - 1] or 0 for block in order])
    off = ratios - ratios.mean()
    assert contrast.lag_1 == pytest.approx((off[1:] * off[:-1]).sum() / (off**2).sum() + 1 / 8)


def test_windows_of_a_repeat_are_averaged(make: Callable[[RunSpec], StoredRun]) -> None:
    """Percentiles are geometric means over the windows of a block, throughput and mean arithmetic ones; counts are
    sums, and the headline of the trial is the same."""
    trial = make(replace(SPEC, design="interleaved", duration_s=60, repeats=1)).trials[0]
    windows = trial.record.windows
    assert len(windows) == 2
    both = digest(trial).repeat
    parts = [
        digest(replace(trial, record=trial.record.model_copy(update={"windows": (own,)}))).repeat for own in windows
    ]
    for name in ("p50_ms", "p75_ms", "p90_ms", "p95_ms", "p99_ms", "corrected_p95_ms"):
        assert getattr(both, name) == pytest.approx(geometric_mean(getattr(part, name) for part in parts)), name
    for name in ("rps", "mean_ms"):
        assert getattr(both, name) == pytest.approx(fmean(getattr(part, name) for part in parts)), name
    assert both.requests == sum(part.requests for part in parts)
    assert both.max_ms == max(part.max_ms or 0 for part in parts)
    headline = make_headline(trial.record, trial.samples())
    assert (headline.p95_ms, headline.rps) == (both.p95_ms, both.rps)


def test_window_without_a_request_has_no_percentile(duet: StoredRun) -> None:
    """A mean over the other windows would hide that one had no answer: the repeat is invalid."""
    trial = duet.trials[0]
    empty = Window(start_ns=1000 * S, end_ns=1010 * S)
    changed = trial.record.model_copy(update={"windows": (*trial.record.windows, empty)})
    found = digest(replace(trial, record=changed)).repeat
    assert (found.p95_ms, found.valid) == (None, False)


def test_p99_needs_a_request_beyond_it_in_each_window(duet: StoredRun) -> None:
    """Ten requests beyond a percentile may be those of all windows together, but each window has one."""
    trial = duet.trials[0]
    length, many = trial.record.windows[0].end_ns - 2 * S, 1.05
    rate = (digest(trial).repeat.rps or 0) / S
    short = round(many * 50 / rate)  # about 50 requests
    windows = (Window(start_ns=2 * S, end_ns=2 * S + length - short), Window(start_ns=12 * S - short, end_ns=12 * S))
    found = digest(replace(trial, record=trial.record.model_copy(update={"windows": windows}))).repeat
    assert found.p95_ms is not None
    assert found.p99_ms is None


def test_study_statistic_is_sequential_only(make: Callable[[RunSpec], StoredRun], summary: SummaryRecord) -> None:
    """The 2022 study's statistic and the table that compares with it are of sequential runs."""
    assert {c.thesis_p95_ms for c in summary.configurations.values()} == {None}
    shown = {}
    designs: tuple[Design, ...] = ("interleaved", "sequential")
    for design in designs:
        run = make(replace(SPEC, design=design, repeats=1, name=design))
        shown[design] = [table.name for table in make_tables(Report(Run(run)))]
    assert "study-2022" in shown["sequential"]
    assert "study-2022" not in shown["interleaved"]


def test_run_has_minutes_cpu_and_reruns(make: Callable[[RunSpec], StoredRun]) -> None:
    """The summary has the minutes from start to end, the mean CPU use of the valid windows, and the reruns."""
    run = make(replace(SPEC, repeats=2, again=(1,)))
    end = run.record.started_at + timedelta(minutes=7)
    summary, _ = summarise(replace(run, record=run.record.model_copy(update={"ended_at": end})))
    assert (summary.minutes, summary.reruns, summary.cpu_use) == (7, 1, None)
    assert find(summary).n == (2, 2)
    running, _ = summarise(replace(run, record=run.record.model_copy(update={"ended_at": None})))
    assert running.minutes is None


def test_hop_cost_of_a_paired_run_is_of_its_blocks() -> None:
    """The cost is the mean of the blocks' differences with SciPy's paired interval, over blocks with both sides."""
    base, istio = [5.0, 9.0, 4.9, 7.0], [9.0, 13.4, 9.1, 11.2]
    sides = {
        name: configuration(repeats=tuple(repeat(block=b, mean_ms=v, p50_ms=v) for b, v in enumerate(values)))
        for name, values in (("baseline", base), ("istio", [*istio, 99.0]))
    }
    mean, _ = estimate_hop_costs(sides, "baseline", paths=PATHS, cpus=4, design="duet")
    interval = scipy.stats.ttest_rel(istio, base).confidence_interval(0.95)
    assert mean.ms_per_proxy == pytest.approx(fmean(np.subtract(istio, base)) / 8)
    assert (mean.low_ms_per_proxy, mean.high_ms_per_proxy) == pytest.approx((interval.low / 8, interval.high / 8))
    assert mean.n == (4, 4)
    welch, _ = estimate_hop_costs(sides, "baseline", paths=PATHS, cpus=4)
    assert welch.n == (5, 4)


def test_hop_cost_of_correlated_blocks_has_the_reason() -> None:
    """Blocks that resemble their neighbours widen the interval of a proxy's cost, too."""
    wave = [1.0, 0.9, 0.6, 0.2, -0.3, -0.7, -0.9, -0.8]
    sides = {
        "baseline": configuration(repeats=tuple(repeat(block=b, mean_ms=5.0, p50_ms=4.0) for b in range(8))),
        "istio": configuration(repeats=tuple(repeat(block=b, mean_ms=9 + v, p50_ms=8.0) for b, v in enumerate(wave))),
    }
    mean, median = estimate_hop_costs(sides, "baseline", paths=PATHS, cpus=4, design="interleaved")
    assert codes(mean.issues) == ["correlated"]
    assert codes(median.issues) == ["no-interval"]


def test_plan_of_a_paired_run_has_the_effect_of_blocks() -> None:
    """What a paired run will find depends on the spread between the ratios of its blocks."""
    scenario = make_scenario(SPEC)
    effects = dict(list_detectable_effects(scenario))
    assert effects[0.08] == pytest.approx(0.097, abs=5e-4)
    assert 0.08 not in dict(list_detectable_effects(make_scenario(replace(SPEC, design="sequential"))))
    text = format_plan(resolve(scenario, find_inputs(scenario, "smoke")), make_plan(scenario, 1))
    assert "+9.7 % if ratios of blocks differ by 8.0 %" in text


def test_hop_cost_of_a_duet_counts_the_whole_blocks_cpu() -> None:
    """All configurations of a block use the CPUs at once, so that their sum decides whether a page waits."""
    repeats = tuple(repeat(block=b, mean_ms=5.0 + b, p50_ms=5.0, used_cpu=0.6) for b in range(3))
    sides = {"baseline": configuration(repeats=repeats), "istio": configuration(repeats=repeats)}
    mean, _ = estimate_hop_costs(sides, "baseline", paths=PATHS, cpus=4, design="duet")
    assert "busy-cpus" in [one.code for one in mean.issues]


def test_numbers_of_different_designs_are_not_compared(make: Callable[[RunSpec], StoredRun]) -> None:
    """Two runs of different designs, or with other windows in a block, differ in their conditions."""
    spec = replace(SPEC, configurations=ISTIO_POLICIES[:2], repeats=1)
    records = [
        make(replace(spec, name="a", design="sequential", duration_s=120)).record,
        make(replace(spec, name="b", design="interleaved", duration_s=120)).record,
        make(replace(spec, name="c", design="interleaved", duration_s=60)).record,
    ]
    assert find_run_differences(records[0], records[0]) == ()
    assert "design: sequential / interleaved (4 windows a block)" in find_run_differences(records[0], records[1])
    assert "design: interleaved (4 windows a block) / interleaved (2 windows a block)" in find_run_differences(
        records[1], records[2]
    )


def test_frame_of_contrasts_has_the_numbers_of_blocks(duet: StoredRun) -> None:
    """Median, correlation, effective number of blocks and sequential minutes are columns."""
    frame = Run(duet).contrasts()
    row = frame[(frame.configuration == "istio") & (frame.metric == "p95_ms")].iloc[0]
    assert row.median_low <= row.median_ratio <= row.median_high
    assert row.effective_n > 0
    assert row.sequential_minutes > 0
    assert -1 < row.lag_1 < 1
