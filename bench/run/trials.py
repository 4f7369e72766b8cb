"""Run the trials of a plan: deploy each, prove it, load it, prove it again and store it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.analysis.trial_summary import Headline, make_headline
from bench.analysis.validity import MOST_DUET_CPU, check_trial, has_noise, is_retryable, make_issue
from bench.errors import ClusterError, DeployError, InvalidMeasurementError, ProofError
from bench.load.generator import LoadOutcome, Progress
from bench.load.schedule import UnitLoads, drive_alone, drive_in_turn, drive_together
from bench.meshes.equalise import equal_evidence
from bench.results.issues import Issue, IssueCode, select_reasons
from bench.results.records import DataPath, Evidence, ProofRecord, TrialRecord
from bench.results.store import RunFolder, write_record
from bench.run.space import SpaceWatch
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, Trial
from bench.system.cancellation import CancelToken
from bench.targets import Deployment, Target
from bench.verification.overlap import RecordedWindow, prove_overlap

_BLOCKS_PER_RERUN = 4


class ProgressListener(Protocol):
    """A display or log of a run's progress."""

    def phase(self, trial: Trial, phase: str) -> None:
        """Show that a trial enters a phase."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """Show the progress of a trial's load."""

    def done(self, record: TrialRecord, figures: Headline) -> None:
        """Show that a trial is stored."""

    def extend(self, plan: Plan) -> None:
        """Use a plan with more trials, as for reruns."""

    def note(self, text: str) -> None:
        """Show a remark about the run."""

    def close(self) -> None:
        """Restore what the display changed."""


def run_trials(folder: RunFolder, target: Target, show: ProgressListener, *, watch: CancelToken) -> None:
    """Run the missing trials of the folder's plan, unit by unit in the planned order; then rerun invalid blocks, where
    the scenario has `rerun_invalid`."""
    space = SpaceWatch(folder)
    _run_missing(folder, target, show, watch=watch, space=space)
    if blocks := find_blocks_to_rerun(folder):
        folder.update(plan=folder.record.plan.with_rerun(blocks))
        show.extend(folder.record.plan)
        _run_missing(folder, target, show, watch=watch, space=space)


