"""Trials whose proof fails, or whose target fails after the load: the samples are kept, and the trial is invalid."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench.errors import ClusterError, ErrorKind, InvalidMeasurementError, MeshbenchError, ProofError
from bench.load.generator import LoadOutcome, RunningLoad
from bench.results.records import Evidence, Window
from bench.results.store import RunFolder, StoredRun, StoredTrial, read_run
from bench.run.space import SpaceWatch
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
    spec, window_ns = SimpleNamespace(warmup_s=0), 0

    @property
    def generator(self) -> "FinishedLoad":
        return self

    def __post_init__(self) -> None:
        self.windows: tuple[Window, ...] = self.outcome.windows

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
    others: tuple["FakePlace", ...] = ()

    def for_each(self, act: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
        return [act(one) for one in things]

    start_each = for_each

    @contextmanager
    def deploy(self, _trials: Sequence[Trial], _drafts: Sequence[Path]) -> Iterator[list["FakePlace"]]:
        yield [self, *self.others]
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
    run_on(made, output, FakePlace(made.trials[0].path, outcome_of(made.trials[0], refused=refused), **seen))


def run_on(made: StoredRun, output: Path, place: FakePlace) -> None:
    """The first unit of a run's plan on this target."""
    folder = RunFolder.create(output, made.record.model_copy(update={"trials": ()}))
    quiet = cast("ProgressListener", _Quiet())
    try:
        run_unit(
            folder,
            made.record.plan.units[0],
            target=cast("Target", place),
            show=quiet,
            watch=CancelToken(),
            space=SpaceWatch(folder),
        )
    finally:
        folder.journal.close()


def outcome_of(stored: StoredTrial, *, refused: bool = False, zero_ns: int = 0) -> LoadOutcome:
    """The outcome of a load that measured what a stored trial has."""
    generator, clock = stored.record.generator, stored.record.clock
    assert generator is not None
    assert clock is not None
    samples = stored.samples()
    if refused:
        samples = replace(samples, ok=np.zeros_like(samples.ok), status=np.full_like(samples.status, 403))
    return LoadOutcome(stored.record.windows, False, samples, generator, clock, stored.resources(), zero_ns=zero_ns)


def kept(output: Path) -> StoredTrial:
    (trial,) = read_run(next(output.glob("[!.]*/"))).trials
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
    assert not read_run(next((tmp_path / "run").glob("[!.]*/"))).trials


@pytest.fixture
def duet(tmp_path: Path) -> StoredRun:
    spec = RunSpec(configurations=ISTIO_POLICIES, repeats=1, design="duet", users=18, warmup_s=5, duration_s=15)
    return make_run(tmp_path / "duet", spec)


def block_of(run: StoredRun, *, late_ns: int = 0, **seen: Any) -> FakePlace:
    """A target with the deployments of a block, the last of which has a clock that is off."""
    *first, last = (FakePlace(one.path, outcome_of(one)) for one in run.trials)
    last.outcome = replace(last.outcome, zero_ns=late_ns)
    return FakePlace(first[0].stored, first[0].outcome, others=(*first[1:], last), **seen)


@pytest.mark.parametrize(("late_ns", "reasons"), [(0, []), (9_000_000_000, ["no-overlap"])])
def test_block_is_stored_as_trials(duet: StoredRun, tmp_path: Path, late_ns: int, reasons: list[str]) -> None:
    """Every trial of a block has its own folder, the design, and the proof that all windows overlap."""
    run_on(duet, tmp_path / "run", block_of(duet, late_ns=late_ns))
    trials = read_run(next((tmp_path / "run").glob("[!.]*/"))).trials
    assert [one.record.trial for one in trials] == [one.folder for one in duet.record.plan.units[0]]
    for trial in trials:
        assert trial.record.design == "duet"
        assert codes(trial.record.reasons) == reasons
        assert trial.proof is not None
        (shared,) = (one for one in trial.proof.after if one.name == "windows of the block")
        assert shared.ok is not bool(reasons)


def test_failed_removal_of_a_block_keeps_all_trials(duet: StoredRun, tmp_path: Path) -> None:
    """What was measured is stored, whatever the removal does."""
    with pytest.raises(ClusterError, match="no answer"):
        run_on(duet, tmp_path / "run", block_of(duet, remove_error=GONE))
    assert len(read_run(next((tmp_path / "run").glob("[!.]*/"))).trials) == 3


def test_failed_proof_of_one_prevents_all_loads(duet: StoredRun, tmp_path: Path) -> None:
    """No configuration of a block is loaded when one of them is not what its name says."""
    with pytest.raises(ProofError, match="no load was sent"):
        run_on(duet, tmp_path / "run", block_of(duet, seen_before=NO_SIDECAR))
    assert not read_run(next((tmp_path / "run").glob("[!.]*/"))).trials
