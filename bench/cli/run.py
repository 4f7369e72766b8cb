"""Run a scenario and report the results: `meshbench run`."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    SCENARIO_FLAGS,
    Duration,
    GivenPath,
    check_load,
    choose_backend,
    cluster_options,
    draw_plan,
    output_option,
    pop_cluster_flags,
    read_scenario,
    scenario_options,
)
from bench.cli.reports import REPORT_FORMATS, print_report
from bench.errors import InputError, Interrupted, InvalidMeasurementError, exit_code_of
from bench.system.output import format_command

if TYPE_CHECKING:
    from bench.meshes.resolved import ResolvedScenario
    from bench.results.records import RunRecord
    from bench.results.store import RunFolder
    from bench.scenario.plan import Plan
    from bench.targets import Backend


@click.command()
@scenario_options
@output_option
@cluster_options
@click.option("--resume", type=GivenPath(), metavar="RUN", help="Continue an interrupted run.")
@click.option("--timeout", type=Duration(), metavar="2h", help="Time limit of the whole run.")
@click.option("--require-conclusive", is_flag=True, help="Exit 5 when a verdict on P95 is inconclusive.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to standard output.")
def run(
    *,
    name: str | None,
    output: Path,
    resume: Path | None,
    timeout: float | None,
    require_conclusive: bool,
    as_json: bool,
    **changes: Any,
) -> None:
    """Run a scenario on this machine, or on a cluster, and write its report."""
    from bench.cli.progress import make_progress_display
    from bench.meshes.resolved import resolve_stored
    from bench.run import session

    if (name is None) == (resume is None):
        raise InputError("give either --scenario NAME or --resume RUN")
    flags = pop_cluster_flags(changes)
    record: RunRecord | None = None
    if resume is not None:
        _refuse_changes(changes)
        on_cluster = "context" in flags
        record, output = session.read_resumable_run(resume, on_cluster=on_cluster), resume.parent
        resolved = resolve_stored(record.scenario, resume)
    else:
        resolved = read_scenario(str(name), changes)
    check_load(resolved, name, given=flags)
    with choose_backend(flags, resolved, resumed=resume) as backend:
        resolved = backend.settle(resolved)
        plan = draw_plan(resolved.scenario) if record is None else record.plan
        _check_backend(backend, resolved, plan, output)
        if resume is not None:
            folder = session.resume(resume, backend, resolved, progress=make_progress_display, timeout_s=timeout)
        else:
            folder = session.run(
                session.RunRequest(
                    backend=backend,
                    resolved=resolved,
                    source=str(name),
                    plan=plan,
                    output=output,
                    progress=make_progress_display,
                    timeout_s=timeout,
                )
            )
    _conclude(folder, require_conclusive=require_conclusive, as_json=as_json)


def _refuse_changes(changes: dict[str, Any]) -> None:
    given = [SCENARIO_FLAGS[name].text for name, value in changes.items() if value]
    if given:
        raise InputError(f"{', '.join(given)}: cannot be changed with --resume; leave it out, or start a new run")


def _check_backend(backend: "Backend", resolved: "ResolvedScenario", plan: "Plan", output: Path) -> None:
    """Raise the first error of the checks, and print their warnings, before anything is created."""
    from bench.run.doctor import check_client, check_host
    from bench.run.space import forecast_run, raise_first_error
    from bench.scenario.plan import find_most_users

    expected = forecast_run(resolved, plan)
    if backend.cluster is None:
        here = check_host(output, expected, users=find_most_users(resolved.scenario))
    else:
        here = check_client(output, expected)
    for result in (*here, *backend.findings):
        raise_first_error((result,))
        if result.status == "warning":
            click.echo(f"warning: {result.name}: {result.detail}; hint: {result.hint}", err=True)


def _conclude(folder: "RunFolder", *, require_conclusive: bool, as_json: bool) -> None:
    """Print the report of a finished run, and exit with the code of its validity."""
    from bench.analysis.validity import format_issue
    from bench.report.conclusions import select_contrasts

    for issue in folder.record.issues:
        click.echo(f"meshbench: {format_issue(issue)}", err=True)
    try:
        summary = print_report(folder.path, formats=REPORT_FORMATS, strict=False, as_json=as_json)
    except KeyboardInterrupt:
        error = Interrupted(signal.SIGINT)
        error.add_note(
            f"all results are kept; to write the report: {format_command('meshbench', 'report', folder.path)}"
        )
        raise error from None
    inconclusive = any(contrast.verdict == "inconclusive" for contrast in select_contrasts(summary))
    missed = InvalidMeasurementError if require_conclusive and inconclusive else None
    if exit_code := folder.record.exit_code or exit_code_of(missed):
        sys.exit(exit_code)