def find_blocks_to_rerun(folder: RunFolder) -> tuple[int, ...]:
    """Return the blocks to rerun: those with an invalid trial, unless its reason is permanent, such as a policy that
    denies requests or too many users for one client.

    Where configurations share a block, those with noise, too, which is measured apart from latencies, and also in a
    quick run; no more than one block in four, or one of fewer, so that a busy machine does not double the run.
    """
    plan, scenario = folder.record.plan, folder.record.scenario
    if not scenario.reruns_invalid:
        return ()
    records = [record for record in folder.trial_records() if record.block <= plan.blocks]
    invalid = [record for record in records if record.reasons]
    permanent = {record.block for record in invalid if not is_retryable(record.reasons)} | set(plan.again)
    broken = sorted({record.block for record in invalid} - permanent)
    if not scenario.is_paired:
        return tuple(broken)
    noisy = sorted({record.block for record in records if has_noise(record.issues)} - permanent - set(broken))
    most = max(0, max(1, plan.blocks // _BLOCKS_PER_RERUN) - len(plan.again))
    return tuple(sorted([*broken, *noisy][:most]))


def _run_missing(
    folder: RunFolder, target: Target, show: ProgressListener, *, watch: CancelToken, space: SpaceWatch
) -> None:
    finished = {entry.folder for entry in folder.record.trials}
    for unit in folder.record.plan.units:
        if missing := [trial for trial in unit if trial.folder not in finished]:
            run_unit(folder, missing, target=target, show=show, watch=watch, space=space)


@dataclass(frozen=True, slots=True)
class _Part:
    """A trial of a unit: its draft, and its deployment."""

    trial: Trial
    draft: Path
    deployment: Deployment


@dataclass(frozen=True, slots=True)
class _Measured:
    """A trial that was measured and judged."""

    draft: Path
    record: TrialRecord
    proof: ProofRecord
    figures: Headline


def run_unit(
    folder: RunFolder,
    trials: Sequence[Trial],
    *,
    target: Target,
    show: ProgressListener,
    watch: CancelToken,
    space: SpaceWatch,
) -> None:
    """Run the trials that are deployed together, or one alone: deploy, prove, load, prove again, store."""
    unit = _Unit(folder, show, watch, target, space, started_at=datetime.now(UTC))
    measured: tuple[_Measured, ...] = ()
    try:
        with ExitStack() as at_end:
            drafts = [at_end.enter_context(folder.draft(trial)) for trial in trials]
            unit.show_phase(trials, "deploy")
            with target.deploy(trials, drafts) as deployments:
                measured = unit.measure([_Part(*one) for one in zip(trials, drafts, deployments, strict=True)])
                # keep the trials also when a signal or a failure ends the removal that follows
                for one in reversed(measured):
                    at_end.callback(unit.store, one)
    except (ClusterError, DeployError) as error:
        invalid = next((one.record for one in measured if one.record.reasons), None)
        if invalid is None:
            raise
        # of two causes the measurement's has more information
        raise InvalidMeasurementError(f"{invalid.trial} is invalid, and the run cannot continue: {error}") from error


@dataclass(frozen=True, slots=True)
class _Unit:
    """The run of a unit: what its trials have in common."""

    folder: RunFolder
    show: ProgressListener
    watch: CancelToken
    target: Target
    space: SpaceWatch
    started_at: datetime

    def show_phase(self, trials: Iterable[Trial], phase: str) -> None:
        for trial in trials:
            self.show.phase(trial, phase)

    def store(self, measured: _Measured) -> None:
        self.folder.keep(measured.draft, measured.record, measured.proof)
        self.show.done(measured.record, measured.figures)

    def measure(self, parts: Sequence[_Part]) -> tuple[_Measured, ...]:
        """Prove all deployments, load them by the schedule of the design, and prove them again."""
        trials, scenario = [part.trial for part in parts], self.folder.record.scenario
        self.show_phase(trials, "prove")
        before = self.target.for_each(
            lambda part: _prove_before_load(part.deployment, part.trial, part.draft, scenario=scenario), parts
        )
        self.show_phase(trials, "load")
        loads = self._send_loads(parts)
        self.show_phase(trials, "prove again")
        found = self.target.for_each(
            lambda one: _read_state_after_load(one[0].deployment, one[1], one[0].draft),
            [*zip(parts, loads, strict=True)],
        )
        shared = self._prove_overlap(parts, loads)
        return tuple(map(partial(self._judge, shared=shared), parts, loads, before, found))

    def _prove_overlap(self, parts: Sequence[_Part], loads: Sequence[LoadOutcome]) -> tuple[Evidence, ...]:
        """Prove that the windows of a duet's block overlap, unless a load was cut short, which is reported anyway."""
        if self.folder.record.plan.design != "duet" or any(select_reasons(load.issues) for load in loads):
            return ()
        recorded = {
            part.trial.configuration: RecordedWindow(load.samples, load.windows[0], load.zero_ns)
            for part, load in zip(parts, loads, strict=True)
        }
        return (prove_overlap(recorded),)

    def _judge(
        self,
        part: _Part,
        load: LoadOutcome,
        before: tuple[Evidence, ...],
        after: "_AfterLoad",
        *,
        shared: tuple[Evidence, ...],
    ) -> _Measured:
        equal = equal_evidence(after.path, self.folder.record.scenario.equalise)
        record = self._make_record(part.trial, load)
        record = record.model_copy(update={"images": after.images, "issues": (*load.issues, *after.issues)})
        proof = ProofRecord(
            trial=part.trial.folder, before=before, after=(*after.evidence, *equal, *shared), data_path=after.path
        )
        issues = check_trial(record, load.samples, load.resources, proof)
        status = "invalid" if select_reasons(issues) else "complete"
        judged = record.model_copy(update={"status": status, "issues": issues})
        return _Measured(part.draft, judged, proof, make_headline(judged, load.samples))

    def _send_loads(self, parts: Sequence[_Part]) -> tuple[LoadOutcome, ...]:
        """Send the loads. When they are interrupted, the record of each stays in its draft with that status."""
        by_name = {part.trial.configuration: part for part in parts}

        def keep(name: str, load: LoadOutcome) -> None:
            record = self._make_record(by_name[name].trial, load)
            cut = record.model_copy(update={"status": "interrupted", "issues": load.issues})
            write_record(by_name[name].draft / "trial.json", cut)

        def look(name: str, progress: Progress) -> None:
            self.show.progress(by_name[name].trial, progress)
            self.space.look(name, progress)

        with ExitStack() as loading:
            started = self.target.start_each(
                lambda part: loading.enter_context(part.deployment.loading(part.draft)), parts
            )
            loads = dict(zip(by_name, started, strict=True))
            unit = UnitLoads(
                loads,
                watch=self.watch,
                show=look,
                kept=keep,
            )
            unit.wait_for_starts()
            outcomes = unit.run(self._choose_schedule(parts[0].trial.block))
        return tuple(outcomes[name] for name in by_name)

    def _choose_schedule(self, block: int) -> Callable[[UnitLoads], None]:
        """Return what drives the loads of a block: the schedule of the run's design."""
        plan = self.folder.record.plan
        if plan.design == "interleaved":
            return partial(drive_in_turn, order=plan.window_order(block))
        if plan.design == "duet":
            is_first = not self.folder.record.trials
            return partial(drive_together, most_cpu=MOST_DUET_CPU if is_first else None)
        return drive_alone

    def _make_record(self, trial: Trial, load: LoadOutcome) -> TrialRecord:
        settings = self.folder.record.scenario.load_of(trial.configuration)
        return TrialRecord(
            trial=trial.folder,
            number=trial.number,
            configuration=trial.configuration,
            block=trial.block,
            design=self.folder.record.plan.design,
            status="complete",
            started_at=self.started_at,
            users=settings.users,
            think_time_s=settings.think_time_s,
            rate=settings.rate_per_s,
            workers=settings.workers,
            windows=load.windows,
            warmup_extended=load.warmup_extended,
            generator=load.generator,
            pace=load.pace,
            clock=load.clock,
        )


@dataclass(frozen=True, slots=True)
class _AfterLoad:
    """The state of a deployment after its load; `issues` has what ended meanwhile, or why the state is unknown."""

    evidence: tuple[Evidence, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    path: DataPath | None = None
    issues: tuple[Issue, ...] = ()


def _read_state_after_load(deployment: Deployment, load: LoadOutcome, draft: Path) -> _AfterLoad:
    """Read a deployment's state after its load. A failure becomes a warning, since the samples are complete."""
    try:
        evidence, restarts, images = deployment.prove(load), deployment.restarts(), deployment.images()
        ended = tuple(make_issue(IssueCode.RESTART, f"{restart} during the trial") for restart in restarts)
        return _AfterLoad(evidence, images, None if ended else deployment.data_path(draft), ended)
    except (ClusterError, DeployError) as error:
        detail = f"the state after the load could not be read: {error}"
        return _AfterLoad(issues=(make_issue(IssueCode.UNREAD_STATE, detail),))


def _prove_before_load(
    deployment: Deployment, trial: Trial, draft: Path, *, scenario: Scenario
) -> tuple[Evidence, ...]:
    """Prove a deployment before its load. Raises ProofError, except where the configuration's own manifests deny the
    page: that is what its name says, and its load reports it."""
    evidence = deployment.prove()
    failures = [fact for fact in evidence if not fact.ok]
    has_policies = bool(scenario.configuration(trial.configuration).manifests)
    if failures and not (has_policies and all(fact.about == "responses" for fact in failures)):
        write_record(draft / "proof.json", ProofRecord(trial=trial.folder, before=evidence, after=()))
        details = "\n".join(
            f"  {fact.name}, {fact.subject}: expected {fact.expected}; got {fact.seen}" for fact in failures
        )
        raise ProofError(f"{trial.configuration}: proof failed, so no load was sent:\n{details}")
    return evidence
