"""Blocks whose configurations are deployed together: the real command, with real services, sidecars and loads."""

import json
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.results.store import StoredRun, StoredTrial, read_run
from bench.scenario.plan import SETTLE_S
from bench.system.journal import read_journal
from tests import command
from tests.command import BASELINE, ISTIO

pytestmark = [pytest.mark.slow, pytest.mark.measures]


def run_design(folder: Path, design: str, **load: object) -> StoredRun:
    """A run of two blocks with a baseline and Istio."""
    folder.mkdir(exist_ok=True)
    scenario = command.write_scenario(
        folder,
        [BASELINE, ISTIO],
        design=design,
        reference="baseline",
        repeats=2,
        load={"users": 16, "think_time": "400ms", "warmup": "2s", "duration": "4s"} | load,
    )
    finished = command.run("run", "--scenario", scenario, output=folder / "results")
    assert finished.code in command.MEASURED, finished.output
    assert "block 2 of 2: " in finished.err
    return read_run(next((folder / "results").glob("[!.]*/")))


@pytest.fixture(scope="module")
def duet(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Two configurations with 8 users each, loaded at the same time."""
    return run_design(tmp_path_factory.mktemp("duet"), "duet")


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Two configurations with 16 users each, in two workers, loaded in turn."""
    return run_design(tmp_path_factory.mktemp("interleaved"), "interleaved", workers=2, duration="10s")


def by_block(run: StoredRun) -> list[list[StoredTrial]]:
    """The trials of each block."""
    return [[one for one in run.trials if one.record.block == block] for block in (1, 2)]


def test_duet_proves_that_its_windows_overlap(duet: StoredRun) -> None:
    """Every trial has the evidence, its share of the users, one window, and no extended warm-up."""
    for block in by_block(duet):
        assert len({one.record.started_at for one in block}) == 1
        for trial in block:
            assert trial.proof is not None
            (shared,) = (one for one in trial.proof.after if one.name == "windows of the block")
            assert (shared.ok, shared.subject) == (True, "2 configurations"), shared.seen
            assert (trial.record.design, trial.record.users, len(trial.record.windows)) == ("duet", 8, 1)
            assert trial.record.windows[0].seconds == pytest.approx(4)
            assert not trial.record.warmup_extended
            assert trial.proof.failures == ()


def test_all_of_a_block_is_deployed_before_its_load(duet: StoredRun) -> None:
    """Every service and sidecar of a block is started before its first generator, and all end before the next block;
    a proxy validates its configuration once in a run."""
    steps = read_journal(duet.path / "journal.jsonl")
    started = [line for line in steps if line["step"] == "start-process"]
    kinds = [line["role"] for line in started if not line["name"].endswith("-validate")]
    block = ["service"] * 8 + ["sidecar"] * 5 + ["generator"] * 2
    assert kinds == block * 2
    assert sum(line["name"].endswith("-validate") for line in started) == 5


def test_seeds_of_generators_differ(duet: StoredRun) -> None:
    """The users of two configurations do not start in step."""
    first, second = (one.samples().started_ns[:8] for one in by_block(duet)[0])
    assert np.abs(first - second).max() > 1e6


def test_interleaved_users_are_held_in_turn(interleaved: StoredRun) -> None:
    """Each trial has all users and a window per round, and sends nothing while it is another's turn; every request of
    both workers is stored."""
    for block in by_block(interleaved):
        for trial in block:
            samples, windows = trial.samples(), trial.record.windows
            assert (trial.record.design, trial.record.users, len(windows)) == ("interleaved", 16, 2)
            assert [one.seconds for one in windows] == pytest.approx([5, 5], abs=0.01)
            assert trial.record.generator is not None
            assert trial.record.generator.locust_requests == len(samples) > 0
            assert all(len(samples.counted([one])) > 10 for one in windows)
            gap_ns = max(later - earlier for earlier, later in pairwise(np.sort(samples.started_ns)))
            between_ns = windows[1].start_ns - windows[0].end_ns
            if trial.record.configuration == interleaved.record.plan.order[trial.record.block - 1][0]:
                assert gap_ns > between_ns - (SETTLE_S + 1) * 1e9 > 4e9  # the other one has both of its windows
            assert trial.proof is not None
            assert trial.proof.failures == ()


def test_reports_of_both_designs(duet: StoredRun, interleaved: StoredRun) -> None:
    """The summary is of blocks, and names the design."""
    for run, design in ((duet, "duet"), (interleaved, "interleaved")):
        summary = json.loads((run.path / "summary.json").read_text("utf-8"))
        assert summary["design"] == design
        assert not list((run.path / "trials").glob("*.partial"))


def write_duet(output: Path, *, duration: str) -> Path:
    """Write the scenario of one block in which two configurations are loaded at once."""
    output.parent.mkdir(exist_ok=True)
    return command.write_scenario(
        output.parent,
        [BASELINE, ISTIO],
        design="duet",
        reference="baseline",
        load={"users": 16, "think_time": "400ms", "warmup": "1s", "duration": duration},
    )


def test_interrupted_block_keeps_all_its_samples_and_is_rerun(output: Path) -> None:
    """After a signal the drafts of both trials have their samples; a resumed run measures the whole block again."""
    scenario = write_duet(output, duration="4s")
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        folder = running.folder()
        running.until(
            lambda: (
                len(list((folder / "trials").glob("*.partial/samples.bin"))) == 2
                and all(path.stat().st_size > 2000 for path in (folder / "trials").glob("*.partial/samples.bin"))
            ),
            "samples of both loads",
        )
        running.send(signal.SIGINT)
        assert running.wait().code == 130
    drafts = sorted((folder / "trials").glob("*.partial"))
    assert len(drafts) == 2
    for draft in drafts:
        assert (draft / "samples.parquet").is_file()
        assert json.loads((draft / "trial.json").read_text("utf-8"))["status"] == "interrupted"
    resumed = command.run("run", "--resume", folder, output=output)
    assert resumed.code in command.MEASURED, resumed.output
    assert len(read_run(folder).trials) == 2


def test_dead_process_ends_the_block(output: Path) -> None:
    """A sidecar that dies ends the loads of both configurations; both trials are stored with their reasons."""
    scenario = write_duet(output, duration="20s")
    with command.run_in_background("run", "--scenario", scenario, output=output) as running:
        folder = running.folder()
        running.until(lambda: len(list((folder / "trials").glob("*.partial/samples.bin"))) == 2, "both loads")
        running.kill("productpage-sidecar")
        assert running.wait().code == 5
    codes = {
        trial.record.configuration: {reason.code for reason in trial.record.reasons}
        for trial in read_run(folder).trials
    }
    assert "restart" in codes["istio"]
    assert "interrupted" in codes["baseline"]


def test_busy_duet_goes_on_interleaved(output: Path) -> None:
    """A duet that would use more than 75 % of the CPUs is interleaved before its first window: scenario, plan and a
    remark are stored, and its first attempt is kept as a draft."""
    output.parent.mkdir(exist_ok=True)
    scenario = command.write_scenario(
        output.parent,
        [BASELINE, ISTIO],
        design="duet",
        reference="baseline",
        load={"users": 200, "think_time": "0s", "warmup": "4s", "duration": "4s"},
    )
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code in command.MEASURED, finished.output
    run = read_run(next(output.glob("[!.]*/")))
    assert (run.record.scenario.design, run.record.plan.design) == ("interleaved", "interleaved")
    (remark,) = run.record.remarks
    assert remark.detail.startswith("interleaved in place of duet: the duet used ")
    assert remark.detail in finished.err
    assert [len(trial.record.windows) for trial in run.trials] == [2, 2]
    assert [trial.record.users for trial in run.trials] == [200, 200]
    drafts = list((run.path / "trials").glob("*.partial*"))
    assert len(drafts) == 2
    assert all((draft / "samples.parquet").is_file() for draft in drafts)
