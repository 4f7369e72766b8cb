"""The number of rows that recorders have written, from the sizes of their files."""

from pathlib import Path

from bench.results.samples import RAW_ROW


def count_rows(folder: Path) -> int:
    """Count the complete rows of all recorders of a load."""
    return sum(path.stat().st_size // RAW_ROW.itemsize for path in folder.glob("samples*.bin"))
