"""Find and remove private copies on this machine: private files of runs that no resume needs, and temporary folders of
commands that were killed, which hold credentials or rendered manifests."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import LeftoversError, StoreError
from bench.results.records import RunRecord
from bench.results.store import RECORD, read_record
from bench.run.cleanup import NamedRun, find_running_process
from bench.system.journal import NAME as JOURNAL
from bench.system.journal import read_journal
from bench.system.output import format_command
from bench.system.private_files import list_private_runs, remove_private
from bench.system.temporary import find_abandoned


@dataclass(frozen=True, slots=True)
class PrivateCopy:
    """A folder with private files, and what it is. It is `kept` where the run may still be resumed."""

    folder: Path
    what: str
    kept: bool = False

    @property
    def summary(self) -> str:
        """One line of text."""
        return f"{self.folder}: {self.what}"


def find_private_copies(
    output: Path, runs: Iterable[NamedRun], *, only: NamedRun | None = None, ends_resume: bool = False
) -> tuple[PrivateCopy, ...]:
    """Find the private copies of this machine, and of the `runs` below `output`, or of one of them `only`. Those of a
    run that is measured now are left out; those that a resume needs are kept unless it `ends_resume`."""
    known = {run.run_id: run for run in runs}
    killed = (PrivateCopy(folder, "temporary folder of a command that was killed") for folder in find_abandoned())
    every = (folder for folder in list_private_runs(output) if only is None or folder.name == only.run_id)
    found = (_describe(folder, known.get(folder.name), ends_resume=ends_resume) for folder in every)
    return (*killed, *(one for one in found if one is not None))


def _describe(folder: Path, run: NamedRun | None, *, ends_resume: bool) -> PrivateCopy | None:
    if run is None:
        is_damaged = (folder.parents[1] / folder.name).exists()
        state = "whose folder is damaged" if is_damaged else "whose folder does not exist"
        return PrivateCopy(folder, f"private files of a run {state}", kept=is_damaged and not ends_resume)
    if find_running_process(read_journal(run.path / JOURNAL)):
        return None
    what = f"private files of {run.path}"
    if ends_resume or not _is_resumable(run.path):
        return PrivateCopy(folder, what)
    command = format_command("meshbench", "cleanup", "--run", run.path, "--no-resume")
    return PrivateCopy(folder, f"{what}, kept for --resume; to remove them: {command}", kept=True)


def _is_resumable(run: Path) -> bool:
    try:
        record = read_record(run / RECORD, RunRecord)
    except StoreError:
        return True  # a record that cannot be read now may be mended
    return record.converted_from is None and record.status not in ("complete", "invalid")


def remove_copies(copies: Iterable[PrivateCopy]) -> Iterator[PrivateCopy]:
    """Remove the copies that are not kept, and yield each after its removal. Raises LeftoversError in the end for those
    that remain."""
    failed = []
    for one in copies:
        if one.kept:
            continue
        try:
            remove_private(one.folder)
        except FileNotFoundError:
            continue  # another cleanup was quicker
        except OSError as error:
            failed.append(f"{one.summary}: cannot be removed: {error.strerror}; hint: remove it by hand")
        else:
            yield one
    if failed:
        raise LeftoversError("\n".join(failed))
