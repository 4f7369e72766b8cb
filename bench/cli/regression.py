"""Judge the runs of a nightly job, and show them: `meshbench gate`, `meshbench history`, `meshbench export`."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bench.cli.options import GivenPath
from bench.errors import InputError, InvalidMeasurementError
from bench.system.output import format_command
from bench.units import parse_duration

if TYPE_CHECKING:
    from bench.analysis.history import History

_PUSHGATEWAY: Final = "MESHBENCH_PUSHGATEWAY"  # has the URL where a password is to be in no list of processes

history_option = click.option(
    "--history",
    "path",
    type=GivenPath(),
    required=True,
    metavar="FILE",
    help="History to judge by; the run is added.",
)
junit_option = click.option("--junit", type=GivenPath(), metavar="FILE", help="Write a test case per contrast.")
summary_option = click.option("--summary", type=GivenPath(), metavar="FILE", help="Append the Markdown to this file.")


@click.command()
@click.argument("folder", metavar="RUN", type=GivenPath())
@history_option
@click.option("--accept", "accepted", metavar="REASON", default="", help="Start a new baseline with this run.")
@junit_option
@summary_option
@click.option("--json", "as_json", is_flag=True, help="Print the decisions as JSON.")
def gate(*, folder: Path, path: Path, accepted: str, junit: Path | None, summary: Path | None, as_json: bool) -> None:
    """Compare a nightly run with the nights before it. Exit 6 when two in a row were slower than chance allows."""
    from bench.analysis.regression import gate as judge
    from bench.report.gate import append_markdown, format_markdown, make_error, write_junit
    from bench.results.store import read_run

    stored = read_run(folder)
    found, known = judge(stored, path, accepted=accepted)
    for problem in (*stored.problems, *known.problems):
        click.echo(f"warning: {problem}", err=True)
    if junit is not None:
        write_junit(found, junit)
    if summary is not None:
        append_markdown(found, summary)
    click.echo(found.model_dump_json(indent=2) if as_json else format_markdown(found))
    if error := make_error(found):
        raise error


@click.command()
@click.argument("path", metavar="FILE", type=GivenPath())
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="",
    metavar="[PAGE]",
    help="Write a page in place of the text; default: FILE's name with .html.",
)
@click.option("--max-age", metavar="36h", help="Exit 5 when the last valid night of a scenario began longer ago.")
def history(*, path: Path, page: str | None, max_age: str | None) -> None:
    """Show a history night by night, with the decisions of `gate`."""
    from bench.analysis.history import is_recent
    from bench.report.gate import format_history
    from bench.report.history_page import format_last_success, write_history_page

    allowed_s = _read_age(max_age)
    known, now = _read_reported(path), datetime.now(UTC)
    if page is None:
        click.echo(format_history(known))
    else:
        target = Path(page) if page else path.with_suffix(".html")
        write_history_page(known, target, now=now)
        click.echo(str(target))
    last = {name: f"{name}: {format_last_success(own, now)}" for name, own in known.by_scenario().items()}
    click.echo("\n".join(last.values()), err=True)
    if allowed_s is not None:
        late = [last[name] for name, own in known.by_scenario().items() if not is_recent(own, now, allowed_s)]
        if late or not last:
            missing = "\n".join(late) or f"{path}: has no night."
            raise InvalidMeasurementError(f"{missing}\nallowed are {max_age}; hint: see why the job did not run")


@click.command()
@click.argument("path", metavar="FILE", type=GivenPath())
@click.option(
    "--openmetrics",
    "target",
    is_flag=False,
    flag_value="-",
    metavar="[TARGET]",
    help="Write the newest night's figures into this file; default: standard output.",
)
@click.option(
    "--pushgateway",
    "url",
    metavar="URL",
    help=f"Push them to a Prometheus pushgateway; default without --openmetrics: {_PUSHGATEWAY}.",
)
@click.option("--every-night", is_flag=True, help="Write all nights with their times, for `promtool` to import.")
def export(*, path: Path, target: str | None, url: str | None, every_night: bool) -> None:
    """Export a history as metrics for Prometheus: ratio, limits, outcome, and when the last night was valid."""
    from bench.report.openmetrics import format_openmetrics, push
    from bench.results.store import write_text

    if target is None and url is None and not (url := os.environ.get(_PUSHGATEWAY)):
        raise InputError(
            f"nothing to write to; hint: give --openmetrics [TARGET], --pushgateway URL (or {_PUSHGATEWAY}), or both"
        )
    if url is not None and every_night:
        raise InputError("--every-night: a pushgateway takes no times; hint: write them with --openmetrics TARGET")
    known = _read_reported(path)
    if not known.lines:
        raise InputError(
            f"{path}: has no night; hint: to add one: meshbench gate RUN {format_command('--history', path)}"
        )
    if target == "-":
        click.echo(format_openmetrics(known, every_night=every_night), nl=False)
    elif target is not None:
        write_text(Path(target), format_openmetrics(known, every_night=every_night))
    if url is not None:
        push(known, url)


def _read_reported(path: Path) -> "History":
    """Read a history, and report the lines that cannot be read."""
    from bench.analysis.history import read_history

    known = read_history(path)
    for problem in known.problems:
        click.echo(f"warning: {problem}", err=True)
    return known


def _read_age(text: str | None) -> float | None:
    """Read a duration. Raises InputError."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise InputError(f"--max-age: {error}") from error
