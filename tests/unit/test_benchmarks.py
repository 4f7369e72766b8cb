"""The figures about meshbench itself: how they are computed."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.run_summary import summarise
from bench.load.generator import LoadSpec
from bench.meshes.resolved import resolve_scenario
from bench.scenario.loader import NO_OVERRIDES
from bench.targets.local.locust import make_local_argv
from tests.benchmarks import designs, noise, repeatability, running
from tests.benchmarks.campaign import SCENARIOS, Campaign, Measured
from tests.benchmarks.children import cpu_ns
from tests.benchmarks.figure import Figure, Pairs, format_s
from tests.benchmarks.generator import without_recorder
from tests.factory import ConfigSpec, RunSpec, make_run

Line = tuple[float, str, dict[str, str]]

ZERO = datetime(2026, 11, 23, tzinfo=UTC)


def journal(*lines: Line) -> list[dict[str, Any]]:
    """Lines at these seconds."""
    return [{"at": (ZERO + timedelta(seconds=at)).isoformat(), "step": step, **facts} for at, step, facts in lines]


def of(name: str, role: str) -> dict[str, str]:
    return {"name": name, "role": role}


MESHED_TRIAL: tuple[Line, ...] = (
    (1.0, "start-process", of("details", "service")),
    (1.5, "start-process-done", of("details", "service")),
    (2.0, "start-process", of("details-validate", "sidecar")),
    (2.1, "start-process-done", of("details-validate", "sidecar")),
    (4.0, "ended-process", {"name": "details-validate"}),
    (4.1, "start-process", of("details-sidecar", "sidecar")),
    (4.3, "start-process-done", of("details-sidecar", "sidecar")),
    (6.0, "start-process", of("locust", "generator")),
    (6.1, "start-process-done", of("locust", "generator")),
    (20.0, "ended-process", {"name": "details-sidecar"}),
    (20.4, "ended-process", {"name": "details"}),
    (20.5, "removed-folder", {}),
    (20.6, "end", {}),
)


def test_journal_gives_time_per_stage() -> None:
    """Every second between the first and the last line belongs to the stage that ends with it."""
    spent = running.stages(journal((0, "begin", {}), (0.1, "make-folder", {}), *MESHED_TRIAL))
    assert {stage: round(seconds, 3) for stage, seconds in spent.items()} == {
        "run folder, certificates": 0.2,
        "services started": 1.4,
        "sidecars' configuration checked": 2.5,
        "sidecars started": 0.3,
        "readiness, proof before": 1.7,
        "Locust's start and end, proof after, all ended": 14.4,
        "samples checked, trial stored": 0.1,
    }


def test_journal_of_a_cluster_gives_time_per_stage() -> None:
    """What is created and deleted meanwhile, by several threads, divides no stage up."""

    def stage(at: float, name: str) -> Line:
        return at, "stage", {"stage": name}

    lines: tuple[Line, ...] = (
        (0.0, "begin", {}),
        (5.0, "apply", of("istiod", "")),
        stage(40, "deployed"),
        stage(42, "counting"),
        stage(42.5, "counting"),
        stage(65, "loaded"),
        stage(65.5, "loaded"),
        stage(70, "proven"),
        (70.2, "delete", of("web", "")),
        stage(71, "removed"),
        stage(95, "deployed"),
        (101.0, "end", {}),
    )
    assert running.stages(journal(*lines)) == {
        "control planes installed, first block deployed": 40,
        "proof before": 2.5,
        "Locust's start and end, proof after, all ended": 23,
        "proof after": 4.5,
        "removal requested": 1,
        "pods started, page and policies right, namespaces before deleted": 24,
        "everything removed": 6,
    }


def test_leaves_out_time_before_resume() -> None:
    """The time between the end of a run and its resumption belongs to no stage."""
    spent = running.stages(journal((0, "begin", {}), (1, "make-folder", {}), (5, "begin", {}), (7, "make-folder", {})))
    assert sum(spent.values()) == pytest.approx(3)


def test_plain_command_lacks_only_the_recorder() -> None:
    """Both sides of the generator's benchmark are the same command, except for the recorder and its options."""
    order = LoadSpec(
        address="127.0.0.1:9080",
        virtual_host="productpage:9080",
        locustfile=Path("/shipped/bookinfo.py"),
        versions={"reviews": "v3"},
        users=20,
        think_time_s=0.1,
        rate_per_s=None,
        warmup_s=2,
        duration_s=10,
        seed=1,
    )
    recorded = make_local_argv(order, Path("folder"))
    plain = without_recorder(recorded)
    assert plain[plain.index("--locustfile") + 1] == "bookinfo.py"
    lost = [part for part in recorded if part not in plain]
    assert all(part.startswith("--meshbench-") for part in lost if part.startswith("--"))
    assert not [part for part in plain if part.startswith("--meshbench-")]
    assert plain[plain.index("--users") + 1] == "20"


def test_computes_ratios_per_pair() -> None:
    """A drift that is slower than a pair leaves every ratio unchanged."""
    pairs = Pairs.of([(1.0, 1.1), (10.0, 11.0), (100.0, 120.0)])
    assert pairs.median == pytest.approx(1.1)
    assert pairs.summary == "1.10 to 1.20 in 3 pairs"


def test_compares_runs_by_their_summaries(tmp_path: Path) -> None:
    """The ratio and interval of each run are followed by how far the runs agree."""
    from bench.report import write_report

    made = [make_run(tmp_path / str(seed), RunSpec(seed=seed, duration_s=30, warmup_s=5)) for seed in (1, 2)]
    for run in made:
        write_report(run, formats=["csv"])
    found = [figure for figure in repeatability.figures([run.path for run in made]) if "istio /" in figure.what]
    assert [figure.what for figure in found] == ["P95, istio / baseline"] * 2 + [
        "P95, istio / baseline: largest over smallest"
    ]
    assert found[-1].spread.startswith("2 runs; all intervals share +")


