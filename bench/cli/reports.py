"""Report one run, and compare two: `meshbench report`, `meshbench compare`."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import Folder

if TYPE_CHECKING:
    from bench.results.summary_records import SummaryRecord

REPORT_FORMATS = ("html", "md", "csv", "latex", "png", "svg")


@click.command()
@click.argument("folder", metavar="RUN", type=Folder())
@click.option("--format", "formats", metavar=",".join(REPORT_FORMATS), help="Formats to write; default: all.")
@click.option("--strict", is_flag=True, help="Exit 9 when a trial is damaged, instead of skipping it.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to standard output.")
def report(*, folder: Path, formats: str | None, strict: bool, as_json: bool) -> None:
    """Write a run's summary and report from its folder."""
    chosen = REPORT_FORMATS if formats is None else tuple(formats.split(","))
    print_report(folder, formats=chosen, strict=strict, as_json=as_json)


@click.command()
@click.argument("one", metavar="RUN", type=Folder())
@click.argument("other", metavar="RUN", type=Folder())
@click.option("--force", is_flag=True, help="Compare runs of different environments; the output warns of it.")
def compare(one: Path, other: Path, *, force: bool) -> None:
    """Compare two runs, configuration by configuration. Runs of different environments are rejected."""
    from bench.report.compare import compare_runs
    from bench.results.store import read_run

    click.echo(compare_runs(read_run(one), read_run(other), force=force))


def print_report(folder: Path, *, formats: tuple[str, ...], strict: bool, as_json: bool) -> "SummaryRecord":
    """Write the report of a run, print its summary, and return it."""
    from bench.report import write_report
    from bench.report.headline import format_headline
    from bench.report.text_formats import WIDTH, format_answers
    from bench.results.store import format_record, read_run

    stored = read_run(folder, strict=strict)
    for problem in stored.problems:
        click.echo(f"warning: {problem}", err=True)
    summary, paths = write_report(stored, formats=formats)
    if as_json:
        click.echo(format_record(summary), nl=False)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        headline = format_headline(stored.record.scenario, summary)
        click.echo(_wrap_lines(format_answers(summary, width or WIDTH, headline=headline), width))
        page = next((path for path in paths if path.name == "index.html"), paths[0])
        click.echo(f"\nReport: {page}")
    return summary


def _wrap_lines(text: str, width: int | None) -> str:
    """Wrap lines to a terminal's width; None leaves them as they are."""
    if width is None:
        return text
    return "\n".join(click.wrap_text(line, width) for line in text.splitlines())
