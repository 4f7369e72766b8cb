"""Start the command line: add the commands, and exit with the code of the one that ran.

Heavy imports are inside the commands, so that `--help` is fast.
"""

import atexit
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import __version__
from bench.cli.cleanup import cleanup
from bench.cli.doctor import doctor
from bench.cli.failures import run_command
from bench.cli.init import init
from bench.cli.nightly import nightly
from bench.cli.plan import plan
from bench.cli.regression import export, gate, history
from bench.cli.reports import compare, report
from bench.cli.run import run
from bench.cli.scenarios import scenarios
from bench.cli.validate import validate
from bench.errors import RefusedError, StoreError, exit_code_of
from bench.scenario.renames import rename_options
from bench.system.output import find_lost_output, protect_streams

if TYPE_CHECKING:
    from bench.system.timing import Timing


class Commands(click.Group):
    """A group of commands that accepts old option names, and needs a working folder that exists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rename_options(args))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            Path.cwd()
        except OSError as error:
            raise RefusedError(
                f"the working folder: {error.strerror}; hint: change to another one, with 'cd'"
            ) from None
        return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="meshbench")
def cli() -> None:
    """Measure what a service mesh and its policies cost an application.

    meshbench deploys an application without a mesh, with a mesh, and with a mesh and policies. It loads each of them,
    and reports the differences in P95 latency and throughput with their uncertainty.
    """


for command in (run, plan, scenarios, init, validate, report, compare, doctor, cleanup, gate, history, export, nightly):
    cli.add_command(command)


def main(argv: list[str] | None = None, *, timing: "Timing | None" = None) -> None:
    """Run the command line: print each expected failure as one message, redact secrets, and exit with its code, also
    without a reader of the output. `timing` replaces the default timeouts."""
    protect_streams()
    atexit.register(gc.freeze)  # else the interpreter looks through all objects before it ends, for seconds
    exit_code = run_command(lambda: cli.main(argv, prog_name="meshbench", standalone_mode=False, obj=timing))
    if (lost := find_lost_output()) and not exit_code:
        exit_code = exit_code_of(StoreError)
        click.echo(f"meshbench: standard output cannot be written: {lost.strerror}", err=True)
    if exit_code:
        sys.exit(exit_code)


if __name__ == "__main__":
    main()
