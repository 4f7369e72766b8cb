"""Start and end a run: its lock, folder, signals, and the record of how it ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.analysis.proxy_cost import measure_paths
from bench.analysis.validity import MOST_DUET_CPU, make_issue
from bench.errors import (
    InputError,
    Interrupted,
    InvalidMeasurementError,
    LeftoversError,
    MeshbenchError,
    ProofError,
    RunTimeoutError,
    exit_code_of,
    format_error,
    is_clean,
    note_leftovers,
)
from bench.load.schedule import BusyCpusError
from bench.meshes.resolved import ResolvedScenario, resolve_stored
from bench.results.base import SCHEMA_VERSION, RunStatus
from bench.results.environment import find_differences
from bench.results.issues import IssueCode
from bench.results.records import ClusterRecord, RunRecord, TrialRecord
from bench.results.store import RunFolder, make_run_id, read_complete_record
from bench.run.doctor import count_needed_files
from bench.run.trials import ProgressListener, find_blocks_to_rerun, run_trials
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, find_most_users, make_plan
from bench.system.cancellation import CancelToken, catch_signals
from bench.system.output import format_command, show_controls
from bench.system.processes import Launcher, raise_file_limit
from bench.system.redaction import REPLACEMENT
from bench.targets import Backend
from bench.units import format_count, format_percent

ProgressDisplay = Callable[[Scenario, Plan], ProgressListener]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The request of a run: its scenario, backend, plan, and the folder for its results."""

    backend: Backend
    resolved: ResolvedScenario
    source: str
    plan: Plan
    output: Path
    progress: ProgressDisplay
    timeout_s: float | None = None


def run(request: RunRequest) -> RunFolder:
    """Run a scenario, and return the finished folder. Its record has status and exit code."""
    backend, scenario = request.backend, request.resolved.scenario
    record = RunRecord(
        run_id=make_run_id(scenario.name, datetime.now(UTC)),
        meshbench_version=__version__,
        status="running",
        started_at=datetime.now(UTC),
        scenario=scenario,
        scenario_source=show_controls(Path(request.source).name),
        plan=request.plan,
        remarks=request.resolved.remarks,
        target=backend.record,
        cluster=backend.cluster,
        environment=backend.environment(),
        paths=measure_paths(request.resolved),
        services=request.resolved.application.definition.services,
    )
    with catch_signals(request.timeout_s) as watch, backend.lock(request.output / record.run_id, record.run_id, watch):
        folder = RunFolder.create(request.output, record, fill=lambda path: _copy_inputs(request, path))
        with _record_end(folder):
            resolved = resolve_stored(scenario, folder.path)  # what is measured is what the folder has
            _measure(folder, backend, resolved, watch=watch, progress=request.progress)
    return folder


def _copy_inputs(request: RunRequest, path: Path) -> None:
    request.resolved.inputs.copy_to(path)
    request.backend.keep_inputs(path)


def read_stored_run(path: Path) -> RunRecord:
    """Read the record of the run in the folder `path`, to resume it. Raises StoreError where there is none, and
    InputError where private files are missing."""
    return read_complete_record(path)


def read_resumable_run(path: Path, *, on_cluster: bool) -> RunRecord:
    """Read the record of a run that can be resumed, before its backend is opened. Raises InputError."""
    record = read_stored_run(path)
    if record.converted_from is not None:
        raise InputError(
            f"{path}: cannot be resumed: this run has version {record.converted_from} of the format, and trials of"
            f" version {SCHEMA_VERSION} cannot be added to it; hint: start a new run"
        )
    if (record.target.kind == "kubernetes") != on_cluster:
        where = "on one machine; leave out --context" if on_cluster else "on a cluster; add --context NAME"
        raise InputError(f"{path}: this run was started {where}")
    if REPLACEMENT in record.scenario.model_dump_json():
        raise InputError(
            f"{path}: cannot be resumed: its record has {REPLACEMENT} in place of a secret of the scenario;"
            " hint: start a new run, with {env: NAME} or {file: PATH} for the secret"
        )
    if record.status in ("complete", "invalid"):
        raise InputError(f"{path}: cannot be resumed: all trials of this run are complete; start a new run")
    return record


def resume(
    path: Path,
    backend: Backend,
    resolved: ResolvedScenario,
    *,
    progress: ProgressDisplay,
    timeout_s: float | None = None,
) -> RunFolder:
    """Continue an interrupted run: complete blocks are kept, the others are measured again. `resolved` is what its
    folder has."""
    record = read_resumable_run(path, on_cluster=backend.record.kind == "kubernetes")
    changed = (
        *find_differences(record.environment, backend.environment()),
        *_find_cluster_differences(record.cluster, backend.cluster),
    )
    if changed:
        raise InputError(
            f"{path}: cannot be resumed here, since the environment differs from the run's: {'; '.join(changed)}"
        )
    with catch_signals(timeout_s) as watch, backend.lock(path, record.run_id, watch):
        folder = RunFolder.reopen(path, status="running", exit_code=None, issues=(), ended_at=None)
        with _record_end(folder):
            folder.set_aside_broken_blocks()
            missing = len(folder.record.trials) < len(record.plan.trials)
            if missing or find_blocks_to_rerun(folder):  # else it was interrupted after its last trial
                _measure(folder, backend, resolved, watch=watch, progress=progress)
    return folder


