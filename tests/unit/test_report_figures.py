"""The figures' rules: colours, axes, marks."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.frames.run import Run
from bench.report.figures import FIGURES, Picture, draw_figures
from bench.report.figures.style import choose_colours, make_inline
from bench.report.model import Report
from bench.units import format_ms
from tests.factory import ISTIO_AND_KUMA, ISTIO_POLICIES, MESH_PAIRS, USERS_SWEEP, ConfigSpec, RunSpec, make_run
from tests.issues import issue

SHORT = RunSpec(warmup_s=2.0, duration_s=6.0)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    run = make_run(tmp_path_factory.mktemp("figures"), SHORT)
    return Report(Run(run))


@pytest.fixture(scope="module")
def pictures(report: Report) -> dict[str, Picture]:
    return {picture.name: picture for picture in draw_figures(report)}


def test_configuration_has_one_colour_in_all_runs(report: Report, tmp_path: Path) -> None:
    """Colours belong to names, so that figures of two runs are comparable."""
    other = make_run(tmp_path, replace(SHORT, configurations=ISTIO_POLICIES[::2], repeats=1))
    fewer = choose_colours(Report(Run(other)))
    assert fewer.items() <= choose_colours(report).items()


@pytest.mark.parametrize(
    "configurations", [tuple(ConfigSpec(f"mine-{number}") for number in range(8)), USERS_SWEEP], ids=["own", "sweep"]
)
def test_colours_are_distinct(tmp_path: Path, configurations: tuple[ConfigSpec, ...]) -> None:
    """Up to eight configurations have different colours."""
    run = make_run(
        tmp_path, RunSpec(configurations=configurations, warmup_s=1, duration_s=2, repeats=1, reference=None)
    )
    found = choose_colours(Report(Run(run)))
    assert len(set(found.values())) == len(configurations)


def test_every_axis_has_its_unit(pictures: dict[str, Picture]) -> None:
    """Each figure has the unit of its numbers."""
    units = {
        "p95": "P95 in ms", "differences": "change of P95", "rps": "requests per second", "time": "in ms",
        "quantiles": "response time in ms", "cpu": "CPU in ms per request", "memory": "in MiB",
    }  # fmt: skip
    for name, unit in units.items():
        assert unit in pictures[name].svg


def test_text_stays_text(pictures: dict[str, Picture]) -> None:
    """Names in figures can be searched and read aloud."""
    assert ">istio-policies</text>" in pictures["p95"].svg


def test_study_values_are_labelled_in_figures(pictures: dict[str, Picture]) -> None:
    """A figure that is copied out of the report still labels those of the 2022 study's marks."""
    for name in ("p95", "differences"):
        assert "2022 study, another cluster" in pictures[name].svg


def test_svg_has_no_date_and_no_version(pictures: dict[str, Picture]) -> None:
    """A figure's file does not change from day to day."""
    for picture in pictures.values():
        assert not re.search(r"<dc:date|Matplotlib v|matplotlib.org", picture.svg)


def test_pngs_are_pngs(pictures: dict[str, Picture]) -> None:
    """Every figure can be had as PNG."""
    assert all(picture.png().startswith(b"\x89PNG") for picture in pictures.values())


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two repeats that differ much: intervals that are far wider."""
    made = replace(SHORT, configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, repeats=2, run_sd=0.4)
    run = make_run(tmp_path_factory.mktemp("noisy"), made)
    return Report(Run(run))


def test_long_interval_does_not_stretch_the_axis(noisy: Report) -> None:
    """The axis covers all repeats and little more; a cut interval has its value as text."""
    drawing = FIGURES["p95"](noisy)
    assert drawing is not None
    axes = drawing.figure.axes[0]
    repeats = [repeat.p95_ms or 0 for c in noisy.configurations.values() for repeat in c.repeats]
    assert max(repeats) < axes.get_xlim()[1] < 2 * max(repeats)
    beyond = [c.p95_high_ms for c in noisy.configurations.values() if (c.p95_high_ms or 0) > axes.get_xlim()[1]]
    marks = [text.get_text() for text in axes.texts if "continues to" in text.get_text()]
    assert [format_ms(high) in mark for high, mark in zip(beyond, marks, strict=True)] == [True] * len(beyond)
    assert beyond


def test_cuts_differences_on_both_sides(noisy: Report) -> None:
    """All blocks' ratios are inside the frame, and the end of a cut interval has an arrow."""
    drawing = FIGURES["differences"](noisy)
    assert drawing is not None
    axes = drawing.figure.axes[0]
    low, high = axes.get_xlim()
    contrasts = [c for c in noisy.summary.contrasts if c.metric == "p95_ms"]
    assert all(low < ratio - 1 < high for c in contrasts for ratio in c.block_ratios if ratio)
    ends = [end - 1 for c in contrasts for end in (c.ratio_low, c.ratio_high) if end]
    marks = [text for text in axes.texts if "continues to" in text.get_text()]
    assert len(marks) == sum(not low <= end <= high for end in ends) > 0


