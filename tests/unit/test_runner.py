"""What becomes of a trial whose proof fails, or whose place goes away after the load: what was measured is kept, and
told as doubtful."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.errors import ClusterError, InvalidMeasurementError, MeshbenchError, ProofError
from bench.load.generator import LoadOutcome
from bench.results.records import Evidence
from bench.results.store import RunFolder, StoredRun, StoredTrial, open_run
from bench.run.trials import Show, run_trial
from bench.scenario.plan import Trial
from bench.targets import Target
from tests.factory import ISTIO_POLICIES, Made, make_run

GONE = ClusterError("listing pods: no answer from https://127.0.0.1:6443", status=0)
FACT = Evidence(name="page", subject="productpage", ok=True, expected="whole", seen="whole")
NO_PAGE = FACT.model_copy(update={"ok": False, "seen": "403 RBAC: access denied"})
NO_SIDECAR = Evidence(name="sidecars", subject="all pods", ok=False, expected="in every pod", seen="reviews has none")


class _Quiet:
    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


@dataclass
class FakePlace:
    """A target and its deployment, which measures what a stored trial holds. `seen_before` is what the proof before the
    load finds; `prove_error` is what the proof after it ends with, `remove_error` the removal."""

    stored: Path
    outcome: LoadOutcome
    seen_before: Evidence = FACT
    prove_error: MeshbenchError | None = None
    remove_error: MeshbenchError | None = None

    @contextmanager
    def deploy(self, _trial: Trial, _draft: Path) -> Iterator["FakePlace"]:
        yield self
        if self.remove_error:
            raise self.remove_error

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        if load is not None and self.prove_error:
            raise self.prove_error
        return (self.seen_before if load is None else FACT,)

    def load(self, draft: Path, **_: Any) -> LoadOutcome:
        for name in ("samples.parquet", "resources.parquet"):
            shutil.copyfile(self.stored / name, draft / name)
        return self.outcome

    def restarts(self) -> tuple[str, ...]:
        return ()

    def images(self) -> dict[str, str]:
        return {}

    def data_path(self, _draft: Path) -> None:
        return None


@pytest.fixture
def made(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "made", Made(configurations=ISTIO_POLICIES[:1], repeats=1))


@pytest.fixture
def policed(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "policed", Made(configurations=ISTIO_POLICIES[2:], repeats=1, reference=None))


def run_with(made: StoredRun, output: Path, *, refused: bool = False, **seen: Any) -> None:
    """One trial at a place where this is seen. `refused`: the whole load is."""
    trial, stored = made.record.plan.trials[0], made.trials[0]
    generator, clock = stored.record.generator, stored.record.clock
    assert generator is not None
    assert clock is not None
    samples = stored.samples()
    if refused:
        samples = replace(samples, ok=np.zeros_like(samples.ok), status=np.full_like(samples.status, 403))
    outcome = LoadOutcome(stored.record.windows[0], False, samples, generator, clock)
    folder = RunFolder.create(output, made.record.model_copy(update={"trials": ()}))
    place = cast("Target", FakePlace(stored.path, outcome, **seen))
    try:
        run_trial(folder, trial, target=place, show=cast("Show", _Quiet()))
    finally:
        folder.journal.close()


def kept(output: Path) -> StoredTrial:
    (trial,) = open_run(next(output.glob("*/"))).trials
    return trial


def test_a_place_that_can_no_longer_be_asked_costs_the_proof_and_not_the_samples(
    made: StoredRun, tmp_path: Path
) -> None:
    """The trial is invalid, says why, and the run goes on."""
    run_with(made, tmp_path / "run", prove_error=GONE)
    trial = kept(tmp_path / "run")
    assert trial.record.status == "invalid"
    assert [reason.partition(":")[0] for reason in trial.record.reasons] == ["unproven"]
    assert f"what it was after the load could not be found out: {GONE}" in trial.record.warnings
    assert len(trial.samples()) == len(made.trials[0].samples())


def test_a_place_that_stays_away_ends_the_run_with_the_measurements_exit_code(made: StoredRun, tmp_path: Path) -> None:
    """Of two causes, the trial that cannot carry a result is the one that counts."""
    with pytest.raises(InvalidMeasurementError, match=r"01-baseline-1 is invalid, and the run cannot go on: listing"):
        run_with(made, tmp_path / "run", prove_error=GONE, remove_error=GONE)
    assert kept(tmp_path / "run").record.status == "invalid"


def test_a_good_trial_whose_removal_fails_is_kept_and_the_failure_goes_on(made: StoredRun, tmp_path: Path) -> None:
    """Nothing is wrong with what was measured, so that the cluster's own failure is told."""
    with pytest.raises(ClusterError, match="no answer"):
        run_with(made, tmp_path / "run", remove_error=GONE)
    assert kept(tmp_path / "run").record.status == "complete"


def test_a_page_that_the_policies_themselves_refuse_is_a_result_of_theirs(policed: StoredRun, tmp_path: Path) -> None:
    """Their trial is invalid since all its requests failed, and the run goes on; what the page said stays in its
    proof."""
    run_with(policed, tmp_path / "run", seen_before=NO_PAGE, refused=True)
    trial = kept(tmp_path / "run")
    assert [reason.partition(":")[0] for reason in trial.record.reasons] == ["all-failed"]
    assert trial.proof is not None
    assert trial.proof.failures == (NO_PAGE,)


@pytest.mark.parametrize(("policies", "seen"), [(False, NO_PAGE), (True, NO_SIDECAR)])
def test_no_proof_no_load(made: StoredRun, policed: StoredRun, tmp_path: Path, policies: bool, seen: Evidence) -> None:
    """What is not what its name says ends the run, and so does a page that nobody forbade."""
    with pytest.raises(ProofError, match=f"no load was sent:\n  {seen.name}, {seen.subject}: expected"):
        run_with(policed if policies else made, tmp_path / "run", seen_before=seen)
    assert not open_run(next((tmp_path / "run").glob("*/"))).trials
