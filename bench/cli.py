"""The command line: thin commands. Heavy imports stand inside them, so that `--help` stays quick."""

import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from bench import __version__
from bench.cli_cluster import chosen_place, chosen_timing, cluster_options, context_option, foreseen, looked_at, taken
from bench.cli_gate import gate, history
from bench.errors import InputError, Interrupted, LeftoversError, MeshbenchError, RefusedError, told_in_full
from bench.redaction import redact_streams
from bench.renames import rename_options
from bench.units import parse_duration

if TYPE_CHECKING:
    from bench.cleanup import NamedRun
    from bench.plan import Plan
    from bench.records import SummaryRecord
    from bench.scenario import Scenario
    from bench.store import RunFolder
    from bench.targets import Place
    from bench.targets.kubernetes.waits import Timing

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_OUTPUT = "results"
DOCTORS_SCENARIO = "istio-policies"
REPORT_FORMATS = ("html", "md", "csv", "latex", "png", "svg")


class Duration(click.ParamType[float]):
    """A duration with its unit: `120s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def scenario_options(command: F) -> F:
    """The options that choose a scenario and change it."""
    options = [
        click.option("--scenario", "name", metavar="NAME|FILE", help="A shipped scenario, or a file."),
        click.option("--quick", is_flag=True, help="Short windows, for trying out; labelled in the report."),
        click.option("--users", metavar="N", help="How many users there are."),
        click.option("--repeats", metavar="N", help="How often each configuration is deployed and measured."),
        click.option("--duration", metavar="120s", help="Length of each window."),
        click.option("--warmup", metavar="30s", help="Load before each window, left out of the numbers."),
        click.option("--rate", metavar="50/s", help="Open loop: arrivals that do not wait for answers."),
        click.option("--seed", metavar="N", help="Seed of the order and of the users' first waits."),
        click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Any key: load.users=50. Repeatable."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Folder(click.Path):
    """The path of a folder. An empty one, as of a variable that is not set, would be the working folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("is empty; is the variable set that should name it?", param, ctx)
        return super().convert(value, param, ctx)


output_option = click.option(
    "--output", type=Folder(), default=DEFAULT_OUTPUT, show_default=True, help="Folder for runs."
)


class Commands(click.Group):
    """Commands whose options may have old names, and whose reader may go away: click itself would make exit code 1 of
    that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rename_options(args))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _end_quietly(128 + signal.SIGHUP)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="meshbench")
def cli() -> None:
    """What does this service mesh, with these policies, cost this application?

    meshbench deploys Bookinfo without a mesh, with a mesh, and with a mesh and policies, loads each in turn, and
    reports every difference in P95 latency and throughput with its uncertainty.
    """


@cli.command()
@scenario_options
@output_option
@cluster_options
@click.option("--resume", type=Folder(), metavar="RUN", help="Go on with a run that was cut short.")
@click.option("--timeout", type=Duration(), metavar="2h", help="End the whole run after this time.")
@click.option("--require-conclusive", is_flag=True, help="Exit 5 when a verdict about P95 is inconclusive.")
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
    from bench import session

    if (name is None) == (resume is None):
        raise InputError("give either --scenario NAME or --resume RUN")
    flags = taken(changes)
    if resume is not None:
        _refuse_changes(changes)
        on_cluster = flags.context is not None
        scenario, output = session.resumable(resume, on_cluster=on_cluster).scenario, resume.parent
    else:
        scenario = _scenario(str(name), changes)
    with chosen_place(flags, scenario, str(name), resumed=resume) as place:
        _refuse_unless_ready(place, scenario, output)
        if resume is not None:
            folder = session.resume(resume, place, timeout_s=timeout)
        else:
            folder = session.run(
                session.Order(
                    place=place,
                    scenario=scenario,
                    source=str(name),
                    plan=_plan(scenario),
                    output=output,
                    timeout_s=timeout,
                )
            )
    _conclude(folder, require_conclusive=require_conclusive, as_json=as_json)


@cli.command()
@scenario_options
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(*, name: str | None, as_json: bool, **changes: Any) -> None:
    """Show what a run would do, here or on a cluster, without doing anything."""
    from bench.outline import outline, outline_json

    if name is None:
        raise InputError("give --scenario NAME")
    flags = taken(changes)
    scenario = _scenario(name, changes)
    planned = _plan(scenario)
    elsewhere = foreseen(flags, scenario, name, planned)
    click.echo((outline_json if as_json else outline)(scenario, planned, elsewhere))


@cli.group(invoke_without_command=True)
@click.pass_context
def scenarios(context: click.Context) -> None:
    """List the shipped scenarios; `scenarios show NAME` prints one."""
    from bench.scenario import Overrides, load_scenario, shipped_scenarios

    if context.invoked_subcommand is None:
        for name in shipped_scenarios():
            click.echo(f"{name:<20} {load_scenario(name, Overrides()).title}")


@scenarios.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a scenario file."""
    from bench.scenario import scenario_path

    click.echo(scenario_path(name).read_text("utf-8"), nl=False)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check scenario files and their manifests; print every mistake as file:line: path: message."""
    from bench.preflight import mistakes

    problems = [problem for file in files for problem in mistakes(file)]
    if problems:
        raise InputError(problems)
    for file in files:
        click.echo(f"{file}: good")


@cli.command()
@click.argument("folder", metavar="RUN", type=Folder())
@click.option("--format", "formats", metavar=",".join(REPORT_FORMATS), help="Which files to make; default: all.")
@click.option("--strict", is_flag=True, help="Exit 9 when a trial is damaged, instead of leaving it out.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json to standard output.")
def report(*, folder: Path, formats: str | None, strict: bool, as_json: bool) -> None:
    """Make a run's summary and report again, from its folder alone."""
    chosen = REPORT_FORMATS if formats is None else tuple(formats.split(","))
    unknown = [name for name in chosen if name not in REPORT_FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]}: not a format; choose from {', '.join(REPORT_FORMATS)}")
    _report(folder, formats=chosen, strict=strict, as_json=as_json)


