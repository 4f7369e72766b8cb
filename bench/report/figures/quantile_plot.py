"""Draw the distribution: every quantile up to P99.9, where the count allows it."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.analysis.trial_summary import Digest, Floats
from bench.report.figures.style import (
    Drawing,
    choose_colours,
    make_figure,
    mark_empty,
    set_log_axis,
    set_margins,
    shorten,
)
from bench.report.model import Report
from bench.units import format_tick

_LEGEND_COLUMNS = 3  # of names with up to
_LEGEND_LETTERS = 17
_MANY = 4  # lines of a configuration: more of them hide each other
_POINTS = 80
Curve = tuple[Floats, Floats]
_SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def draw_quantiles(report: Report) -> Drawing | None:
    """Draw a line per valid repeat over the share of slower requests, which shrinks to the right."""
    if not report.run.digests:
        return None
    columns = _count_legend_columns(report)
    legend = 0.19 * math.ceil(len(report.configurations) / columns)  # inches
    figure = make_figure(2.7 + legend)
    axes = figure.subplots()
    colour = choose_colours(report)
    curves = {name: [_cut(d) for d in report.digests_of(name) if d.repeat.valid] for name in report.configurations}
    are_many = max(map(len, curves.values()), default=0) > _MANY
    for name, own in curves.items():
        _draw_curves(axes, shorten(name), own, colour=colour[name], are_many=are_many)
    seen = [value for own in curves.values() for _, ms in own for value in ms.tolist()]
    ends = [float(rest.min()) for own in curves.values() for rest, _ in own if len(rest)]
    axes.set_xscale("log")
    axes.set_xlim(0.5, 0.01 if ends and min(ends) >= 0.01 else 0.001)
    axes.xaxis.set_major_locator(FixedLocator([1 - share for share in _SHARES]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rest, _: f"P{format_tick(round(100 * (1 - rest), 1))}"))
    axes.set_xlabel("quantile of the requests in the window")
    axes.set_ylabel("response time in ms (log)")
    if seen:
        set_log_axis(axes, "y", seen)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, handlelength=1.2)
    else:
        mark_empty(axes)
    set_margins(figure, top=0.12 + legend, left=0.68, right=0.3)
    return Drawing(
        figure,
        "Quantiles up to P99.9",
        f"Response times from P50 to P99.9 for {', '.join(report.configurations)}.",
        "All quantiles of the successful requests, one thin line per valid repeat"
        + (", one thick line for their geometric mean" if are_many else "")
        + ". Equal distances are equal ratios.",
    )


def _count_legend_columns(report: Report) -> int:
    """Return how many names fit beside each other: one column less where a name is long."""
    longest = max(len(shorten(name)) for name in report.configurations)
    return _LEGEND_COLUMNS if longest <= _LEGEND_LETTERS else _LEGEND_COLUMNS - 1


def _cut(digest: Digest) -> Curve:
    """Return the quantiles from P50 on: the share of slower requests, and milliseconds."""
    shares, ms = digest.quantiles
    kept = (shares >= _SHARES[0]) & (shares < 1) & (ms > 0)
    return 1 - shares[kept], ms[kept]


def _draw_curves(axes: Axes, label: str, curves: Sequence[Curve], *, colour: str, are_many: bool) -> None:
    """Draw a line per repeat, pale below their mean where there are many."""
    width, strength = (0.7, 0.22) if are_many else (None, 0.85)
    for number, (rest, ms) in enumerate(curves):
        name = label if number == 0 and not are_many else "_"
        axes.plot(rest, ms, color=colour, alpha=strength, linewidth=width, label=name)
    if are_many and (mean := _average(curves)) is not None:
        axes.plot(*mean, color=colour, linewidth=1.8, label=label, zorder=3)


def _average(curves: Sequence[Curve]) -> Curve | None:
    """Return the geometric mean of curves, as far as all of them go; None where there is nothing to average."""
    known = [(rest, ms) for rest, ms in curves if len(rest) > 1]
    if not known:
        return None
    grid = np.geomspace(_SHARES[0], max(rest.min() for rest, _ in known), _POINTS)
    logs = [np.interp(-np.log(grid), -np.log(rest), np.log(ms)) for rest, ms in known]
    return grid, np.exp(np.mean(logs, axis=0))
