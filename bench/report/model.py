"""Define the input of every format: the run, its numbers, the form of tables, the plots. Read-only."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import pandas as pd

from bench.analysis.trial_summary import Digest
from bench.frames.run import Run
from bench.results.records import RunRecord
from bench.results.summary_records import ConfigurationSummary, SummaryRecord
from bench.units import format_interval, format_ms


class Cell(NamedTuple):
    """A value as printed; `detail` is printed smaller after it; `verdict` marks it as one; `folded` is what the page
    shows when the cell is opened, and the CSV files have."""

    text: str
    detail: str = ""
    verdict: bool = False
    folded: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip()


class Column(NamedTuple):
    title: str
    number: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table; `note` explains the columns, `rows` have one cell per column."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_frame(self, escape: Callable[[str], str]) -> pd.DataFrame:
        """Return the cells as printed, titles included, for the formats that are written from a DataFrame."""
        cells = [[escape(str(cell)) for cell in row] for row in self.rows]
        return pd.DataFrame(cells, columns=[escape(column.title) for column in self.columns])


def make_table(
    name: str, title: str, note: str = "", *, rows: Iterable[Any], columns: Mapping[str, Callable[[Any], Cell | str]]
) -> Table:
    """Return a table with a row for each of `rows`. `columns` maps each title to what makes its cells; a star at the
    end of a title marks a column of numbers."""
    return Table(
        name,
        title,
        note,
        columns=tuple(Column(title.rstrip("*"), number=title.endswith("*")) for title in columns),
        rows=tuple(tuple(_make_cell(make(row)) for make in columns.values()) for row in rows),
    )


def _make_cell(content: Cell | str) -> Cell:
    return content if isinstance(content, Cell) else Cell(content)


def make_interval_cell(
    value: float | None,
    low: float | None,
    high: float | None,
    formatter: Callable[[float | None], str] = format_ms,
) -> Cell:
    """Return a number with its interval as detail, if it has one."""
    interval = format_interval(low, high, formatter)
    return Cell(formatter(value), "" if interval == "n/a" else interval)


def divide(value: float | None, by: float | None) -> float | None:
    """Return the quotient; None where a value is missing or the divisor is 0."""
    return value / by if value is not None and by else None


class Picture(Protocol):
    """One figure, drawn once; its formats are made when they are requested."""

    @property
    def name(self) -> str:
        """Return the figure's key in `report.figures.FIGURES`."""

    @property
    def title(self) -> str:
        """Return a title of a few words."""

    @property
    def reading(self) -> str:
        """Return how to read it, in a sentence."""

    @property
    def svg(self) -> str:
        """Return the content of an SVG file."""

    @property
    def inline(self) -> str:
        """Return an element of a page, in the page's colours."""

    def png(self) -> bytes:
        """Return the content of a PNG file."""


@dataclass(frozen=True)
class Plots:
    """The pictures, or why there are none."""

    pictures: Sequence[Picture] = ()
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """One run to report; `draw` makes the pictures."""

    run: Run
    draw: Callable[["Report"], Sequence[Picture]] = lambda _: ()

    @property
    def summary(self) -> SummaryRecord:
        return self.run.summary

    @property
    def record(self) -> RunRecord:
        return self.run.record

    @property
    def configurations(self) -> dict[str, ConfigurationSummary]:
        return self.summary.configurations

    @property
    def is_sweep(self) -> bool:
        """Return whether the configurations differ in their number of users."""
        return len({configuration.users for configuration in self.configurations.values()}) > 1

    def digests_of(self, configuration: str) -> Iterator[Digest]:
        """Yield the digests of one configuration, in the order of its blocks."""
        found = (digest for digest in self.run.digests.values() if digest.configuration == configuration)
        yield from sorted(found, key=lambda digest: digest.block)

    def family(self, configuration: str) -> str:
        """Return mesh and manifests of a configuration, the properties that users-sweep configurations share."""
        settings = self.record.scenario.configuration(configuration)
        mesh = "no mesh" if settings.mesh == "none" else settings.mesh
        return " + ".join((mesh, *settings.manifests))

    @cached_property
    def plots(self) -> Plots:
        """Draw the pictures at the first use; without a plotting library a report has only tables."""
        try:
            return Plots(self.draw(self))
        except (ImportError, OSError) as error:
            return Plots((), f"{type(error).__name__}: {error}")
