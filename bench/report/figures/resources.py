"""Draw what the sidecars and the services use: CPU per request and memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from bench.application.model import CLIENT
from bench.report.figures.dot_plot import set_bare_rows
from bench.report.figures.style import (
    PAPER,
    Drawing,
    choose_colours,
    make_figure,
    mark_empty,
    set_margins,
    set_plain_ticks,
    shorten,
)
from bench.report.model import Report
from bench.units import format_bytes, format_ms

_ROLES = {"service": "services", "sidecar": "sidecars"}
_SERVICE = "#9aa5b4"
_ROW = 0.62
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Quantity:
    """The quantity of a figure: a column, the axis's unit, and a total as printed."""

    title: str
    axis: str
    column: str  # of the frame of processes
    unit: float
    printed: Callable[[float], str]
    reading: str


_CPU = Quantity(
    "CPU per request",
    "CPU in ms per request",
    "cpu_ms_per_request",
    1,
    lambda total: f"{format_ms(total)} ms",
    "CPU time per request, means over valid repeats. Upper bar: services; lower bar: sidecars, a segment each.",
)
_MEMORY = Quantity(
    "Memory",
    "largest resident size in MiB",
    "rss_max_bytes",
    _MIB,
    lambda total: format_bytes(total * _MIB),
    "Largest resident memory, means over valid repeats. Pages that processes share count in each of them.",
)


def draw_cpu(report: Report) -> Drawing | None:
    """Draw CPU per request of services and sidecars."""
    return _draw(report, _CPU)


def draw_memory(report: Report) -> Drawing | None:
    """Draw memory of services and sidecars."""
    return _draw(report, _MEMORY)


def _draw(report: Report, quantity: Quantity) -> Drawing | None:
    rows = _compute_means(report, quantity)
    totals = {name: _format_totals(roles, quantity) for name, roles in rows.items()}
    if not any(totals.values()):
        return None
    figure = make_figure(0.62 + _ROW * len(rows))
    axes = figure.subplots()
    largest = max(sum(parts.values()) for roles in rows.values() for parts in roles.values())
    axes.set_xlim(0, largest * 1.06 or 1)
    colour = choose_colours(report)
    for y, (name, roles) in enumerate(rows.items()):
        above: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
        axes.text(0.005, y - 0.36, shorten(name), color=colour[name], weight="bold", **above)
        axes.text(0.985, y - 0.36, "   ".join(totals[name]), ha="right", **above)
        _draw_bar(axes, y - 0.09, roles["service"], colour=_SERVICE, limit=largest)
        _draw_bar(axes, y + 0.2, roles["sidecar"], colour=colour[name], limit=largest)
    set_bare_rows(axes, len(rows))
    axes.set_xlabel(quantity.axis)
    set_plain_ticks(axes, "x")
    if not largest:
        mark_empty(axes)
    set_margins(figure, left=0.15, top=0.08)
    shows = "; ".join(f"{name}: {', '.join(words)}" for name, words in totals.items())
    return Drawing(figure, quantity.title, f"{shows}.", quantity.reading)


def _format_totals(roles: Mapping[str, Mapping[str, float]], quantity: Quantity) -> list[str]:
    """Return the totals of all services and of all sidecars as printed; nothing where none were observed."""
    return [f"{_ROLES[role]} {quantity.printed(sum(parts.values()))}" for role, parts in roles.items() if parts]


def _compute_means(report: Report, quantity: Quantity) -> dict[str, dict[str, dict[str, float]]]:
    """Return configuration -> role -> process -> mean over the valid repeats, in the order of the calls."""
    uses = report.run.processes().query("valid").groupby(["configuration", "role", "process"], observed=True)
    means = (uses[quantity.column].mean() / quantity.unit).dropna()
    rows: dict[str, dict[str, dict[str, float]]] = {n: {role: {} for role in _ROLES} for n in report.configurations}
    order = (CLIENT, *report.record.services)

    def rank(row: Sequence[Any]) -> tuple[int, str]:
        """Return the place of a process: in the order in which a request reaches them, others last."""
        name = row[2].removesuffix("-sidecar")
        return (order.index(name) if name in order else len(order), name)

    for name, role, process, mean in sorted(means.reset_index().to_numpy().tolist(), key=rank):
        if role in _ROLES:
            rows[name][role][process] = mean
    return rows


def _draw_bar(axes: Axes, y: float, parts: Mapping[str, float], *, colour: str, limit: float) -> None:
    """Draw a stacked bar; a segment is named where its name fits."""
    start = 0.0
    for name, value in parts.items():
        axes.barh(y, value, height=0.26, left=start, color=colour, edgecolor=PAPER, linewidth=1)
        label = name.removesuffix("-sidecar")
        if value / limit > 0.019 * len(label) + 0.01:
            middle = start + value / 2
            axes.text(middle, y + 0.01, label, ha="center", va="center", size=6.8, color=_choose_ink(colour))
        start += value


def _choose_ink(colour: str) -> str:
    """Return dark or light for letters that are readable on this colour."""
    red, green, blue = to_rgb(colour)
    return "#10151c" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#fdfdfd"
