"""Remove the leftovers of a killed run: its processes, its working folder, its name in the host lock.

Cleanup is idempotent. It touches only what the run's journal recorded, or what carries the run's id. Objects on a
cluster are removed by their labels with another command; until then the run stays open in its folder.
"""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.analysis.validity import make_issue
from bench.errors import InputError, Interrupted, LeftoversError, LockedError, StoreError, exit_code_of
from bench.results.issues import IssueCode
from bench.results.records import RunRecord
from bench.results.store import RECORD, RunFolder, read_record, read_run_id
from bench.system.journal import NAME as JOURNAL
from bench.system.journal import Journal, Line, examine_journal, read_journal
from bench.system.lock import forget_holder, read_holder
from bench.system.output import format_command
from bench.system.processes import end_strays, find_marked_processes, is_running, is_working_folder

_CLEANED: Final = "cleaned"  # the journal's step for a cluster without leftover objects of the run


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The leftovers of a run that did not end. `contexts` name clusters on which it created objects, which need another
    command; `damage` is what its journal does not say."""

    run: Path
    run_id: str
    processes: tuple[int, ...]
    folders: tuple[Path, ...]
    contexts: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line of text."""
        processes = ", ".join(map(str, self.processes)) or "none"
        folders = ", ".join(map(str, self.folders)) or "none"
        here = f"{self.run}: processes {processes}; folders {folders}"
        return "; ".join((here, *(f"objects on a cluster, to remove with: {command}" for command in self.commands)))

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that remove the objects on clusters, and then close the run."""
        return tuple(
            format_command("meshbench", "cleanup", "--context", one, "--run", self.run) for one in self.contexts
        )


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run to clean up: its folder, which may have been renamed, and its id."""

    path: Path
    run_id: str


def find_run(path: Path) -> NamedRun:
    """Find the run of a folder, or of a link to it.

    Raises InputError where the path is not a run's folder, StoreError where its run.json is damaged.
    """
    run = _resolve_links(path)
    if _is_file(run / RECORD):
        return NamedRun(run, read_run_id(run))
    holder, _alive = read_holder()
    if holder is not None and _resolve_links(Path(holder.run)) == run:  # it was killed before it had a record
        return NamedRun(run, holder.name)
    reason = "it has no run.json" if os.path.isdir(run) else "no such folder"  # noqa: PTH112  # see _is_file
    raise InputError(f"{path}: not a run's folder: {reason}; give the folder of one run, below --output")


def find_runs_below(output: Path) -> tuple[tuple[NamedRun, ...], tuple[str, ...]]:
    """Find every run below `output` and the one in the host lock; also return a message for each unreadable folder.

    Raises InputError where `output` is itself a run's folder, or a file.
    """
    if _is_file(output / RECORD):
        raise InputError(f"--output {output}: is the folder of one run; use --run for it, or give the folder above it")
    if _is_file(output):
        raise InputError(f"--output {output}: is a file; give the folder of the runs")
    found: list[NamedRun] = []
    damaged: list[str] = []
    for path in sorted({_resolve_links(path) for path in output.glob("*/")}):
        try:
            if read_journal(path / JOURNAL) or _is_file(path / RECORD):
                found.append(NamedRun(path, read_run_id(path)))
        except (StoreError, OSError) as error:
            damaged.append(
                f"{path}: skipped, so leftover objects may remain: {error}; hint: see its journal.jsonl, remove them by"
                " hand, and then the folder"
            )
    holder, alive = read_holder()
    if holder is not None and not alive and holder.name not in {run.run_id for run in found}:
        found.append(NamedRun(_resolve_links(Path(holder.run)), holder.name))
    return tuple(found), tuple(damaged)


def _resolve_links(path: Path) -> Path:
    """Follow links; unlike `Path.resolve` it does not raise for a link to itself."""
    return Path(os.path.realpath(path))


def _is_file(path: Path) -> bool:
    """Check for a file; unlike `Path.is_file` it does not raise where permission is missing."""
    return os.path.isfile(path)  # noqa: PTH113


def find_unfinished_runs(runs: Iterable[NamedRun]) -> tuple[Leftovers, ...]:
    """Find the leftovers of each of these runs that has any. Raises LockedError where one of the runs is alive."""
    known = tuple(runs)
    holder, alive = read_holder()
    if holder is not None and alive and holder.name in {run.run_id for run in known}:
        raise _make_running_error(Path(holder.run), holder.pid)
    for run in known:
        if pid := find_running_process(read_journal(run.path / JOURNAL)):
            raise _make_running_error(run.path, pid)
    marked = find_marked_processes()
    return tuple(found for run in known if (found := find_leftovers(run, marked)) is not None)


def _make_running_error(run: Path, pid: int) -> LockedError:
    return LockedError(f"{run} is running (process {pid}); end it with Ctrl-C there, then clean up")


