"""Draw the comparisons with the reference as ratios with intervals, and the margin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.report.conclusions import sort_contrasts
from bench.report.figures.dot_plot import set_bare_rows
from bench.report.figures.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
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
from bench.report.study_2022 import is_comparable, study_ratio
from bench.results.summary_records import Contrast
from bench.units import format_change, format_change_interval, format_percent

_ROW: Final = 0.56  # inches
_ROW_WITH_MEDIAN: Final = 0.6

# Inches from the middle of a row: its text is above, then the interval, below it the blocks, and the median's interval.
_TEXT: Final = -0.15
_INTERVAL: Final = 0.04
_BLOCKS: Final = 0.15
_MEDIAN: Final = 0.24
_SPREAD: Final = 0.022  # of neighbouring dots, up and down
_CROWDED: Final = 5  # dots of a row, from which on they are spread


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where the parts of a row are, in rows."""

    row: float  # inches

    def at(self, y: float, inches: float) -> float:
        return y + inches / self.row


def draw_differences(report: Report) -> Drawing | None:
    """Draw a forest plot of P95: against the reference first, other pairs lighter below."""
    contrasts = sort_contrasts(report.summary, "p95_ms")
    if not contrasts:
        return None
    has_medians = any(contrast.median_ratio is not None for contrast in contrasts)
    lanes = Lanes(_ROW_WITH_MEDIAN if has_medians else _ROW)
    figure = make_figure(0.78 + lanes.row * len(contrasts))
    axes = figure.subplots()
    margin = report.summary.margin
    axes.axvspan(-margin, margin, color=TINT, zorder=0)
    colour = choose_colours(report)
    for y, contrast in enumerate(contrasts):
        _draw_contrast(axes, y, contrast, lanes, colour=colour[contrast.configuration])
        label = _format_label(contrast, report.summary.reference)
        _write_contrast(axes, lanes.at(y, _TEXT), contrast, label=label, colour=colour[contrast.configuration])
    studied = [_find_study_ratio(contrast) if is_comparable(report.summary) else None for contrast in contrasts]
    for y, ratio in enumerate(studied):
        _draw_study(axes, lanes.at(y, _INTERVAL), ratio)
    marked = any(studied)
    if marked:
        aside = "◇ the same ratio in the 2022 study, another cluster"
        axes.set_title(aside, loc="right", color=MUTED, style="italic", weight="normal", size=7.5)
    _finish(axes, contrasts, margin=margin, studied=studied)
    for y, contrast in enumerate(contrasts):
        for end in (contrast.ratio_low, contrast.ratio_high):
            printed, change = format_change(end), None if end is None else end - 1
            mark_beyond(axes, lanes.at(y, _INTERVAL), change, colour=colour[contrast.configuration], printed=printed)
    set_margins(figure, left=0.25, right=0.2, top=0.26 if marked else 0.14)
    return Drawing(
        figure,
        "Difference in P95 response time",
        "; ".join(f"{c.configuration} against {c.reference}: {_format_words(c)}" for c in contrasts) + ".",
        f"P95 against the reference: a large dot with its {format_percent(report.summary.confidence)} interval; below "
        "it the ratio inside each block, small dots"
        + (", and their median with its interval, thin" if has_medians else "")
        + f". Grey band: the margin of {format_percent(margin)}; faded: exploratory; an arrow: the interval continues."
        + (" Hollow diamonds: the same ratio in the 2022 study, on another cluster." if marked else ""),
    )


def _draw_contrast(axes: Axes, y: float, contrast: Contrast, lanes: Lanes, *, colour: str) -> None:
    axes.plot([0, 0], [lanes.at(y, -0.05), lanes.at(y, _MEDIAN)], color=MUTED, linewidth=1, zorder=1)
    if contrast.ratio is None or contrast.verdict == "invalid":
        return
    strength, middle = 0.45 if contrast.standing == "exploratory" else 1.0, lanes.at(y, _INTERVAL)
    if contrast.ratio_low is not None and contrast.ratio_high is not None:
        ends = [contrast.ratio_low - 1, contrast.ratio_high - 1]
        axes.plot(ends, [middle] * 2, color=colour, linewidth=2.4, alpha=strength, zorder=3)
    axes.plot([contrast.ratio - 1], [middle], "o", color=colour, markersize=6, markeredgecolor=PAPER, zorder=5)
    _draw_blocks(axes, y, contrast, lanes, colour=colour)
    _draw_median(axes, lanes.at(y, _MEDIAN), contrast, colour=colour)


def _draw_blocks(axes: Axes, y: float, contrast: Contrast, lanes: Lanes, *, colour: str) -> None:
    """Draw a dot per block; many are spread up and down, so that equal ones are seen."""
    changes = sorted(ratio - 1 for ratio in contrast.block_ratios if ratio is not None)
    steps = (0.0, 1.0, -1.0) if len(changes) >= _CROWDED else (0.0,)
    heights = [lanes.at(y, _BLOCKS + _SPREAD * steps[place % len(steps)]) for place in range(len(changes))]
    axes.scatter(changes, heights, s=11, color=colour, alpha=0.6, linewidth=0, zorder=4)


def _draw_median(axes: Axes, at: float, contrast: Contrast, *, colour: str) -> None:
    """Draw the median of the blocks with its interval, thin: it checks the mean, and decides nothing."""
    if contrast.median_ratio is None or contrast.median_low is None or contrast.median_high is None:
        return
    ends = [contrast.median_low - 1, contrast.median_high - 1]
    axes.plot(ends, [at] * 2, color=colour, linewidth=0.9, alpha=0.8, zorder=3)
    axes.plot([contrast.median_ratio - 1], [at], "|", color=colour, markersize=5, markeredgewidth=1.2, zorder=4)


def _write_contrast(axes: Axes, at: float, contrast: Contrast, *, label: str, colour: str) -> None:
    above: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
    weight, ink = ("normal", MUTED) if contrast.standing == "exploratory" else ("bold", INK)
    size = 7.5 if contrast.configuration != label else None  # a pair's two names beside its numbers
    axes.text(0.005, at, label, color=colour, weight=weight, size=size, **above)
    axes.text(0.985, at, _format_words(contrast), color=ink, ha="right", **above)


def _draw_study(axes: Axes, at: float, ratio: float | None) -> None:
    if ratio is not None:
        axes.scatter([ratio - 1], [at], marker="D", s=22, facecolor="none", edgecolor=STUDY, zorder=6)


def _finish(axes: Axes, contrasts: tuple[Contrast, ...], *, margin: float, studied: Sequence[float | None]) -> None:
    points = (*studied, *(value for one in contrasts for value in (one.ratio, *one.block_ratios)))
    values = [value - 1 for value in points if value is not None]
    ends = [end - 1 for c in contrasts for end in _list_ends(c)]
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


def _list_ends(contrast: Contrast) -> list[float]:
    ends = (contrast.ratio_low, contrast.ratio_high, contrast.median_low, contrast.median_high)
    return [end for end in ends if end is not None]


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
