"""Hold what every format is made from: the run, its numbers, its tables' form, its plots. Read-only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from bench.analysis.trial_summary import Digest
from bench.results.records import RunRecord
from bench.results.store import StoredRun
from bench.results.summary_records import ConfigurationSummary, ProcessUse, SummaryRecord


class Cell(NamedTuple):
    """A value as printed; `detail` stands smaller beside it; `verdict` marks it as one."""

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
    """`note` says what the columns are; `rows` have one cell per column."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def columns_of(titles: str) -> tuple[Column, ...]:
    """Columns from `Name | Size*`: a star marks a column of numbers."""
    return tuple(Column(title.rstrip("*"), number=title.endswith("*")) for title in titles.split(" | "))


def bracketed(interval: str) -> str:
    """An interval as a cell's detail; nothing where there is none."""
    return "" if interval == "n/a" else interval


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None


def quotient(value: float | None, by: float | None) -> float | None:
    """One divided by the other; None where either is missing or nothing."""
    return value / by if value is not None and by else None


class Picture(Protocol):
    """One figure, drawn once; its formats are made when they are asked for."""

    @property
    def name(self) -> str:
        """The figure's key in `report.figures.FIGURES`."""

    @property
    def title(self) -> str:
        """What it shows, in a few words."""

    @property
    def reading(self) -> str:
        """How to read it, in a sentence."""

    @property
    def svg(self) -> str:
        """A file of its own."""

    @property
    def inline(self) -> str:
        """A part of a page, in the page's colours."""

    def png(self) -> bytes:
        """A file of its own, for where no SVG is shown."""


@dataclass(frozen=True)
class Plots:
    """The pictures, or why there are none."""

    pictures: Sequence[Picture] = ()
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """One run, ready to be written down. `digests` are keyed by the trial's folder; `draw` makes the pictures."""

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
        """Whether the configurations differ in their number of users."""
        return len({configuration.users for configuration in self.configurations.values()}) > 1

    def digests_of(self, configuration: str) -> Iterator[Digest]:
        """The digests of one configuration, in the order of its blocks."""
        found = (digest for digest in self.digests.values() if digest.configuration == configuration)
        yield from sorted(found, key=lambda digest: digest.block)

    def family(self, configuration: str) -> str:
        """What a configuration is besides its number of users: mesh and manifests."""
        made = self.record.scenario.configuration(configuration)
        mesh = "no mesh" if made.mesh == "none" else made.mesh
        return " + ".join((mesh, *made.manifests))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a reader must know first: why the run has not gone to its end, then the summary's doubts."""
        return (*([self.record.reason] if self.record.reason else []), *self.summary.doubts)

    @cached_property
    def plots(self) -> Plots:
        """The pictures, drawn when first asked for; without a plotting library the tables do alone."""
        try:
            return Plots(self.draw(self))
        except (ImportError, OSError) as error:
            return Plots((), f"{type(error).__name__}: {error}")


def uses(configuration: ConfigurationSummary, role: str) -> dict[str, tuple[ProcessUse, ...]]:
    """Process -> its use in each valid repeat, for the processes of one role."""
    found: dict[str, tuple[ProcessUse, ...]] = {}
    for repeat in configuration.repeats:
        for use in repeat.resources if repeat.valid else ():
            if use.role == role:
                found[use.process] = (*found.get(use.process, ()), use)
    return found
