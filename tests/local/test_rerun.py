"""Rerun of an invalid block: the real command, with a service that dies under the first load."""

import json
from pathlib import Path

import pytest

from tests import command
from tests.command import BASELINE

pytestmark = pytest.mark.measures


def test_invalid_block_is_rerun(output: Path) -> None:
    """The run succeeds: the rerun counts, the first trial stays in the folder, and the report mentions both."""
    output.parent.mkdir(exist_ok=True)
    scenario = command.write_scenario(output.parent, [BASELINE], rerun_invalid=True)
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        running.loading("01-baseline-1")
        running.kill("reviews")
        folder, finished = running.folder(), running.wait()
    assert finished.code == 0, finished.output
    record = command.read_record(folder)
    assert (record["status"], record["plan"]["again"]) == ("complete", [1])
    assert [one["folder"] for one in record["trials"]] == ["01-baseline-1", "02-baseline-2"]
    assert "trial 2 of 2: baseline, block 2" in finished.err
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    baseline = summary["configurations"]["baseline"]
    assert (summary["valid"], baseline["n"], [one["valid"] for one in baseline["repeats"]]) == (True, 1, [False, True])
    assert "block 2 replaces block 1" in finished.out
