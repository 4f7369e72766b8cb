"""Examine this host, or a cluster: `meshbench doctor`."""

from pathlib import Path
from typing import Any

import click

from bench.cli.options import cluster_options, looked_at, output_option, read_scenario, taken
from bench.errors import RefusedError

DOCTORS_SCENARIO = "istio-policies"


@click.command()
@output_option
@click.option("--users", type=click.IntRange(1), default=20, show_default=True, help="Users of the run to come.")
@click.option("--scenario", "name", metavar="NAME|FILE", help="With --context: the scenario of the run to come.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def doctor(*, output: Path, users: int, name: str | None, as_json: bool, **flags: Any) -> None:
    """Print what keeps a run from starting here, or on a cluster, and the command that fixes it."""
    from bench.check_result import as_text, findings_json
    from bench.run.doctor import examine, examine_client

    cluster = taken(flags)
    if cluster.context is None:
        findings = examine(output, users=users)
    else:
        scenario = read_scenario(name or DOCTORS_SCENARIO, {})
        with looked_at(cluster, scenario, name or DOCTORS_SCENARIO) as place:
            findings = (*examine_client(output), *place.findings)
    click.echo(findings_json(findings) if as_json else as_text(findings))
    if any(finding.status == "error" for finding in findings):
        raise RefusedError("a run would not start here; the lines above say what to do")
