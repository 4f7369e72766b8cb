"""A run's numbers, from its folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.run_summary import summarise
from bench.analysis.trial_summary import digest
from bench.results.records import Window
from bench.results.store import StoredRun, read_record, read_run
from bench.results.summary_records import SummaryRecord
from bench.scenario.types import Design
from tests.factory import (
    ENVIRONMENT,
    ISTIO_AND_KUMA,
    ISTIO_POLICIES,
    MESH_PAIRS,
    USERS_SWEEP,
    ConfigSpec,
    RunSpec,
    make_run,
)
from tests.issues import codes, issue

S = 1_000_000_000
SHORT = RunSpec(warmup_s=5.0, duration_s=20.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_run(tmp_path_factory.mktemp("run"), SHORT)


@pytest.fixture(scope="module")
def summary(run: StoredRun) -> SummaryRecord:
    return summarise(run)[0]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[RunSpec], StoredRun]:
    return lambda made: make_run(tmp_path, made)


def test_repeat_counts_successful_requests(run: StoredRun, summary: SummaryRecord) -> None:
    """Counts, throughput and nearest-rank percentiles can be computed again from the samples file by hand."""
    for trial in run.trials:
        window, samples = trial.record.windows[0], trial.samples()
        inside = (samples.started_ns >= window.start_ns) & (samples.started_ns < window.end_ns)
        good = np.sort(samples.latency_ns[inside & samples.ok]) / 1e6
        (repeat,) = (
            r for r in summary.configurations[trial.record.configuration].repeats if r.trial == trial.record.trial
        )
        assert (repeat.requests, repeat.errors) == (inside.sum(), inside.sum() - len(good))
        assert repeat.rps == pytest.approx(len(good) / 20)
        assert repeat.mean_ms == pytest.approx(good.mean())
        for share, value in ((50, repeat.p50_ms), (95, repeat.p95_ms), (99, repeat.p99_ms), (100, repeat.max_ms)):
            assert value == good[-(-share * len(good) // 100) - 1]


def test_configuration_is_the_mean_of_its_repeats(summary: SummaryRecord) -> None:
    """P95 is the geometric, throughput the arithmetic mean over the repeats, each with its interval."""
    for configuration in summary.configurations.values():
        p95s = [repeat.p95_ms or 0 for repeat in configuration.repeats]
        assert configuration.p95_ms == pytest.approx(np.prod(p95s) ** (1 / 3))
        assert configuration.rps == pytest.approx(np.mean([repeat.rps or 0 for repeat in configuration.repeats]))
        assert configuration.p95_cv == pytest.approx(np.std(np.log(p95s), ddof=1))
        low, high = configuration.p95_low_ms or 0, configuration.p95_high_ms or 0
        assert low < (configuration.p95_ms or 0) < high
        assert (configuration.n, configuration.valid) == (3, True)


def test_contrasts_are_reference_and_mesh_steps(summary: SummaryRecord) -> None:
    """Everything is compared with the reference, each step of a mesh with the one before; one metric decides."""
    pairs = {(c.configuration, c.reference) for c in summary.contrasts}
    assert pairs == {("istio", "baseline"), ("istio-policies", "baseline"), ("istio-policies", "istio")}
    assert len(summary.contrasts) == 3 * 4
    decisive = [(c.configuration, c.reference, c.metric) for c in summary.contrasts if c.confirmatory]
    assert decisive == [("istio", "baseline", "p95_ms"), ("istio-policies", "baseline", "p95_ms")]


def test_named_pairs_are_planned(make: Callable[[RunSpec], StoredRun]) -> None:
    """A pair that the scenario names is there on every metric; its P95 is planned, with a warning about its detectable
    effect."""
    made = replace(SHORT, configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, repeats=2, run_sd=0.1)
    summary, _ = summarise(make(made))
    named = [c for c in summary.contrasts if c.named]
    assert {(c.configuration, c.reference) for c in named} == set(MESH_PAIRS)
    assert [c.metric for c in named if c.standing == "planned"] == ["p95_ms", "p95_ms"]
    assert not [c for c in named if c.confirmatory]
    assert [one for one in summary.issues if one.detail.startswith("kuma against istio: ")]


def test_marks_equal_configurations(make: Callable[[RunSpec], StoredRun]) -> None:
    """Where only the name differs the contrasts are marked."""
    sides = (ConfigSpec("a"), ConfigSpec("b"))
    summary, _ = summarise(make(replace(SHORT, configurations=sides, reference="a", repeats=2)))
    assert all(c.alike for c in summary.contrasts)


def test_proxy_cpu_has_its_interval(summary: SummaryRecord) -> None:
    """CPU per request of all sidecars is a mean over repeats, with its t interval."""
    istio = summary.configurations["istio"]
    low, high = istio.sidecar_cpu_low_ms_per_request or 0, istio.sidecar_cpu_high_ms_per_request or 0
    assert low < (istio.sidecar_cpu_ms_per_request or 0) < high
    assert summary.configurations["baseline"].sidecar_cpu_high_ms_per_request is None


def test_contrast_is_the_ratio_of_configurations(summary: SummaryRecord) -> None:
    """Ratio and difference of P95 are those of the configurations' means."""
    first, baseline = summary.contrasts[1], summary.configurations["baseline"]
    istio = summary.configurations["istio"]
    assert (first.configuration, first.metric) == ("istio", "p95_ms")
    assert istio.p95_ms is not None
    assert baseline.p95_ms is not None
    assert first.ratio == pytest.approx(istio.p95_ms / baseline.p95_ms)
    assert first.delta_ms == pytest.approx(istio.p95_ms - baseline.p95_ms)


