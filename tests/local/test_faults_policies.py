"""Policies that keep the page from its users: their configuration is what its name says, and has no result; the others
have theirs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

POLICIES = command.ROOT / "manifests" / "istio" / "policies"
SHORT_WAIT = "import bench.targets.local.target as target; target.READY_TIMEOUT_S = 5.0"


def _strict(folder: Path, name: str, *, without: str) -> dict[str, Any]:
    """A configuration with a copy of the shipped policies, but for those files."""
    place = folder / name
    place.mkdir(parents=True)
    for file in POLICIES.glob("*.yaml"):
        if not re.fullmatch(without, file.stem):
            (place / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return {"name": name, "mesh": "istio", "manifests": [name]}


def test_policies_that_refuse_the_page_cost_their_own_configuration_its_result(output: Path) -> None:
    """Case 34: all requests fail, with the page refused as a whole or a part of it; the load is ended after 10 seconds,
    proof.json tells what the page said, the other configuration is measured, and the exit code is 5."""
    folder = output.parent
    strict = [
        _strict(folder, "closed", without=".*-viewer|productpage-login"),
        _strict(folder, "partly", without="ratings-viewer"),
    ]
    scenario = command.write_scenario(folder, [command.BASELINE, *strict], load={"duration": "12s"})
    finished = command.run("run", "--scenario", scenario, output=output, driver=SHORT_WAIT)
    assert finished.code == 5, finished.told
    trials = {path.name.split("-")[1]: path for path in (command.only_run(output) / "trials").iterdir()}
    records = {name: json.loads((path / "trial.json").read_text("utf-8")) for name, path in trials.items()}
    codes = {name: [reason.partition(":")[0] for reason in one["reasons"]] for name, one in records.items()}
    assert (codes["closed"], codes["partly"]) == (["all-failed"], ["all-failed"]), finished.told
    assert "status 403" in records["closed"]["reasons"][0]
    assert "status 200" in records["partly"]["reasons"][0]
    for name in ("closed", "partly"):
        assert any("the load was ended early" in warning for warning in records[name]["warnings"])
        assert 10 < records[name]["windows"][0]["end_ns"] / 1e9 < 12
    [page] = [fact for fact in _before(trials["partly"]) if fact["name"] == "page"]
    assert "page says: " in page["seen"]
    assert "all-failed" not in codes["baseline"], finished.told
    assert records["baseline"]["generator"]["locust_failures"] == 0


def _before(trial: Path) -> list[dict[str, str]]:
    """The evidence from before the load."""
    return list(json.loads((trial / "proof.json").read_text("utf-8"))["before"])
