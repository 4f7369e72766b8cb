"""What a report says of a run whose configurations shared their blocks: its design, its blocks, its cost."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from bench.frames.run import Run
from bench.report import write_report
from bench.report.conclusions import make_answer_table, make_answers
from bench.report.design_table import find_sequential_minutes, make_design_table
from bench.report.figures import FIGURES
from bench.report.figures.style import Drawing
from bench.report.heading import format_load, format_minutes, format_top, make_heading
from bench.report.model import Report
from bench.report.tables import make_contrast_table, make_image_table
from bench.results.records import RunRecord
from bench.results.store import StoredRun
from bench.scenario.plan import make_plan
from tests.factory import ENVIRONMENT, ISTIO_POLICIES, STARTED_AT, TARGET, RunSpec, make_run, make_scenario
from tests.issues import issue
from tests.summaries import configuration, contrast, repeat, summary

STEP = (("istio-policies", "istio"),)
SHORT = RunSpec(warmup_s=2.0, duration_s=6.0, design="duet", repeats=8, block_sd=0.3, contrasts=STEP)
DUET = replace(SHORT, warmup_s=5.0, duration_s=15.0)
INTERLEAVED = replace(DUET, design="interleaved", repeats=3, duration_s=120.0)


def make_record(made: RunSpec, again: tuple[int, ...] = (), **load: Any) -> RunRecord:
    """The record of such a run, without its trials."""
    scenario = make_scenario(made)
    scenario = scenario.model_copy(update={"load": scenario.load.model_copy(update=load)})
    return RunRecord(
        run_id="run",
        meshbench_version="0.1.0",
        status="complete",
        started_at=STARTED_AT,
        scenario=scenario,
        scenario_source="made",
        plan=make_plan(scenario, 7).with_rerun(again),
        target=TARGET,
        environment=ENVIRONMENT,
    )


def make_summary(made: RunSpec, **changes: Any) -> Any:
    names = {one.name: configuration(mesh=one.mesh) for one in made.configurations}
    return summary(contrast(), **{"design": made.design, "configurations": names} | changes)


@pytest.mark.parametrize(
    ("made", "load", "changes", "text"),
    [
        (
            DUET, {}, {},
            ("Three configurations side by side (duet): 8 blocks of 15 s, 6 users each, 18 in total. Each user waits"
            " 100 ms after a response; the first 5 s of load are not counted."),
        ),
        (
            DUET, {"users_each": 5}, {"cpu_use": 0.404, "reruns": 1},
            ("Three configurations side by side (duet): 8 blocks of 15 s, 5 users each, 15 in total. Each user waits"
            " 100 ms after a response; the first 5 s of load are not counted. About 40 % of the CPUs were in use. 1"
            " block was measured again."),
        ),
        (
            DUET, {"rate_per_s": 60.0}, {"reruns": 2},
            ("Three configurations side by side (duet): 8 blocks of 15 s, 20 requests/s each, 60 in total. Requests"
            " arrive independently of the responses (open loop); the first 5 s of load are not counted. 2 blocks were"
            " measured again."),
        ),
        (
            INTERLEAVED, {}, {},
            ("Three configurations in turn (interleaved): 3 blocks, in each 4 windows of 30 s per configuration, 20"
            " users on one at a time. Each user waits 100 ms after a response; the first 5 s of load are not counted."),
        ),
        (
            replace(DUET, design="sequential", repeats=3), {}, {"cpu_use": 0.55},
            ("Load: closed loop: 20 users, each waits 100ms after a response. 3 configurations × 3 repeats, 15s each"
            " after 5s of warm-up. About 55 % of the CPUs were in use."),
        ),
    ],
    ids=["duet", "users of its own", "open loop", "interleaved", "sequential"],
)  # fmt: skip
def test_heading_has_design_users_and_cpus(
    made: RunSpec, load: dict[str, Any], changes: dict[str, Any], text: str
) -> None:
    """The design in plain words, blocks and windows, users each and in total, use of the CPUs, reruns."""
    assert format_load(make_record(made, **load), make_summary(made, **changes)) == text


@pytest.mark.parametrize(("shares", "text"), [((0.5, 0.54), ", and 52 % by other processes."), ((0.01, 0.02), ".")])
def test_heading_has_what_others_used(shares: tuple[float, float], text: str) -> None:
    """Whoever reads a wide interval sees at the top that the machine was not the run's own."""
    own = configuration(repeats=tuple(repeat(other_cpu=share) for share in shares))
    made = make_summary(DUET, cpu_use=0.46, configurations={c.name: own for c in DUET.configurations})
    assert format_load(make_record(DUET), made).endswith(
        f"About 46 % of the CPUs were in use{text.removeprefix('use')}"
    )


def test_rerun_is_not_counted_as_a_block() -> None:
    """A block that replaces another does not add to the evidence."""
    assert "8 blocks of 15 s" in format_load(make_record(DUET, again=(3,)), make_summary(DUET))


