"""Latency by request name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.run_summary import summarise
from bench.analysis.stats import geometric_mean
from bench.analysis.trial_summary import average_by_name, summarise_by_name
from bench.report import write_report
from bench.results.samples import RAW_ROW, make_samples
from bench.results.store import StoredRun
from bench.results.summary_records import NamedRepeat
from tests.factory import ISTIO_POLICIES, RunSpec, make_run

NAMES = ("page as others", "page as Marco")
NAMED = RunSpec(configurations=[replace(c, names=NAMES) for c in ISTIO_POLICIES[:2]], warmup_s=2.0, duration_s=6.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_run(tmp_path_factory.mktemp("names"), NAMED)


def test_repeat_has_percentiles_of_each_name(run: StoredRun) -> None:
    """Counts, P50 and P95 of a name are those of its successful requests in the window, by nearest rank."""
    summary, _ = summarise(run)
    trial = run.trials[0]
    samples = trial.samples().counted(trial.record.windows)
    repeats = summary.configurations[trial.record.configuration].repeats
    (repeat,) = (repeat for repeat in repeats if repeat.trial == trial.record.trial)
    assert [named.name for named in repeat.by_name] == sorted(NAMES)
    for named in repeat.by_name:
        mine = samples.name == samples.names.index(named.name)
        good = np.sort(samples.latency_ns[mine & samples.ok]) / 1e6
        assert (named.requests, named.errors) == (mine.sum(), mine.sum() - len(good))
        assert named.p50_ms == good[-(-50 * len(good) // 100) - 1]
        assert named.p95_ms == good[-(-95 * len(good) // 100) - 1]


def test_mean_over_repeats_is_geometric(run: StoredRun) -> None:
    """Mean and interval of a name are those of its repeats' percentiles."""
    for configuration in summarise(run)[0].configurations.values():
        for place, found in enumerate(configuration.by_name):
            expected = geometric_mean([repeat.by_name[place].p95_ms or 0 for repeat in configuration.repeats])
            assert found.p95_ms == pytest.approx(expected.value)
            assert (found.p95_low_ms, found.p95_high_ms) == pytest.approx(expected.interval)
            assert found.n == 3


def test_single_name_has_no_table(tmp_path: Path) -> None:
    """A run whose requests all have one name has no table by request name."""
    run = make_run(tmp_path, replace(NAMED, configurations=ISTIO_POLICIES[:2], repeats=1))
    summary, _ = summarise(run)
    assert all(c.by_name == () and c.repeats[0].by_name == () for c in summary.configurations.values())
    written = write_report(run, formats=["html", "csv"]).paths
    assert "names.csv" not in {path.name for path in written}
    assert "Response time by request" not in (run.path / "report" / "index.html").read_text("utf-8")


def test_reports_each_name(run: StoredRun) -> None:
    """Page and Markdown have a row per name and configuration, the CSV one per repeat."""
    write_report(run, formats=["html", "md", "csv"])
    report = run.path / "report"
    assert "Response time by request" in (report / "index.html").read_text("utf-8")
    rows = [line for line in (report / "report.md").read_text("utf-8").splitlines() if line.startswith("| page as")]
    assert len(rows) == 4
    assert len((report / "names.csv").read_text("utf-8").splitlines()) == 1 + 2 * 6
    assert "by_name" not in (report / "latency.csv").read_text("utf-8")


def test_name_without_success_has_no_percentile(run: StoredRun) -> None:
    """A name whose requests all failed has counts and a reason, and no percentile."""
    repeat = summarise(run)[0].configurations["istio"].repeats[0]
    failed = NamedRepeat(name="page as Marco", requests=9, errors=9, p50_ms=None, p95_ms=None)
    (found,) = average_by_name([repeat.model_copy(update={"by_name": (failed,)})])
    assert (found.n, found.requests, found.p50_ms, found.p95_ms) == (0, 9, None, None)
    assert found.no_interval == "no successful request of this name"


def test_leaves_out_invalid_repeats(run: StoredRun) -> None:
    """An invalid repeat is in no mean of a name."""
    repeats = summarise(run)[0].configurations["istio"].repeats
    (first, *_rest) = average_by_name([repeats[0], repeats[1].model_copy(update={"valid": False})])
    assert first.n == 1
    assert "one repeat" in first.no_interval


def test_many_names_are_folded(tmp_path: Path) -> None:
    """From 100 names on a repeat has a row for each of the most frequent ones, and one for all others: no request is
    missing."""
    names = tuple(f"/item/{number}" for number in range(150))
    folded = replace(NAMED, configurations=[replace(c, names=names) for c in ISTIO_POLICIES[:2]], repeats=2)
    run = make_run(tmp_path, folded)
    summary, _ = summarise(run)
    for configuration in summary.configurations.values():
        for repeat in configuration.repeats:
            assert len(repeat.by_name) == 21
            assert sum(named.requests for named in repeat.by_name) == repeat.requests
            others = next(named for named in repeat.by_name if named.name == "(other names)")
            assert others.p95_ms is not None
        assert len(configuration.by_name) == 21
    write_report(run, formats=["csv"])
    assert len((run.path / "report" / "names.csv").read_text("utf-8").splitlines()) == 1 + 4 * 21


def test_many_names_are_folded_fast() -> None:
    """An id in each URL is no reason to wait: a name is not looked for among all requests."""
    count = 60_000
    rows = np.zeros(count, RAW_ROW)
    rows["name"], rows["ok"], rows["latency_ns"] = np.arange(count), 1, 1_000_000
    samples = make_samples(rows, tuple(map(str, range(count))))
    found = summarise_by_name(samples, samples.latency_ns)
    assert [named.requests for named in found if named.name == "(other names)"] == [count - 20]
