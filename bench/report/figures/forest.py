"""Draw the comparisons with the reference as ratios with intervals, and the margin."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.report.conclusions import sort_contrasts
from bench.report.figures.dot_plot import set_bare_rows
from bench.report.figures.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    ROW,
    STUDY,
    TINT,
    Drawing,
    choose_colours,
    find_limits,
    make_figure,
    mark_beyond,
    mark_empty,
    set_margins,
    shorten,
)
from bench.report.model import Report
from bench.report.study_2022 import study_ratio
from bench.results.summary_records import Contrast
from bench.units import format_change, format_change_interval, format_percent


def draw_differences(report: Report) -> Drawing | None:
    """Draw a forest plot of P95: against the reference first, other pairs lighter below."""
    contrasts = sort_contrasts(report.summary, "p95_ms")
    if not contrasts:
        return None
    figure = make_figure(0.78 + ROW * len(contrasts))
    axes = figure.subplots()
    margin = report.summary.margin
    axes.axvspan(-margin, margin, color=TINT, zorder=0)
    colour = choose_colours(report)
    for y, contrast in enumerate(contrasts):
        _draw_contrast(axes, y, contrast, colour=colour[contrast.configuration])
        label = _format_label(contrast, report.summary.reference)
        _write_contrast(axes, y, contrast, label=label, colour=colour[contrast.configuration])
        _draw_study(axes, y, contrast)
    marked = any(map(_find_study_ratio, contrasts))
    if marked:
        aside = "◇ the same ratio in the 2022 study, another cluster"
        axes.set_title(aside, loc="right", color=MUTED, style="italic", weight="normal", size=7.5)
    _finish(axes, contrasts, margin)
    for y, contrast in enumerate(contrasts):
        for end in (contrast.ratio_low, contrast.ratio_high):
            printed, change = format_change(end), None if end is None else end - 1
            mark_beyond(axes, y + 0.14, change, colour=colour[contrast.configuration], printed=printed)
    set_margins(figure, left=0.25, right=0.2, top=0.26 if marked else 0.14)
    return Drawing(
        figure,
        "Difference in P95 response time",
        "; ".join(f"{c.configuration} against {c.reference}: {_format_words(c)}" for c in contrasts) + ".",
        f"P95 against the reference: dots with {format_percent(report.summary.confidence)} intervals; ticks: ratios "
        f"inside each block; grey band: the margin of {format_percent(margin)}; faded: exploratory; an arrow: the "
        "interval continues."
        + (" Hollow diamonds: the same ratio in the 2022 study, on another cluster." if marked else ""),
    )


def _draw_contrast(axes: Axes, y: float, contrast: Contrast, *, colour: str) -> None:
    axes.plot([0, 0], [y - 0.1, y + 0.38], color=MUTED, linewidth=1, zorder=1)
    strength = 0.45 if contrast.standing == "exploratory" else 1.0
    if contrast.ratio is not None and contrast.verdict != "invalid":
        axes.plot([contrast.ratio - 1], [y + 0.14], "o", color=colour, markersize=6, markeredgecolor=PAPER, zorder=5)
        axes.plot(
            [ratio - 1 for ratio in contrast.block_ratios if ratio is not None],
            [y + 0.14] * sum(ratio is not None for ratio in contrast.block_ratios),
            "|", color=colour, markersize=9, alpha=0.7, zorder=4,
        )  # fmt: skip
    if contrast.ratio_low is not None and contrast.ratio_high is not None:
        ends = [contrast.ratio_low - 1, contrast.ratio_high - 1]
        axes.plot(ends, [y + 0.14] * 2, color=colour, linewidth=2, alpha=strength, zorder=3)


def _write_contrast(axes: Axes, y: float, contrast: Contrast, *, label: str, colour: str) -> None:
    above: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
    weight, ink = ("normal", MUTED) if contrast.standing == "exploratory" else ("bold", INK)
    size = 7.5 if contrast.configuration != label else None  # a pair's two names beside its numbers
    axes.text(0.005, y - 0.27, label, color=colour, weight=weight, size=size, **above)
    axes.text(0.985, y - 0.27, _format_words(contrast), color=ink, ha="right", **above)


def _draw_study(axes: Axes, y: float, contrast: Contrast) -> None:
    ratio = _find_study_ratio(contrast)
    if ratio is not None:
        axes.scatter([ratio - 1], [y + 0.14], marker="D", s=22, facecolor="none", edgecolor=STUDY, zorder=6)


def _finish(axes: Axes, contrasts: tuple[Contrast, ...], margin: float) -> None:
    values = [value - 1 for contrast in contrasts for value in _read_points(contrast)]
    ends = [end - 1 for c in contrasts for end in (c.ratio_low, c.ratio_high) if end is not None]
    low, high = find_limits([*values, -margin * 1.6, margin * 1.6], ends)
    axes.set_xlim(low - (high - low) * 0.04, high + (high - low) * 0.04)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: format_change(1 + value) if abs(value) > 1e-9 else format_percent(0))
    )
    axes.set_xlabel("change of P95 against the reference")
    axes.tick_params(grid_color=GRID)
    set_bare_rows(axes, len(contrasts))
    if not values:
        mark_empty(axes)


def _read_points(contrast: Contrast) -> list[float]:
    """Return all values that the axis has to include."""
    found = (contrast.ratio, _find_study_ratio(contrast), *contrast.block_ratios)
    return [value for value in found if value is not None]


def _find_study_ratio(contrast: Contrast) -> float | None:
    return study_ratio(contrast.configuration, contrast.reference)


def _format_label(contrast: Contrast, reference: str | None) -> str:
    """Return the configuration's name, with the contrast's reference where that is not the run's."""
    if contrast.reference == reference:
        return shorten(contrast.configuration)
    return f"{shorten(contrast.configuration, longest=14)} / {shorten(contrast.reference, longest=14)}"


def _format_words(contrast: Contrast) -> str:
    interval = format_change_interval(contrast.ratio_low, contrast.ratio_high)
    size = format_change(contrast.ratio) + ("" if interval == "n/a" else f"  [{interval}]")
    return f"{size}  {contrast.verdict}"
