"""Resolve a scenario's folders: application, gateway, policies and user groups per configuration."""

from collections.abc import Mapping
from pathlib import Path

from bench.application.model import NAMESPACE, Application, read_application
from bench.errors import InputError, Problem
from bench.files.folders import find_shipped
from bench.files.yaml_source import Document, read_documents
from bench.meshes import MESHES, Policies
from bench.meshes.user_groups import UserGroup, user_groups_of
from bench.scenario.loader import NO_OVERRIDES, Inputs, find_inputs, find_scenario, load_scenario, validate_file
from bench.scenario.model import Configuration, Scenario
from bench.scenario.overrides import Overrides


def application_folder(scenario: Scenario) -> Path:
    """Return the folder with the manifests of the application that a scenario deploys."""
    return find_shipped("manifests") / scenario.application.name


def application_of(scenario: Scenario, *, namespace: str = NAMESPACE) -> Application:
    """Return the application that a scenario deploys."""
    return read_application(application_folder(scenario), scenario.application.reviews, namespace=namespace)


def add_gateway(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Application:
    """Return the application with the gateway that the configuration's manifests define, if any. Raises InputError."""
    if settings.mesh == "none":
        return application
    gateway = MESHES[settings.mesh].read_gateway([manifests[name] for name in settings.manifests], application)
    return application.entered_by(gateway) if gateway else application


def user_groups_in(
    settings: Configuration, application: Application, manifests: Mapping[str, Path]
) -> tuple[UserGroup, ...]:
    """Return the user groups of a configuration, with the version of reviews for each. Raises InputError."""
    return user_groups_of(MESHES.get(settings.mesh), policies_of(settings, application, manifests), application)


def policies_of(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Policies | None:
    """Return a configuration's policies, from the folders of `manifests` that it names; None without a mesh.

    Raises InputError.
    """
    if settings.mesh == "none":
        return None
    application = add_gateway(settings, application, manifests)
    return MESHES[settings.mesh].read_policies([manifests[name] for name in settings.manifests], application)


def validate_scenario(name_or_path: str, overrides: Overrides) -> Scenario:
    """Load a scenario and validate its manifests as a run would read them. Raises InputError with all problems."""
    scenario = load_scenario(name_or_path, overrides)
    application, inputs = application_of(scenario), find_inputs(scenario, name_or_path)
    (document,) = read_documents(find_scenario(name_or_path))
    problems: list[Problem] = []
    for index, configuration in enumerate(scenario.configurations):
        found = _manifest_problems(configuration, application, inputs)
        problems += (_add_position(problem, document, index) for problem in found)
    if problems:
        raise InputError(tuple(dict.fromkeys(problems)))
    return scenario


def find_problems(file: Path) -> tuple[Problem, ...]:
    """Return all problems of a scenario file or, if it has none, of its manifests."""
    if problems := validate_file(file):
        return problems
    try:
        validate_scenario(str(file) if "/" in str(file) else f"./{file}", NO_OVERRIDES)
    except InputError as error:
        return error.problems or (Problem(str(file), 0, "", str(error)),)
    return ()


def _manifest_problems(
    configuration: Configuration, application: Application, inputs: Inputs
) -> tuple[Problem | str, ...]:
    try:
        user_groups_in(configuration, application, inputs.manifests)
    except InputError as error:
        return error.problems or (str(error),)
    return ()


def _add_position(problem: Problem | str, document: Document, index: int) -> Problem:
    """Give a problem without a position in a manifest the position of its configuration."""
    return problem if isinstance(problem, Problem) else document.problem(("configurations", index), problem)
