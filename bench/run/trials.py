"""The main job: every trial of the plan is deployed, proven, loaded, proven again and stored."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bench.analysis.trial_summary import Headline, headline
from bench.analysis.validity import check_trial, may_pass
from bench.errors import ClusterError, DeployError, InvalidMeasurementError, MeshbenchError, ProofError
from bench.load.generator import LoadOutcome, Progress
from bench.meshes.equalise import equal_evidence
from bench.results.records import DataPath, Evidence, ProofRecord, TrialRecord
from bench.results.resources import read_resources
from bench.results.store import RunFolder, write_record
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, Trial
from bench.targets import Deployment, Target
from bench.verification.evidence import is_of_pages


class Show(Protocol):
    """Where progress is shown."""

    def phase(self, trial: Trial, phase: str) -> None:
        """A trial enters a phase."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """Some more of a trial's load has passed."""

    def done(self, record: TrialRecord, figures: Headline) -> None:
        """A trial is stored."""

    def more(self, plan: Plan) -> None:
        """There are more trials than were planned at first."""

    def close(self) -> None:
        """Put back what the display changed."""


def run_trials(folder: RunFolder, target: Target, show: Show) -> None:
    """Runs the trials of the folder's plan that it does not hold yet, in the planned order; then spoilt blocks once
    more, where the scenario wants that."""
    _run_missing(folder, target, show)
    if blocks := spoilt_blocks(folder):
        folder.update(plan=folder.record.plan.once_more(blocks))
        show.more(folder.record.plan)
        _run_missing(folder, target, show)


def spoilt_blocks(folder: RunFolder) -> tuple[int, ...]:
    """The blocks that are to be measured once more. Not those with a trial that was spoilt by what stays, such as a
    policy that blocks or too many users for one client."""
    plan = folder.record.plan
    if not folder.record.scenario.gives_another_chance:
        return ()
    invalid = [record for record in folder.trial_records() if record.reasons and record.block <= plan.blocks]
    lasting = {record.block for record in invalid if not may_pass(record.reasons)}
    return tuple(sorted({record.block for record in invalid} - lasting - set(plan.again)))


def _run_missing(folder: RunFolder, target: Target, show: Show) -> None:
    finished = {entry.folder for entry in folder.record.trials}
    for trial in folder.record.plan.trials:
        if trial.folder not in finished:
            run_trial(folder, trial, target=target, show=show)


def run_trial(folder: RunFolder, trial: Trial, *, target: Target, show: Show) -> None:
    """One trial, from nothing to a stored result."""
    started_at = datetime.now(UTC)
    record: TrialRecord | None = None
    try:
        with folder.draft(trial) as draft, ExitStack() as at_end:
            show.phase(trial, "deploy")
            with target.deploy(trial, draft) as deployment:
                record, proof, figures = _measured(
                    deployment, trial, draft, folder=folder, show=show, started_at=started_at
                )
                # it counts, too, when a signal or a failure ends the removal that follows
                at_end.callback(_keep, folder, draft, record=record, proof=proof, figures=figures, show=show)
    except (ClusterError, DeployError) as error:
        if record is None or not record.reasons:
            raise
        # of two causes the measurement's tells more
        raise InvalidMeasurementError(f"{trial.folder} is invalid, and the run cannot go on: {error}") from error


def _keep(
    folder: RunFolder, draft: Path, *, record: TrialRecord, proof: ProofRecord, figures: Headline, show: Show
) -> None:
    folder.keep(draft, record, proof)
    show.done(record, figures)


def _measured(
    deployment: Deployment, trial: Trial, draft: Path, *, folder: RunFolder, show: Show, started_at: datetime
) -> tuple[TrialRecord, ProofRecord, Headline]:
    show.phase(trial, "prove")
    before = _proven(deployment, trial, draft, scenario=folder.record.scenario)
    show.phase(trial, "load")
    load = _loaded(deployment, trial, draft, folder=folder, show=show, started_at=started_at)
    show.phase(trial, "prove again")
    after = _afterwards(deployment, load, draft)
    equal = equal_evidence(after.path, folder.record.scenario.equalise)
    record = _record(folder.record.scenario, trial, load, restarts=after.restarts, started_at=started_at)
    record = record.model_copy(update={"images": after.images})
    proof = ProofRecord(trial=trial.folder, before=before, after=(*after.evidence, *equal), data_path=after.path)
    judged = _judged(record, load, proof, draft=draft, remarks=after.remarks)
    return judged, proof, headline(judged, load.samples)


