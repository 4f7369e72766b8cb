"""The progress of a run without a terminal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.trial_summary import Headline, digest, make_headline
from bench.cli.progress import PlainLines
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.issues import issue


def test_prints_trial_with_remaining_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P95 and RPS are those of the summary; after the last trial no time is left."""
    made = make_run(tmp_path, RunSpec(configurations=(ConfigSpec("baseline"),), repeats=2, warmup_s=1, duration_s=4))
    lines = PlainLines(made.record.scenario, made.record.plan)
    for trial, stored in zip(made.record.plan.trials, made.trials, strict=True):
        lines.phase(trial, "deploy")
        found = make_headline(stored.record, stored.samples())
        summary = digest(stored).repeat
        assert (found.p95_ms, found.rps) == (summary.p95_ms, summary.rps)
        lines.done(stored.record, Headline(12.345, 186.4))
    first, after_first, second, after_second = capsys.readouterr().err.splitlines()
    assert (first, second) == ("trial 1 of 2: baseline, block 1", "trial 2 of 2: baseline, block 2")
    assert after_first == "  P95 12.3 ms, RPS 186; about 5s of load left"
    assert after_second == "  P95 12.3 ms, RPS 186; no trials left"


def test_trial_without_success_has_no_p95(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its reasons replace the number; "n/a ms" is never printed."""
    made = make_run(tmp_path, RunSpec(configurations=(ConfigSpec("baseline"),), repeats=1, warmup_s=1, duration_s=4))
    samples, record = made.trials[0].samples(), made.trials[0].record
    samples = replace(samples, ok=np.zeros_like(samples.ok))
    lines = PlainLines(made.record.scenario, made.record.plan)
    lines.done(
        record.model_copy(update={"issues": (issue("generator-cpu", "90 %"), issue("api-outage", "away"))}),
        make_headline(record, samples),
    )
    assert capsys.readouterr().err == (
        "  no P95, RPS 0.00; no trials left\n"
        "  invalid: generator-cpu: 90 %; the client is part of the latency; use fewer users or a larger machine\n"
        "  warning: away\n"
    )


def test_prints_a_block_with_its_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Configurations that are deployed together have one line at their start, and one each at their end."""
    made = make_run(tmp_path, RunSpec(design="duet", repeats=2, warmup_s=5, duration_s=15))
    plan = made.record.plan
    lines = PlainLines(made.record.scenario, plan)
    lines.note("interleaved in place of duet: too few users")
    for unit in plan.units:
        for trial in unit:
            lines.phase(trial, "deploy")
        for trial in unit:
            lines.done(made.trials[trial.number - 1].record, Headline(12.345, 186.4))
    found = capsys.readouterr().err.splitlines()
    (first, *_), names = plan.units[0], ", ".join(plan.order[0])
    assert found[:3] == [
        "interleaved in place of duet: too few users",
        f"block 1 of 2: {names}, at the same time",
        f"  {first.configuration}: P95 12.3 ms, RPS 186; about 20s of load left",
    ]
    assert len(found) == 9
    assert found[5].startswith("block 2 of 2: ")
    assert found[6].endswith("RPS 186; no load left")
    assert found[8].endswith("RPS 186; no trials left")