@pytest.mark.parametrize(
    ("minutes", "needed", "text"),
    [
        (4.2, (70.4, 31.0), "This took 4 minutes. A sequential run would have needed about 70 for the same precision."),
        (0.3, (None, 31.0), "This took 1 minute."),
        (None, (70.4, 31.0), ""),
    ],
)
def test_cost_is_that_of_the_most_expensive_answer(
    minutes: float | None, needed: tuple[float | None, ...], text: str
) -> None:
    """A sequential run must know every answer as well; where one is unknown, so is the time."""
    known = (contrast(n=(8, 8), sequential_minutes=value) for value in needed)
    made = summary(*known, design="duet", minutes=minutes)
    assert format_minutes(made) == text


def test_few_blocks_have_no_other_cost() -> None:
    """Of few blocks one interval is always narrow by chance, and would take a sequential run hours."""
    made = summary(contrast(n=(4, 4), sequential_minutes=300.0), design="interleaved", minutes=20.0)
    assert format_minutes(made) == "This took 20 minutes."


def test_sequential_run_has_no_other_cost() -> None:
    """It is what the others are compared with."""
    assert format_minutes(summary(contrast(), minutes=25.0)) == ""
    assert find_sequential_minutes(summary(contrast())) is None


def test_terminal_begins_with_answer_and_design() -> None:
    """The answer in a sentence, then how the run got it."""
    answer, measured = format_top(make_record(DUET), make_summary(DUET, minutes=4.0))
    assert answer.startswith("Istio's sidecars add 4.2 ms (+42 %, between +20 and +68 %)")
    assert measured.startswith("Three configurations side by side (duet)")
    assert measured.endswith("This took 4 minutes.")


