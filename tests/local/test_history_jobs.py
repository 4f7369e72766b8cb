"""Jobs that judge runs by one history at the same time, as the real command, and one that finds no space."""

from datetime import timedelta
from pathlib import Path

from bench.analysis.history import append_lines, read_history
from tests import command
from tests.factory import STARTED_AT, make_run
from tests.nights import make_history
from tests.unit.test_history import SHORT, changed

JOBS = 4


def test_jobs_at_once_lose_no_night(tmp_path: Path) -> None:
    """Four jobs, two of them with the same run, add three nights to one file: each once, and every line complete."""
    runs = []
    for number in range(JOBS - 1):
        run = make_run(tmp_path / str(number), SHORT)
        runs.append(changed(run, run_id=f"night-{number}", started_at=STARTED_AT + timedelta(days=number)).path)
    path = tmp_path / "history.jsonl"
    jobs = [command.start("gate", run, "--history", path, output=tmp_path / "results") for run in (*runs, runs[0])]
    assert [job.wait().code for job in jobs] == [0] * JOBS
    known = read_history(path)
    assert [line.run_id for line in known.lines] == ["night-0", "night-1", "night-2"]
    assert (known.problems, len(path.read_bytes().splitlines())) == ((), 3)


_LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


def test_full_disk_cuts_one_night_alone(tmp_path: Path) -> None:
    """Where the file can grow no further the gate ends with 9; the nights before are read, and the night can be added
    again when there is space."""
    path = tmp_path / "history.jsonl"
    append_lines(path, make_history(3).lines)
    size = path.stat().st_size
    run = make_run(tmp_path / "run", SHORT).path
    words = ("gate", run, "--history", path)
    found = command.call(*words, output=tmp_path / "results", driver=_LIMIT.format(size + 100))
    assert found.code == 9, found.output
    assert f"meshbench: {path}: cannot be written: File too large" in found.err
    assert len(read_history(path).lines) == 6
    again = command.call(*words, output=tmp_path / "results")
    assert again.code == 0, again.output
    assert "this line is skipped" in again.err
    assert len(read_history(path).lines) == 7
