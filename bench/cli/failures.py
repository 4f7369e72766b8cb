"""Turn every failure of a command into one message and its exit code."""

import signal
import traceback
from collections.abc import Callable

import click

from bench.errors import (
    InputError,
    Interrupted,
    MeshbenchError,
    exit_code_of,
    format_error,
    format_system_error,
    is_of_system,
)


def run_command(command: Callable[[], object]) -> int:
    """Run a command, print its failure as one message, and return its exit code."""
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except MeshbenchError as error:
        return _report(format_error(error), error)
    except click.ClickException as error:
        error.show()
        return exit_code_of(InputError if isinstance(error, click.UsageError) else error)
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted", Interrupted(signal.SIGINT))
    except Exception as error:  # noqa: BLE001  # a bug, or a failure of the system that no module expects
        if is_of_system(error):
            return _report(format_system_error(error), error)
        report = "This is a bug in meshbench. Please report it with the lines above."
        return _report(f"{traceback.format_exc()}\n{report}", error)
    return 0


def _report(message: str, error: BaseException) -> int:
    click.echo(f"meshbench: {message}", err=True)
    return exit_code_of(error)
