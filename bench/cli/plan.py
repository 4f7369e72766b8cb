"""Print what a run would do: `meshbench plan`."""

from typing import Any

import click

from bench.cli.options import cluster_options, draw_plan, foreseen, read_scenario, scenario_options, taken
from bench.errors import InputError


@click.command()
@scenario_options
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(*, name: str | None, as_json: bool, **changes: Any) -> None:
    """Print what a run would do, on this machine or on a cluster, without doing it."""
    from bench.cli.plan_text import outline, outline_json

    if name is None:
        raise InputError("give --scenario NAME")
    flags = taken(changes)
    scenario = read_scenario(name, changes)
    planned = draw_plan(scenario)
    elsewhere = foreseen(flags, scenario, name, planned)
    click.echo((outline_json if as_json else outline)(scenario, planned, elsewhere))