def _find_cluster_differences(one: ClusterRecord | None, other: ClusterRecord | None) -> tuple[str, ...]:
    """Return the differences between two clusters: versions of meshes, installed or to be installed, and the load's
    node."""
    if one is None or other is None:
        return ()
    now = other.mesh_versions
    versions = [(mesh, version, now.get(mesh, "unknown")) for mesh, version in one.mesh_versions.items()]
    load = ("the load's node", one.load_node or "shared", other.load_node or "shared")
    return tuple(f"{what}: {was} / {is_now}" for what, was, is_now in (*versions, load) if was != is_now)


def _measure(
    folder: RunFolder, backend: Backend, resolved: ResolvedScenario, *, watch: CancelToken, progress: ProgressDisplay
) -> None:
    """Measure what is missing. A duet that uses too many of the CPUs becomes an interleaved run, before its first
    window."""
    try:
        _measure_design(folder, backend, resolved, watch=watch, progress=progress)
    except BusyCpusError as busy:
        interleaved = interleave(folder, resolved, busy.share)
        _measure_design(folder, backend, interleaved, watch=watch, progress=progress)


def interleave(folder: RunFolder, resolved: ResolvedScenario, share: float) -> ResolvedScenario:
    """Turn a duet whose run used this share of the CPUs into an interleaved run; return its scenario. Scenario and plan
    of the run's record change, and a remark says why."""
    loads = [one.load for one in resolved.configurations]
    rate = resolved.scenario.load.rate_per_s
    fitting = int(MOST_DUET_CPU / share * (rate or sum(load.users for load in loads)))
    load = f"{format_count(fitting)} {'users' if rate is None else 'arrivals per second'}"
    used, most = format_percent(share), format_percent(MOST_DUET_CPU)
    why = f"the duet used {used} of the CPUs in its warm-up, and may use {most}, as with {load} in all"
    settled = resolved.with_design("interleaved", why)
    remarks = (*folder.record.remarks, *settled.remarks[len(resolved.remarks) :])
    plan = make_plan(settled.scenario, folder.record.plan.seed)
    folder.update(scenario=settled.scenario, plan=plan, remarks=remarks)
    return settled


def _measure_design(
    folder: RunFolder, backend: Backend, resolved: ResolvedScenario, *, watch: CancelToken, progress: ProgressDisplay
) -> None:
    record = folder.record
    display = progress(record.scenario, record.plan)
    launcher = Launcher(record.run_id, folder.journal, watch)
    raise_file_limit(count_needed_files(find_most_users(record.scenario)))
    try:
        for remark in record.remarks:
            display.note(remark.detail)
        with backend.open(record, resolved, launcher=launcher, watch=watch) as target:
            run_trials(folder, target, display, watch=watch)
    finally:
        display.close()
    if watch.signals:  # it came while the last processes were ended, where nothing checks for it
        raise Interrupted(watch.signals[0])


@contextmanager
def _record_end(folder: RunFolder) -> Iterator[None]:
    """Record how the run ended. Failures are raised again for the command line."""
    try:
        with _prefer_verdict(folder):
            yield
    except RunTimeoutError as error:
        issue = make_issue(IssueCode.TIMEOUT, format_error(error))  # not raised: complete trials get a report with it
        folder.finish(status="interrupted", exit_code=exit_code_of(error), issues=(issue,), cleanup_ok=error.clean)
    except MeshbenchError as error:
        status: RunStatus = "interrupted" if isinstance(error, Interrupted) else "failed"
        issue = make_issue(IssueCode.INTERRUPTED if status == "interrupted" else IssueCode.FAILED, str(error))
        folder.finish(status=status, exit_code=exit_code_of(error), issues=(issue,), cleanup_ok=error.clean)
        if folder.record.trials:
            error.add_note(
                f"complete trials are kept; to report them: {format_command('meshbench', 'report', folder.path)}"
            )
        error.add_note(f"to continue: {format_command('meshbench', 'run', '--resume', folder.path)}")
        raise
    except BaseException as error:
        issue = make_issue(IssueCode.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        folder.finish(status="failed", exit_code=exit_code_of(error), issues=(issue,), cleanup_ok=is_clean(error))
        raise
    else:
        verdict = judge_run(folder)
        status = "complete" if verdict is None else "invalid"
        folder.finish(status=status, exit_code=exit_code_of(verdict), cleanup_ok=True)


@contextmanager
def _prefer_verdict(folder: RunFolder) -> Iterator[None]:
    """Raise the failure of invalid trials in place of LeftoversError, which is added to it as a note."""
    try:
        yield
    except LeftoversError as left:
        verdict = judge_run(folder)
        if verdict is None:
            raise
        invalid = verdict("not every trial is valid")
        note_leftovers(invalid, left)
        raise invalid from left


def list_counted_records(folder: RunFolder) -> tuple[TrialRecord, ...]:
    """Return the records of complete trials, without those of blocks that were rerun."""
    return tuple(one for one in folder.trial_records() if one.block not in folder.record.plan.again)


def judge_trials(
    records: tuple[TrialRecord, ...], *, spared: int = 0
) -> type[ProofError | InvalidMeasurementError] | None:
    """Return the class of the trials' failure, a proof or a measurement; None where all are valid, or where all but
    `spared` blocks are."""
    invalid = [record for record in records if record.reasons]
    if IssueCode.PROOF in {reason.code for record in invalid for reason in record.reasons}:
        return ProofError
    return InvalidMeasurementError if len({record.block for record in invalid}) > spared else None


def judge_run(folder: RunFolder) -> type[ProofError | InvalidMeasurementError] | None:
    """Return the class of the failure of a run whose trials were all measured; None where it is valid."""
    plan = folder.record.plan
    return judge_trials(list_counted_records(folder), spared=plan.blocks - plan.fewest_valid)
