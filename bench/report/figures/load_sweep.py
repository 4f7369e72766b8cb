"""Draw throughput and P95 against the number of users; the 2022 study's table 9.1 in a separate column."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from bench.report.figures.style import (
    MUTED,
    PAPER,
    STUDY,
    TINT,
    Drawing,
    find_limits,
    make_figure,
    mark_empty,
    set_log_axis,
    set_margins,
    set_plain_ticks,
)
from bench.report.model import Report
from bench.report.study_2022 import SWEEP
from bench.results.summary_records import ConfigurationSummary, RepeatSummary

_FAMILIES = ("#3f78b5", "#e08a00", "#c4412a", "#2ba193", "#8d4fae")


def draw_sweep(report: Report) -> Drawing | None:
    """Draw two rows, RPS and P95, over users; only where configurations differ in users."""
    if not report.is_sweep:
        return None
    figure = make_figure(4.3)
    (rps, study_rps), (p95, study_p95) = figure.subplots(2, 2, sharex="col", width_ratios=(2.3, 1))
    _draw_run(rps, report, lambda c: (c.rps, c.rps_low, c.rps_high), lambda repeat: repeat.rps)
    _draw_run(p95, report, lambda c: (c.p95_ms, c.p95_low_ms, c.p95_high_ms), lambda repeat: repeat.p95_ms)
    _set_linear(rps, report)
    _set_log(p95, report)
    _mark_beyond(rps, report, lambda c: (c.rps_low, c.rps_high))
    _mark_beyond(p95, report, lambda c: (c.p95_low_ms, c.p95_high_ms))
    _draw_study(study_rps, [level.rps for level in SWEEP])
    _draw_study(study_p95, [level.p95_ms for level in SWEEP])
    study_rps.set_ylim(0, max(level.rps for level in SWEEP) * 1.15)
    set_log_axis(study_p95, "y", [level.p95_ms for level in SWEEP])
    rps.set_ylabel("requests per second")
    p95.set_ylabel("P95 in ms (log)")
    p95.set_xlabel("users (log), measured here")
    study_p95.set_xlabel("users (log)", style="italic")
    study_rps.set_title(
        "2022 study, another cluster", color=MUTED, style="italic", weight="normal", size=7.2, loc="right"
    )
    set_margins(figure, top=0.26, left=0.68)
    figure.subplots_adjust(wspace=0.28, hspace=0.12)
    return Drawing(
        figure,
        "Throughput and P95 response time against users",
        "; ".join(f"{c.users} users" for c in report.configurations.values()) + ".",
        "Dots: repeats (hollow: invalid); line: mean; bars: intervals; a triangle: the bar continues. Grey panels: the "
        "2022 study's table 9.1, on another cluster and with another P95 statistic: compare shapes, not sizes.",
    )


def _draw_run(
    axes: Axes,
    report: Report,
    of_configuration: Callable[[ConfigurationSummary], tuple[float | None, float | None, float | None]],
    of_repeat: Callable[[RepeatSummary], float | None],
) -> None:
    families: dict[str, list[ConfigurationSummary]] = {}
    for name, configuration in report.configurations.items():
        families.setdefault(report.family(name), []).append(configuration)
    for index, (family, members) in enumerate(families.items()):
        colour = _FAMILIES[index % len(_FAMILIES)]
        members.sort(key=lambda configuration: configuration.users)
        means = [(c.users, mean) for c in members if (mean := of_configuration(c)[0]) is not None]
        axes.plot([users for users, _ in means], [mean for _, mean in means], color=colour, label=family)
        for configuration in members:
            _, low, high = of_configuration(configuration)
            if low is not None and high is not None:
                axes.plot([configuration.users] * 2, [low, high], color=colour, linewidth=5, alpha=0.25)
        _draw_repeats(axes, members, of_repeat, colour=colour)
    _set_users_axis(axes, [c.users for c in report.configurations.values()])
    if len(families) > 1:
        axes.legend(loc="best")
    if not any(of_configuration(c)[0] is not None for c in report.configurations.values()):
        mark_empty(axes)


def _draw_repeats(
    axes: Axes,
    members: Sequence[ConfigurationSummary],
    of_repeat: Callable[[RepeatSummary], float | None],
    *,
    colour: str,
) -> None:
    for configuration in members:
        for repeat in configuration.repeats:
            if (value := of_repeat(repeat)) is not None:
                face = colour if repeat.valid else PAPER
                axes.scatter(
                    [configuration.users],
                    [value],
                    s=18,
                    facecolor=face,
                    edgecolor=colour,
                    linewidth=0.8,
                    zorder=3,
                )


def _set_users_axis(axes: Axes, users: Sequence[int], *, spacing: float = 1.3) -> None:
    """Set a tick for each number of users that is at least `spacing` times the tick before."""
    ticks: list[int] = []
    for level in sorted(set(users)):
        if not ticks or level >= spacing * ticks[-1]:
            ticks.append(level)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(users) / 1.35, max(users) * 1.35)
    set_plain_ticks(axes, "x")


def _set_linear(axes: Axes, report: Report) -> None:
    """Scale from 0 over all repeats; an interval that extends far beyond them is cut."""
    summaries = report.configurations.values()
    repeats = [repeat.rps for c in summaries for repeat in c.repeats if repeat.rps]
    axes.set_ylim(0, find_limits([0, *repeats], [c.rps_high for c in summaries if c.rps_high])[1] * 1.06 or 1)
    set_plain_ticks(axes, "y")


def _set_log(axes: Axes, report: Report) -> None:
    """Scale logarithmically over all repeats, without the times below zero that a damaged repeat may have."""
    summaries = report.configurations.values()
    repeats = [p95 for c in summaries for repeat in c.repeats if (p95 := repeat.p95_ms or 0) > 0]
    ends = [math.log(end) for c in summaries for end in (c.p95_low_ms, c.p95_high_ms) if end]
    low, high = find_limits([math.log(value) for value in repeats], ends, share=0.3)
    set_log_axis(axes, "y", [math.exp(low), math.exp(high)] if repeats else [])


def _mark_beyond(
    axes: Axes, report: Report, ends: Callable[[ConfigurationSummary], tuple[float | None, float | None]]
) -> None:
    """Draw a triangle where an interval continues beyond the axis, except below 0."""
    bottom, top = axes.get_ylim()
    for configuration in report.configurations.values():
        low, high = ends(configuration)
        edges = [("v", bottom)] if low is not None and low < bottom > 0 else []
        edges += [("^", top)] if high is not None and high > top else []
        for marker, edge in edges:
            axes.scatter([configuration.users], [edge], marker=marker, s=26, color=MUTED, clip_on=False, zorder=4)


def _draw_study(axes: Axes, values: Sequence[float]) -> None:
    users = [level.users for level in SWEEP]
    axes.plot(users, values, color=STUDY, linestyle=(0, (2, 2)), marker="D", markersize=4, markerfacecolor=TINT)
    axes.set_facecolor(TINT)
    _set_users_axis(axes, users, spacing=3)
    set_plain_ticks(axes, "y")
