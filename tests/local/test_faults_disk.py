"""The disk runs full during the load: complete trials stay, and the run reports how it ended."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.results.store import read_run
from bench.system.journal import read_journal
from tests import command
from tests.issues import read_reasons

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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


def test_full_disk_ends_run_and_keeps_complete_trials(small_disk: Path) -> None:
    """Case 54: the load is ended at once, exit 9 names the disk; run.json and the journal record how the run ended."""
    scenario = command.write_scenario(small_disk.parent, [command.BASELINE], repeats=2, load={"duration": "4s"})
    with command.run_in_background("run", "--scenario", scenario, output=small_disk) as running:
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
