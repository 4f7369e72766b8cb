"""Draw a history: the ratio of each night with the limits of that night, and the nights on which something changed."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.analysis.regression import Outcome
from bench.report.figures.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    Drawing,
    apply_style,
    find_limits,
    make_figure,
    mark_empty,
    set_margins,
)
from bench.report.nights import Night, Series, Step
from bench.units import format_change, format_counted, format_ratio, format_tick

_DATES: Final[Any] = matplotlib.dates  # has no types
_DAY_S: Final = 86400
_HEIGHT: Final = 2.9  # inches
_BLUE: Final = "#3f78b5"
_ORANGE: Final = "#e08a00"
_RED: Final = "#c4412a"
_GREEN: Final = "#2ba193"
_FEW: Final = 5  # nights: of fewer the whole intervals are shown, and each day has its tick
_MOST_INTERVALS: Final = 60  # nights; more would hide the ratios
_TOP: Final = 1.06  # place of the marks above the frame, as a share of its height
_BOTTOM: Final = 0.04

_STYLES: Final[dict[Outcome, dict[str, Any]]] = {
    "pass": {"marker": "o", "s": 20, "facecolor": _BLUE, "edgecolor": PAPER},
    "no baseline": {"marker": "o", "s": 18, "facecolor": PAPER, "edgecolor": _BLUE},
    "warning": {"marker": "^", "s": 34, "facecolor": _ORANGE, "edgecolor": PAPER},
    "regression": {"marker": "s", "s": 28, "facecolor": _RED, "edgecolor": PAPER},
}
_READING: Final = (
    "P95 of {configuration} divided by that of {reference}, night by night{intervals}. Blue dots passed (hollow: "
    "recorded only), orange triangles are warnings, red squares regressions; crosses at the bottom are nights without "
    "a valid ratio. Line and band: the usual ratio, and what one more night may reach by chance; grey line: the level. "
    "Above the frame: triangles where the level changed (red: slower), ticks where a version or condition did; dashed: "
    "a new baseline."
)


def draw_history(series: Series) -> Drawing:
    """Draw the nights of one contrast on an axis of time."""
    with apply_style():
        figure = make_figure(_HEIGHT)
        axes = figure.subplots()
        _draw_limits(axes, series.nights)
        _draw_levels(axes, series)
        _draw_nights(axes, series)
        _set_axes(axes, series)
        _draw_marks(axes, series)
        set_margins(figure, left=0.5, right=0.12, top=0.3, bottom=0.26)
    line = series.last.line
    return Drawing(
        figure, "Ratio of each night", _describe(series), _READING.format(
            configuration=line.configuration,
            reference=line.reference,
            intervals=", with its 95 % interval" if _has_intervals(series) else "",
        )
    )  # fmt: skip


def _describe(series: Series) -> str:
    """Return the picture in words."""
    line, last = series.last.line, series.last.decision
    outcomes = [night.decision.outcome for night in series.nights]
    counts = [f"{format_counted(len(outcomes), 'night')} of {line.configuration} against {line.reference}"]
    counts += [f"{outcomes.count(one)} {one}" for one in ("regression", "warning", "invalid") if one in outcomes]
    steps = "".join(f" Level {format_change(s.ratio)} from {s.night.line.at:%Y-%m-%d} on." for s in series.steps)
    return f"{', '.join(counts)}. The last one: {format_ratio(last.ratio)}, {last.outcome}.{steps}"


def _dates(nights: Iterable[Night]) -> list[float]:
    """Return days since 1970, which is how matplotlib counts."""
    return [night.line.at.timestamp() / _DAY_S for night in nights]


def _draw_limits(axes: Axes, nights: Sequence[Night]) -> None:
    """Draw the usual ratio and the band up to the limit; a new baseline interrupts them."""
    days = _dates(nights)
    usual, limit = (
        [value if value is not None else math.nan for value in values]
        for values in zip(*((night.decision.usual, night.decision.limit_95) for night in nights), strict=True)
    )
    starts = [number for number, night in enumerate(nights) if night.begins]
    for start, end in zip([0, *starts], [*starts, len(nights)], strict=True):
        part = slice(start, end)
        known = [number for number in range(start, end) if not math.isnan(usual[number])]
        if known:
            where = [days[number] for number in known]
            low, high = [usual[number] for number in known], [limit[number] for number in known]
            axes.fill_between(where, low, high, color=_BLUE, alpha=0.13, linewidth=0, zorder=1)
            axes.plot(where, low, color=_BLUE, linewidth=1.0, alpha=0.75, zorder=2)
        if part.start:
            axes.axvline(days[start], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)


def _draw_levels(axes: Axes, series: Series) -> None:
    """Draw the mean between changes of level, where there are any."""
    if not series.steps:
        return
    nights = series.measured
    starts = [nights.index(step.night) for step in series.steps]
    for start, end in zip([0, *starts], [*starts, len(nights)], strict=True):
        part = nights[start:end]
        mean = math.exp(sum(night.line.ln_ratio or 0 for night in part) / len(part))
        days = _dates([part[0], part[-1]])
        axes.plot(days, [mean, mean], color=INK, linewidth=1.6, alpha=0.55, zorder=3)


def _draw_nights(axes: Axes, series: Series) -> None:
    if _has_intervals(series):
        for night in series.measured:
            if interval := night.interval:
                axes.plot(_dates([night, night]), interval, color=GRID, linewidth=2.2, zorder=1.5)
    for outcome, style in _STYLES.items():
        nights = [night for night in series.measured if night.decision.outcome == outcome]
        ratios = [math.exp(night.line.ln_ratio or 0) for night in nights]
        small = 0.5 if len(series.nights) > 2 * _MOST_INTERVALS and outcome in ("pass", "no baseline") else 1.0
        axes.scatter(_dates(nights), ratios, linewidth=0.7, zorder=5, **{**style, "s": style["s"] * small})


def _draw_marks(axes: Axes, series: Series) -> None:
    """Draw what stands outside of the axis of ratios: nights without a ratio, changes of level, of versions."""
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 6}
    missing = _dates(night for night in series.nights if not night.line.is_success)
    axes.scatter(missing, [_BOTTOM] * len(missing), marker="x", s=16, color=MUTED, linewidth=1.0, **place)
    changed = _dates(night for night in series.nights if night.changed)
    axes.scatter(changed, [_TOP] * len(changed), marker="|", s=34, color=MUTED, linewidth=1.2, **place)
    for step in series.steps:
        _draw_step(axes, step, place)


def _draw_step(axes: Axes, step: Step, place: dict[str, Any]) -> None:
    slower = step.ratio > 1
    axes.scatter(
        _dates([step.night]), [_TOP], marker="^" if slower else "v", s=44, color=_RED if slower else _GREEN, **place
    )


def _has_intervals(series: Series) -> bool:
    return len(series.measured) <= _MOST_INTERVALS and any(night.interval for night in series.measured)


def _set_axes(axes: Axes, series: Series) -> None:
    days = _dates(series.nights)
    margin = max((days[-1] - days[0]) * 0.03, 0.5)
    axes.set_xlim(days[0] - margin, days[-1] + margin)
    locator = _DATES.DayLocator() if days[-1] - days[0] < _FEW else _DATES.AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(_DATES.ConciseDateFormatter(locator, show_offset=False))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{format_tick(value)}×"))
    points = [value for night in series.nights for value in _values(night)]
    ends = [end for night in series.measured for end in night.interval or ()] if _has_intervals(series) else []
    if not points:
        mark_empty(axes)
        return
    low, high = find_limits([*points, *(ends if len(series.measured) < _FEW else ())], ends, share=0.25)
    room = max((high - low) * 0.08, 0.01)
    axes.set_ylim(low - 1.6 * room, high + room)


def _values(night: Night) -> list[float]:
    decision = night.decision
    shown = (decision.ratio if night.line.is_success else None, decision.usual, decision.limit_95)
    return [value for value in shown if value is not None]