@dataclass(frozen=True, slots=True)
class _Afterwards:
    """What a deployment was found to be after its load; `remarks` say why, where nothing could be found out."""

    evidence: tuple[Evidence, ...] = ()
    restarts: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    path: DataPath | None = None
    remarks: tuple[str, ...] = ()


def _afterwards(deployment: Deployment, load: LoadOutcome, draft: Path) -> _Afterwards:
    """Whatever fails here, the samples are there, and the trial is kept with its doubts."""
    try:
        evidence, restarts, images = deployment.prove(load), deployment.restarts(), deployment.images()
        return _Afterwards(evidence, restarts, images, None if restarts else deployment.data_path(draft))
    except (ClusterError, DeployError) as error:
        return _Afterwards(remarks=(f"what it was after the load could not be found out: {error}",))


def _proven(deployment: Deployment, trial: Trial, draft: Path, *, scenario: Scenario) -> tuple[Evidence, ...]:
    """No proof, no load. But a configuration whose own manifests keep the page from users is what its name says: its
    load will fail, and say so."""
    evidence = deployment.prove()
    failures = [fact for fact in evidence if not fact.ok]
    keeps_pages = bool(scenario.configuration(trial.configuration).manifests) and all(map(is_of_pages, failures))
    if failures and not keeps_pages:
        write_record(draft / "proof.json", ProofRecord(trial=trial.folder, before=evidence, after=()))
        told = "\n".join(
            f"  {fact.name}, {fact.subject}: expected {fact.expected}; saw {fact.seen}" for fact in failures
        )
        raise ProofError(f"{trial.configuration} is not what its name says, so no load was sent:\n{told}")
    return evidence


def _loaded(
    deployment: Deployment, trial: Trial, draft: Path, *, folder: RunFolder, show: Show, started_at: datetime
) -> LoadOutcome:
    """The load; when it is cut short, what was measured stays in the draft, marked as interrupted."""
    partial: list[LoadOutcome] = []
    try:
        return deployment.load(draft, show=lambda progress: show.progress(trial, progress), kept=partial.append)
    except MeshbenchError as error:
        for load in partial:
            record = _record(folder.record.scenario, trial, load, restarts=(), started_at=started_at)
            cut = record.model_copy(update={"status": "interrupted", "reasons": (f"interrupted: {error}",)})
            write_record(draft / "trial.json", cut)
        raise


def _record(
    scenario: Scenario, trial: Trial, load: LoadOutcome, *, restarts: tuple[str, ...], started_at: datetime
) -> TrialRecord:
    ordered = scenario.load_of(trial.configuration)
    return TrialRecord(
        trial=trial.folder,
        number=trial.number,
        configuration=trial.configuration,
        block=trial.block,
        status="complete",
        started_at=started_at,
        users=ordered.users,
        think_time_s=ordered.think_time_s,
        rate=ordered.rate_per_s,
        workers=ordered.workers,
        windows=(load.window,),
        warmup_extended=load.warmup_extended,
        generator=load.generator,
        clock=load.clock,
        restarts=restarts,
    )


def _judged(
    record: TrialRecord, load: LoadOutcome, proof: ProofRecord, *, draft: Path, remarks: tuple[str, ...]
) -> TrialRecord:
    doubts = check_trial(record, load.samples, read_resources(draft / "resources.parquet"), proof)
    status = "invalid" if doubts.reasons else "complete"
    warnings = (*doubts.warnings, *load.remarks, *remarks)
    return record.model_copy(update={"status": status, "reasons": doubts.reasons, "warnings": warnings})
