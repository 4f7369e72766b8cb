"""Define the options that commands share, and the backend that they choose."""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.errors import InputError
from bench.k8s.in_cluster import IN_CLUSTER
from bench.targets.cluster.flags import CLUSTER_FLAGS, Flag, Given
from bench.units import parse_duration

if TYPE_CHECKING:
    from bench.cli.plan_text import ClusterPlan
    from bench.load.locustfile_check import Inspection
    from bench.meshes.resolved import ResolvedScenario
    from bench.scenario.model import Scenario
    from bench.scenario.plan import Plan
    from bench.system.timing import Timing
    from bench.targets import Backend

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


SCENARIO_FLAGS = {
    "name": Flag("--scenario", "A shipped scenario or a file.", "NAME|FILE"),
    "quick": Flag("--quick", "A first answer within minutes: 8 blocks of 15s, side by side.", kind="switch"),
    "design": Flag("--design", "How configurations share time: duet, interleaved or sequential.", "DESIGN"),
    "study": Flag("--study", "One after another with windows of 120s, as the 2022 study measured.", kind="switch"),
    "users": Flag("--users", "Number of users.", "N"),
    "repeats": Flag("--repeats", "How often each configuration is deployed and measured.", "N"),
    "duration": Flag("--duration", "Length of each window.", "120s"),
    "warmup": Flag("--warmup", "Load before each window, not part of the result.", "30s"),
    "rate": Flag("--rate", "Open loop: requests arrive at this rate, independent of responses.", "50/s"),
    "seed": Flag("--seed", "Seed of the order of trials and of the users' first waits.", "N"),
    "sets": Flag("--set", "Change any key, such as load.users=50. Repeatable.", "PATH=VALUE", "list"),
}


def _make_option(name: str, flag: Flag) -> Callable[[F], F]:
    kinds: dict[str, dict[str, Any]] = {
        "switch": {"is_flag": True},
        "list": {"multiple": True},
        "port": {"type": click.IntRange(1, 65535)},
    }
    text = f"{flag.help}  [env var: {flag.variable}]" if flag.variable else flag.help
    return click.option(flag.text, name, metavar=flag.value or None, help=text, **kinds.get(flag.kind, {}))


def _add_options(command: F, flags: Mapping[str, Flag]) -> F:
    for name, flag in reversed([*flags.items()]):
        command = _make_option(name, flag)(command)
    return command


def scenario_options(command: F) -> F:
    """Add the options that choose a scenario and change it."""
    return _add_options(command, SCENARIO_FLAGS)


class GivenPath(click.Path):
    """The path of a file or folder, which need not exist. One that no file can have is rejected. So is an empty one, as
    from an unset variable: it would mean the working folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("is empty; hint: check that the shell variable is set", param, ctx)
        try:
            Path(value).stat()
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                self.fail(f"{value}: {error.strerror}", param, ctx)
        return super().convert(value, param, ctx)


output_option = click.option(
    "--output", type=GivenPath(), default=DEFAULT_OUTPUT, show_default=True, help="Folder for runs."
)


def read_scenario(name: str, changes: dict[str, Any]) -> "ResolvedScenario":
    """Read and check a scenario with the command line's changes. Raises InputError."""
    from bench.meshes.resolved import resolve_scenario
    from bench.scenario.overrides import Overrides

    return resolve_scenario(name, Overrides(**changes))


def check_load(
    resolved: "ResolvedScenario", source: str | None = None, *, given: Given | None = None
) -> "Inspection | None":
    """Check the Locust file of a scenario before anything starts, see `check_locustfile`, and the values of probes'
    headers; print a warning where only the load's own image can have what it imports. `source` is the scenario's name
    or path, None for a run that is resumed; `given` are the cluster's options of a run. Raises InputError."""
    from bench.load.locustfile_check import check_locustfile
    from bench.scenario.loader import locate_in_scenario, locate_keys

    if unreadable := resolved.scenario.list_unreadable_headers():
        raise InputError(locate_keys(unreadable, source))
    on_cluster, own_image = given is not None and "context" in given, _has_load_image(resolved, given)
    try:
        found = check_locustfile(resolved, on_cluster=on_cluster, own_image=own_image)
    except InputError as error:
        raise InputError(locate_in_scenario(error.problems, source) if source else error.problems) from None
    for one in found.findings if found else ():
        click.echo(f"warning: load.locustfile: {one.message}; hint: the load's image has to have it", err=True)
    return found


