"""Remove the leftover objects of killed runs: `meshbench cleanup`."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from bench.cli.options import GivenPath, context_option, find_timing, output_option
from bench.errors import InputError, Interrupted, LeftoversError
from bench.system.output import format_command

if TYPE_CHECKING:
    from bench.run.cleanup import NamedRun


@click.command()
@output_option
@click.option("--run", "run_", type=GivenPath(), metavar="RUN", help="Clean up only this run.")
@context_option
@click.option("--run-id", metavar="ID", help="With --context: clean up only the run with this id.")
@click.option("--no-resume", is_flag=True, help="Also remove the private files that --resume needs.")
@click.option("--list", "only_list", is_flag=True, help="List leftover objects and private files; remove nothing.")
def cleanup(
    *, output: Path, run_: Path | None, context: str | None, run_id: str | None, no_resume: bool, only_list: bool
) -> None:
    """Remove the leftover objects of killed runs, on this machine or on a cluster, and this machine's private files
    that no run needs. It is safe to repeat."""
    again = (
        *(("--context", context) if context is not None else ()),
        *(("--run", run_) if run_ is not None else ("--output", output)),
        *(("--run-id", run_id) if run_id is not None else ()),
        *(("--no-resume",) if no_resume else ()),
    )
    with _hint_to_repeat(*again):
        _clean(output, run_, context=context, run_id=run_id, no_resume=no_resume, only_list=only_list)


def _clean(
    output: Path, run_: Path | None, *, context: str | None, run_id: str | None, no_resume: bool, only_list: bool
) -> None:
    from bench.run.cleanup import close_cleaned_runs, find_run

    named = None if run_ is None else find_run(run_)
    if context is None:
        if run_id is not None:
            raise InputError(
                "--run-id needs the cluster of the run; hint: add --context NAME, or give --run RUN instead"
            )
        is_given = click.get_current_context().get_parameter_source("output") is not ParameterSource.DEFAULT
        if is_given and not os.path.exists(output):  # noqa: PTH110  # Path.exists raises for a name that is too long
            raise InputError(f"--output {output}: no such folder")
        try:
            _clean_machine(output, named, only_list=only_list)
        finally:
            _clean_private(output, named, no_resume=no_resume, only_list=only_list)
        return
    from bench.targets.cluster.teardown.cleanup import cluster_cleanup

    wanted = _choose_run_id(run_id, named)
    _clean_private(output, named, no_resume=no_resume, only_list=only_list)
    for line in cluster_cleanup(context, run_id=wanted, only_list=only_list, timing=find_timing()):
        click.echo(line)
    if not only_list:
        close_cleaned_runs(named.path.parent if named else output, context=context, run_id=wanted)


def _choose_run_id(run_id: str | None, named: "NamedRun | None") -> str | None:
    """Return the id of the run to clean up on a cluster; None for all runs."""
    from bench.results.store import is_run_id

    if run_id is None:
        return named.run_id if named else None
    if not is_run_id(run_id):
        raise InputError(f"--run-id {run_id!r}: not the id of a run; an example: 20261123T031500Z-smoke-7f3a")
    if named is not None and named.run_id != run_id:
        raise InputError(f"--run-id {run_id} and --run {named.path} are different runs; give one of them")
    return run_id


def _clean_machine(output: Path, named: "NamedRun | None", *, only_list: bool) -> None:
    from bench.run.cleanup import clean_run, find_runs_below, find_unfinished_runs

    runs, damaged = find_runs_below(output) if named is None else ((named,), ())
    found, problems = find_unfinished_runs(runs), [*damaged]
    for leftovers in found:
        click.echo(leftovers.summary)
        if only_list:
            continue
        try:
            processes, folders = clean_run(leftovers)
        except LeftoversError as left:  # the other runs are still cleaned up
            problems.append(str(left))
        else:
            if processes or folders or not leftovers.contexts:
                click.echo(f"  cleaned up: {processes} processes ended, {folders} folders removed")
    if not found and not damaged:
        click.echo(f"no leftover objects of {f'{named.run_id} ({named.path})' if named else f'runs below {output}'}")
    commands = [] if only_list else [command for leftovers in found for command in leftovers.commands]
    if commands:
        problems += ["leftover objects on a cluster need another command:", *commands]
    if problems:
        raise LeftoversError("\n".join(problems))


def _clean_private(output: Path, named: "NamedRun | None", *, no_resume: bool, only_list: bool) -> None:
    """Remove, or only list, the private copies on this machine."""
    from bench.run.cleanup import find_runs_below
    from bench.run.private_copies import find_private_copies, remove_copies

    below = named.path.parent if named else output
    runs = (named,) if named else find_runs_below(below)[0]
    copies = find_private_copies(below, runs, only=named, ends_resume=no_resume)
    for one in copies:
        if one.kept or only_list:
            click.echo(one.summary)
    if not only_list:
        for one in remove_copies(copies):
            click.echo(f"{one.summary}: removed")


@contextmanager
def _hint_to_repeat(*options: object) -> Iterator[None]:
    """Turn Ctrl-C during a cleanup into Interrupted, with the command that continues it."""
    try:
        yield
    except KeyboardInterrupt:
        command, error = format_command("meshbench", "cleanup", *options), Interrupted(signal.SIGINT)
        error.add_note(f"leftover objects may remain; to continue: {command}")
        raise error from None