@cli.command()
@click.argument("one", metavar="RUN", type=Folder())
@click.argument("other", metavar="RUN", type=Folder())
@click.option("--force", is_flag=True, help="Compare although the surroundings differ; the output says so.")
def compare(one: Path, other: Path, *, force: bool) -> None:
    """Compare two runs, configuration by configuration; refused when they were not measured alike."""
    from bench.compare import compare_runs
    from bench.store import open_run

    click.echo(compare_runs(open_run(one), open_run(other), force=force))


@cli.command()
@output_option
@click.option("--users", type=click.IntRange(1), default=20, show_default=True, help="Users of the run to come.")
@click.option("--scenario", "name", metavar="NAME|FILE", help="With --context: the scenario of the run to come.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def doctor(*, output: Path, users: int, name: str | None, as_json: bool, **flags: Any) -> None:
    """Print what keeps a run from starting here, or on a cluster, and the command that fixes it."""
    from bench.doctor import examine, examine_client
    from bench.findings import as_text, findings_json

    cluster = taken(flags)
    if cluster.context is None:
        findings = examine(output, users=users)
    else:
        scenario = _scenario(name or DOCTORS_SCENARIO, {})
        with looked_at(cluster, scenario, name or DOCTORS_SCENARIO) as place:
            findings = (*examine_client(output), *place.findings)
    click.echo(findings_json(findings) if as_json else as_text(findings))
    if any(finding.status == "error" for finding in findings):
        raise RefusedError("a run would not start here; the lines above say what to do")


@cli.command()
@output_option
@click.option("--run", "run_", type=Folder(), metavar="RUN", help="Only this run.")
@context_option
@click.option("--run-id", metavar="ID", help="With --context: only the run of this id.")
@click.option("--list", "only_list", is_flag=True, help="Only say what is there.")
def cleanup(*, output: Path, run_: Path | None, context: str | None, run_id: str | None, only_list: bool) -> None:
    """End and remove what a killed run left behind, here or on a cluster; safe to repeat."""
    from bench.cleanup import close_cleaned, named_run

    named = None if run_ is None else named_run(run_)
    if context is None:
        if run_id is not None:
            raise InputError("--run-id names a run on a cluster; say which with --context NAME, or give --run RUN")
        is_given = click.get_current_context().get_parameter_source("output") is not ParameterSource.DEFAULT
        if is_given and not os.path.exists(output):  # noqa: PTH110  # Path.exists raises for a name that is too long
            raise InputError(f"--output {output}: there is no such folder")
        _clean_machine(output, named, only_list=only_list)
        return
    from bench.targets.kubernetes.cleanup import cluster_cleanup

    wanted = _wanted_run(run_id, named)
    for line in cluster_cleanup(context, run_id=wanted, only_list=only_list, timing=chosen_timing()):
        click.echo(line)
    if not only_list:
        close_cleaned(named.path.parent if named else output, context=context, run_id=wanted)


cli.add_command(gate)
cli.add_command(history)


def _wanted_run(run_id: str | None, named: "NamedRun | None") -> str | None:
    """The id of the one run that is meant on a cluster; None for any."""
    from bench.store import is_run_id

    if run_id is None:
        return named.run_id if named else None
    if not is_run_id(run_id):
        raise InputError(f"--run-id {run_id!r} is no run's id; give one such as 20261123T031500Z-istio-policies-7f3a")
    if named is not None and named.run_id != run_id:
        raise InputError(f"--run-id {run_id} and --run {named.path} are two runs; give one of them")
    return run_id


def _clean_machine(output: Path, named: "NamedRun | None", *, only_list: bool) -> None:
    from bench.cleanup import clean, runs_below, unfinished_runs

    runs, damaged = runs_below(output) if named is None else ((named,), ())
    found, problems = unfinished_runs(runs), [*damaged]
    for leftovers in found:
        click.echo(leftovers.told)
        if only_list:
            continue
        try:
            with _cleanup_to_repeat(output, named):
                processes, folders = clean(leftovers)
        except LeftoversError as left:  # the other runs are cleaned all the same
            problems.append(str(left))
        else:
            if processes or folders or not leftovers.contexts:
                click.echo(f"  cleaned up: {processes} processes ended, {folders} folders removed")
    if not found and not damaged:
        click.echo(f"nothing is left of {f'{named.run_id} ({named.path})' if named else f'the runs below {output}'}")
    commands = [] if only_list else [command for leftovers in found for command in leftovers.commands]
    if commands:
        problems += ["what is on a cluster is removed by a command of its own:", *commands]
    if problems:
        raise LeftoversError("\n".join(problems))


@contextmanager
def _cleanup_to_repeat(output: Path, named: "NamedRun | None") -> Iterator[None]:
    """Report a cleanup that Ctrl-C ends with the command that goes on with it. Raises Interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        where = f"--run {shlex.quote(str(named.path))}" if named else f"--output {shlex.quote(str(output))}"
        error = Interrupted(signal.SIGINT)
        error.add_note(f"something may be left; to go on: meshbench cleanup {where}")
        raise error from None


def _scenario(name: str, changes: dict[str, Any]) -> "Scenario":
    from bench.preflight import checked_scenario
    from bench.scenario import Overrides

    return checked_scenario(name, Overrides(**changes))


def _refuse_changes(changes: dict[str, Any]) -> None:
    given = [f"--{name.removesuffix('s') if name == 'sets' else name}" for name, value in changes.items() if value]
    if given:
        raise InputError(f"{', '.join(given)}: a run is resumed as it was planned; leave it out, or start a new run")


def _plan(scenario: "Scenario") -> "Plan":
    from bench.plan import draw_seed, make_plan

    return make_plan(scenario, draw_seed() if scenario.seed is None else scenario.seed)


def _refuse_unless_ready(place: "Place", scenario: "Scenario", output: Path) -> None:
    """Looks at the place before anything is made there."""
    from bench.doctor import examine, examine_client
    from bench.plan import most_users

    here = examine(output, users=most_users(scenario)) if place.cluster is None else examine_client(output)
    for finding in (*here, *place.findings):
        if finding.status == "error":
            raise finding.error(f"{finding.name}: {finding.detail}; hint: {finding.hint}")
        if finding.status == "warning":
            click.echo(f"warning: {finding.name}: {finding.detail}; {finding.hint}", err=True)


def _conclude(folder: "RunFolder", *, require_conclusive: bool, as_json: bool) -> None:
    """The report of a finished run, and the exit code that its validity asks for."""
    if folder.record.reason:
        click.echo(f"meshbench: {folder.record.reason}", err=True)
    try:
        summary = _report(folder.path, formats=REPORT_FORMATS, strict=False, as_json=as_json)
    except KeyboardInterrupt:
        error = Interrupted(signal.SIGINT)
        error.add_note(f"everything that was measured is kept; to make its report: meshbench report {folder.path}")
        raise error from None
    inconclusive = [c for c in summary.contrasts if c.standing != "exploratory" and c.verdict == "inconclusive"]
    exit_code = folder.record.exit_code or (5 if require_conclusive and inconclusive else 0)
    if exit_code:
        sys.exit(exit_code)


def _report(folder: Path, *, formats: tuple[str, ...], strict: bool, as_json: bool) -> "SummaryRecord":
    from bench.records import SummaryRecord
    from bench.report import write_report
    from bench.report.plain_text import WIDTH, plain_answers
    from bench.store import open_run, read_record

    stored = open_run(folder, strict=strict)
    for problem in stored.problems:
        click.echo(f"warning: {problem}", err=True)
    paths = write_report(stored, formats=formats)
    summary = read_record(folder / "summary.json", SummaryRecord)
    if as_json:
        click.echo((folder / "summary.json").read_text("utf-8"), nl=False)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo(_fit(plain_answers(summary, width or WIDTH), width))
        page = next((path for path in paths if path.name == "index.html"), paths[0])
        click.echo(f"\nReport: {page}")
    return summary


def _fit(text: str, width: int | None) -> str:
    """Wrap lines to a terminal's width; without one they stay as they are."""
    if width is None:
        return text
    return "\n".join(click.wrap_text(line, width) for line in text.splitlines())


def main(argv: list[str] | None = None, *, timing: "Timing | None" = None) -> None:
    """The entry point: every expected failure becomes one message and its exit code; nothing is printed with a
    secret. `timing` is for how long clusters are waited for, in place of what is usual."""
    redact_streams()
    try:
        cli.main(argv, prog_name="meshbench", standalone_mode=False, obj=timing)
    except MeshbenchError as error:
        _end(told_in_full(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted; nothing was left behind", 128 + signal.SIGINT)
    except Exception:  # noqa: BLE001  # a bug: everything else was expected
        _end(f"{traceback.format_exc()}\nThis is a bug in meshbench; please report it with the lines above.", 1)


def _end(message: str, exit_code: int) -> NoReturn:
    try:
        click.echo(f"meshbench: {message}", err=True)
    except OSError:  # a closed pipe, or a terminal that is gone
        _end_quietly(exit_code)
    sys.exit(exit_code)


def _end_quietly(exit_code: int) -> NoReturn:
    """The reader of our output is gone: leave without a word, and without the interpreter's own flush."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
