"""Print figures about meshbench itself, each with its aim. Measure them while the machine is otherwise idle."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from subprocess import CalledProcessError
from typing import Final

import click

from bench.errors import MeshbenchError
from tests.benchmarks.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    runs: tuple[Path, ...]
    folder: Path
    minutes: float
    pairs: int
    run_options: tuple[str, ...]
    samples: tuple[str, ...] = ()
    context: str | None = None


def _generator(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import generator

    return generator.figures(order.pairs)


def _storage(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import storage

    return storage.figures(order.runs)


def _report(_: Options) -> Iterator[Figure]:
    from tests.benchmarks import reporting

    return reporting.figures()


def _help(_: Options) -> Iterator[Figure]:
    from tests.benchmarks import startup

    return startup.figures()


def _manifests(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import manifests

    return manifests.figures(order.folder / "manifests")


def _samples(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import samples

    return samples.figures(order.samples, order.context)


def _timing(_: Options) -> Iterator[Figure]:
    from tests.benchmarks import timing

    return timing.figures()


def _run(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import running

    return running.figures(order.runs, options=order.run_options)


def _repeatability(order: Options) -> Iterator[Figure]:
    from tests.benchmarks import repeatability

    return repeatability.figures(order.runs)


def _campaign(name: str) -> Callable[[Options], Iterator[Figure]]:
    """Return the figures of a campaign, after it went on for the minutes that were given."""

    def measure(order: Options) -> Iterator[Figure]:
        module = import_module(f"tests.benchmarks.{name}")
        folder = order.folder / name
        deadline = time.monotonic() + 60 * order.minutes
        while time.monotonic() < deadline:
            click.echo(module.campaign(folder).go_on())
        yield from module.figures(folder)

    return measure


def _coverage(_: Options) -> Iterator[Figure]:
    from tests.benchmarks import coverage

    return coverage.figures()


def _gate(_: Options) -> Iterator[Figure]:
    from tests.benchmarks import gate

    return gate.figures()


# Imported when used: a child's peak memory counts from that of its parent, so the parent stays small.
FIGURES: Final[dict[str, Callable[[Options], Iterator[Figure]]]] = {
    "help": _help,
    "report": _report,
    "storage": _storage,
    "manifests": _manifests,
    "samples": _samples,
    "generator": _generator,
    "timing": _timing,
    "run": _run,
    "repeatability": _repeatability,
    "designs": _campaign("designs"),
    "claims": _campaign("claims"),
    "answers": _campaign("answers"),
    "contention": _campaign("contention"),
    "study-method": _campaign("study_method"),
    "noise": _campaign("noise"),
    "coverage": _coverage,
    "gate": _gate,
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), help="A stored run. Repeatable.")
@click.option("--folder", type=click.Path(path_type=Path), default="results/benchmarks", help="Runs of campaigns.")
@click.option("--minutes", type=float, default=0, help="How long each campaign goes on; 0: only its figures.")
@click.option("--pairs", type=click.IntRange(5), default=5, show_default=True, help="Pairs of `generator`.")
@click.option("--samples", multiple=True, metavar="MESH=FOLDER", help="What `samples` reads. Repeatable.")
@click.option("--context", help="The cluster whose dry run says which `samples` count.")
@click.option("--scenario", default="smoke", show_default=True, help="What `run` runs, where no --run is given.")
@click.option("--quick", is_flag=True, help="Let `run` run it with short windows.")
def main(
    names: tuple[str, ...],
    *,
    runs: tuple[Path, ...],
    folder: Path,
    minutes: float,
    pairs: int,
    samples: tuple[str, ...],
    context: str | None,
    scenario: str,
    quick: bool,
) -> None:
    run_options = ("--scenario", scenario, *(["--quick"] if quick else []))
    order = Options(
        runs=runs,
        folder=folder,
        minutes=minutes,
        pairs=pairs,
        run_options=run_options,
        samples=samples,
        context=context,
    )
    click.echo(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name in names or FIGURES:
        click.echo(name)
        try:
            for figure in FIGURES[name](order):
                click.echo(str(figure))
        except (MeshbenchError, CalledProcessError) as error:
            raise click.ClickException(f"{name}: {error}") from error


if __name__ == "__main__":
    main()
