"""A run that measures a spoilt block once more: the real command, with a service that dies under the first load."""

import json
from pathlib import Path

import pytest

from tests import command
from tests.command import BASELINE

pytestmark = [pytest.mark.measures, pytest.mark.timeout(300)]


def test_a_spoilt_block_is_measured_once_more(output: Path) -> None:
    """It ends well: the second time counts, the first stays in the folder, and the report says both."""
    output.parent.mkdir(exist_ok=True)
    scenario = command.write_scenario(output.parent, [BASELINE], rerun_invalid=True)
    with command.running("run", "--scenario", scenario, output=output) as running:
        running.loading("01-baseline-1")
        running.kill("reviews")
        folder, finished = running.folder(), running.wait()
    assert finished.code == 0, finished.told
    record = command.record(folder)
    assert (record["status"], record["plan"]["again"]) == ("complete", [1])
    assert [one["folder"] for one in record["trials"]] == ["01-baseline-1", "02-baseline-2"]
    assert "trial 2 of 2: baseline, block 2" in finished.err
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    baseline = summary["configurations"]["baseline"]
    assert (summary["valid"], baseline["n"], [one["valid"] for one in baseline["repeats"]]) == (True, 1, [False, True])
    assert "block 2 stands in the place of block 1" in finished.out
