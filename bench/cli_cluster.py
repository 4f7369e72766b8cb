"""The options of commands that may act on a cluster, and the place that they choose."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cluster_flags import ClusterFlags
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.outline import Elsewhere
    from bench.plan import Plan
    from bench.scenario import Scenario
    from bench.targets import Place
    from bench.targets.kubernetes.waits import Timing

F = TypeVar("F", bound=Callable[..., Any])

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


def taken(arguments: dict[str, Any]) -> ClusterFlags:
    """Takes the cluster's options out of a command's arguments. Raises InputError for one that lacks its cluster."""
    flags = ClusterFlags(**{name: arguments.pop(name) for name in ClusterFlags.__dataclass_fields__})
    if flags.context is None:
        given = [name for name in ClusterFlags.__dataclass_fields__ if getattr(flags, name)]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} concerns a cluster; say which with --context NAME")
    return flags


@contextmanager
def chosen_place(
    flags: ClusterFlags, scenario: "Scenario", source: str, *, resumed: "Path | None" = None
) -> "Iterator[Place]":
    """This machine; or the cluster, after it was looked at and agreed upon. `source` is the scenario's name or file;
    `resumed` is the folder of the run that goes on, which knows what it was begun with."""
    if flags.context is None:
        from bench.targets.local.place import ThisMachine

        yield ThisMachine()
        return
    from bench.inputs import inputs_of, stored_inputs
    from bench.session import stored_run
    from bench.targets.kubernetes.options import read_options, resumed_options
    from bench.targets.kubernetes.place import open_place

    again = resumed and resumed_options(flags, stored_run(resumed), resumed)
    options = again or read_options(flags, scenario)
    inputs = stored_inputs(scenario, resumed) if resumed else inputs_of(scenario, source)
    with open_place(scenario, options, inputs, tell=_tell, confirm=_asker(), timing=chosen_timing()) as place:
        yield place


@contextmanager
def looked_at(flags: ClusterFlags, scenario: "Scenario", source: str) -> "Iterator[Place]":
    """A cluster that is only looked at: nobody has to agree to that."""
    from bench.inputs import inputs_of
    from bench.targets.kubernetes.options import read_options
    from bench.targets.kubernetes.place import open_place

    options, inputs = read_options(flags, scenario), inputs_of(scenario, source)
    with open_place(scenario, options, inputs, tell=_tell, guarded=False, timing=chosen_timing()) as place:
        yield place


def foreseen(flags: ClusterFlags, scenario: "Scenario", source: str, plan: "Plan") -> "Elsewhere | None":
    """What a run would do on a cluster, where one is named; nothing is made there, so nobody has to agree."""
    if flags.context is None:
        return None
    from dataclasses import asdict

    from bench.inputs import inputs_of
    from bench.outline import Elsewhere
    from bench.targets.kubernetes.options import read_options
    from bench.targets.kubernetes.outlook import look_ahead

    options, inputs = read_options(flags, scenario), inputs_of(scenario, source)
    found = look_ahead(flags.context, scenario, options, inputs=inputs, plan=plan)
    return Elsewhere(found.cluster, found.seconds, found.lines, asdict(found))


def chosen_timing() -> "Timing":
    """How long the cluster is waited for: as `main` was called, else as usual."""
    from bench.targets.kubernetes.waits import DEFAULT, Timing

    context = click.get_current_context(silent=True)
    return (context and context.find_object(Timing)) or DEFAULT


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _asker() -> Callable[[str], bool] | None:
    """Asks on a terminal; None where there is nobody to ask."""
    if not sys.stdin.isatty():
        return None
    return lambda question: click.confirm(question, err=True)
