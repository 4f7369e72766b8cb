"""Which configurations of a scenario are compared: all with the reference, named pairs, and the steps of each mesh."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bench.scenario.model import Scenario


@dataclass(frozen=True, slots=True)
class Compared:
    """A configuration, the one that it is compared with, and whether the scenario names the pair."""

    configuration: str
    reference: str
    named: bool = False


def compared(scenario: Scenario) -> tuple[Compared, ...]:
    """All pairs, each once: a step of a mesh that the scenario names is a named pair."""
    named = [Compared(pair.configuration, pair.reference, named=True) for pair in scenario.contrasts]
    known = {frozenset((pair.configuration, pair.reference)) for pair in named}
    steps = (pair for pair in _steps(scenario) if frozenset((pair.configuration, pair.reference)) not in known)
    return (*_with_reference(scenario), *named, *steps)


def alike(scenario: Scenario, one: str, other: str) -> bool:
    """Whether two configurations are one and the same under two names: then all that differs between them is noise."""
    sides = [scenario.configuration(name).model_dump(exclude={"name", "load"}) for name in (one, other)]
    return sides[0] == sides[1] and scenario.load_of(one) == scenario.load_of(other)


def _with_reference(scenario: Scenario) -> Iterator[Compared]:
    for configuration in scenario.configurations if scenario.reference else ():
        if configuration.name != scenario.reference:
            yield Compared(configuration.name, str(scenario.reference))


def _steps(scenario: Scenario) -> Iterator[Compared]:
    """Each step of a mesh against the step before, in the order of the file; none without a reference."""
    if scenario.reference is None:
        return
    for mesh in dict.fromkeys(c.mesh for c in scenario.configurations if c.mesh != "none"):
        names = [c.name for c in scenario.configurations if c.mesh == mesh]
        for before, step in pairwise(names):
            if scenario.reference not in (step, before):
                yield Compared(step, before)
