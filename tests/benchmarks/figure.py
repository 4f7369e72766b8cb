"""A figure and its aim. Machines differ and are busy, so a figure is shown, never asserted."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.units import format_counted, format_duration, format_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: what was measured, the value, its spread, and the aim."""

    what: str
    value: str
    spread: str = ""
    aim: str = ""
    met: bool | None = None  # None: there is no aim

    def __str__(self) -> str:
        """Return its line; columns of varying length come last."""
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return f"  {self.what:<52} {self.value:>14}  {self.aim:<12} {verdict:<7} {self.spread}".rstrip()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Measurements taken in turn, A B A B: each pair's ratio is free of what drifts more slowly than a pair."""

    ratios: tuple[float, ...]

    @classmethod
    def of(cls, measured: Sequence[tuple[float, float]]) -> "Pairs":
        """Build the ratios from pairs of a reference and what is compared with it."""
        return cls(tuple(other / reference for reference, other in measured))

    @property
    def median(self) -> float:
        return median(self.ratios)

    @property
    def summary(self) -> str:
        """Range and number: `1.01 to 1.06 in 5 pairs`."""
        low, high = format_ratio(min(self.ratios)), format_ratio(max(self.ratios))
        return f"{low} to {high} in {format_counted(len(self.ratios), 'pair')}"


def format_s(seconds: float) -> str:
    """Format a measured time in three digits."""
    return format_duration(float(f"{seconds:.3g}"))
