"""The proof that the windows of a duet's block overlap, from the samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench.analysis.validity import check_trial
from bench.results.records import Window
from bench.results.samples import Samples
from bench.results.store import StoredTrial
from bench.verification.overlap import OVERLAP, RecordedWindow, prove_overlap
from tests.factory import ISTIO_POLICIES, RunSpec, make_run

S = 1_000_000_000
WINDOW = Window(start_ns=5 * S, end_ns=20 * S)


@pytest.fixture
def trials(tmp_path: Path) -> tuple[StoredTrial, ...]:
    """The trials of a block, whose loads began at the same time."""
    spec = RunSpec(configurations=ISTIO_POLICIES, repeats=1, warmup_s=5, duration_s=15, users=6, design="duet")
    return make_run(tmp_path, spec).trials


def recorded(trial: StoredTrial, *, zero_s: float = 0, until_s: float = 100) -> RecordedWindow:
    """A trial's window; its clock is 0 at `zero_s` of the common one, and its users end at `until_s`."""
    samples = keep(trial.samples(), until_s)
    return RecordedWindow(samples, WINDOW, round(zero_s * S))


def keep(samples: Samples, until_s: float) -> Samples:
    """The samples that started before a time."""
    return samples.started_in(0, round(until_s * S))


def keep_rows(samples: Samples, kept: npt.NDArray[np.bool_]) -> Samples:
    """The samples in the rows that are kept."""
    columns = ("intended_ns", "started_ns", "latency_ns", "status", "ok", "bytes", "name")
    return replace(samples, **{name: getattr(samples, name)[kept] for name in columns})


def test_simultaneous_windows_are_proven(trials: tuple[StoredTrial, ...]) -> None:
    """Requests of all configurations reach from the beginning of the window to its end."""
    found = prove_overlap({one.record.configuration: recorded(one) for one in trials})
    assert (found.name, found.ok, found.subject) == (OVERLAP, True, "3 configurations")
    assert found.expected == "requests of all in at least 95 % of the window"
    assert found.seen.endswith("% of 15 s")


@pytest.mark.parametrize(("zero_s", "until_s"), [(2.0, 100), (-2.0, 100), (0.0, 17)])
def test_shifted_or_shorter_load_is_no_duet(trials: tuple[StoredTrial, ...], zero_s: float, until_s: float) -> None:
    """One load that is two seconds off, or ends early, shares too little of its window."""
    others = {one.record.configuration: recorded(one) for one in trials}
    found = prove_overlap(others | {"istio": recorded(trials[1], zero_s=zero_s, until_s=until_s)})
    assert not found.ok


def test_silent_load_is_named(trials: tuple[StoredTrial, ...]) -> None:
    """Without requests there is nothing to overlap."""
    found = prove_overlap({"baseline": recorded(trials[0]), "istio": recorded(trials[1], until_s=1)})
    assert (found.ok, found.seen) == (False, "no request of istio")


def test_missing_overlap_may_be_gone_in_a_rerun(trials: tuple[StoredTrial, ...]) -> None:
    """It invalidates the trial for a reason of its own: the configuration is still proven."""
    shifted = prove_overlap({"a": recorded(trials[0]), "b": recorded(trials[1], zero_s=9)})
    trial = trials[0]
    assert trial.proof is not None
    proof = trial.proof.model_copy(update={"after": (*trial.proof.after, shifted)})
    issues = check_trial(trial.record, trial.samples(), trial.resources(), proof)
    (reason,) = (one for one in issues if one.severity == "reason")
    assert reason.code == "no-overlap"
    assert reason.detail.startswith(
        "expected requests of all in at least 95 % of the window, seen requests of all in 4"
    )


def test_rare_requests_may_leave_the_edges_empty(trials: tuple[StoredTrial, ...]) -> None:
    """One request per two seconds cannot reach both edges of a window."""
    samples = trials[0].samples()
    rare = keep_rows(samples, np.arange(len(samples)) % max(1, len(samples) // 10) == 0)
    assert prove_overlap({"a": recorded(trials[1]), "b": RecordedWindow(rare, WINDOW, 0)}).ok


def test_bunched_requests_may_leave_the_edges_empty(trials: tuple[StoredTrial, ...]) -> None:
    """Users that all wait two seconds after each other's answers are as silent at an edge as between their bunches."""
    samples = trials[0].samples()
    bunched = keep_rows(samples, (samples.started_ns // S) % 3 == 0)
    late = RecordedWindow(bunched, WINDOW, 0)
    assert prove_overlap({"a": recorded(trials[1]), "b": late}).ok


def test_silence_at_an_edge_only_is_no_duet(trials: tuple[StoredTrial, ...]) -> None:
    """A load that is never as silent as at its end has ended early."""
    samples = trials[0].samples()
    assert not prove_overlap({"a": recorded(trials[1]), "b": RecordedWindow(keep(samples, 18), WINDOW, 0)}).ok
