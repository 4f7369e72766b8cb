"""Draw response time over time, trial by trial, as the 2022 study's figures 9.2 to 9.5, with the warm-up marked; below
it, what else used the machine meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.noise import NoiseSeries
from bench.analysis.trial_summary import Digest, Floats
from bench.report.figures.style import (
    GRID,
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
from bench.units import format_ms, format_percent

_PANEL = 0.92  # inches
_STRIP_ROW = 0.13  # inches of one band of noise
_STRIP_MOST = 1.7  # inches of all of them
_STRIP_GAP = 0.26
_STRIP_FULL = 0.5  # share of the CPUs at which a band is full
_BAND = 0.8  # height of a band in its row
_STEAL = "#c4412a"
_LOG_FROM = 8.0  # levels of P95 whose ratio is larger share a logarithmic axis


_STRIP_READING = (
    "Bands at the bottom: share of the CPUs that other processes used, and in red what the hypervisor gave to others; "
    f"a full band is {format_percent(_STRIP_FULL)} or more. The background of the windows is darker."
)


@dataclass(frozen=True, slots=True)
class _Band:
    """The noise of one trial, or of a block whose trials shared it."""

    name: str
    label: str
    noise: NoiseSeries
    windows: tuple[tuple[float, float], ...]


def draw_time(report: Report) -> Drawing | None:
    """Draw one panel per configuration, one line per repeat, all on the same axes."""
    names = [name for name in report.configurations if any(report.digests_of(name))]
    if not names:
        return None
    bands = _select_bands(report)
    strip = min(_STRIP_ROW * len(bands), _STRIP_MOST) + _STRIP_GAP if bands else 0.0
    figure = make_figure(0.55 + _PANEL * len(names) + strip)
    panels = list(figure.subplots(len(names), 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    colour = choose_colours(report)
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, list(report.digests_of(name)), colour[name])
        axes.set_title(shorten(name), color=colour[name], pad=3)
    _set_scale(panels, list(report.run.digests.values()))
    panels[-1].set_xlabel("seconds since the load began")
    set_margins(figure, top=0.24, left=0.7, bottom=0.48 + strip)
    figure.subplots_adjust(hspace=0.36)
    height = figure.get_figheight()
    figure.text(0.02, 0.5 + strip / height / 2, "P95 over 5 s, in ms", rotation=90, va="center", color=MUTED)
    if bands:
        _draw_strip(figure, panels[-1], bands, height=strip - _STRIP_GAP)
    return Drawing(
        figure,
        "Response time over time",
        f"Sliding P95 of {len(report.run.digests)} trials, a panel each for {', '.join(names)}."
        + (f" {_describe_bands(bands)}" if bands else ""),
        "Sliding P95 over 5 s, one line per repeat (dashed: invalid). Grey: warm-up, not counted; the bar "
        "below marks the window that counts." + (f" {_STRIP_READING}" if bands else ""),
    )


def _draw_panel(axes: Axes, digests: Sequence[Digest], colour: str) -> None:
    for digest in digests:
        style = "solid" if digest.repeat.valid else (0, (3, 2))
        axes.plot(digest.series.at_s, digest.series.p95_ms, color=colour, linestyle=style, alpha=0.8)
        for window in digest.windows or (digest.window,):
            axes.plot(window, [0.015] * 2, color=INK, linewidth=2.2, transform=axes.get_xaxis_transform(), alpha=0.6)
    axes.axvspan(0, min(digest.window[0] for digest in digests), color=TINT, zorder=0)
    axes.margins(x=0)


def _select_bands(report: Report) -> list[_Band]:
    """Return a band per trial, in the order of the trials; one per block, with all windows of its trials, where these
    shared their time. Empty where no trial has noise."""
    is_shared = report.summary.is_paired
    bands: dict[str, _Band] = {}
    for trial in sorted(report.run.digests):
        digest = report.run.digests[trial]
        if digest.noise is not None:
            name = f"block {digest.block}" if is_shared else trial
            label = name if is_shared else trial.partition("-")[0]
            before = bands[name].windows if name in bands else ()
            bands[name] = _Band(name, label, digest.noise, (*before, *digest.windows))
    return list(bands.values())


def _draw_strip(figure: Figure, above: Axes, bands: Sequence[_Band], *, height: float) -> None:
    """Draw the bands below the panels, on the same seconds."""
    box, total = above.get_position(), figure.get_figheight()
    axes = figure.add_axes((box.x0, 0.1 / total, box.width, height / total))
    axes.set_axis_off()
    axes.set_xlim(above.get_xlim())
    axes.set_ylim(len(bands), 0)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center_baseline"}
    for row, band in enumerate(bands):
        _draw_band(axes, row + 0.9, band)
        axes.text(-0.01, row + 0.5, band.label, color=MUTED, size=min(6.5, 58 * height / len(bands)), **place)
    axes.set_title("used by others, share of the CPUs", color=MUTED, size=7.5, weight="normal", pad=2)


def _draw_band(axes: Axes, floor: float, band: _Band) -> None:
    """Draw one band upwards from its floor; the background of its windows is darker."""
    at_s = band.noise.at_s
    edges = np.concatenate([[2 * at_s[0] - at_s[1] if len(at_s) > 1 else at_s[0] - 1], at_s])
    lower = np.minimum(band.noise.others / _STRIP_FULL, 1.0)
    upper = np.minimum((band.noise.others + band.noise.steal) / _STRIP_FULL, 1.0)
    ends = (float(edges[0]), float(edges[-1]))
    for span, colour in ((ends, TINT), *((window, GRID) for window in band.windows)):
        axes.fill_between(span, floor, floor - _BAND, color=colour, linewidth=0)
    for low, high, colour in ((np.zeros(len(lower)), lower, INK), (lower, upper, _STEAL)):
        if (high > low).any():
            top, bottom = floor - _BAND * high, floor - _BAND * low
            axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, linewidth=0)


def _describe_bands(bands: Sequence[_Band]) -> str:
    """Return the noisiest band in words."""
    shares = [(float(np.mean(band.noise.others + band.noise.steal)), band.name) for band in bands]
    share, name = max(shares)
    return f"Other processes and the hypervisor used most of the CPUs in {name}: {format_percent(share)}."


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
    """Return the finite values of the series inside the windows."""
    at, values = digest.series.at_s, digest.series.p95_ms
    inside = np.zeros(len(at), np.bool_)
    for start, end in digest.windows or (digest.window,):
        inside |= (at >= start) & (at <= end)
    return values[inside & np.isfinite(values)]
