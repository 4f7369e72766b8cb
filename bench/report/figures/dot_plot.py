"""Draw one row per configuration: each repeat a dot, the mean a line, its interval a bar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bench.report.figures.style import (
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
    set_plain_ticks,
    shorten,
)
from bench.report.model import Report
from bench.report.study_2022 import P95_MS, is_comparable
from bench.results.summary_records import ConfigurationSummary, RepeatSummary
from bench.units import format_interval, format_ms, format_rps

_DOTS = (
    "Each dot is one {unit} (hollow: invalid, not counted), the line their mean, the bar its interval; an arrow: it"
    " continues"
)
_SHARED = ". Bars contain what all configurations of a block share: differences are judged inside blocks"


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration: its repeats' values, and the mean with its interval."""

    name: str
    colour: str
    valid: tuple[float, ...]
    invalid: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None

    @property
    def points(self) -> tuple[float, ...]:
        return (*self.valid, *self.invalid, *([self.mean] if self.mean is not None else []))


def draw_p95(report: Report) -> Drawing | None:
    """Draw P95 per configuration; the 2022 study's values in a separate panel, on a separate scale."""
    if report.is_sweep:
        return None
    rows = _make_rows(report, lambda repeat: repeat.p95_ms, lambda c: (c.p95_ms, c.p95_low_ms, c.p95_high_ms))
    known = is_comparable(report.summary) and any(row.name in P95_MS for row in rows)
    figure = make_figure(0.85 + ROW * len(rows))
    if known:
        ours, study = figure.subplots(1, 2, sharey=True, width_ratios=(2.7, 1))
        _draw_study(study, rows)
        figure.subplots_adjust(wspace=0.1)
    else:
        ours = figure.subplots()
    draw_strips(ours, rows, format_ms)
    ours.set_xlabel("P95 in ms, measured here")
    set_margins(figure, left=0.15, top=0.28)
    values = "; ".join(f"{row.name} {format_ms(row.mean)} ms" for row in rows)
    aside = " Grey panel: the 2022 study on another cluster: compare shapes, not sizes." if known else ""
    return Drawing(
        figure,
        "P95 response time",
        f"{values}.{aside}",
        f"P95: 95 % of the requests had a response within this time. {_describe_dots(report)}.{aside}",
    )


def _describe_dots(report: Report) -> str:
    if not report.summary.is_paired:
        return _DOTS.format(unit="repeat")
    return _DOTS.format(unit="block") + _SHARED


def draw_rps(report: Report) -> Drawing | None:
    """Draw the throughput per configuration."""
    if report.is_sweep:
        return None
    rows = _make_rows(report, lambda repeat: repeat.rps, lambda c: (c.rps, c.rps_low, c.rps_high))
    figure = make_figure(0.7 + ROW * len(rows))
    axes = figure.subplots()
    draw_strips(axes, rows, format_rps)
    axes.set_xlabel("successful requests per second")
    set_margins(figure, left=0.15, top=0.12)
    values = "; ".join(f"{row.name} {format_rps(row.mean)} requests/s" for row in rows)
    note = "In a closed loop slower responses lower the throughput: it is no measure of capacity"
    return Drawing(figure, "Throughput", f"{values}.", f"{_describe_dots(report)}. {note}.")


def draw_strips(axes: Axes, rows: Sequence[Row], formatter: Callable[[float | None], str]) -> None:
    """Draw the rows, top down, each with its name and value above its dots; the axis starts at 0."""
    for y, row in enumerate(rows):
        _draw_strip(axes, y, row)
        interval = format_interval(row.low, row.high, formatter)
        value = formatter(row.mean) + ("" if interval == "n/a" else f"  {interval}")
        above: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
        axes.text(0.005, y - 0.27, shorten(row.name), color=row.colour, weight="bold", ha="left", **above)
        axes.text(0.985, y - 0.27, value, color=INK, ha="right", **above)
    set_bare_rows(axes, len(rows))
    largest = _find_largest(rows)
    axes.set_xlim(0, largest * 1.06 or 1)
    set_plain_ticks(axes, "x")
    for y, row in enumerate(rows):
        mark_beyond(axes, y + 0.14, row.high, colour=row.colour, printed=formatter(row.high))
    if not largest:
        mark_empty(axes)