def test_evidence_of_a_paired_run_is_its_blocks() -> None:
    """Both sides have the same blocks, so their number is printed once, as is that of blocks that do not count."""
    excluded = issue("excluded-repeats", "1 of 9 blocks does not count")
    ratios = (1.4,) * 8 + (None,)
    made = summary(contrast(n=(8, 8), verdict="inconclusive", issues=(excluded,), block_ratios=ratios), design="duet")
    text = make_answers(made)[0].text
    assert "1 of 9 blocks does not count" in text
    assert "From 8 blocks;" in text
    assert "these blocks exclude" in text
    table = make_answer_table(summary(*(contrast(n=(8, 8)) for _ in range(4)), design="duet"))
    assert table is not None
    assert (table.columns[-1].title, table.rows[0][-1].text) == ("Blocks", "8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    made = make_run(tmp_path_factory.mktemp("duet"), replace(SHORT, quick=True))
    write_report(made, formats=["html", "md"])
    return made


@pytest.fixture(scope="module")
def report(run: StoredRun) -> Report:
    return Report(Run(run))


def read(run: StoredRun, name: str) -> str:
    return (run.path / "report" / name).read_text("utf-8")


def test_remark_about_the_design_is_a_label(run: StoredRun) -> None:
    """Why a run is not the duet that was asked for is at its top."""
    remark = issue("design", "interleaved in place of duet: a duet needs 4 users each")
    other = replace(run, record=run.record.model_copy(update={"remarks": (remark,)}))
    labels = make_heading(Report(Run(other))).labels
    assert [label.text for label in labels] == ["QUICK", "DESIGN"]
    assert labels[1].why == "interleaved in place of duet: a duet needs 4 users each."


def test_quick_label_of_a_duet_has_its_blocks(report: Report) -> None:
    """Eight short blocks are a first answer; three short repeats are not a result."""
    assert make_heading(report).labels[0].why.startswith("8 blocks of 6 s, for a first answer")


LIMITS = {"duet": "a wait that they share pulls ratios towards 1", "interleaved": "the others are deployed and idle"}


@pytest.mark.parametrize(("design", "limit"), LIMITS.items())
def test_limits_of_the_design_are_in_the_heading(tmp_path: Path, design: Any, limit: str) -> None:
    """What a ratio of this design does not show is beside what the machine does not show."""
    made = make_run(tmp_path, replace(SHORT, design=design, repeats=1))
    assert limit in make_heading(Report(Run(made))).limits[-1]


def test_designs_have_a_table_of_costs(report: Report) -> None:
    """A row per design: its minutes, what it would have known of each comparison, the time to know as much."""
    table = make_design_table(report)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert list(rows) == ["duet", "interleaved", "sequential"]
    assert [column.title for column in table.columns[2:5]] == [
        "istio",
        "istio-policies",
        "istio-policies against istio",
    ]
    assert rows["interleaved"][1:] == ["not known"] * 4
    assert all(cell.startswith("±") for cell in rows["duet"][1:4] + rows["sequential"][1:4])
    assert table.rows[0][0].detail == "(this run)"
    assert float(rows["sequential"][4].replace("\N{NARROW NO-BREAK SPACE}", "")) > float(rows["duet"][4])


def test_contrast_table_shows_what_blocks_have(report: Report) -> None:
    """Median and correlation of blocks are columns where a contrast has them; of many blocks the range is printed."""
    table = make_contrast_table(report)
    titles = [column.title for column in table.columns]
    assert {"Median", "Lag 1", "Blocks"} <= set(titles)
    cell = table.rows[1][titles.index("Per block")]
    assert re.fullmatch(r"[\d.]+ to [\d.]+", cell.text)
    assert len(cell.folded.split(", ")) == 8


def test_contrast_table_of_repeats_has_no_columns_of_blocks(tmp_path: Path) -> None:
    """What a sequential run does not have takes no room."""
    made = make_run(tmp_path, replace(SHORT, design="sequential", repeats=2))
    titles = [column.title for column in make_contrast_table(Report(Run(made))).columns]
    assert not {"Median", "Lag 1", "Blocks"} & set(titles)
    assert "n" in titles


def test_page_folds_many_blocks_and_rows(run: StoredRun) -> None:
    """Eight ratios in a cell, and 24 repeats in a table, open with a click."""
    page = read(run, "index.html")
    assert page.count('<details class="fold">') >= 6
    repeats = page[page.index('id="repeats"') :]
    assert repeats[: repeats.index("<table>")].count("<details>") == 1
    assert "24 rows" in repeats


def draw(report: Report, name: str) -> Drawing:
    drawing = FIGURES[name](report)
    assert drawing is not None
    return drawing


def test_forest_has_a_dot_per_block_and_the_median(report: Report) -> None:
    """Each block's own ratio is a dot below the interval; the median's interval is a thin line below them."""
    (axes,) = draw(report, "differences").figure.axes
    contrasts = [c for c in report.summary.contrasts if c.metric == "p95_ms"]
    dots = [np.asarray(one.get_offsets()) for one in axes.collections if len(np.asarray(one.get_offsets())) == 8]
    assert len(dots) == len(contrasts) == 3
    for contrast_, points in zip(contrasts, dots, strict=True):
        assert sorted(points[:, 0]) == pytest.approx(sorted(ratio - 1 for ratio in contrast_.block_ratios if ratio))
    thin = [line for line in axes.lines if line.get_linewidth() < 1 and len(np.asarray(line.get_xdata())) == 2]
    assert len(thin) == 3


def test_forest_of_three_blocks_has_no_median(tmp_path: Path) -> None:
    """Three blocks have dots, and no interval of their median."""
    report = Report(Run(make_run(tmp_path, replace(SHORT, repeats=3))))
    drawing = draw(report, "differences")
    assert "median" not in drawing.reading
    assert not [line for line in drawing.figure.axes[0].lines if line.get_linewidth() < 1]


def test_many_repeats_have_a_mean_quantile_curve(report: Report, tmp_path: Path) -> None:
    """Eight lines per configuration are pale below one thick line; three are drawn as they are."""
    (axes,) = draw(report, "quantiles").figure.axes
    thick = [line for line in axes.lines if line.get_linewidth() > 1.5]
    assert [line.get_label() for line in thick] == [c.name for c in ISTIO_POLICIES]
    assert len(axes.lines) == 24 + 3
    few = Report(Run(make_run(tmp_path, replace(SHORT, repeats=3))))
    assert len(draw(few, "quantiles").figure.axes[0].lines) == 9


def test_dots_are_blocks_in_a_paired_run(report: Report) -> None:
    """The bars of configurations contain what blocks share, so that they look less certain than the differences."""
    assert "one block" in draw(report, "p95").reading
    assert "differences are judged inside blocks" in draw(report, "p95").reading


def test_unfinished_run_of_one_block_is_reported(tmp_path: Path) -> None:
    """One block has no interval: nothing is known, and no table of costs is made up."""
    made = make_run(tmp_path, replace(SHORT, repeats=1))
    write_report(made, formats=["html", "md", "svg"])
    assert "Nothing is known about Istio" in read(made, "report.md")
    assert "What each design" not in read(made, "report.md")


def test_lists_images_that_differ_between_configurations(run: StoredRun) -> None:
    """Where configurations ran other images, each is listed; an image that all have is not."""
    proxies = {"istio": "proxy@sha256:1", "istio-policies": "proxy@sha256:2"}

    def add_images(name: str) -> dict[str, str]:
        return {"reviews": "reviews@sha256:3", **({"istio-proxy": proxies[name]} if name in proxies else {})}

    trials = tuple(
        replace(one, record=one.record.model_copy(update={"images": add_images(one.record.configuration)}))
        for one in run.trials
    )
    table = make_image_table(Report(Run(replace(run, trials=trials))))
    assert [tuple(map(str, row)) for row in table.rows] == [
        ("istio-proxy", "istio", "proxy@sha256:1"),
        ("istio-proxy", "istio-policies", "proxy@sha256:2"),
    ]


@pytest.mark.parametrize("name", ["p95", "differences"])
def test_figures_of_a_duet_have_no_marks_of_the_study(report: Report, name: str) -> None:
    """The 2022 study loaded one configuration at a time: its numbers are not shown beside those of a shared load."""
    drawing = FIGURES[name](report)
    assert drawing is not None
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert not [text for text in texts if "2022" in text]
    assert "2022" not in drawing.reading