def test_cpu_is_counted_inside_the_window(summary: SummaryRecord) -> None:
    """CPU time is what was used between the window's edges, per request of the window."""
    repeat = summary.configurations["istio"].repeats[0]
    assert repeat.generator_cpu == pytest.approx(repeat.requests / 20 * 0.9e-3, rel=0.3)
    for use in repeat.resources:
        assert use.cpu_s is not None
        assert use.seen_s == pytest.approx(repeat.window_s, abs=0.5)
        assert use.cpu_ms_per_request == pytest.approx(use.cpu_s * 1e3 / repeat.requests, rel=0.05)
    assert summary.configurations["istio"].sidecar_cpu_ms_per_request == pytest.approx(2.4, rel=0.2)
    assert summary.configurations["baseline"].sidecar_cpu_ms_per_request is None
    assert summary.configurations["baseline"].service_cpu_ms_per_request == pytest.approx(3.1, rel=0.2)


def test_complete_run_is_valid(summary: SummaryRecord) -> None:
    """A complete run with valid repeats is valid; its only warning is its detectable effect."""
    assert summary.valid
    assert {*codes(summary.issues)} == {"resolution"}


def test_warns_if_margin_is_not_detectable(make: Callable[[RunSpec], StoredRun]) -> None:
    """A spread that hides the margin is a warning, with the necessary repeats; a small spread is none."""
    noisy = summarise(make(replace(SHORT, run_sd=0.15)))[0]
    assert [one for one in noisy.issues if "10 % would take" in one.detail and "repeats" in one.detail]


def test_leaves_out_invalid_repeat(make: Callable[[RunSpec], StoredRun]) -> None:
    """An invalid repeat stays in the list, is in no mean, and makes its configuration and run invalid."""
    changes = {"status": "invalid", "issues": (issue("stall"),)}
    plan = make_run_plan(SHORT)
    broken = next(folder for folder in plan if "-istio-2" in folder)
    summary, digests = summarise(make(replace(SHORT, trial_changes={broken: changes})))
    istio = summary.configurations["istio"]
    assert (istio.n, istio.valid, summary.valid) == (2, False, False)
    assert [repeat.valid for repeat in istio.repeats] == [True, False, True]
    assert istio.repeats[1].issues == changes["issues"]
    assert summary.configurations["baseline"].valid
    assert issue("invalid-trial", f"{broken} is not valid (stall)") in summary.issues
    assert len(digests) == 9


def make_run_plan(made: RunSpec) -> list[str]:
    from bench.scenario.plan import make_plan
    from tests.factory import make_scenario

    return [trial.folder for trial in make_plan(make_scenario(made), made.seed).trials]


