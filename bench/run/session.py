"""Around the main job: the lock, the folder, signals, and how a run ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.errors import (
    InputError,
    Interrupted,
    InvalidMeasurementError,
    LeftoversError,
    MeshbenchError,
    ProofError,
    RunTimeoutError,
    is_clean,
    note_leftovers,
    told_in_full,
)
from bench.results.base import RunStatus
from bench.results.environment import differences
from bench.results.records import ClusterRecord, RunRecord, TrialRecord
from bench.results.store import RunFolder, new_run_id, read_record
from bench.run.doctor import files_needed
from bench.run.trials import Show, run_trials, spoilt_blocks
from bench.scenario.loader import inputs_of, lie_apart, stored_inputs
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, most_users
from bench.system.cancellation import Watch, watching
from bench.system.processes import Launcher, raise_file_limit
from bench.targets import Place

ProgressDisplay = Callable[[Scenario, Plan], Show]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run that is to be made: what, where, in which order, and where it is written."""

    place: Place
    scenario: Scenario
    source: str
    plan: Plan
    output: Path
    progress: ProgressDisplay
    timeout_s: float | None = None


def run(order: Order) -> RunFolder:
    """Runs a scenario; returns the finished folder. Its record has status and exit code."""
    place = order.place
    record = RunRecord(
        run_id=new_run_id(order.scenario.name, datetime.now(UTC)),
        meshbench_version=__version__,
        status="running",
        started_at=datetime.now(UTC),
        scenario=order.scenario,
        scenario_source=Path(order.source).name,
        plan=order.plan,
        target=place.record,
        cluster=place.cluster,
        environment=place.environment(),
    )
    with watching(order.timeout_s) as watch, place.lock(order.output / record.run_id, record.run_id, watch):
        folder = RunFolder.create(order.output, record, fill=lambda path: _fill(order, path))
        with _ending(folder):
            _measure(folder, place, watch, order.progress)
    return folder


def _fill(order: Order, path: Path) -> None:
    inputs_of(order.scenario, order.source).copy_to(path)
    order.place.keep_inputs(path)


def stored_run(path: Path) -> RunRecord:
    """The record of the run in the folder `path`. Raises StoreError where there is none."""
    return read_record(path / "run.json", RunRecord)


def resumable(path: Path, *, on_cluster: bool) -> RunRecord:
    """The record of a run that there is something to do for, before anybody looks at the place. Raises InputError."""
    record = stored_run(path)
    if (record.target.kind == "kubernetes") != on_cluster:
        where = "on one machine, without --context" if on_cluster else "on a cluster; say which with --context NAME"
        raise InputError(f"{path}: this run was begun {where}")
    if not lie_apart(stored_inputs(record.scenario, path)):
        raise InputError(
            f"{path}: cannot be resumed: an older version kept one folder of manifests in another, and read it without"
            " that one; start a new run"
        )
    if record.status in ("complete", "invalid"):
        raise InputError(f"{path}: every trial of this run was measured; there is nothing to resume: start a new run")
    return record


def resume(path: Path, place: Place, *, progress: ProgressDisplay, timeout_s: float | None = None) -> RunFolder:
    """Goes on with a run that was cut short: whole blocks stay, the rest is measured again."""
    record = resumable(path, on_cluster=place.record.kind == "kubernetes")
    changed = (*differences(record.environment, place.environment()), *_other_cluster(record.cluster, place.cluster))
    if changed:
        raise InputError(
            f"{path}: cannot be resumed here, since this is not what it was measured on: {'; '.join(changed)}"
        )
    with watching(timeout_s) as watch, place.lock(path, record.run_id, watch):
        folder = RunFolder.reopen(path, status="running", exit_code=None, reason="", ended_at=None)
        with _ending(folder):
            folder.set_aside_broken_blocks()
            missing = len(folder.record.trials) < len(record.plan.trials)
            if missing or spoilt_blocks(folder):  # else only its end was cut short
                _measure(folder, place, watch, progress)
    return folder


def _other_cluster(one: ClusterRecord | None, other: ClusterRecord | None) -> tuple[str, ...]:
    """The meshes that are, or would be installed, in another version now; and the load's node, if it is another."""
    if one is None or other is None:
        return ()
    now = other.mesh_versions
    versions = [(mesh, version, now.get(mesh, "unknown")) for mesh, version in one.mesh_versions.items()]
    load = ("the load's node", one.load_node or "shared", other.load_node or "shared")
    return tuple(f"{what}: {was} / {is_now}" for what, was, is_now in (*versions, load) if was != is_now)


def _measure(folder: RunFolder, place: Place, watch: Watch, progress: ProgressDisplay) -> None:
    record = folder.record
    display = progress(record.scenario, record.plan)
    launcher = Launcher(record.run_id, folder.journal, watch)
    inputs = stored_inputs(record.scenario, folder.path)
    raise_file_limit(files_needed(most_users(record.scenario)))
    try:
        with place.open(record, inputs, launcher=launcher, watch=watch) as target:
            run_trials(folder, target, display)
    finally:
        display.close()
    if watch.signals:  # it came while the last processes were ended, where nothing waits for it
        raise Interrupted(watch.signals[0])


@contextmanager
def _ending(folder: RunFolder) -> Iterator[None]:
    """Writes how the run ended, whatever way that was; failures go on to the command line."""
    try:
        with _verdict_first(folder):
            yield
    except RunTimeoutError as error:
        told = told_in_full(error)  # no failure: what there is gets its report, which tells what else there is to tell
        folder.finish(status="interrupted", exit_code=error.exit_code, reason=told, cleanup_ok=error.clean)
    except MeshbenchError as error:
        status: RunStatus = "interrupted" if isinstance(error, Interrupted) else "failed"
        folder.finish(status=status, exit_code=error.exit_code, reason=str(error), cleanup_ok=error.clean)
        if folder.record.trials:
            error.add_note(f"complete trials are kept; to look at them: meshbench report {folder.path}")
        error.add_note(f"to go on: meshbench run --resume {folder.path}")
        raise
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        folder.finish(status="failed", exit_code=1, reason=told, cleanup_ok=is_clean(error))
        raise
    else:
        verdict = verdict_of_trials(counted_records(folder))
        status, exit_code = ("complete", 0) if verdict is None else ("invalid", verdict.exit_code)
        folder.finish(status=status, exit_code=exit_code, cleanup_ok=True)


@contextmanager
def _verdict_first(folder: RunFolder) -> Iterator[None]:
    """Of two causes the measurement's tells more: its exit code counts, and what is left is told with it."""
    try:
        yield
    except LeftoversError as left:
        verdict = verdict_of_trials(counted_records(folder))
        if verdict is None:
            raise
        invalid = verdict("not every trial is valid")
        note_leftovers(invalid, left)
        raise invalid from left


def counted_records(folder: RunFolder) -> tuple[TrialRecord, ...]:
    """Those of all whole trials, but for blocks that were measured once more."""
    return tuple(one for one in folder.trial_records() if one.block not in folder.record.plan.again)


def verdict_of_trials(records: tuple[TrialRecord, ...]) -> type[ProofError | InvalidMeasurementError] | None:
    """What is wrong with the trials, if anything is: a proof, or a measurement."""
    reasons = [reason for record in records for reason in record.reasons]
    if any(reason.startswith("proof") for reason in reasons):
        return ProofError
    return InvalidMeasurementError if reasons else None
