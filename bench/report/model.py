"""Define the input of every format: the run, its numbers, the form of tables, the plots. Read-only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import pandas as pd

from bench.analysis.trial_summary import Digest
from bench.results.records import RunRecord
from bench.results.store import StoredRun
from bench.results.summary_records import ConfigurationSummary, ProcessUse, SummaryRecord


class Cell(NamedTuple):
    """A value as printed; `detail` is printed smaller after it; `verdict` marks it as one."""

    text: str
    detail: str = ""
    verdict: bool = False

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


def make_columns(titles: str) -> tuple[Column, ...]:
    """Return columns from `Name | Size*`: a star marks a column of numbers."""
    return tuple(Column(title.rstrip("*"), number=title.endswith("*")) for title in titles.split(" | "))


def format_detail(interval: str) -> str:
    """Return an interval as a cell's detail; empty where there is none."""
    return "" if interval == "n/a" else interval


def compute_mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None for no values."""
    return sum(values) / len(values) if values else None


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
    """One run to report. `digests` are keyed by the trial's folder; `draw` makes the pictures."""

    run: StoredRun
    summary: SummaryRecord
    digests: Mapping[str, Digest]
    draw: Callable[["Report"], Sequence[Picture]] = lambda _: ()

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
        found = (digest for digest in self.digests.values() if digest.configuration == configuration)
        yield from sorted(found, key=lambda digest: digest.block)

    def family(self, configuration: str) -> str:
        """Return mesh and manifests of a configuration, the properties that users-sweep configurations share."""
        settings = self.record.scenario.configuration(configuration)
        mesh = "no mesh" if settings.mesh == "none" else settings.mesh
        return " + ".join((mesh, *settings.manifests))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return why the run ended early, if it did, then the summary's warnings."""
        return (*([self.record.reason] if self.record.reason else []), *self.summary.doubts)

    @cached_property
    def plots(self) -> Plots:
        """Draw the pictures at the first use; without a plotting library a report has only tables."""
        try:
            return Plots(self.draw(self))
        except (ImportError, OSError) as error:
            return Plots((), f"{type(error).__name__}: {error}")


def group_uses(configuration: ConfigurationSummary, role: str) -> dict[str, tuple[ProcessUse, ...]]:
    """Return process -> its use in each valid repeat, for the processes of one role."""
    found: dict[str, tuple[ProcessUse, ...]] = {}
    for repeat in configuration.repeats:
        for use in repeat.resources if repeat.valid else ():
            if use.role == role:
                found[use.process] = (*found.get(use.process, ()), use)
    return found
