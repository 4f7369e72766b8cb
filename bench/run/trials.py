"""Run the trials of a plan: deploy each, prove it, load it, prove it again and store it."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bench.analysis.trial_summary import Headline, make_headline
from bench.analysis.validity import check_trial, is_retryable, make_issue
from bench.errors import ClusterError, DeployError, InvalidMeasurementError, MeshbenchError, ProofError
from bench.load.generator import LoadOutcome, Progress
from bench.meshes.equalise import equal_evidence
from bench.results.issues import Issue, IssueCode, select_reasons
from bench.results.records import DataPath, Evidence, ProofRecord, TrialRecord
from bench.results.store import RunFolder, write_record
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, Trial
from bench.targets import Deployment, Target


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

    def close(self) -> None:
        """Restore what the display changed."""


def run_trials(folder: RunFolder, target: Target, show: ProgressListener) -> None:
    """Run the missing trials of the folder's plan in the planned order; then rerun invalid blocks, where the scenario
    has `rerun_invalid`."""
    _run_missing(folder, target, show)
    if blocks := find_blocks_to_rerun(folder):
        folder.update(plan=folder.record.plan.with_rerun(blocks))
        show.extend(folder.record.plan)
        _run_missing(folder, target, show)


def find_blocks_to_rerun(folder: RunFolder) -> tuple[int, ...]:
    """Return the blocks to rerun: those with an invalid trial, unless its reason is permanent, such as a policy that
    denies requests or too many users for one client."""
    plan = folder.record.plan
    if not folder.record.scenario.reruns_invalid:
        return ()
    invalid = [record for record in folder.trial_records() if record.reasons and record.block <= plan.blocks]
    permanent = {record.block for record in invalid if not is_retryable(record.reasons)}
    return tuple(sorted({record.block for record in invalid} - permanent - set(plan.again)))


def _run_missing(folder: RunFolder, target: Target, show: ProgressListener) -> None:
    finished = {entry.folder for entry in folder.record.trials}
    for trial in folder.record.plan.trials:
        if trial.folder not in finished:
            run_trial(folder, trial, target=target, show=show)


def run_trial(folder: RunFolder, trial: Trial, *, target: Target, show: ProgressListener) -> None:
    """Run one trial: deploy, prove, load, prove again, store."""
    started_at = datetime.now(UTC)
    record: TrialRecord | None = None
    try:
        with folder.draft(trial) as draft, ExitStack() as at_end:
            show.phase(trial, "deploy")
            with target.deploy(trial, draft) as deployment:
                record, proof, figures = _measure_trial(
                    deployment, trial, draft, folder=folder, show=show, started_at=started_at
                )
                # keep the trial also when a signal or a failure ends the removal that follows
                at_end.callback(_store_trial, folder, draft, record=record, proof=proof, figures=figures, show=show)
    except (ClusterError, DeployError) as error:
        if record is None or not record.reasons:
            raise
        # of two causes the measurement's has more information
        raise InvalidMeasurementError(f"{trial.folder} is invalid, and the run cannot continue: {error}") from error


def _store_trial(
    folder: RunFolder,
    draft: Path,
    *,
    record: TrialRecord,
    proof: ProofRecord,
    figures: Headline,
    show: ProgressListener,
) -> None:
    folder.keep(draft, record, proof)
    show.done(record, figures)


def _measure_trial(
    deployment: Deployment,
    trial: Trial,
    draft: Path,
    *,
    folder: RunFolder,
    show: ProgressListener,
    started_at: datetime,
) -> tuple[TrialRecord, ProofRecord, Headline]:
    show.phase(trial, "prove")
    before = _prove_before_load(deployment, trial, draft, scenario=folder.record.scenario)
    show.phase(trial, "load")
    load = _send_load(deployment, trial, draft, folder=folder, show=show, started_at=started_at)
    show.phase(trial, "prove again")
    after = _read_state_after_load(deployment, load, draft)
    equal = equal_evidence(after.path, folder.record.scenario.equalise)
    record = _make_record(folder.record.scenario, trial, load, started_at=started_at)
    record = record.model_copy(update={"images": after.images, "issues": (*load.issues, *after.issues)})
    proof = ProofRecord(trial=trial.folder, before=before, after=(*after.evidence, *equal), data_path=after.path)
    issues = check_trial(record, load.samples, load.resources, proof)
    status = "invalid" if select_reasons(issues) else "complete"
    judged = record.model_copy(update={"status": status, "issues": issues})
    return judged, proof, make_headline(judged, load.samples)


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


def _send_load(
    deployment: Deployment,
    trial: Trial,
    draft: Path,
    *,
    folder: RunFolder,
    show: ProgressListener,
    started_at: datetime,
) -> LoadOutcome:
    """Send the load. When it is interrupted, its record stays in the draft with that status."""
    partial: list[LoadOutcome] = []
    try:
        return deployment.load(draft, show=lambda progress: show.progress(trial, progress), kept=partial.append)
    except MeshbenchError:
        for load in partial:
            record = _make_record(folder.record.scenario, trial, load, started_at=started_at)
            cut = record.model_copy(update={"status": "interrupted", "issues": load.issues})
            write_record(draft / "trial.json", cut)
        raise


def _make_record(scenario: Scenario, trial: Trial, load: LoadOutcome, *, started_at: datetime) -> TrialRecord:
    load_settings = scenario.load_of(trial.configuration)
    return TrialRecord(
        trial=trial.folder,
        number=trial.number,
        configuration=trial.configuration,
        block=trial.block,
        status="complete",
        started_at=started_at,
        users=load_settings.users,
        think_time_s=load_settings.think_time_s,
        rate=load_settings.rate_per_s,
        workers=load_settings.workers,
        windows=(load.window,),
        warmup_extended=load.warmup_extended,
        generator=load.generator,
        clock=load.clock,
    )
