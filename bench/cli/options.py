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
    from bench.cli.plan_text import Elsewhere
    from bench.k8s.timing import Timing
    from bench.scenario.model import Scenario
    from bench.scenario.plan import Plan
    from bench.targets import Place
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


def read_scenario(name: str, changes: dict[str, Any]) -> "Scenario":
    from bench.meshes.resolved import checked_scenario
    from bench.scenario.overrides import Overrides

    return checked_scenario(name, Overrides(**changes))


def draw_plan(scenario: "Scenario") -> "Plan":
    from bench.scenario.plan import draw_seed, make_plan

    return make_plan(scenario, draw_seed() if scenario.seed is None else scenario.seed)


context_option = click.option("--context", metavar="NAME", help="Act on this cluster, by its name in the kubeconfig.")


def cluster_options(command: F) -> F:
    """The options of a run on a cluster."""
    options = [
        context_option,
        click.option("--yes", is_flag=True, help="Do not ask before acting on the cluster."),
        click.option("--yes-this-cluster", metavar="NAME", help="Also on one that looks like production."),
        click.option("--image", multiple=True, metavar="NAME=REF", help="Image of a workload, or load. Repeatable."),
        click.option("--registry", default="", metavar="MIRROR", help="Pull application and load from this registry."),
        click.option("--mesh-values", multiple=True, metavar="[MESH=]FILE", help="Values on top of ours. Repeatable."),
        click.option("--mesh-hub", default="", metavar="HUB", help="Where the mesh's images are."),
        click.option("--mesh-tag", default="", metavar="TAG", help="Version of the mesh's images."),
        click.option("--mesh-revision", default="", metavar="REV", help="Istio's revision."),
        click.option("--use-existing-mesh", is_flag=True, help="Take the mesh that is there, and leave it there."),
        click.option("--keep", is_flag=True, help="Leave meshes, and a failed trial, for a look."),
        click.option("--locust-ui", type=click.IntRange(1, 65535), metavar="PORT", help="Locust's web page, here."),
        click.option("--prometheus", default="", metavar="URL|NS/SERVICE:PORT", help="CPU and memory from it."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def taken(arguments: dict[str, Any]) -> "ClusterFlags":
    """Takes the cluster's options out of a command's arguments. Raises InputError for one that lacks its cluster."""
    from bench.targets.cluster.flags import ClusterFlags

    flags = ClusterFlags(**{name: arguments.pop(name) for name in ClusterFlags.__dataclass_fields__})
    if flags.context is None:
        given = [name for name in ClusterFlags.__dataclass_fields__ if getattr(flags, name)]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} concerns a cluster; say which with --context NAME")
    return flags


@contextmanager
def chosen_place(
    flags: "ClusterFlags", scenario: "Scenario", source: str, *, resumed: "Path | None" = None
) -> "Iterator[Place]":
    """This machine; or the cluster, after it was looked at and agreed upon. `source` is the scenario's name or file;
    `resumed` is the folder of the run that goes on, which knows what it was begun with."""
    if flags.context is None:
        from bench.targets.local.target import ThisMachine

        yield ThisMachine()
        return
    from bench.run.session import stored_run
    from bench.scenario.loader import inputs_of, stored_inputs
    from bench.targets.cluster.options import read_options, resumed_options
    from bench.targets.cluster.session import open_place

    again = resumed and resumed_options(flags, stored_run(resumed), resumed)
    options = again or read_options(flags, scenario)
    inputs = stored_inputs(scenario, resumed) if resumed else inputs_of(scenario, source)
    with open_place(scenario, options, inputs, tell=_tell, confirm=_asker(), timing=chosen_timing()) as place:
        yield place


@contextmanager
def looked_at(flags: "ClusterFlags", scenario: "Scenario", source: str) -> "Iterator[Place]":
    """A cluster that is only looked at: nobody has to agree to that."""
    from bench.scenario.loader import inputs_of
    from bench.targets.cluster.options import read_options
    from bench.targets.cluster.session import open_place

    options, inputs = read_options(flags, scenario), inputs_of(scenario, source)
    with open_place(scenario, options, inputs, tell=_tell, guarded=False, timing=chosen_timing()) as place:
        yield place


def foreseen(flags: "ClusterFlags", scenario: "Scenario", source: str, plan: "Plan") -> "Elsewhere | None":
    """What a run would do on a cluster, where one is named; nothing is made there, so nobody has to agree."""
    if flags.context is None:
        return None
    from dataclasses import asdict

    from bench.cli.plan_text import Elsewhere
    from bench.scenario.loader import inputs_of
    from bench.targets.cluster.dry_run import look_ahead
    from bench.targets.cluster.options import read_options

    options, inputs = read_options(flags, scenario), inputs_of(scenario, source)
    found = look_ahead(flags.context, scenario, options, inputs=inputs, plan=plan)
    return Elsewhere(found.cluster, found.seconds, found.lines, asdict(found))


def chosen_timing() -> "Timing":
    """How long the cluster is waited for: as `main` was called, else as usual."""
    from bench.k8s.timing import DEFAULT, Timing

    context = click.get_current_context(silent=True)
    return (context and context.find_object(Timing)) or DEFAULT


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _asker() -> Callable[[str], bool] | None:
    """Asks on a terminal; None where there is nobody to ask."""
    if not sys.stdin.isatty():
        return None
    return lambda question: click.confirm(question, err=True)
