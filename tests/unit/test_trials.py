"""Trials whose proof fails, or whose target fails after the load: the samples are kept, and the trial is invalid."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.errors import ClusterError, ErrorKind, InvalidMeasurementError, MeshbenchError, ProofError
from bench.load.generator import LoadOutcome, RunningLoad
from bench.results.records import Evidence, Window
from bench.results.store import RunFolder, StoredRun, StoredTrial, read_run
from bench.run.trials import ProgressListener, run_unit
from bench.scenario.plan import Trial
from bench.system.cancellation import CancelToken
from bench.targets import Target
from tests.factory import ISTIO_POLICIES, RunSpec, make_run
from tests.issues import codes, issue

GONE = ClusterError("listing pods: no answer from https://127.0.0.1:6443", kind=ErrorKind.UNREACHABLE)
FACT = Evidence(name="page", subject="productpage", ok=True, expected="whole", seen="whole", about="responses")
NO_PAGE = FACT.model_copy(update={"ok": False, "seen": "403 RBAC: access denied"})
NO_SIDECAR = Evidence(name="sidecars", subject="all pods", ok=False, expected="in every pod", seen="reviews has none")


class _Quiet:
    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


@dataclass
class FinishedLoad:
    """A load whose window has passed, and its generator."""

    outcome: LoadOutcome
    over = True
    ended_early = ended_with = hopeless = ""

    @property
    def generator(self) -> "FinishedLoad":
        return self

    @property
    def windows(self) -> tuple[Window, ...]:
        return self.outcome.windows

    def zero_ns(self) -> int:
        return 0

    def now_ns(self) -> int:
        return self.windows[-1].end_ns

    def wait_for_start(self) -> None:
        """It has started."""

    tick = begin_stop = wait_for_start

    def finish(self) -> LoadOutcome:
        return self.outcome


@dataclass
class FakePlace:
    """A target and its deployment, which measures what a stored trial holds. `seen_before` is the result of the proof
    before the load; `prove_error` is raised by the proof after it, `remove_error` by the removal."""

    stored: Path
    outcome: LoadOutcome
    seen_before: Evidence = FACT
    prove_error: MeshbenchError | None = None
    remove_error: MeshbenchError | None = None

    def for_each(self, act: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
        return [act(one) for one in things]

    @contextmanager
    def deploy(self, _trials: Sequence[Trial], _drafts: Sequence[Path]) -> Iterator[list["FakePlace"]]:
        yield [self]
        if self.remove_error:
            raise self.remove_error

    def prove(self, load: LoadOutcome | None = None) -> tuple[Evidence, ...]:
        if load is not None and self.prove_error:
            raise self.prove_error
        return (self.seen_before if load is None else FACT,)

    @contextmanager
    def loading(self, draft: Path) -> Iterator[RunningLoad]:
        for name in ("samples.parquet", "resources.parquet"):
            shutil.copyfile(self.stored / name, draft / name)
        yield cast("RunningLoad", FinishedLoad(self.outcome))

    def restarts(self) -> tuple[str, ...]:
        return ()

    def images(self) -> dict[str, str]:
        return {}

    def data_path(self, _draft: Path) -> None:
        return None


@pytest.fixture
def made(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "made", RunSpec(configurations=ISTIO_POLICIES[:1], repeats=1))


@pytest.fixture
def policed(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "policed", RunSpec(configurations=ISTIO_POLICIES[2:], repeats=1, reference=None))


def run_with(made: StoredRun, output: Path, *, refused: bool = False, **seen: Any) -> None:
    """One trial on a target with this evidence. `refused`: the whole load is."""
    trial, stored = made.record.plan.trials[0], made.trials[0]
    generator, clock = stored.record.generator, stored.record.clock
    assert generator is not None
    assert clock is not None
    samples = stored.samples()
    if refused:
        samples = replace(samples, ok=np.zeros_like(samples.ok), status=np.full_like(samples.status, 403))
    outcome = LoadOutcome(stored.record.windows, False, samples, generator, clock, stored.resources())
    folder = RunFolder.create(output, made.record.model_copy(update={"trials": ()}))
    place = cast("Target", FakePlace(stored.path, outcome, **seen))
    try:
        run_unit(folder, [trial], target=place, show=cast("ProgressListener", _Quiet()), watch=CancelToken())
    finally:
        folder.journal.close()


def kept(output: Path) -> StoredTrial:
    (trial,) = read_run(next(output.glob("*/"))).trials
    return trial


def test_failed_proof_keeps_the_samples(made: StoredRun, tmp_path: Path) -> None:
    """The trial is invalid with the reason, and the run continues."""
    run_with(made, tmp_path / "run", prove_error=GONE)
    trial = kept(tmp_path / "run")
    assert trial.record.status == "invalid"
    assert codes(trial.record.reasons) == ["unproven"]
    assert issue("unread-state", f"the state after the load could not be read: {GONE}") in trial.record.warnings
    assert len(trial.samples()) == len(made.trials[0].samples())


def test_unreachable_target_exits_with_the_measurements_code(made: StoredRun, tmp_path: Path) -> None:
    """Of two causes, the invalid trial decides the exit code."""
    with pytest.raises(
        InvalidMeasurementError, match=r"01-baseline-1 is invalid, and the run cannot continue: listing"
    ):
        run_with(made, tmp_path / "run", prove_error=GONE, remove_error=GONE)
    assert kept(tmp_path / "run").record.status == "invalid"


def test_valid_trial_survives_failed_removal(made: StoredRun, tmp_path: Path) -> None:
    """The measurement is valid, so that the cluster's own failure is raised."""
    with pytest.raises(ClusterError, match="no answer"):
        run_with(made, tmp_path / "run", remove_error=GONE)
    assert kept(tmp_path / "run").record.status == "complete"


def test_page_that_policies_refuse_is_their_result(policed: StoredRun, tmp_path: Path) -> None:
    """The trial is invalid since all its requests failed, and the run continues; the response is in its proof."""
    run_with(policed, tmp_path / "run", seen_before=NO_PAGE, refused=True)
    trial = kept(tmp_path / "run")
    assert codes(trial.record.reasons) == ["all-failed"]
    assert trial.proof is not None
    assert trial.proof.failures == (NO_PAGE,)


@pytest.mark.parametrize(("policies", "seen"), [(False, NO_PAGE), (True, NO_SIDECAR)])
def test_failed_proof_prevents_the_load(
    made: StoredRun, policed: StoredRun, tmp_path: Path, policies: bool, seen: Evidence
) -> None:
    """A failed proof ends the run, and so does a missing page that no policy forbids."""
    with pytest.raises(ProofError, match=f"no load was sent:\n  {seen.name}, {seen.subject}: expected"):
        run_with(policed if policies else made, tmp_path / "run", seen_before=seen)
    assert not read_run(next((tmp_path / "run").glob("*/"))).trials
