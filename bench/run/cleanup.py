"""Removes what a run left that was killed: its processes, its working folder, its name in the lock file.

Idempotent; it touches only what the run's journal recorded, or what carries the run's id. What a run made on a cluster
is removed there, by its labels; until then the run is not closed here.
"""

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.errors import InputError, LeftoversError, LockedError, StoreError
from bench.results.records import RunRecord
from bench.results.store import RECORD, RunFolder, read_record, read_run_id
from bench.system.journal import NAME as JOURNAL
from bench.system.journal import Journal, read_journal
from bench.system.lock import forget_holder, read_holder
from bench.system.processes import MARK, end_strays, is_running, marked_processes

_CLEANED: Final = "cleaned"  # the journal's word for a cluster on which nothing of the run is left


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a run that did not end left behind. `contexts` are those of the clusters on which it made something, which
    is removed by a command of its own."""

    run: Path
    run_id: str
    processes: tuple[int, ...]
    folders: tuple[Path, ...]
    contexts: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """One line for people."""
        processes = ", ".join(map(str, self.processes)) or "none"
        folders = ", ".join(map(str, self.folders)) or "none"
        here = f"{self.run}: processes {processes}; folders {folders}"
        return "; ".join((here, *(f"on a cluster, for which: {command}" for command in self.commands)))

    @property
    def commands(self) -> tuple[str, ...]:
        """What removes the rest of it from clusters, and then closes the run."""
        run = shlex.quote(str(self.run))
        return tuple(f"meshbench cleanup --context {shlex.quote(one)} --run {run}" for one in self.contexts)


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run that may have left something: its folder, which may have got another name since, and its id."""

    path: Path
    run_id: str


def named_run(path: Path) -> NamedRun:
    """Find the run that is meant by the path of its folder, or of a link to it.

    Raises InputError for what is no run's folder, StoreError where its run.json is damaged.
    """
    run = _real(path)
    if _is_file(run / RECORD):
        return NamedRun(run, read_run_id(run))
    holder, _alive = read_holder()
    if holder is not None and _real(Path(holder.run)) == run:  # it was killed before it had a record
        return NamedRun(run, holder.name)
    missing = "it has no run.json" if os.path.isdir(run) else "there is no such folder"  # noqa: PTH112  # see _is_file
    raise InputError(f"{path}: not a run's folder: {missing}; give the folder of one run, below --output")


def runs_below(output: Path) -> tuple[tuple[NamedRun, ...], tuple[str, ...]]:
    """Find every run below `output` and the one that the lock file names; and why others cannot be looked at.

    Raises InputError where `output` is itself a run's folder, or a file.
    """
    if _is_file(output / RECORD):
        raise InputError(f"--output {output}: is the folder of one run; give it with --run, or the folder above it")
    if _is_file(output):
        raise InputError(f"--output {output}: is a file; give the folder that holds the runs")
    found: list[NamedRun] = []
    damaged: list[str] = []
    for path in sorted({_real(path) for path in output.glob("*/")}):
        try:
            if _is_file(path / RECORD) or read_journal(path / JOURNAL):
                found.append(NamedRun(path, read_run_id(path)))
        except (StoreError, OSError) as error:
            why = f"skipped, so something may be left of it: {error}"
            damaged.append(
                f"{path}: {why}; look into its journal.jsonl, and remove the folder when nothing of it is left"
            )
    holder, alive = read_holder()
    if holder is not None and not alive and holder.name not in {run.run_id for run in found}:
        found.append(NamedRun(_real(Path(holder.run)), holder.name))
    return tuple(found), tuple(damaged)


def _real(path: Path) -> Path:
    """Follow links; unlike `Path.resolve` this raises nothing for a link to itself."""
    return Path(os.path.realpath(path))


def _is_file(path: Path) -> bool:
    """Whether a file is there that can be looked at; unlike `Path.is_file` this raises nothing where it cannot."""
    return os.path.isfile(path)  # noqa: PTH113


def unfinished_runs(runs: Iterable[NamedRun]) -> tuple[Leftovers, ...]:
    """What is left of those of these runs that left something. Raises LockedError for one of them that is alive."""
    known = tuple(runs)
    holder, alive = read_holder()
    if holder is not None and alive and holder.name in {run.run_id for run in known}:
        raise _still_running(Path(holder.run), holder.pid)
    for run in known:
        if pid := _measuring(read_journal(run.path / JOURNAL)):
            raise _still_running(run.path, pid)
    marked = marked_processes()
    return tuple(found for run in known if (found := leftovers(run, marked)) is not None)


def _still_running(run: Path, pid: int) -> LockedError:
    return LockedError(f"{run} is running (process {pid}); end it with Ctrl-C there, then clean up")


