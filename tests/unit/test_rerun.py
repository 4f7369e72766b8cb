"""Blocks that are rerun because one of their trials was invalid."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.run_summary import summarise
from bench.analysis.validity import check_trial
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


NOISY = {"issues": (issue("noise", "other processes used 40 %"),)}


@pytest.mark.parametrize(
    ("blocks", "noisy", "invalid", "expected"),
    [
        (8, (), (), ()),
        (8, (3,), (), (3,)),
        (8, (1, 2, 3), (7,), (1, 7)),
        (3, (1, 2), (), (1,)),
        (12, (1, 2, 3, 4), (), (1, 2, 3)),
    ],
)
def test_reruns_noisy_blocks_of_a_duet(
    tmp_path: Path, blocks: int, noisy: tuple[int, ...], invalid: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """A block with noise is rerun, also in a quick run, after those that are invalid; in all at most one in four, or
    one of fewer than four."""
    spec = RunSpec(**SHORT, design="duet", repeats=blocks, quick=True)
    plan = make_run(tmp_path / "look", spec).record.plan
    first = {trial.block: trial.folder for trial in reversed(plan.trials)}
    changes = {first[block]: NOISY for block in noisy} | {first[block]: INVALID for block in invalid}
    made = make_run(tmp_path / "run", replace(spec, trial_changes=changes))
    assert find_blocks(made) == expected
    assert find_blocks(made, rerun_invalid=False) == ()


def test_latencies_choose_no_block_of_a_duet(tmp_path: Path) -> None:
    """Where blocks are compared, an unsteady window or a stall is a warning, and no reason for a rerun."""
    made = make_run(tmp_path, RunSpec(**SHORT, design="duet", repeats=4))
    trial = made.trials[0]
    samples = trial.samples()
    rising = replace(samples, latency_ns=samples.latency_ns * np.where(samples.started_ns > 15e9, 5, 1))
    for design, severity in (("duet", "warning"), ("interleaved", "warning"), ("sequential", "reason")):
        record = trial.record.model_copy(update={"design": design})
        issues = check_trial(record, rising, trial.resources(), trial.proof)
        assert [one.severity for one in issues if one.code == "unsteady"] == [severity]


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