def test_run_without_valid_repeats_has_a_summary(make: Callable[[RunSpec], StoredRun]) -> None:
    """When every trial is invalid there are no means, no ratios, and every verdict is invalid."""
    made = replace(SHORT, repeats=2)
    changes = {folder: {"status": "invalid", "issues": (issue("clock"),)} for folder in make_run_plan(made)}
    summary, _ = summarise(make(replace(made, trial_changes=changes)))
    assert not summary.valid
    assert {contrast.verdict for contrast in summary.contrasts} == {"invalid"}
    assert {c.p95_ms for c in summary.configurations.values()} == {None}
    assert all(c.no_interval for c in summary.configurations.values())


def test_failed_requests_have_no_percentiles(make: Callable[[RunSpec], StoredRun]) -> None:
    """A configuration whose requests all fail has no percentiles and is invalid; the others are not affected."""
    denied = ConfigSpec("denied", "istio", error_share=1.0)
    summary, digests = summarise(make(replace(SHORT, configurations=(ISTIO_POLICIES[0], denied), repeats=2)))
    repeat = summary.configurations["denied"].repeats[0]
    assert (repeat.p95_ms, repeat.mean_ms, repeat.max_ms) == (None, None, None)
    assert repeat.errors == repeat.requests > 0
    assert not repeat.valid
    assert np.isnan(digests[repeat.trial].series.p95_ms).all()
    assert summary.configurations["baseline"].valid


def test_single_repeat_has_no_interval(make: Callable[[RunSpec], StoredRun]) -> None:
    """A run with one repeat has numbers, no interval and no verdict, and the reason."""
    summary, _ = summarise(make(replace(SHORT, repeats=1)))
    assert summary.valid
    assert {contrast.verdict for contrast in summary.contrasts} == {"inconclusive"}
    baseline = summary.configurations["baseline"]
    assert baseline.p95_ms is not None
    assert (baseline.p95_low_ms, baseline.p95_cv) == (None, None)
    assert "one repeat" in baseline.no_interval
    assert any("no difference can be distinguished from chance" in one.detail for one in summary.issues)


def test_no_reference_means_no_contrasts(make: Callable[[RunSpec], StoredRun]) -> None:
    """A sweep compares nothing; each level has its own users."""
    summary, _ = summarise(
        make(replace(SHORT, configurations=USERS_SWEEP[:2], reference=None, name="users-sweep", repeats=2))
    )
    assert summary.contrasts == ()
    assert [c.users for c in summary.configurations.values()] == [10, 20]


def test_quick_runs_and_small_machines_are_marked(run: StoredRun) -> None:
    """Short windows and fewer than 4 CPUs are warnings."""
    small = ENVIRONMENT.model_copy(update={"cpus": 2})
    scenario = run.record.scenario.model_copy(update={"quick": True})
    changed = replace(run, record=run.record.model_copy(update={"environment": small, "scenario": scenario}))
    summary, _ = summarise(changed)
    assert summary.quick
    assert codes(summary.issues[:2]) == ["quick", "few-cpus"]


def test_reports_missing_and_damaged_trials(run: StoredRun) -> None:
    """A trial that was left out, or never measured, makes the run invalid and is named."""
    changed = replace(run, trials=run.trials[:-2], problems=("trial 09-x-3 is left out: samples.parquet changed",))
    summary, _ = summarise(changed)
    assert not summary.valid
    assert issue("damaged-trial", changed.problems[0]) in summary.issues
    assert issue("unfinished", "1 of 9 planned trials were not measured") in summary.issues


