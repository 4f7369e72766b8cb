"""Measure one night: clean up, run, clean up, judge, keep the newest runs. Each step is a command of its own."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from bench.cli.cleanup import cleanup
from bench.cli.failures import run_command
from bench.cli.options import Duration, GivenPath, cluster_options, output_option, scenario_options
from bench.cli.regression import gate, history, history_option, junit_option, summary_option
from bench.cli.run import run
from bench.errors import InputError, StoreError
from bench.units import format_span


@click.command()
@scenario_options
@output_option
@cluster_options
@click.option("--timeout", type=Duration(), metavar="75min", help="Time limit of the run, without the cleanups.")
@history_option
@click.option(
    "--pages",
    type=GivenPath(),
    metavar="FOLDER",
    help="Write the history as a page, and a copy of each kept report.",
)
@summary_option
@junit_option
@click.option(
    "--keep-runs", type=click.IntRange(1), metavar="N", help="Remove all but the N newest runs below --output."
)
def nightly(
    *,
    output: Path,
    path: Path,
    pages: Path | None,
    summary: Path | None,
    junit: Path | None,
    keep_runs: int | None,
    name: str | None,
    timeout: float | None,
    **options: Any,
) -> None:
    """Measure one night: remove what a killed night left, run, clean up, judge by the history, remove old runs.

    The exit code is that of the first step that failed; an invalid or failed run is judged and recorded all the same.
    """
    from bench.report.published import publish_reports
    from bench.run.retention import list_runs, remove_old_runs

    if name is None:
        raise InputError("a night needs --scenario NAME")
    where = {"output": output, "context": options["context"]}
    _make_folder(output)
    before, took = list_runs(output), _Stopwatch()
    if code := _attempt(cleanup, where):  # such as a night that still runs: nothing is measured beside it
        _exit(code)
    took.note("cleanup")
    codes = [_attempt(run, {**options, "name": name, "output": output, "timeout": timeout})]
    took.note("run")
    codes.append(_attempt(cleanup, where))
    took.note("cleanup")
    new = sorted(list_runs(output) - before)
    codes += [_attempt(gate, {"folder": one, "path": path, "junit": junit, "summary": summary}) for one in new]
    took.note("gate")
    for removed in remove_old_runs(output, keep=keep_runs) if keep_runs else ():
        click.echo(f"removed {removed}")
    if pages is not None:
        publish_reports(sorted(list_runs(output)), pages)
        if path.is_file():  # else no night has got as far as the gate
            codes.append(_attempt(history, {"path": path, "page": str(pages / "index.html")}))
        took.note("pages")
    click.echo(f"the night took {', '.join(took.parts)}")
    _exit(next(filter(None, codes), 0))


class _Stopwatch:
    """Notes how long each step took since the one before, as texts."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._began = time.monotonic()

    def note(self, step: str) -> None:
        """Add a step that ends now."""
        now = time.monotonic()
        self.parts.append(f"{format_span(round(now - self._began, 1))} for {step}")
        self._began = now


def _make_folder(output: Path) -> None:
    """Make the folder of the runs for the first night."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--output {output}: cannot be made: {error.strerror or error}") from error


def _attempt(command: click.Command, arguments: Mapping[str, Any]) -> int:
    """Invoke another command, and return its exit code: whatever ends it, the steps after it are made."""
    return run_command(lambda: click.get_current_context().invoke(command, **arguments))


def _exit(code: int) -> NoReturn:
    raise SystemExit(code)