def test_reports_disjoint_intervals(tmp_path: Path) -> None:
    """Two runs whose intervals have no common value contradict each other."""
    from bench.analysis.run_summary import summarise

    summary, _ = summarise(make_run(tmp_path, RunSpec(duration_s=30, warmup_s=5)))
    found = summary.contrasts[0]
    low = found.model_copy(update={"ratio_low": 1.1, "ratio_high": 1.2})
    high = found.model_copy(update={"ratio_low": 1.3, "ratio_high": 1.5})
    assert repeatability.overlap([low, high]) == "intervals do not all meet"
    assert repeatability.overlap([low, low]) == "all intervals share +10 % to +20 %"


def test_prints_figure_with_its_aim() -> None:
    """A line has the value, the aim, and whether it is met; without an aim it has the value only."""
    assert str(Figure(what="a", value="1", aim="<= 2", met=True)).split() == ["a", "1", "<=", "2", "met"]
    assert str(Figure(what="a", value="1", aim="<= 2", met=False)).split()[-1] == "missed"
    assert str(Figure(what="a", value="1")).split() == ["a", "1"]


def test_prints_times_with_three_digits() -> None:
    """No digit is printed that the measurement does not have."""
    assert format_s(0.389876) == "390ms"


def test_reads_cpu_time_from_the_process_clock() -> None:
    """The CPU clock of a pid is the one that the process reads itself."""
    before, seen, after = time.process_time_ns(), cpu_ns(os.getpid()), time.process_time_ns()
    assert before <= seen <= after


@pytest.mark.parametrize(("spreads", "blocks", "expected"), [((0.1,), 4, 0.1591), ((0.1, 0.1), 4, 0.1730)])
def test_half_width_is_that_of_the_interval(spreads: tuple[float, ...], blocks: int, expected: float) -> None:
    """One spread gives the t interval of a mean, two equal ones Welch's of a difference."""
    assert designs.half_width(spreads, blocks) == pytest.approx(expected, abs=1e-4)


def test_spread_of_a_paired_design_is_that_of_the_ratios() -> None:
    """What both sides of a block have in common cancels, unless the design is sequential."""
    sides = ({1: 10.0, 2: 20.0, 3: 40.0}, {1: 5.0, 2: 10.0, 3: 20.0})
    assert designs.spreads_of("duet", sides) == (0.0,)
    assert designs.spreads_of("sequential", sides) == pytest.approx((0.693, 0.693), abs=1e-3)


def test_campaign_continues_with_the_kind_that_has_fewest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds take turns, also when a campaign goes on after it was ended."""
    kinds = Campaign(tmp_path, {"one": ("--quick",), "two": ()})

    def measure(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(argv[-1])
        (run := folder / f"run-{len(list(folder.glob('*')))}").mkdir(parents=True)
        (run / "summary.json").write_text("{}", "utf-8")
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(subprocess, "run", measure)
    assert [kinds.go_on().split(":")[0].strip() for _ in range(4)] == ["one", "two", "one", "two"]


@pytest.mark.parametrize(
    "name", ["designs", "alike", "contention", "baseline-alone", "istio-alone", "istio-policies-alone"]
)
def test_scenarios_of_campaigns_are_valid(name: str) -> None:
    """Each campaign's scenario can be run as it is."""
    assert resolve_scenario(str(SCENARIOS / f"{name}.yaml"), NO_OVERRIDES).scenario.name == name


def test_disturber_works_only_in_its_own_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The windows of the other kind are the quiet ones."""
    disturbed: list[tuple[str, bool]] = []
    active: list[int] = []

    @contextmanager
    def disturb() -> Iterator[int]:
        active.append(1)
        yield 1
        active.clear()

    def run(_: Campaign, kind: str) -> str:
        disturbed.append((kind, bool(active)))
        return kind

    monkeypatch.setattr(noise, "disturb", disturb)
    monkeypatch.setattr(Campaign, "_run", run)
    for kind in (noise.QUIET, noise.DISTURBED, noise.QUIET):
        assert noise.campaign(tmp_path)._run(kind) == kind
    assert disturbed == [("quiet", False), ("disturbed", True), ("quiet", False)]


def test_noise_of_windows_is_compared_with_its_threshold() -> None:
    """Quiet windows should be below it, and a busy CPU of two above."""
    quiet = noise.describe(noise.QUIET, "other_cpu", [0.02, 0.01, 0.2])
    assert (quiet.value, quiet.aim, quiet.met) == ("2.0 %", "P95 <= 10 %", False)
    assert quiet.spread == "P95 20 %, max 20 % of 3 windows"
    assert noise.describe(noise.QUIET, "other_cpu", [0.02, 0.01]).met is True
    assert noise.describe(noise.DISTURBED, "other_cpu", [0.5, 0.4]).met is True
    assert noise.describe(noise.DISTURBED, "pressure", [0.9]).met is None
    assert noise.describe(noise.QUIET, "steal", []).value == "n/a"


def test_noise_of_windows_is_read_from_runs(tmp_path: Path) -> None:
    """Windows count once for both names, whether their trials are valid or not."""
    same = (ConfigSpec("baseline-a"), ConfigSpec("baseline-b"))
    made = RunSpec(configurations=same, reference=None, repeats=2, warmup_s=2, duration_s=6, noise={})
    run = make_run(tmp_path, made)
    shares = list(noise.shares_of(Measured("quiet", run.record, summarise(run)[0]), "steal"))
    assert shares == pytest.approx([0.03, 0.03], rel=0.01)