def test_short_interval_is_not_cut(report: Report) -> None:
    """Where intervals end near the repeats, the axis has all of them and no arrow."""
    drawing = FIGURES["p95"](report)
    assert drawing is not None
    axes = drawing.figure.axes[0]
    assert max(c.p95_high_ms or 0 for c in report.configurations.values()) < axes.get_xlim()[1]
    assert not [text for text in axes.texts if "continues to" in text.get_text()]


def test_sweep_marks_cut_intervals(tmp_path: Path) -> None:
    """A triangle at the edge stands for an interval that is cut."""
    made = replace(SHORT, configurations=USERS_SWEEP, reference=None, repeats=2, run_sd=0.4)
    run = make_run(tmp_path, made)
    report = Report(Run(run))
    drawing = FIGURES["sweep"](report)
    assert drawing is not None
    rps = drawing.figure.axes[0]
    edge = rps.get_ylim()[1]
    at_edge = [dots for dots in rps.collections if np.asarray(dots.get_offsets())[0][1] == edge]
    assert len(at_edge) == sum((c.rps_high or 0) > edge for c in report.configurations.values()) > 0


def test_invalid_repeat_is_hollow(tmp_path: Path) -> None:
    """An invalid repeat is drawn, and drawn differently."""
    made = replace(SHORT, configurations=ISTIO_POLICIES[:1], reference=None)
    folder = make_run(tmp_path / "good", made).trials[0].record.trial
    run = make_run(
        tmp_path / "bad", replace(made, trial_changes={folder: {"status": "invalid", "issues": (issue("stall"),)}})
    )
    drawing = FIGURES["p95"](Report(Run(run)))
    assert drawing is not None
    valid, invalid = drawing.figure.axes[0].collections[:2]
    assert (np.shape(valid.get_offsets())[0], np.shape(invalid.get_offsets())[0]) == (2, 1)
    assert not np.array_equal(np.asarray(invalid.get_facecolor()), np.asarray(valid.get_facecolor()))


def test_inline_figures_have_the_pages_style(pictures: dict[str, Picture]) -> None:
    """Inside a page a figure has the page's colours, and fits any width."""
    inline = make_inline(pictures["p95"].svg, "p95")
    assert "var(--ink)" in inline
    head = inline[: inline.index(">")]
    assert " width=" not in head
    assert " viewBox=" in head


def _draw_time(report: Report) -> Picture:
    return next(picture for picture in draw_figures(report) if picture.name == "time")


def test_strip_shows_noise_of_each_trial(tmp_path: Path, pictures: dict[str, Picture]) -> None:
    """One band per trial, where the machine was read; runs of before keep their figure."""
    run = make_run(tmp_path, replace(SHORT, noise={"03-istio-1": 0.6, "09-istio-3": 0.6, "02-istio-1": 0.6}))
    drawn = _draw_time(Report(Run(run)))
    assert "share of the CPUs" in drawn.svg
    assert [label for label in ("01", "09") if f">{label}</text>" in drawn.svg] == ["01", "09"]
    assert "istio-" in re.findall(r"used most of the CPUs in (\S+):", drawn.svg)[0]
    assert "share of the CPUs" not in pictures["time"].svg


def test_strip_has_one_band_per_block_of_shared_time(tmp_path: Path) -> None:
    """The trials of a paired block share their noise; every window of an interleaved trial is marked."""
    run = Run(make_run(tmp_path, replace(SHORT, noise={})))
    digests = {name: replace(one, windows=((2.0, 3.0), (5.0, 6.0))) for name, one in run.digests.items()}
    summary = run.summary.model_copy(update={"design": "interleaved"})
    vars(run)["_summarised"] = summary, digests
    drawn = _draw_time(Report(run))
    assert re.findall(r">(block \d)</text>", drawn.svg) == ["block 1", "block 2", "block 3"]
    assert make_inline(drawn.svg, "time").count("var(--grid)") > 3 * len(digests)