def _has_load_image(resolved: "ResolvedScenario", given: Given | None) -> bool:
    """Return whether the load of a run with these options, or without any of some run, may have an image of its own."""
    if given is not None and "context" not in given:
        return False  # on this machine there are no images
    from bench.scenario.versions import LOAD

    options = (str(one).partition("=")[0] for one in (given or {}).get("images", ()))
    return LOAD in (*resolved.scenario.application.images, *options)


def draw_plan(scenario: "Scenario") -> "Plan":
    """Draw the order of trials from the scenario's seed, or from a random one."""
    from bench.scenario.plan import draw_seed, make_plan

    return make_plan(scenario, draw_seed() if scenario.seed is None else scenario.seed)


def context_option(command: F) -> F:
    """Add the options that name a cluster: a context of the kubeconfig, or the cluster of this pod."""
    own = "Use the cluster of this pod, with the pod's own account."
    command = click.option("--in-cluster", "context", flag_value=IN_CLUSTER, help=own)(command)
    return _make_option("context", CLUSTER_FLAGS["context"])(command)


def cluster_options(command: F) -> F:
    """Add the options of a run on a cluster."""
    others = {name: flag for name, flag in CLUSTER_FLAGS.items() if name != "context"}
    return context_option(_add_options(command, others))


def pop_cluster_flags(arguments: dict[str, Any]) -> Given:
    """Pop those of the cluster's options that were given from a command's arguments. Raises InputError for one without
    --context. A variable of the environment counts where a cluster is used; click would not know, in a step of a
    night, that its value is not from the command line."""
    values = {name: arguments.pop(name) for name in CLUSTER_FLAGS}
    given = {name: value for name, value in values.items() if value or (name == "context" and value is not None)}
    if not given:
        return {}
    if "context" not in given:
        raise InputError(f"{CLUSTER_FLAGS[next(iter(given))].text} needs a cluster; hint: add --context NAME")
    variables = {name: os.environ.get(flag.variable, "") for name, flag in CLUSTER_FLAGS.items() if flag.variable}
    return {**{name: value for name, value in variables.items() if value}, **given}


@contextmanager
def choose_backend(given: Given, resolved: "ResolvedScenario", *, resumed: "Path | None" = None) -> "Iterator[Backend]":
    """Open this machine, or a checked and confirmed cluster. `resumed` is the folder of the run to resume, whose record
    has the options of its start."""
    if "context" not in given:
        from bench.targets.local.target import LocalBackend

        resolved.require_local()
        yield LocalBackend(timing=find_timing())
        return
    from bench.run.session import read_stored_run
    from bench.targets.cluster.options import read_options, read_resumed_options
    from bench.targets.cluster.session import open_backend

    again = resumed and read_resumed_options(given, read_stored_run(resumed), resumed)
    options = again or read_options(given, resolved.scenario, resolved.application.definition)
    with open_backend(resolved, options, tell=_print_line, confirm=_make_confirm(), timing=find_timing()) as backend:
        yield backend


@contextmanager
def inspect_cluster(given: Given, resolved: "ResolvedScenario") -> "Iterator[Backend]":
    """Open a cluster for reading only, which needs no confirmation."""
    from bench.targets.cluster.options import read_options
    from bench.targets.cluster.session import open_backend

    options = read_options(given, resolved.scenario, resolved.application.definition)
    with open_backend(resolved, options, tell=_print_line, guarded=False, timing=find_timing()) as backend:
        yield backend


def settle_on_cluster(given: Given, resolved: "ResolvedScenario") -> "ResolvedScenario":
    """Return the scenario with the design for which a cluster has room; unchanged without --context."""
    if "context" not in given:
        return resolved
    from bench.targets.cluster.dry_run import settle_for_context
    from bench.targets.cluster.options import read_options

    return settle_for_context(resolved, read_options(given, resolved.scenario, resolved.application.definition))


def plan_on_cluster(given: Given, resolved: "ResolvedScenario", plan: "Plan") -> "ClusterPlan | None":
    """Return the plan of a run on a cluster, None without --context. Nothing is created, so nothing is confirmed.
    Raises InputError for a scenario that one machine cannot measure."""
    if "context" not in given:
        resolved.require_local()
        return None
    from dataclasses import asdict

    from bench.cli.plan_text import ClusterPlan
    from bench.targets.cluster.dry_run import dry_run_context
    from bench.targets.cluster.options import read_options

    found = dry_run_context(
        resolved, read_options(given, resolved.scenario, resolved.application.definition), plan=plan
    )
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
