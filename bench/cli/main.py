"""Start the command line: add the commands, and turn every expected failure into one message and its exit code.

Heavy imports are inside the commands, so that `--help` is fast.
"""

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench import __version__
from bench.cli.cleanup import cleanup
from bench.cli.doctor import doctor
from bench.cli.init import init
from bench.cli.plan import plan
from bench.cli.regression import export, gate, history
from bench.cli.reports import compare, report
from bench.cli.run import run
from bench.cli.scenarios import scenarios
from bench.cli.validate import validate
from bench.errors import InputError, Interrupted, MeshbenchError, exit_code_of, format_error
from bench.scenario.renames import rename_options
from bench.system.redaction import redact_streams

if TYPE_CHECKING:
    from bench.system.timing import Timing


class Commands(click.Group):
    """A group of commands that accepts old option names, and exits as for SIGHUP when standard output is closed, where
    click would exit with 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rename_options(args))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _exit_quietly(exit_code_of(Interrupted(signal.SIGHUP)))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="meshbench")
def cli() -> None:
    """Measure what a service mesh and its policies cost an application.

    meshbench deploys an application without a mesh, with a mesh, and with a mesh and policies. It loads each of them,
    and reports the differences in P95 latency and throughput with their uncertainty.
    """


for command in (run, plan, scenarios, init, validate, report, compare, doctor, cleanup, gate, history, export):
    cli.add_command(command)


def main(argv: list[str] | None = None, *, timing: "Timing | None" = None) -> None:
    """Run the command line: print each expected failure as one message, redact secrets, and exit with its code.
    `timing` replaces the default timeouts."""
    redact_streams()
    try:
        cli.main(argv, prog_name="meshbench", standalone_mode=False, obj=timing)
    except MeshbenchError as error:
        _exit(format_error(error), exit_code_of(error))
    except click.ClickException as error:
        error.show()
        sys.exit(exit_code_of(InputError if isinstance(error, click.UsageError) else error))
    except (click.Abort, KeyboardInterrupt):
        _exit("interrupted; nothing was left behind", exit_code_of(Interrupted(signal.SIGINT)))
    except Exception as error:  # noqa: BLE001  # a bug: expected failures are handled above
        report = "This is a bug in meshbench. Please report it with the lines above."
        _exit(f"{traceback.format_exc()}\n{report}", exit_code_of(error))


def _exit(message: str, exit_code: int) -> NoReturn:
    try:
        click.echo(f"meshbench: {message}", err=True)
    except OSError:  # a closed pipe or terminal
        _exit_quietly(exit_code)
    sys.exit(exit_code)


def _exit_quietly(exit_code: int) -> NoReturn:
    """Exit without output, since it is closed, and without the interpreter's own flush."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