def find_running_process(lines: tuple[Line, ...]) -> int:
    """Find the pid of the process that runs or resumes a run; 0 for none. The host lock does not name runs on
    clusters."""
    begins = [line for line in lines if line["step"] == "begin"]
    return int(begins[-1]["pid"]) if begins and not _has_ended(lines) and is_running(begins[-1]) else 0


def find_leftovers(run: NamedRun, marked: Mapping[str, tuple[int, ...]]) -> Leftovers | None:
    """Find the leftovers of a run; None where it ended by itself and has none. `marked` maps run ids to the pids that
    carry them: only these are the run's, whatever its journal says. Raises StoreError where that cannot be read."""
    lines, damage = examine_journal(run.path / JOURNAL)
    is_over = not (lines or damage) or _has_ended(lines)
    processes = tuple(sorted(marked.get(run.run_id, ())))
    folders = tuple(_find_folders(lines, run.run_id))
    if is_over and not processes and not folders and not _holds_lock(run):
        return None
    if _has_ended(lines):  # the run removed the rest, or reported it
        return Leftovers(run.path, run.run_id, processes, folders)
    return Leftovers(run.path, run.run_id, processes, folders, list_recorded_contexts(lines), damage)


def clean_run(found: Leftovers) -> tuple[int, int]:
    """End the processes and remove the folders on this machine; return the number of each. Raises LeftoversError for
    those that remain, and once for a damaged journal, which may have named others."""
    run = NamedRun(found.run, found.run_id)
    ended = end_strays(found.run_id)
    folders = [folder for folder in found.folders if folder.is_dir()]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    remaining = find_leftovers(run, find_marked_processes())
    if remaining is not None and (remaining.processes or remaining.folders):
        raise LeftoversError(f"could not be removed: {remaining.summary}")
    if not found.contexts:  # else `close_cleaned` does it
        _close_run(found.run)
    forget_holder(found.run_id)
    if found.damage:
        hint = "hint: look for namespaces of the run on its cluster; the processes with its id were ended"
        raise LeftoversError("\n".join((*found.damage, f"{found.run}: leftover objects may remain; {hint}")))
    return len(ended), len(folders)


def close_cleaned_runs(output: Path, *, context: str, run_id: str | None) -> None:
    """Record in the folders of killed runs that a cluster has been cleaned up, and close those without other leftovers.
    `run_id` None means all runs."""
    marked = find_marked_processes()
    for run in find_runs_below(output)[0]:
        lines = read_journal(run.path / JOURNAL)
        killed = not _has_ended(lines) and not find_running_process(lines)
        if run_id in (None, run.run_id) and killed and context in list_recorded_contexts(lines):
            _write_step(run.path, _CLEANED, context=context)
            found = find_leftovers(run, marked)
            if found is not None and not (found.processes or found.folders or found.contexts):
                _close_run(run.path)


def list_recorded_contexts(lines: Iterable[Line]) -> tuple[str, ...]:
    """Return the contexts of the clusters on which, by its journal, a run created objects and was not cleaned up."""
    contexts: dict[str, None] = {}
    for line in lines:
        if line["step"] == "apply":
            contexts[line["context"]] = None
        elif line["step"] == _CLEANED:
            contexts.pop(line["context"], None)
    return tuple(contexts)


def _find_folders(lines: Iterable[Line], run_id: str) -> Iterator[Path]:
    paths = dict.fromkeys(Path(line["path"]) for line in lines if line["step"] == "make-folder")
    return (path for path in paths if is_working_folder(path, run_id))


def _has_ended(lines: tuple[Line, ...]) -> bool:
    """Check whether the last `begin` has its `end`."""
    edges = [line["step"] for line in lines if line["step"] in ("begin", "end")]
    return bool(edges) and edges[-1] == "end"


def _holds_lock(run: NamedRun) -> bool:
    holder, _alive = read_holder()
    return holder is not None and holder.name == run.run_id


def _close_run(run: Path) -> None:
    """Record in the run's own files that it was killed and has been cleaned up."""
    if not (run / JOURNAL).is_file():
        return
    try:
        record = read_record(run / RECORD, RunRecord)
    except StoreError:
        record = None
    if record is not None and record.status == "running":
        folder, code = RunFolder(run, record), exit_code_of(Interrupted(signal.SIGKILL))
        issue = make_issue(IssueCode.KILLED, "killed; cleaned up afterwards")
        folder.finish(status="interrupted", exit_code=code, issues=(issue,), cleanup_ok=True)
    elif not _has_ended(read_journal(run / JOURNAL)):
        _write_step(run, "end", status="interrupted", exit_code=None)


def _write_step(run: Path, step: str, **facts: Any) -> None:
    journal = Journal(run / JOURNAL)
    journal.write(step, **facts)
    journal.close()
