"""Blocks that are rerun because one of their trials was invalid."""

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.run_summary import summarise
from bench.results.store import RunFolder, StoredRun
from bench.run.trials import find_blocks_to_rerun
from bench.scenario.plan import Plan
from tests.factory import RunSpec, make_run
from tests.issues import codes, issue

SHORT: dict[str, Any] = {"warmup_s": 5.0, "duration_s": 20.0}
INVALID = {"status": "invalid", "issues": (issue("restart"), issue("errors"))}
PERMANENT = [
    {"status": "invalid", "issues": (issue("proof"),)},
    {"status": "invalid", "issues": (issue("errors"),)},
]


def find_blocks(made: StoredRun, **changes: Any) -> tuple[int, ...]:
    """Find the blocks that a run would rerun; `changes` are those of the scenario."""
    scenario = made.record.scenario.model_copy(update=changes)
    folder = RunFolder(made.path, made.record.model_copy(update={"scenario": scenario}))
    folder.journal.close()
    return find_blocks_to_rerun(folder)


def test_reruns_block_in_its_own_order() -> None:
    """A rerun keeps the order of its block, and numbers its trials after those of the plan."""
    plan = Plan(seed=1, method="m", order=(("a", "b"), ("b", "a")))
    more = plan.with_rerun([2])
    assert (more.order, more.again, more.blocks) == ((("a", "b"), ("b", "a"), ("b", "a")), (2,), 2)
    assert [trial.folder for trial in more.trials[-2:]] == ["05-b-3", "06-a-3"]
    assert more.trials[:4] == plan.trials


@pytest.mark.parametrize("permanent", PERMANENT)
def test_reruns_only_blocks_with_retryable_reasons(tmp_path: Path, permanent: dict[str, Any]) -> None:
    """One invalid trial leads to a rerun of its whole block, unless its reason is permanent or reruns are off."""
    plan = make_run(tmp_path / "look", RunSpec(**SHORT)).record.plan
    changes = {plan.trials[3].folder: INVALID, plan.trials[6].folder: permanent}
    made = make_run(tmp_path / "run", RunSpec(**SHORT, trial_changes=changes))
    assert find_blocks(made) == (2,)
    assert find_blocks(made, rerun_invalid=False) == ()
    assert find_blocks(made, quick=True) == ()


@pytest.mark.parametrize("second", ["valid", "invalid"])
def test_reruns_block_once(tmp_path: Path, second: str) -> None:
    """A block whose rerun is invalid, too, is not measured a third time."""
    plan = make_run(tmp_path / "look", RunSpec(**SHORT, again=(1,))).record.plan
    changes = {plan.trials[0].folder: INVALID}
    if second == "invalid":
        changes[plan.trials[-1].folder] = INVALID
    made = make_run(tmp_path / "run", RunSpec(**SHORT, again=(1,), trial_changes=changes))
    assert find_blocks(made) == ()
    assert summarise(made)[0].valid is (second == "valid")


def test_leaves_rerun_block_out_of_means(tmp_path: Path) -> None:
    """All trials of a block that was rerun are left out, and the report names the block that replaces it."""
    plan = make_run(tmp_path / "look", RunSpec(**SHORT, again=(1,))).record.plan
    first, good, _ = (trial.folder for trial in plan.trials[:3])
    made = make_run(tmp_path / "run", RunSpec(**SHORT, again=(1,), trial_changes={first: INVALID}))
    summary, _ = summarise(made)
    repeats = {repeat.trial: repeat for one in summary.configurations.values() for repeat in one.repeats}
    assert len(repeats) == 12
    assert [repeats[name].valid for name in (first, good)] == [False, False]
    (reason,) = repeats[good].reasons
    assert (reason.code, reason.detail) == ("measured-again", "block 1 has a rerun")
    assert {one.n for one in summary.configurations.values()} == {3}
    assert codes(summary.issues).count("measured-again") == 1
    assert any("block 4 replaces block 1" in one.detail for one in summary.issues)
    assert not {"invalid-trial", "unfinished"} & {*codes(summary.issues)}
