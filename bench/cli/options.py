"""Define the options that commands share, and the backend that they choose."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.errors import InputError
from bench.units import parse_duration

if TYPE_CHECKING:
    from bench.cli.plan_text import ClusterPlan
    from bench.meshes.resolved import ResolvedScenario
    from bench.scenario.model import Scenario
    from bench.scenario.plan import Plan
    from bench.system.timing import Timing
    from bench.targets import Backend
    from bench.targets.cluster.flags import ClusterFlags

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_OUTPUT = "results"


class Duration(click.ParamType[float]):
    """A duration with its unit: `120s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def scenario_options(command: F) -> F:
    """Add the options that choose a scenario and change it."""
    options = [
        click.option("--scenario", "name", metavar="NAME|FILE", help="A shipped scenario or a file."),
        click.option("--quick", is_flag=True, help="Short windows, to try a scenario out; labelled in the report."),
        click.option("--users", metavar="N", help="Number of users."),
        click.option("--repeats", metavar="N", help="How often each configuration is deployed and measured."),
        click.option("--duration", metavar="120s", help="Length of each window."),
        click.option("--warmup", metavar="30s", help="Load before each window, not part of the result."),
        click.option(
            "--rate", metavar="50/s", help="Open loop: requests arrive at this rate, independent of responses."
        ),
        click.option("--seed", metavar="N", help="Seed of the order of trials and of the users' first waits."),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="PATH=VALUE",
            help="Change any key, such as load.users=50. Repeatable.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Folder(click.Path):
    """The path of a folder. An empty path, as from an unset variable, would mean the working folder and is rejected."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("is empty; hint: check that the shell variable is set", param, ctx)
        return super().convert(value, param, ctx)


output_option = click.option(
    "--output", type=Folder(), default=DEFAULT_OUTPUT, show_default=True, help="Folder for runs."
)


def read_scenario(name: str, changes: dict[str, Any]) -> "ResolvedScenario":
    """Read and check a scenario with the command line's changes. Raises InputError."""
    from bench.meshes.resolved import resolve_scenario
    from bench.scenario.overrides import Overrides

    return resolve_scenario(name, Overrides(**changes))


def draw_plan(scenario: "Scenario") -> "Plan":
    """Draw the order of trials from the scenario's seed, or from a random one."""
    from bench.scenario.plan import draw_seed, make_plan

    return make_plan(scenario, draw_seed() if scenario.seed is None else scenario.seed)


context_option = click.option("--context", metavar="NAME", help="Use this cluster: a context of the kubeconfig.")


def cluster_options(command: F) -> F:
    """Add the options of a run on a cluster."""
    options = [
        context_option,
        click.option("--yes", is_flag=True, help="Do not ask before changing the cluster."),
        click.option("--yes-this-cluster", metavar="NAME", help="Confirm a cluster that looks like production."),
        click.option(
            "--image", multiple=True, metavar="NAME=REF", help="Image of a workload, or of the load. Repeatable."
        ),
        click.option("--registry", default="", metavar="MIRROR", help="Pull application and load from this registry."),
        click.option(
            "--mesh-values", multiple=True, metavar="[MESH=]FILE", help="Values on top of meshbench's. Repeatable."
        ),
        click.option("--mesh-hub", default="", metavar="HUB", help="Registry of the mesh's images."),
        click.option("--mesh-tag", default="", metavar="TAG", help="Version of the mesh's images."),
        click.option("--mesh-revision", default="", metavar="REV", help="Istio's revision."),
        click.option(
            "--use-existing-mesh", is_flag=True, help="Measure the mesh that is installed, and do not change it."
        ),
        click.option("--keep", is_flag=True, help="Keep meshes, and a failed trial, for inspection."),
        click.option(
            "--locust-ui",
            type=click.IntRange(1, 65535),
            metavar="PORT",
            help="Serve Locust's web page on this local port.",
        ),
        click.option(
            "--prometheus", default="", metavar="URL|NS/SERVICE:PORT", help="Read CPU and memory from this Prometheus."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def pop_cluster_flags(arguments: dict[str, Any]) -> "ClusterFlags":
    """Pop the cluster's options from a command's arguments. Raises InputError for one without --context."""
    from bench.targets.cluster.flags import ClusterFlags

    flags = ClusterFlags(**{name: arguments.pop(name) for name in ClusterFlags.__dataclass_fields__})
    if flags.context is None:
        given = [name for name in ClusterFlags.__dataclass_fields__ if getattr(flags, name)]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} needs a cluster; hint: add --context NAME")
    return flags


@contextmanager
def choose_backend(
    flags: "ClusterFlags", resolved: "ResolvedScenario", *, resumed: "Path | None" = None
) -> "Iterator[Backend]":
    """Open this machine, or a checked and confirmed cluster. `resumed` is the folder of the run to resume, whose record
    has the options of its start."""
    if flags.context is None:
        from bench.targets.local.target import LocalBackend

        yield LocalBackend(timing=find_timing())
        return
    from bench.run.session import read_stored_run
    from bench.targets.cluster.options import read_options, read_resumed_options
    from bench.targets.cluster.session import open_backend

    again = resumed and read_resumed_options(flags, read_stored_run(resumed), resumed)
    options = again or read_options(flags, resolved.scenario)
    with open_backend(resolved, options, tell=_print_line, confirm=_make_confirm(), timing=find_timing()) as backend:
        yield backend


@contextmanager
def inspect_cluster(flags: "ClusterFlags", resolved: "ResolvedScenario") -> "Iterator[Backend]":
    """Open a cluster for reading only, which needs no confirmation."""
    from bench.targets.cluster.options import read_options
    from bench.targets.cluster.session import open_backend

    options = read_options(flags, resolved.scenario)
    with open_backend(resolved, options, tell=_print_line, guarded=False, timing=find_timing()) as backend:
        yield backend


def plan_on_cluster(flags: "ClusterFlags", resolved: "ResolvedScenario", plan: "Plan") -> "ClusterPlan | None":
    """Return the plan of a run on a cluster, None without --context. Nothing is created, so nothing is confirmed."""
    if flags.context is None:
        return None
    from dataclasses import asdict

    from bench.cli.plan_text import ClusterPlan
    from bench.targets.cluster.dry_run import dry_run_context
    from bench.targets.cluster.options import read_options

    found = dry_run_context(flags.context, resolved, read_options(flags, resolved.scenario), plan=plan)
    return ClusterPlan(found.cluster, found.seconds, found.lines, asdict(found))


def find_timing() -> "Timing":
    """Return the timing that `main` was called with, else the default."""
    from bench.system.timing import DEFAULT, Timing

    context = click.get_current_context(silent=True)
    return (context and context.find_object(Timing)) or DEFAULT


def _print_line(line: str) -> None:
    click.echo(line, err=True)


def _make_confirm() -> Callable[[str], bool] | None:
    """Return a function that asks on the terminal; None without a terminal."""
    if not sys.stdin.isatty():
        return None
    return lambda question: click.confirm(question, err=True)
