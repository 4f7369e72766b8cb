"""How much recorders have written, counted without reading it."""

from pathlib import Path

from bench.results.samples import RAW_ROW


def recorded_rows(folder: Path) -> int:
    """The whole rows of all recorders of a load."""
    return sum(path.stat().st_size // RAW_ROW.itemsize for path in folder.glob("samples*.bin"))
