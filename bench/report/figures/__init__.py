"""Draw the figures of a report. Only this package imports matplotlib, and only when a figure is requested.

A new figure is a function here: from a Report to a Drawing, or to None where the run has no data for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from bench.report.figures.dot_plot import draw_p95, draw_rps
from bench.report.figures.forest import draw_differences
from bench.report.figures.load_sweep import draw_sweep
from bench.report.figures.quantile_plot import draw_quantiles
from bench.report.figures.resources import draw_cpu, draw_memory
from bench.report.figures.style import Drawing, apply_style, make_inline, write_png, write_svg
from bench.report.figures.time_series import draw_time
from bench.report.model import Report

FIGURES: Final[dict[str, Callable[[Report], Drawing | None]]] = {
    "p95": draw_p95,
    "sweep": draw_sweep,
    "differences": draw_differences,
    "rps": draw_rps,
    "time": draw_time,
    "quantiles": draw_quantiles,
    "cpu": draw_cpu,
    "memory": draw_memory,
}


@dataclass(frozen=True)
class Picture:
    """One figure, drawn once; its formats are made when they are requested."""

    name: str
    drawing: Drawing

    @property
    def title(self) -> str:
        return self.drawing.title

    @property
    def reading(self) -> str:
        return self.drawing.reading

    @cached_property
    def svg(self) -> str:
        return write_svg(self.drawing)

    @property
    def inline(self) -> str:
        return make_inline(self.svg, self.name)

    def png(self) -> bytes:
        return write_png(self.drawing)


def draw_figures(report: Report) -> tuple[Picture, ...]:
    """Draw every figure for which the run has data."""
    with apply_style():
        drawings = {name: draw(report) for name, draw in FIGURES.items()}
    return tuple(Picture(name, drawing) for name, drawing in drawings.items() if drawing is not None)
