"""Draw the distribution: every quantile up to P99.9, where the count allows it."""

import math

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

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

_LEGEND_COLUMNS = 3
_SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def draw_quantiles(report: Report) -> Drawing | None:
    """Draw a thin line per valid repeat over the share of slower requests, which shrinks to the right."""
    digests = [digest for name in report.configurations for digest in report.digests_of(name) if digest.repeat.valid]
    if not report.run.digests:
        return None
    legend = 0.19 * math.ceil(len(report.configurations) / _LEGEND_COLUMNS)  # inches
    figure = make_figure(2.7 + legend)
    axes = figure.subplots()
    colour = choose_colours(report)
    seen: list[float] = []
    for digest in digests:
        shares, ms = digest.quantiles
        kept = (shares >= _SHARES[0]) & (shares < 1) & (ms > 0)
        first = shorten(digest.configuration) not in {line.get_label() for line in axes.lines}
        label = shorten(digest.configuration) if first else "_"
        axes.plot(1 - shares[kept], ms[kept], color=colour[digest.configuration], alpha=0.85, label=label)
        seen += ms[kept].tolist()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 0.001)
    axes.xaxis.set_major_locator(FixedLocator([1 - share for share in _SHARES]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rest, _: f"P{format_tick(round(100 * (1 - rest), 1))}"))
    axes.set_xlabel("quantile of the requests in the window")
    axes.set_ylabel("response time in ms (log)")
    if seen:
        set_log_axis(axes, "y", seen)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=_LEGEND_COLUMNS, handlelength=1.2)
    else:
        mark_empty(axes)
    set_margins(figure, top=0.12 + legend, left=0.68, right=0.3)
    return Drawing(
        figure,
        "Quantiles up to P99.9",
        f"Response times from P50 to P99.9 for {', '.join(report.configurations)}.",
        "All quantiles of the successful requests, one thin line per valid repeat. Equal distances are equal ratios.",
    )
