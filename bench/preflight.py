"""A scenario and everything it names, checked before anything is started."""

from pathlib import Path

from bench.errors import InputError, Problem
from bench.inputs import Inputs, inputs_of
from bench.meshes.application import Application
from bench.scenario import (
    NO_OVERRIDES,
    Configuration,
    Overrides,
    Scenario,
    load_scenario,
    scenario_path,
    validate_file,
)
from bench.targets.configured import application_of, readers_in
from bench.yamlfile import Document, read_documents


def checked_scenario(name_or_path: str, overrides: Overrides) -> Scenario:
    """The scenario, after its manifests have been read as a run would read them. Raises InputError with every
    mistake."""
    scenario = load_scenario(name_or_path, overrides)
    application, inputs = application_of(scenario), inputs_of(scenario, name_or_path)
    (document,) = read_documents(scenario_path(name_or_path))
    problems: list[Problem] = []
    for place, configuration in enumerate(scenario.configurations):
        found = _manifest_problems(configuration, application, inputs)
        problems += (_placed(problem, document, place) for problem in found)
    if problems:
        raise InputError(tuple(dict.fromkeys(problems)))
    return scenario


def mistakes(file: Path) -> tuple[Problem, ...]:
    """Every mistake in a scenario file and, once that is right, in its manifests."""
    if problems := validate_file(file):
        return problems
    try:
        checked_scenario(str(file) if "/" in str(file) else f"./{file}", NO_OVERRIDES)
    except InputError as error:
        return error.problems or (Problem(str(file), 0, "", str(error)),)
    return ()


def _manifest_problems(
    configuration: Configuration, application: Application, inputs: Inputs
) -> tuple[Problem | str, ...]:
    try:
        readers_in(configuration, application, inputs.manifests)
    except InputError as error:
        return error.problems or (str(error),)
    return ()


def _placed(problem: Problem | str, document: Document, place: int) -> Problem:
    """A problem of no manifest is the configuration's own."""
    return problem if isinstance(problem, Problem) else document.problem(("configurations", place), problem)
