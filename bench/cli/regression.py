"""Judge the runs of a nightly job: `meshbench gate`, `meshbench history`."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--history",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="History to judge by; the run is added.",
)
@click.option("--accept", "accepted", metavar="REASON", default="", help="Start a new baseline with this run.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a test case per contrast.")
@click.option("--json", "as_json", is_flag=True, help="Print the decisions as JSON.")
def gate(*, folder: Path, path: Path, accepted: str, junit: Path | None, as_json: bool) -> None:
    """Compare a nightly run with the nights before it. Exit 6 when two in a row were slower than chance allows."""
    from bench.analysis.regression import gate as judge
    from bench.report.gate import format_markdown, make_error, write_junit
    from bench.results.store import read_run

    stored = read_run(folder)
    found, known = judge(stored, path, accepted=accepted)
    for problem in (*stored.problems, *known.problems):
        click.echo(f"warning: {problem}", err=True)
    if junit is not None:
        write_junit(found, junit)
    click.echo(found.model_dump_json(indent=2) if as_json else format_markdown(found))
    if error := make_error(found):
        raise error


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def history(path: Path) -> None:
    """Print a history night by night, with the decisions of `gate`."""
    from bench.analysis.history import read_history
    from bench.report.gate import format_history

    known = read_history(path)
    for problem in known.problems:
        click.echo(f"warning: {problem}", err=True)
    click.echo(format_history(known))
