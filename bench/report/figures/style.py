"""Define the style of every figure: colours, sizes, fonts, axes; and write it as SVG and PNG."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.model import Report
from bench.report.study_2022 import P95_MS
from bench.units import format_tick

INK: Final = "#1b2430"
MUTED: Final = "#667080"
GRID: Final = "#e3e7ec"
PAPER: Final = "#ffffff"
TINT: Final = "#f3f4f6"  # background of the 2022 study's values
STUDY: Final = "#7a8290"
WIDTH: Final = 5.0  # inches: two fit on a desktop screen, one on a phone
PNG_DPI: Final = 144
ROW: Final = 0.52  # inches that one configuration's row takes

# Neutrals become variables of the page, so that a figure follows its light or dark theme.
_THEMED: Final = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    TINT: "--tint",
    STUDY: "--study",
}

# Hues that every kind of colour vision can distinguish; the first are those of the conditions of the 2022 study, in
# which a mesh and its policies also differ in lightness.
_HUES: Final = ("#3f78b5", "#e08a00", "#c4412a", "#2ba193", "#8d4fae", "#8a7a1f", "#c2578f", "#5b6675")
_SWEEP: Final = ("#8fbce6", "#5a96d0", "#3f78b5", "#7d5ba6", "#8d4fae", "#a3245f", "#c4412a")

_RC: Final = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.1,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "meshbench",  # the same run makes the same bytes
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn figure with its title, its content in words for screen readers, and how to read it."""

    figure: Figure
    title: str
    shows: str
    reading: str


@contextmanager
def apply_style() -> Iterator[None]:
    """Set the style inside the context, independent of the machine's own matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast("Any", _RC))
        yield


def choose_colours(report: Report) -> dict[str, str]:
    """Return configuration -> its colour in every figure; a sweep's colours are ordered by users."""
    names = list(report.configurations)
    if report.is_sweep:
        by_users = sorted(names, key=lambda name: report.configurations[name].users)
        step = (len(_SWEEP) - 1) / max(len(names) - 1, 1)
        return {name: _SWEEP[round(index * step)] for index, name in enumerate(by_users)}
    known = {name: hue for name, hue in zip(P95_MS, _HUES, strict=False) if name in names}
    free = [colour for colour in _HUES if colour not in known.values()]
    others = [name for name in names if name not in known]
    return known | {name: free[index % len(free)] for index, name in enumerate(others)}


def make_figure(height: float) -> Figure:
    """Return an empty figure of the standard width, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def set_margins(
    figure: Figure, *, left: float = 0.55, right: float = 0.15, top: float = 0.3, bottom: float = 0.48
) -> None:
    """Set margins in inches, so that fonts and axes keep their distance at any height."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)


def shorten(name: str, *, longest: int = 26) -> str:
    """Shorten a name to `longest` characters; the tables have the whole name."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def find_limits(points: Iterable[float], ends: Iterable[float], *, share: float = 0.6) -> tuple[float, float]:
    """Return the limits of an axis: all points, and the ends of intervals up to `share` of the points' span beyond
    them. The interval of two noisy repeats would otherwise compress the points."""
    inside = list(points)
    low, high = min(inside, default=0.0), max(inside, default=0.0)
    more = (high - low) * share
    near = [min(max(end, low - more), high + more) for end in ends]
    return min([low, *near]), max([high, *near])


def mark_beyond(axes: Axes, y: float, end: float | None, *, colour: str, printed: str) -> None:
    """Draw an arrow where an interval continues beyond the axis, with the value of its end."""
    left, right = axes.get_xlim()
    if end is None or left <= end <= right:
        return
    at_left = end < left
    axes.text(
        left if at_left else right,
        y,
        f" \N{LEFTWARDS ARROW} continues to {printed} "
        if at_left
        else f" continues to {printed} \N{RIGHTWARDS ARROW} ",
        color=colour,
        size=6.8,
        ha="left" if at_left else "right",
        va="center_baseline",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
        zorder=7,
    )


def set_plain_ticks(axes: Axes, which: str) -> None:
    """Print ticks as meshbench prints numbers, without powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    axis.set_minor_formatter(NullFormatter())


def set_log_axis(axes: Axes, which: str, values: Iterable[float], *, low_panel: bool = False) -> None:
    """Set a logarithmic axis over the positive `values`, with ticks at 1, 2 and 5; at 1 and 3 in a low panel."""
    positive = [value for value in values if value > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 10.0)
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / 1.12, high * 1.12)
    subs, widest = ((1, 3), 100) if low_panel else ((1, 2, 5), 300)
    axis.set_major_locator(LogLocator(subs=subs if high / low < widest else (1,)))
    set_plain_ticks(axes, which)


def mark_empty(axes: Axes) -> None:
    """Write "no valid value" into an empty frame."""
    axes.text(0.5, 0.5, "no valid value", transform=axes.transAxes, ha="center", va="center", color=MUTED)


def write_svg(drawing: Drawing) -> str:
    """Return the figure as an SVG file, without date and version, so that it depends on the run alone."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with apply_style():
        drawing.figure.savefig(buffer, format="svg", metadata={"Title": f"{drawing.title}. {drawing.shows}", **nothing})
    return buffer.getvalue()


def write_png(drawing: Drawing) -> bytes:
    """Return the figure as a PNG file."""
    buffer = io.BytesIO()
    with apply_style():
        drawing.figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


def make_inline(svg: str, name: str) -> str:
    """Return an SVG file as an element of a page: unique ids, the page's colours, a name for screen readers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for colour, variable in _THEMED.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<title>", f'<title id="{name}-title">', 1)
    return body.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-title" ', 1)
