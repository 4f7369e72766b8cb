"""A run's numbers as pandas DataFrames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import open_run
from bench.errors import StoreError
from bench.frames.columns import FRAMES, PAGE, TRIAL, Frame, format_page
from bench.frames.run import Run
from bench.results.samples import write_columns
from tests.bookinfo import ROOT
from tests.factory import ISTIO_POLICIES, RunSpec, make_run
from tests.issues import issue

SHORT = RunSpec(configurations=ISTIO_POLICIES[:2], warmup_s=2.0, duration_s=6.0)
STALLED = {
    "01-baseline-1": {
        "status": "invalid",
        "issues": (issue("stall", "3 s"), issue("api-outage", "=1"), issue("api-outage", "b")),
    }
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two configurations, two names of requests and one invalid trial."""
    named = [replace(c, names=("one", "other")) for c in SHORT.configurations]
    return open_run(
        make_run(tmp_path_factory.mktemp("run"), replace(SHORT, configurations=named, trial_changes=STALLED)).path
    )


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without a trial."""
    made = make_run(tmp_path_factory.mktemp("empty"), replace(SHORT, repeats=1))
    return Run(replace(made, trials=()))


@pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])
@pytest.mark.parametrize("kind", ["run", "empty"])
def test_frames_have_the_documented_columns(kind: str, frame: Frame, request: pytest.FixtureRequest) -> None:
    """Each method returns the columns and types of the page, in that order, also where there is no row."""
    made: pd.DataFrame = getattr(request.getfixturevalue(kind), frame.name)()
    assert {name: str(dtype) for name, dtype in made.dtypes.items()} == {c.name: c.dtype for c in frame.columns}
    assert len(made) or kind == "empty"
    assert list(made.index) == list(range(len(made)))


@pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])
def test_frames_have_the_warnings_of_the_run(empty: Run, frame: Frame) -> None:
    """What limits all numbers of a run travels with each of its frames."""
    made: pd.DataFrame = getattr(empty, frame.name)()
    assert made.attrs == {"run_id": empty.record.run_id, "warnings": list(empty.warnings)}
    assert "2 of 2 planned trials were not measured" in " ".join(empty.warnings)


def test_page_is_current() -> None:
    """`python -m bench.frames.columns` writes docs/dataframes.md from the columns."""
    assert (ROOT / PAGE).read_text("utf-8") == format_page()


@pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])
def test_units_are_in_names(frame: Frame) -> None:
    """The name of a column with a time ends in its unit, as in the records."""
    assert not [c.name for c in frame.columns if c.unit in ("ms", "s", "bytes") and c.unit not in c.name.split("_")]


@pytest.mark.parametrize("name", ["samples", "resources", "evidence"])
def test_rows_of_a_trial_have_its_validity_and_issues(run: Run, name: str) -> None:
    """Whether a trial counts, and why not, is in each of its rows."""
    made: pd.DataFrame = getattr(run, name)()
    assert list(made.columns[: len(TRIAL)]) == [column.name for column in TRIAL]
    stalled = made[made.trial == "01-baseline-1"]
    assert len(stalled)
    assert not stalled.valid.any()
    assert (stalled.issues == "stall, api-outage").all()
    others = made[made.trial != "01-baseline-1"]
    assert others.valid.all()
    assert (others.issues == "").all()


def test_samples_give_the_percentiles_of_the_repeats(run: Run) -> None:
    """The nearest-rank P95 of a trial's counted samples is that of `repeats`, which has its texts, too."""
    samples, repeats = run.samples(), run.repeats().set_index("trial")
    for trial, counted in samples.query("in_window").groupby("trial"):
        good = np.sort(counted.response_ms[counted.ok])
        assert repeats.p95_ms[trial] == good[-(-95 * len(good) // 100) - 1]
        assert repeats.requests[trial] == len(counted)
    assert not samples.in_window.all(), "the warm-up is there, too"
    assert repeats.reasons["01-baseline-1"].startswith("stall: 3 s; ")
    assert repeats.warnings["01-baseline-1"] == "=1; b"


def test_response_of_an_open_loop_counts_from_the_intended_start(run: Run) -> None:
    """`response_ms` is what percentiles are computed from, which in an open loop is not the latency."""
    assert (run.samples().response_ms == run.samples().latency_ms).all()
    trials = tuple(replace(t, record=t.record.model_copy(update={"rate": 50.0})) for t in run.stored.trials)
    samples = Run(replace(run.stored, trials=trials)).samples()
    assert samples.response_ms.to_numpy() == pytest.approx(
        samples.latency_ms + (samples.started_s - samples.intended_s) * 1e3
    )
    assert (samples.response_ms > samples.latency_ms).all()


def test_configurations_keep_the_order_of_the_scenario(run: Run) -> None:
    """Groups and plots have the scenario's order, not that of the alphabet or of the trials."""
    for frame in (run.samples(), run.repeats(), run.contrasts(), run.evidence()):
        assert list(frame.configuration.cat.categories) == ["baseline", "istio"]


def test_cpu_of_a_restarted_container_is_unknown(run: Run, tmp_path: Path) -> None:
    """A counter that starts again from 0 gives no number of cores, instead of a negative one."""
    columns = {
        "at_ns": np.array([0, 1, 2, 3], np.int64) * 10**9,
        "process": np.full(4, "web"),
        "role": np.full(4, "service"),
        "cpu_ns": np.array([10, 12, 1, 2], np.int64) * 10**8,
        "rss_bytes": np.ones(4, np.int64),
    }
    write_columns(tmp_path / "resources.parquet", columns)
    first = run.stored.trials[0]
    stored = replace(run.stored, trials=(replace(first, path=tmp_path), *run.stored.trials[1:]))
    made = Run(stored)
    made.__dict__["_summarised"] = run.summary, run.digests
    cores = made.resources().query("process == 'web'").cpu_cores
    assert cores.to_numpy() == pytest.approx([np.nan, 0.2, np.nan, 0.1], nan_ok=True)


def test_run_without_resources_has_no_rows(run: Run, tmp_path: Path) -> None:
    """A target that cannot observe its processes leaves the frame of resources empty."""
    made = Run(replace(run.stored, trials=tuple(replace(trial, path=tmp_path) for trial in run.stored.trials)))
    made.__dict__["_summarised"] = run.summary, run.digests
    assert made.resources().empty


def test_damaged_trial_is_left_out_and_reported(tmp_path: Path) -> None:
    """A trial whose files changed has no row; the run's warnings name it, and `strict` raises."""
    made = make_run(tmp_path, SHORT)
    (made.trials[0].path / "samples.parquet").write_bytes(b"")
    run, broken = open_run(made.path), made.trials[0].record.trial
    assert broken not in set(run.repeats().trial)
    assert [text for text in run.warnings if broken in text]
    with pytest.raises(StoreError, match=broken):
        open_run(made.path, strict=True)


def test_folder_without_a_run_is_a_store_error(tmp_path: Path) -> None:
    """The path may be text; the message names it."""
    with pytest.raises(StoreError, match="not a run's folder"):
        open_run(str(tmp_path))
