"""Draw response time over time, trial by trial, as the 2022 study's figures 9.2 to 9.5, with the warm-up marked."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.analysis.trial_summary import Digest, Floats
from bench.report.figures.style import (
    INK,
    MUTED,
    TINT,
    Drawing,
    choose_colours,
    make_figure,
    mark_empty,
    set_log_axis,
    set_margins,
    set_plain_ticks,
    shorten,
)
from bench.report.model import Report
from bench.units import format_ms

_PANEL = 0.92  # inches
_LOG_FROM = 8.0  # levels of P95 whose ratio is larger share a logarithmic axis


def draw_time(report: Report) -> Drawing | None:
    """Draw one panel per configuration, one line per repeat, all on the same axes."""
    names = [name for name in report.configurations if any(report.digests_of(name))]
    if not names:
        return None
    figure = make_figure(0.55 + _PANEL * len(names))
    panels = list(figure.subplots(len(names), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    colour = choose_colours(report)
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, list(report.digests_of(name)), colour[name])
        axes.set_title(shorten(name), color=colour[name], pad=3)
    _set_scale(panels, list(report.run.digests.values()))
    panels[-1].set_xlabel("seconds since the load began")
    set_margins(figure, top=0.24, left=0.7)
    figure.subplots_adjust(hspace=0.36)
    figure.text(0.02, 0.5, "P95 over 5 s, in ms", rotation=90, va="center", color=MUTED)
    return Drawing(
        figure,
        "Response time over time",
        f"Sliding P95 of {len(report.run.digests)} trials, a panel each for {', '.join(names)}.",
        "Sliding P95 over 5 s, one line per repeat (dashed: invalid). Grey: warm-up, not counted; the bar "
        "below marks the window that counts.",
    )


def _draw_panel(axes: Axes, digests: Sequence[Digest], colour: str) -> None:
    for digest in digests:
        style = "solid" if digest.repeat.valid else (0, (3, 2))
        axes.plot(digest.series.at_s, digest.series.p95_ms, color=colour, linestyle=style, alpha=0.8)
        axes.plot(
            digest.window,
            [0.015] * 2,
            color=INK,
            linewidth=2.2,
            transform=axes.get_xaxis_transform(),
            alpha=0.6,
        )
    axes.axvspan(0, min(digest.window[0] for digest in digests), color=TINT, zorder=0)
    axes.margins(x=0)


def _set_scale(panels: Sequence[Axes], digests: Sequence[Digest]) -> None:
    """Set one scale for all panels, made for the windows; a peak of the warm-up beyond it is printed."""
    inside = [_select_window(digest) for digest in digests]
    levels = [float(np.median(values)) for values in inside if len(values)]
    if not levels:
        for axes in panels:
            mark_empty(axes)
        return
    if max(levels) > _LOG_FROM * min(levels):
        set_log_axis(panels[0], "y", [float(value) for values in inside for value in values], low_panel=True)
        return
    top = 1.15 * max(float(values.max()) for values in inside if len(values))
    panels[0].set_ylim(0, top)
    panels[0].yaxis.set_major_locator(MaxNLocator(4))
    set_plain_ticks(panels[0], "y")
    peak = max((float(np.nanmax(d.series.p95_ms, initial=0)) for d in digests), default=0)
    if peak > top:
        panels[0].annotate(
            f"peaks of the warm-up up to {format_ms(peak)} ms",
            (0.995, 1.03),
            xycoords="axes fraction",
            ha="right",
            color=MUTED,
            size=7.5,
        )


def _select_window(digest: Digest) -> Floats:
    """Return the finite values of the series inside the window."""
    at, values = digest.series.at_s, digest.series.p95_ms
    return values[(at >= digest.window[0]) & (at <= digest.window[1]) & np.isfinite(values)]
