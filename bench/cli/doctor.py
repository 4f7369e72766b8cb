"""Check this machine or a cluster before a run: `meshbench doctor`."""

from pathlib import Path
from typing import Any

import click

from bench.cli.options import (
    cluster_options,
    draw_plan,
    inspect_cluster,
    output_option,
    pop_cluster_flags,
    read_scenario,
)
from bench.errors import RefusedError


@click.command()
@output_option
@click.option("--users", type=click.IntRange(1), help="Users of the run; default: the scenario's.")
@click.option("--scenario", "name", metavar="NAME|FILE", help="The scenario of the run; default: a shipped one.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def doctor(*, output: Path, users: int | None, name: str | None, as_json: bool, **flags: Any) -> None:
    """Check whether a run can start on this machine or on a cluster, and print a hint for each problem."""
    from bench.check_result import format_results, format_results_json
    from bench.meshes import MESHES
    from bench.run.doctor import check_client, check_host
    from bench.run.space import forecast_run
    from bench.scenario.plan import find_most_users

    cluster = pop_cluster_flags(flags)
    resolved = read_scenario(name or f"{next(iter(MESHES))}-policies", {"users": users})
    expected = forecast_run(resolved, draw_plan(resolved.scenario))
    if not cluster:
        results = check_host(output, expected, users=find_most_users(resolved.scenario))
    else:
        with inspect_cluster(cluster, resolved) as backend:
            results = (*check_client(output, expected), *backend.findings)
    click.echo(format_results_json(results) if as_json else format_results(results))
    if any(result.status == "error" for result in results):
        raise RefusedError("a run cannot start here; fix the errors above first")
