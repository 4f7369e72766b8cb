"""Keep the newest runs of a folder, as a nightly job does, and remove the others."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.errors import StoreError
from bench.results.records import RunRecord
from bench.results.store import RECORD, read_record
from bench.run.cleanup import NamedRun, find_leftovers, find_runs_below
from bench.system.processes import find_marked_processes


def list_runs(output: Path) -> frozenset[Path]:
    """Return the folders of the runs below `output`."""
    return frozenset(run.path for run in _find_runs(output))


def _find_runs(output: Path) -> Iterator[NamedRun]:
    """Yield the runs whose folder is in `output` itself: the target of a link belongs to another folder."""
    own = output.resolve()
    return (run for run in find_runs_below(output)[0] if run.path.parent == own)


def remove_old_runs(output: Path, *, keep: int) -> Iterator[Path]:
    """Remove all but the `keep` newest runs below `output`, and yield the folder of each.

    A run stays that is running, has leftovers, or has an unreadable record: it needs a look before it is deleted.
    """
    marked = find_marked_processes()
    ended = sorted(
        (record.started_at, run.path)
        for run in _find_runs(output)
        if (record := _read_ended(run)) and find_leftovers(run, marked) is None
    )
    for _, path in ended[: max(0, len(ended) - keep)]:
        shutil.rmtree(path)
        yield path


def _read_ended(run: NamedRun) -> RunRecord | None:
    try:
        record = read_record(run.path / RECORD, RunRecord)
    except StoreError:
        return None
    return None if record.status == "running" else record
