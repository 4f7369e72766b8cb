"""The disk runs full during the load: complete trials stay, and the run reports how it ended."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.results.samples import read_parquet
from bench.results.store import read_run
from bench.system.journal import read_journal
from tests import command
from tests.issues import read_reasons

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(output: Path) -> Iterator[Path]:
    """`output` as a file system of 10 MiB."""
    output.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", output], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a file system: {error}")
    yield output
    subprocess.run(["umount", output], check=True)


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 4096)
        except OSError:
            return


NO_RESERVE = "import bench.run.space\nbench.run.space.RESERVE_BYTES = 0"
RESERVE = "import bench.run.space\nbench.run.space.RESERVE_BYTES = 4 * 1024**2"


def test_load_ends_before_the_reserve_is_used(small_disk: Path) -> None:
    """The load ends in order, with exit 9 and its samples, while others still have the reserve of the disk."""
    scenario = command.write_scenario(small_disk.parent, [command.BASELINE], load={"duration": "20s"})
    with command.run_in_background("run", "--scenario", scenario, output=small_disk, driver=RESERVE) as running:
        draft = running.loading("01-baseline-1")
        (small_disk / "filler").write_bytes(b"\0" * 7 * 1024**2)
        finished = running.wait()
    assert finished.code == 9, finished.output
    assert "less than 4 MiB is free on its disk" in finished.err
    assert len(read_parquet(draft / "samples.parquet")) >= 20
    assert command.find_leftovers(command.find_only_run(small_disk)) == []


def test_run_that_does_not_fit_is_refused(small_disk: Path) -> None:
    """Exit 3 before anything starts, with what is free and what is needed."""
    scenario = command.write_scenario(small_disk.parent, [command.BASELINE])
    finished = command.run("run", "--scenario", scenario, output=small_disk)
    assert finished.code == 3, finished.output
    assert "free disk: 10 MiB on the disk of " in finished.err
    assert not list(small_disk.iterdir())


def test_full_disk_ends_run_and_keeps_complete_trials(small_disk: Path) -> None:
    """Case 54: the load is ended at once, exit 9 names the disk; run.json and the journal record how the run ended."""
    scenario = command.write_scenario(small_disk.parent, [command.BASELINE], repeats=2, load={"duration": "4s"})
    with command.run_in_background("run", "--scenario", scenario, output=small_disk, driver=NO_RESERVE) as running:
        running.loading("02-baseline-2")
        _fill(small_disk)
        finished = running.wait()
    assert finished.code == 9, finished.output
    assert "the disk is full" in finished.err
    assert "Traceback" not in finished.err
    run = command.find_only_run(small_disk)
    record = command.read_record(run)
    assert (record["status"], record["exit_code"]) == ("failed", 9)
    assert "the disk is full" in read_reasons(record)[0]
    assert read_journal(run / "journal.jsonl")[-1]["step"] == "end"
    [trial] = read_run(run).trials
    assert trial.record.trial == "01-baseline-1"
    assert len(trial.samples()) > 0
    assert list((run / "trials").glob("02-baseline-2.partial/samples.*"))
    assert command.find_leftovers(run) == []
