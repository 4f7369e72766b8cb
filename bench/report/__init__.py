"""Write the report of a run, tables and plots, from its folder alone.

A new format is a function here: it gets the Report and the folder to write into, and returns the files it wrote.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.errors import InputError, Problem, StoreError
from bench.frames.run import Run
from bench.report.html import write_html
from bench.report.model import Picture, Report
from bench.report.text_formats import write_csv, write_latex, write_markdown, write_png, write_svg
from bench.results.store import StoredRun, write_record
from bench.results.summary_records import SummaryRecord
from bench.system.open_folder import OpenFolder, open_folder

FORMATS: Final[dict[str, Callable[[Report, OpenFolder], tuple[Path, ...]]]] = {
    "html": write_html,
    "md": write_markdown,
    "csv": write_csv,
    "latex": write_latex,
    "png": write_png,
    "svg": write_svg,
}


class WrittenReport(NamedTuple):
    """A report that is written: its summary, and its files with the summary's first."""

    summary: SummaryRecord
    paths: tuple[Path, ...]


def write_report(run: StoredRun, *, formats: Collection[str] = tuple(FORMATS)) -> WrittenReport:
    """Write `summary.json` and `report/` into the run's folder.

    Raises InputError for a format that does not exist, StoreError where the folder cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(
            Problem("--format", 0, "", f"unknown format {name!r}; formats are {', '.join(FORMATS)}") for name in unknown
        )
    report = Report(Run(run), _draw)
    folder = run.path / "report"
    try:
        with open_folder(run.path) as home, home.enter(folder.name) as inside:
            write_record(run.path / "summary.json", report.summary)
            paths = (run.path / "summary.json", *_write_formats(report, inside, formats))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
    return WrittenReport(report.summary, paths)


def _draw(report: Report) -> Sequence[Picture]:
    from bench.report.figures import draw_figures  # loads the plotting library, which may be missing

    return draw_figures(report)


def _write_formats(report: Report, folder: OpenFolder, formats: Collection[str]) -> Iterator[Path]:
    for name, write in FORMATS.items():
        if name in formats:
            yield from write(report, folder)