def _measuring(lines: tuple[dict[str, Any], ...]) -> int:
    """The process that goes on with a run now, which a cluster's lock does not tell here; 0 if none does."""
    begins = [line for line in lines if line["step"] == "begin"]
    if not begins or _has_ended(lines):
        return 0
    pid, created = begins[-1].get("pid", 0), begins[-1].get("created", 0.0)
    return pid if is_running(pid, created) else 0


def leftovers(run: NamedRun, marked: Mapping[str, tuple[int, ...]]) -> Leftovers | None:
    """What a run left; None for one that ended by itself, and well. `marked` are processes by the run id that they
    carry."""
    lines = read_journal(run.path / JOURNAL)
    is_over = not lines or _has_ended(lines)
    recorded = {} if is_over else recorded_processes(lines)
    started = {pid for pid, created in recorded.items() if is_running(pid, created)}
    processes = tuple(sorted(started.union(marked.get(run.run_id, ()))))
    folders = tuple(_folders(lines, run.run_id))
    if is_over and not processes and not folders and not _held(run):
        return None
    contexts = () if _has_ended(lines) else recorded_contexts(lines)  # it removed, or told, that by itself
    return Leftovers(run.path, run.run_id, processes, folders, contexts)


def clean(found: Leftovers) -> tuple[int, int]:
    """Ends and removes all of it that is on this machine; returns how many processes were ended, and how many folders
    removed. Raises LeftoversError for what stays."""
    run = NamedRun(found.run, found.run_id)
    lines = read_journal(found.run / JOURNAL)
    ended = end_strays(found.run_id, {} if _has_ended(lines) else recorded_processes(lines))
    folders = [folder for folder in found.folders if folder.is_dir()]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    remaining = leftovers(run, marked_processes())
    if remaining is not None and (remaining.processes or remaining.folders):
        raise LeftoversError(f"still there after cleaning up: {remaining.told}")
    if not found.contexts:  # else `close_cleaned` does it
        _close(found.run)
    forget_holder(found.run_id)
    return len(ended), len(folders)


def close_cleaned(output: Path, *, context: str, run_id: str | None) -> None:
    """Notes in the folders of killed runs that nothing of theirs is left on a cluster, and closes those of which
    nothing is left elsewhere either; `run_id` None means all of them."""
    marked = marked_processes()
    for run in runs_below(output)[0]:
        lines = read_journal(run.path / JOURNAL)
        killed = not _has_ended(lines) and not _measuring(lines)
        if run_id in (None, run.run_id) and killed and context in recorded_contexts(lines):
            _note(run.path, _CLEANED, context=context)
            found = leftovers(run, marked)
            if found is not None and not (found.processes or found.folders or found.contexts):
                _close(run.path)


def recorded_processes(lines: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Process ids in a journal, with the times at which they were started."""
    return {line["pid"]: line["created"] for line in lines if line["step"] == "start-process-done"}


def recorded_contexts(lines: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """The contexts of the clusters on which, by its journal, a run made objects, and that were not cleaned up since."""
    contexts: dict[str, None] = {}
    for line in lines:
        if line["step"] == "apply":
            contexts[line["context"]] = None
        elif line["step"] == _CLEANED:
            contexts.pop(line["context"], None)
    return tuple(contexts)


def _folders(lines: Iterable[dict[str, Any]], run_id: str) -> Iterable[Path]:
    for line in lines:
        if line["step"] == "make-folder":
            path = Path(line["path"])
            if path.is_dir() and _is_of(path, run_id):
                yield path


def _is_of(folder: Path, run_id: str) -> bool:
    """Its mark says so; or nothing but a mark that was not written yet is in it: the run died while it made it."""
    mark = folder / MARK
    text = mark.read_text("utf-8") if mark.is_file() else ""
    return text == run_id or (not text and set(folder.iterdir()) <= {mark})


def _has_ended(lines: tuple[dict[str, Any], ...]) -> bool:
    """Whether the last `begin` has its `end`."""
    edges = [line["step"] for line in lines if line["step"] in ("begin", "end")]
    return bool(edges) and edges[-1] == "end"


def _held(run: NamedRun) -> bool:
    holder, _alive = read_holder()
    return holder is not None and holder.name == run.run_id


def _close(run: Path) -> None:
    """Says in the run's own files that it was cut short and has been cleaned up."""
    if not (run / JOURNAL).is_file():
        return
    try:
        record = read_record(run / RECORD, RunRecord)
    except StoreError:
        record = None
    if record is not None and record.status == "running":
        folder = RunFolder(run, record)
        folder.finish(status="interrupted", exit_code=137, reason="killed; cleaned up afterwards", cleanup_ok=True)
    elif not _has_ended(read_journal(run / JOURNAL)):
        _note(run, "end", status="interrupted", exit_code=None)


def _note(run: Path, step: str, **facts: Any) -> None:
    journal = Journal(run / JOURNAL)
    journal.write(step, **facts)
    journal.close()
