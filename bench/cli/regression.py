"""The commands of a nightly job."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--history", "path", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Grows by it.")
@click.option("--accept", "accepted", metavar="REASON", default="", help="Begin a new baseline with this run.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a test case per contrast.")
@click.option("--json", "as_json", is_flag=True, help="Print the decisions as JSON.")
def gate(*, folder: Path, path: Path, accepted: str, junit: Path | None, as_json: bool) -> None:
    """Judge a nightly run by the nights before it; exit 6 when two running were slower than chance allows."""
    from bench.analysis.regression import as_markdown, failure, write_junit
    from bench.analysis.regression import gate as judge
    from bench.results.store import open_run

    stored = open_run(folder)
    found, known = judge(stored, path, accepted=accepted)
    for problem in (*stored.problems, *known.problems):
        click.echo(f"warning: {problem}", err=True)
    if junit is not None:
        write_junit(found, junit)
    click.echo(found.model_dump_json(indent=2) if as_json else as_markdown(found))
    if error := failure(found):
        raise error


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def history(path: Path) -> None:
    """Show a history night by night, as `gate` judges it."""
    from bench.analysis.history import read_history
    from bench.analysis.regression import as_text

    known = read_history(path)
    for problem in known.problems:
        click.echo(f"warning: {problem}", err=True)
    click.echo(as_text(known))
