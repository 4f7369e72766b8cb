"""Blocks that are measured once more because a trial of theirs was invalid."""

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.run_summary import summarise
from bench.results.store import RunFolder, StoredRun
from bench.run.trials import spoilt_blocks
from bench.scenario.plan import Plan
from tests.factory import Made, make_run

SHORT: dict[str, Any] = {"warmup_s": 5.0, "duration_s": 20.0}
SPOILT = {"status": "invalid", "reasons": ("restart: reviews ended during the trial", "errors: 40 % failed")}
LASTING = [
    {"status": "invalid", "reasons": ("proof: mutual TLS of details: expected one, seen another",)},
    {"status": "invalid", "reasons": ("errors: 40 % failed: quick failures",)},
]


def spoilt(made: StoredRun, **changes: Any) -> tuple[int, ...]:
    """What the runner would measure once more; `changes` are those of the scenario."""
    scenario = made.record.scenario.model_copy(update=changes)
    folder = RunFolder(made.path, made.record.model_copy(update={"scenario": scenario}))
    folder.journal.close()
    return spoilt_blocks(folder)


def test_a_block_is_repeated_in_its_own_order() -> None:
    """What was balanced stays so, and the trials' folders go on counting."""
    plan = Plan(seed=1, method="m", order=(("a", "b"), ("b", "a")))
    more = plan.once_more([2])
    assert (more.order, more.again, more.blocks) == ((("a", "b"), ("b", "a"), ("b", "a")), (2,), 2)
    assert [trial.folder for trial in more.trials[-2:]] == ["05-b-3", "06-a-3"]
    assert more.trials[:4] == plan.trials


@pytest.mark.parametrize("lasting", LASTING)
def test_only_spoilt_blocks_are_measured_again_and_only_where_that_is_wanted(
    tmp_path: Path, lasting: dict[str, Any]
) -> None:
    """One bad trial takes its whole block with it; a proof that failed would fail again, and a policy that blocks
    would block again."""
    plan = make_run(tmp_path / "look", Made(**SHORT)).record.plan
    changes = {plan.trials[3].folder: SPOILT, plan.trials[6].folder: lasting}
    made = make_run(tmp_path / "run", Made(**SHORT, trial_changes=changes))
    assert spoilt(made) == (2,)
    assert spoilt(made, rerun_invalid=False) == ()
    assert spoilt(made, quick=True) == ()


@pytest.mark.parametrize("second", ["good", "spoilt"])
def test_a_block_gets_one_further_chance(tmp_path: Path, second: str) -> None:
    """If that is spoilt, too, the run is invalid: a machine on which nothing works would be measured for ever."""
    plan = make_run(tmp_path / "look", Made(**SHORT, again=(1,))).record.plan
    changes = {plan.trials[0].folder: SPOILT}
    if second == "spoilt":
        changes[plan.trials[-1].folder] = SPOILT
    made = make_run(tmp_path / "run", Made(**SHORT, again=(1,), trial_changes=changes))
    assert spoilt(made) == ()
    assert summarise(made)[0].valid is (second == "good")


def test_a_block_that_was_measured_again_is_shown_and_left_out(tmp_path: Path) -> None:
    """Its good trials, too: half a block would break the balance. The report says which block stands for it."""
    plan = make_run(tmp_path / "look", Made(**SHORT, again=(1,))).record.plan
    first, good, _ = (trial.folder for trial in plan.trials[:3])
    made = make_run(tmp_path / "run", Made(**SHORT, again=(1,), trial_changes={first: SPOILT}))
    summary, _ = summarise(made)
    repeats = {repeat.trial: repeat for one in summary.configurations.values() for repeat in one.repeats}
    assert len(repeats) == 12
    assert [repeats[name].valid for name in (first, good)] == [False, False]
    assert repeats[good].reasons == (
        "measured-again: block 1 was measured once more; the first time is listed and left out of every mean",
    )
    assert {one.n for one in summary.configurations.values()} == {3}
    told = [doubt for doubt in summary.doubts if doubt.startswith("measured-again")]
    assert len(told) == 1
    assert "block 4 stands in the place of block 1" in told[0]
    assert not any(doubt.startswith(("invalid-trial", "unfinished")) for doubt in summary.doubts)
