"""List, show and validate scenarios: `meshbench scenarios`, `meshbench validate`."""

from pathlib import Path

import click

from bench.errors import InputError


@click.group(invoke_without_command=True)
@click.pass_context
def scenarios(context: click.Context) -> None:
    """List the shipped scenarios; `scenarios show NAME` prints one."""
    from bench.scenario.loader import list_shipped_scenarios, load_scenario
    from bench.scenario.overrides import Overrides

    if context.invoked_subcommand is None:
        for name in list_shipped_scenarios():
            click.echo(f"{name:<20} {load_scenario(name, Overrides()).title}")


@scenarios.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a scenario file."""
    from bench.scenario.loader import find_scenario

    click.echo(find_scenario(name).read_text("utf-8"), nl=False)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check scenario files and their manifests; print every error as file:line: path: message.

    For a valid file, list what single configurations replace of the application, with file and line.
    """
    from bench.cli.plan_text import format_own_parts
    from bench.meshes.resolved import find_problems, resolve_file

    problems = [problem for file in files for problem in find_problems(file)]
    if problems:
        raise InputError(problems)
    for file in files:
        click.echo("\n".join([f"{file}: valid", *format_own_parts(resolve_file(file))]))
