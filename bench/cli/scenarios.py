"""List and show scenarios: `meshbench scenarios`."""

import click


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
