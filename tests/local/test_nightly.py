"""The nightly job: its steps one after the other, on this machine."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests import command

pytestmark = pytest.mark.slow


def test_nights_are_run_judged_and_kept(output: Path) -> None:
    """Each night adds itself to the history, and only as many runs as were asked for stay."""
    scenario = command.write_scenario(output.parent, [command.BASELINE, command.ISTIO], reference="baseline")
    history = output.parent / "history.jsonl"
    for _ in range(2):
        arguments = ("nightly", "--scenario", scenario, "--history", history, "--keep-runs", "1")
        night = command.run(*arguments, output=output)
        assert night.code in command.MEASURED, night.output
        assert "no leftover objects" in night.out
    nights = {json.loads(line)["run_id"] for line in history.read_text("utf-8").splitlines()}
    assert len(nights) == 2
    assert command.find_only_run(output).name in nights
    assert f"removed {output.resolve()}" in night.out
    steps = re.search(r"^the night took (.+)\Z", night.out.strip(), re.MULTILINE)
    assert steps, night.output
    assert [part.rpartition(" for ")[2] for part in steps[1].split(", ")] == ["cleanup", "run", "cleanup", "gate"]


def test_night_beside_a_running_one_measures_nothing(output: Path) -> None:
    """The exit code is that of the lock, and the history stays as it is."""
    scenario = command.write_scenario(output.parent, [command.BASELINE], load={"duration": "60s"})
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        running.loading("01-baseline-1")
        night = command.call(
            "nightly", "--scenario", scenario, "--history", "history.jsonl", "--output", output, output=output
        )
        assert night.code == 8, night.output
        assert "is running" in night.err
        running.send(signal.SIGINT)
        running.wait()
    assert not (output.parent / "history.jsonl").exists()
    command.find_only_run(output)
