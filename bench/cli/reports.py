"""Report one run, and compare two: `meshbench report`, `meshbench compare`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import GivenPath
from bench.errors import InputError
from bench.units import parse_percent

if TYPE_CHECKING:
    from bench.analysis.builds import FailOn
    from bench.results.summary_records import SummaryRecord

REPORT_FORMATS = ("html", "md", "csv", "latex", "png", "svg")


@click.command()
@click.argument("folder", metavar="RUN", type=GivenPath())
@click.option("--format", "formats", metavar=",".join(REPORT_FORMATS), help="Formats to write; default: all.")
@click.option("--strict", is_flag=True, help="Exit 9 when a trial is damaged, instead of skipping it.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to standard output.")
def report(*, folder: Path, formats: str | None, strict: bool, as_json: bool) -> None:
    """Write a run's summary and report from its folder."""
    chosen = REPORT_FORMATS if formats is None else tuple(formats.split(","))
    print_report(folder, formats=chosen, strict=strict, as_json=as_json)


class SidesCommand(click.Command):
    """A command whose options `--base` and `--head` take any number of runs: `--base RUN RUN --head RUN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every run of a list its own option, as click reads them."""
        return super().parse_args(ctx, list(_repeat_options(args)))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - one line for both forms
        return ["{RUN RUN | --base RUN... --head RUN...} [OPTIONS]"]


def _repeat_options(args: list[str]) -> Iterator[str]:
    """Yield `--base A --base B` for `--base A B`."""
    option = ""
    for number, word in enumerate(args):
        if word.startswith("-"):
            option = word if word in ("--base", "--head") else ""
        elif option and args[number - 1] != option:
            yield option
        yield word


@click.command(cls=SidesCommand)
@click.argument("runs", metavar="RUN RUN", nargs=-1, type=GivenPath())
@click.option("--base", multiple=True, type=GivenPath(), metavar="RUN...", help="Runs of the build to compare with.")
@click.option("--head", multiple=True, type=GivenPath(), metavar="RUN...", help="Runs of the build to judge.")
@click.option(
    "--fail-on",
    type=click.Choice(["slower", "different"]),
    help="Exit 6 for a contrast that is slower, or one that is slower, faster or different; exit 5 for an invalid one.",
)
@click.option("--margin", metavar="5%", help="The smallest change that matters; default: the scenario's.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option("--markdown", is_flag=True, help="Print it as a table for the summary of a CI job.")
@click.option("--junit", type=GivenPath(), metavar="FILE", help="Write a test case per contrast.")
@click.option("--force", is_flag=True, help="Compare runs of different conditions; the output warns of it.")
def compare(*, runs: tuple[Path, ...], force: bool, **options: Any) -> None:
    """Compare two runs, configuration by configuration, or two builds by their ratios to the reference.

    Runs of different environments are rejected; those of different designs always.
    """
    from bench.report.compare import compare_runs
    from bench.results.store import read_run

    if not runs:
        _compare_builds(force=force, **options)
        return
    given = [f"--{name.replace('as_', '').replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise InputError(f"{', '.join(given)} cannot go with two runs alone; hint: name them by --base RUN --head RUN")
    if len(runs) != 2:
        raise InputError(
            f"give two runs, not {len(runs)}; hint: several runs of a side go to --base RUN... --head RUN..."
        )
    one, other = map(read_run, runs)
    click.echo(compare_runs(one, other, force=force))


def _compare_builds(
    *,
    base: tuple[Path, ...],
    head: tuple[Path, ...],
    fail_on: "FailOn | None",
    margin: str | None,
    as_json: bool,
    markdown: bool,
    junit: Path | None,
    force: bool,
) -> None:
    from bench.analysis.builds import compare_builds
    from bench.report.builds import format_lines, format_markdown, make_error, write_junit
    from bench.results.store import read_run

    if as_json and markdown:
        raise InputError("--json and --markdown are two outputs; give one of them")
    sides = [[read_run(path) for path in paths] for paths in (base, head)]
    for problem in (problem for side in sides for run in side for problem in run.problems):
        click.echo(f"warning: {problem}", err=True)
    found = compare_builds(sides[0], sides[1], margin=_read_margin(margin), fail_on=fail_on, force=force)
    if junit is not None:
        write_junit(found, junit)
    formatted = found.model_dump_json(indent=2) if as_json else (format_markdown if markdown else format_lines)(found)
    click.echo(formatted)
    if error := make_error(found):
        raise error


def _read_margin(text: str | None) -> float | None:
    """Read a percentage, as a scenario's `margin`. Raises InputError."""
    if text is None:
        return None
    try:
        margin = parse_percent(text)
    except ValueError as error:
        raise InputError(f"--margin: {error}") from error
    if not 0.001 <= margin <= 1:
        raise InputError(f"--margin: {text} is not from 0.1% to 100%")
    return margin


def print_report(folder: Path, *, formats: tuple[str, ...], strict: bool, as_json: bool) -> "SummaryRecord":
    """Write the report of a run, print its summary, and return it."""
    from bench.report import write_report
    from bench.report.heading import format_top
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
        top = format_top(stored.record, summary)
        click.echo(_wrap_lines(format_answers(summary, width or WIDTH, top=top), width))
        page = next((path for path in paths if path.name == "index.html"), paths[0])
        click.echo(f"\nReport: {page}")
    return summary


def _wrap_lines(text: str, width: int | None) -> str:
    """Wrap lines to a terminal's width; None leaves them as they are."""
    if width is None:
        return text
    return "\n".join(click.wrap_text(line, width) for line in text.splitlines())