def test_series_has_every_second(run: StoredRun) -> None:
    """The course of a trial has a point per second, warm-up included, and loses no request that ended in time."""
    trial = run.trials[0]
    found = digest(trial)
    samples = trial.samples()
    ended = samples.completed_ns < 25 * S
    assert found.series.at_s.tolist() == list(range(1, 26))
    assert found.series.rps.sum() + found.series.errors.sum() == ended.sum()
    recent = (samples.completed_ns >= 15 * S) & (samples.completed_ns < 20 * S) & samples.ok
    values = np.sort(samples.latency_ns[recent])
    assert found.series.p95_ms[19] == values[-(-95 * len(values) // 100) - 1] / 1e6
    assert found.window == (5.0, 25.0)


def test_quantile_curve_ends_at_ten_requests(run: StoredRun) -> None:
    """The curve rises, goes through P95, and stops before fewer than ten requests lie beyond."""
    found = digest(run.trials[0])
    shares, values = found.quantiles
    assert (np.diff(values) >= 0).all()
    assert values[np.isclose(shares, 0.95)] == pytest.approx([found.repeat.p95_ms or 0])
    good = found.repeat.requests - found.repeat.errors
    assert good * (1 - shares[-1]) >= 10 - 1e-6
    assert shares[-1] >= 0.99


def test_open_loop_counts_from_intended_start(run: StoredRun) -> None:
    """With a rate, a late start is latency: P95 grows by it, and needs no correction."""
    trial = run.trials[0]
    closed = digest(trial).repeat
    opened = digest(replace(trial, record=trial.record.model_copy(update={"rate": 150.0}))).repeat
    samples = trial.samples().counted(trial.record.windows)
    waited = np.sort((samples.completed_ns - samples.intended_ns)[samples.ok])
    assert opened.p95_ms == waited[-(-95 * len(waited) // 100) - 1] / 1e6
    assert (opened.p95_ms or 0) > (closed.p95_ms or 0)
    assert opened.corrected_p95_ms == opened.p95_ms


def test_two_windows_are_one_repeat(run: StoredRun) -> None:
    """A trial with two windows has the requests, the CPU time and the seconds of both."""
    trial = run.trials[0]
    halves = (Window(start_ns=5 * S, end_ns=13 * S), Window(start_ns=15 * S, end_ns=25 * S))
    both = digest(replace(trial, record=trial.record.model_copy(update={"windows": halves}))).repeat
    parts = [
        digest(replace(trial, record=trial.record.model_copy(update={"windows": (half,)}))).repeat for half in halves
    ]
    assert both.requests == sum(part.requests for part in parts)
    assert both.window_s == 18
    assert both.max_ms == max(part.max_ms or 0 for part in parts)
    assert sum(use.cpu_s or 0 for use in both.resources) == pytest.approx(
        sum(use.cpu_s or 0 for part in parts for use in part.resources)
    )


def test_reads_older_run() -> None:
    """A run of version 1, written before pairs could be named, is summarised, and its stored summary is still read."""
    example = Path(__file__).parents[1] / "recorded" / "run_of_version_1"
    found, _ = summarise(read_run(example))
    assert {c.standing for c in found.contrasts} == {"confirmatory", "exploratory"}
    assert {cost.proxies for cost in found.hop_costs} == {8}
    before = read_record(example / "summary.json", SummaryRecord)
    assert before.configurations["istio"].p95_ms == found.configurations["istio"].p95_ms


@pytest.mark.parametrize(
    ("design", "used", "warned"), [("duet", 0.8, True), ("duet", 0.7, False), ("interleaved", 0.8, False)]
)
def test_duet_that_used_too_much_cpu_is_warned_of(tmp_path: Path, design: Design, used: float, *, warned: bool) -> None:
    """Where the use of CPUs is only known afterwards, a duet beyond its limit has a warning with what to do."""
    made = RunSpec(warmup_s=1.0, duration_s=3.0, design=design, repeats=1, noise={}, used_cpu=used)
    issues = [one for one in summarise(make_run(tmp_path, made))[0].issues if one.code == "busy-cpus"]
    assert len(issues) == warned
    assert all("used 80 % of the CPUs" in one.detail and "--design interleaved" in one.detail for one in issues)


def test_summary_round_trip(summary: SummaryRecord) -> None:
    """A summary that is read from summary.json equals the written one."""
    assert SummaryRecord.model_validate_json(summary.model_dump_json()) == summary


def test_warns_of_an_image_that_changed(run: StoredRun) -> None:
    """A tag that is moved during a run makes its blocks different; another image in another configuration does not."""

    def ran(image: str, changed: str) -> StoredRun:
        trials = (
            replace(
                one, record=one.record.model_copy(update={"images": {"reviews": changed if one is last else image}})
            )
            for one in run.trials
        )
        return replace(run, trials=tuple(trials))

    last = run.trials[-1]
    name = last.record.configuration
    warning = issue("image-changed", f"reviews of {name} was r@sha256:1 and r@sha256:2")
    assert warning in summarise(ran("r@sha256:1", "r@sha256:2"))[0].issues
    assert "image-changed" not in codes(summarise(ran("r@sha256:1", "r@sha256:1"))[0].issues)
