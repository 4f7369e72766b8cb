"""What a table is: rows of printed text, made once, then written as HTML, Markdown and LaTeX alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


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
