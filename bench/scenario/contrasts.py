"""List the comparisons of a scenario: all with the reference, named pairs, and the steps of each mesh."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bench.scenario.model import Scenario


@dataclass(frozen=True, slots=True)
class Comparison:
    """A configuration, its reference, and whether the scenario names the pair in `contrasts`."""

    configuration: str
    reference: str
    named: bool = False


def list_comparisons(scenario: Scenario) -> tuple[Comparison, ...]:
    """Return all pairs, each once; a step of a mesh that the scenario names is a named pair."""
    named = [Comparison(pair.configuration, pair.reference, named=True) for pair in scenario.contrasts]
    known = {frozenset((pair.configuration, pair.reference)) for pair in named}
    steps = (pair for pair in _list_steps(scenario) if frozenset((pair.configuration, pair.reference)) not in known)
    return (*_list_with_reference(scenario), *named, *steps)


def are_equal(scenario: Scenario, one: str, other: str) -> bool:
    """Check whether two configurations are equal but for their names, so that any difference between them is noise."""
    sides = [scenario.configuration(name).model_dump(exclude={"name", "load"}) for name in (one, other)]
    return sides[0] == sides[1] and scenario.load_of(one) == scenario.load_of(other)


def _list_with_reference(scenario: Scenario) -> Iterator[Comparison]:
    for configuration in scenario.configurations if scenario.reference else ():
        if configuration.name != scenario.reference:
            yield Comparison(configuration.name, str(scenario.reference))


def _list_steps(scenario: Scenario) -> Iterator[Comparison]:
    """Yield each step of a mesh with the step before, in the order of the file; nothing without a reference."""
    if scenario.reference is None:
        return
    for mesh in dict.fromkeys(c.mesh for c in scenario.configurations if c.mesh != "none"):
        names = [c.name for c in scenario.configurations if c.mesh == mesh]
        for before, step in pairwise(names):
            if scenario.reference not in (step, before):
                yield Comparison(step, before)
