"""Print what a run would do: `meshbench plan`."""

from pathlib import Path
from typing import Any

import click

from bench.cli.options import (
    cluster_options,
    draw_plan,
    output_option,
    plan_on_cluster,
    pop_cluster_flags,
    read_scenario,
    scenario_options,
    settle_on_cluster,
)
from bench.errors import InputError


@click.command()
@scenario_options
@output_option
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(*, name: str | None, output: Path, as_json: bool, **changes: Any) -> None:
    """Print what a run would do, on this machine or on a cluster, without doing it. Exit 3 for a run whose records do
    not fit."""
    from bench.cli.plan_text import format_plan, format_plan_json
    from bench.run.space import CLIENT_BYTES, START_BYTES, check_space, forecast_run, raise_first_error

    if name is None:
        raise InputError("give --scenario NAME")
    flags = pop_cluster_flags(changes)
    resolved = read_scenario(name, changes)
    resolved = settle_on_cluster(flags, resolved)
    planned = draw_plan(resolved.scenario)
    elsewhere = plan_on_cluster(flags, resolved, planned)
    rewrites = resolved.list_rewrites(resolved.name_configurations(existing_mesh="existing_mesh" in flags, block=1))
    click.echo((format_plan_json if as_json else format_plan)(resolved, planned, elsewhere, rewrites))
    base_bytes = CLIENT_BYTES if elsewhere else START_BYTES
    raise_first_error(check_space(output, forecast_run(resolved, planned), base_bytes=base_bytes))
