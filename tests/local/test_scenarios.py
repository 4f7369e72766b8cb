"""Every scenario that ships: the real command runs it with short windows."""

import json
from pathlib import Path

import pytest

from bench.results.store import read_run
from bench.scenario.contrasts import list_comparisons
from bench.scenario.loader import list_shipped_scenarios
from tests import command

pytestmark = pytest.mark.slow

# Each of these has its own test module.
ELSEWHERE = {"smoke", "users-sweep", "kuma-policies", "gateway", "deployment-strategy"}
# Their configurations are also those of tests that run always: the main job, and proxies with equal settings.
RARELY = {"istio-policies", "istio-vs-kuma", "istio-vs-kuma-equalised"}
SHORT = ("--repeats", "1", "--warmup", "0s", "--duration", "1s", *command.ONCE)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak("scenarios")] if name in RARELY else [])
        for name in sorted({*list_shipped_scenarios()} - ELSEWHERE)
    ],
)
def test_shipped_scenario_runs_and_is_proven(name: str, output: Path) -> None:
    """Every configuration is deployed, proven before and after its load, compared as planned, and reported."""
    finished = command.run("run", "--scenario", name, *SHORT, output=output)
    assert finished.code in command.MEASURED, finished.output
    run = read_run(command.find_only_run(output))
    assert [trial.record.trial for trial in run.trials] == [trial.folder for trial in run.record.plan.trials]
    for trial in run.trials:
        assert trial.proof is not None
        assert trial.proof.failures == ()
        assert trial.proof.before
        assert trial.proof.after
    summary = json.loads((run.path / "summary.json").read_text("utf-8"))
    pairs = {(contrast["configuration"], contrast["reference"]) for contrast in summary["contrasts"]}
    assert pairs == {(pair.configuration, pair.reference) for pair in list_comparisons(run.record.scenario)} != set()
    assert (run.path / "report" / "index.html").exists()