def _find_largest(rows: Sequence[Row]) -> float:
    """Return the largest value of the axis: of the points, or of an interval that does not extend far beyond them."""
    points = [value for row in rows for value in row.points]
    return find_limits([0, *points], [row.high for row in rows if row.high is not None])[1]


def set_bare_rows(axes: Axes, count: int) -> None:
    """Set up rows from the top down, without ticks and frame: names are above the values."""
    axes.set_ylim(count - 0.35, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _draw_strip(axes: Axes, y: float, row: Row) -> None:
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [y + 0.14] * 2, color=row.colour, linewidth=7, alpha=0.25, zorder=2)
    axes.scatter(
        row.valid,
        [y + 0.14] * len(row.valid),
        s=26,
        color=row.colour,
        edgecolor=PAPER,
        linewidth=0.7,
        zorder=5,
    )
    axes.scatter(
        row.invalid,
        [y + 0.14] * len(row.invalid),
        s=22,
        facecolor=PAPER,
        edgecolor=row.colour,
        linewidth=1.1,
        zorder=4,
    )
    if row.mean is not None:
        axes.plot([row.mean] * 2, [y - 0.05, y + 0.33], color=INK, linewidth=1.3, zorder=3)


def _draw_study(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the study's values: same rows, separate scale, with its baseline at the position of ours."""
    values = [P95_MS.get(row.name) for row in rows]
    for y, value in enumerate(values):
        if value is not None:
            axes.plot([0, value], [y + 0.14] * 2, color=STUDY, linewidth=1, linestyle=(0, (2, 2)))
            axes.scatter([value], [y + 0.14], marker="D", s=20, facecolor=TINT, edgecolor=STUDY, zorder=3)
            axes.text(
                0.97, y - 0.27, format_ms(value), color=MUTED, ha="right", va="center",
                transform=axes.get_yaxis_transform(), style="italic",
            )  # fmt: skip
    set_bare_rows(axes, len(rows))
    axes.set_facecolor(TINT)
    axes.set_xlim(0, _find_matching_limit(rows, [value for value in values if value is not None]))
    set_plain_ticks(axes, "x")
    axes.set_title("2022 study, another cluster", color=MUTED, style="italic", weight="normal", size=7.2, loc="right")
    axes.set_xlabel("ms: compare shapes only", style="italic")


def _find_matching_limit(rows: Sequence[Row], values: Sequence[float]) -> float:
    """Return the limit that gives equal ratios equal positions: the study's baseline at ours, if all values fit."""
    base = next((row for row in rows if row.name in P95_MS and row.mean), None)
    if base is None or not base.mean:
        return max(values) * 1.12
    ours = _find_largest(rows) / base.mean
    return P95_MS[base.name] * max(ours * 1.06, max(values) / P95_MS[base.name] * 1.08)


def _make_rows(
    report: Report,
    of_repeat: Callable[[RepeatSummary], float | None],
    of_configuration: Callable[[ConfigurationSummary], tuple[float | None, float | None, float | None]],
) -> list[Row]:
    colour = choose_colours(report)
    return [
        Row(
            name,
            colour[name],
            _read_values(c, of_repeat, valid=True),
            _read_values(c, of_repeat, valid=False),
            *of_configuration(c),
        )
        for name, c in report.configurations.items()
    ]


def _read_values(
    configuration: ConfigurationSummary, of_repeat: Callable[[RepeatSummary], float | None], *, valid: bool
) -> tuple[float, ...]:
    found = (of_repeat(repeat) for repeat in configuration.repeats if repeat.valid == valid)
    return tuple(value for value in found if value is not None)
