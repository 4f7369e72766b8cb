"""Policies that deny the page to its users: their configuration has no result; the other configurations have theirs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import command
from tests.issues import read_reasons

pytestmark = pytest.mark.slow

POLICIES = command.ROOT / "manifests" / "istio" / "policies"


def _strict(folder: Path, name: str, *, without: str) -> dict[str, Any]:
    """A configuration with a copy of the shipped policies without the named files."""
    place = folder / name
    place.mkdir(parents=True)
    for file in POLICIES.glob("*.yaml"):
        if not re.fullmatch(without, file.stem):
            (place / file.name).write_text(file.read_text("utf-8"), "utf-8")
    return {"name": name, "mesh": "istio", "manifests": [name]}


def test_policies_that_deny_the_page_invalidate_only_their_configuration(output: Path) -> None:
    """Case 34: all requests fail, because the whole page or a part of it is denied; the load ends after 10 seconds,
    proof.json has the page's error, the other configuration is measured, and the exit code is 5."""
    folder = output.parent
    strict = [
        _strict(folder, "closed", without=".*-viewer|productpage-login"),
        _strict(folder, "partly", without="ratings-viewer"),
    ]
    scenario = command.write_scenario(folder, [command.BASELINE, *strict], load={"duration": "30s"})
    finished = command.run("run", "--scenario", scenario, output=output, timing={"local_ready_s": 5.0})
    assert finished.code == 5, finished.output
    trials = {path.name.split("-")[1]: path for path in (command.find_only_run(output) / "trials").iterdir()}
    records = {name: json.loads((path / "trial.json").read_text("utf-8")) for name, path in trials.items()}
    codes = {name: [reason.partition(":")[0] for reason in read_reasons(one)] for name, one in records.items()}
    assert (codes["closed"], codes["partly"]) == (["all-failed"], ["all-failed"]), finished.output
    assert "status 403" in read_reasons(records["closed"])[0]
    assert "status 200" in read_reasons(records["partly"])[0]
    for name in ("closed", "partly"):
        assert any("the load was ended early" in warning for warning in read_reasons(records[name], "warning"))
        assert 10 < records[name]["windows"][0]["end_ns"] / 1e9 < 30
    [page] = [fact for fact in _evidence_before(trials["partly"]) if fact["name"] == "page"]
    assert "page says: " in page["seen"]
    assert "all-failed" not in codes["baseline"], finished.output
    assert records["baseline"]["generator"]["locust_failures"] == 0


def _evidence_before(trial: Path) -> list[dict[str, str]]:
    """The evidence from before the load."""
    return list(json.loads((trial / "proof.json").read_text("utf-8"))["before"])
