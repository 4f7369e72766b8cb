"""Resolve a scenario's folders: application, gateway, policies and user groups per configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.application.model import NAMESPACE, Application, read_application
from bench.errors import InputError, Problem
from bench.files.folders import shipped
from bench.files.yaml_source import Document, read_documents
from bench.meshes import MESHES, Mesh, Policies
from bench.meshes.routing import Way, users_in, usual_path, way_of
from bench.scenario.loader import NO_OVERRIDES, Inputs, inputs_of, load_scenario, scenario_path, validate_file
from bench.scenario.model import Configuration, Scenario
from bench.scenario.overrides import Overrides

REVIEWS: Final = "reviews"


@dataclass(frozen=True, slots=True)
class Reader:
    """Users who get pages with one version of `reviews`: those who log in as `user`; an empty name means all others."""

    user: str
    reviews: str

    @property
    def request(self) -> str:
        """What the load calls their requests, where there is more than one kind of reader."""
        return f"page as {self.user or 'others'}"


def readers_of(mesh: Mesh | None, policies: Policies, application: Application) -> tuple[Reader, ...]:
    """Every kind of reader, the one who has not logged in first; without a mesh there are no policies.

    Raises InputError where it is open which version a reader gets.
    """
    versions = [workload.version for workload in application.workloads if workload.app == REVIEWS]
    if len(versions) == 1:
        return (Reader("", versions[0]),)
    if mesh is None:
        raise InputError(f"{_open(versions)}, and without a mesh nobody routes: deploy one version, or name a mesh")
    caller, service = application.workload("productpage"), application.service(REVIEWS)
    ways = mesh.ways(policies, application, caller=caller, service=service)
    return tuple(Reader(user, _version(ways, user, versions)) for user in users_in(ways))


def _version(ways: Sequence[Way], user: str, versions: Sequence[str]) -> str:
    way = way_of(ways, path=usual_path(REVIEWS), user=user)
    who = f"of {user}" if user else "of somebody who has not logged in"
    if way is None:
        raise InputError(f"no route takes the requests {who}: add one without conditions")
    if len(way.workloads) > 1:
        raise InputError(f"{_open(versions)}, and no route says which one gets the requests {who}")
    return way.workloads[0].version


def _open(versions: Sequence[str]) -> str:
    return f"reviews {', '.join(versions)} are deployed"


def application_folder(scenario: Scenario) -> Path:
    """The manifests of the application that a scenario deploys."""
    return shipped("manifests") / scenario.application.name


def application_of(scenario: Scenario, *, namespace: str = NAMESPACE) -> Application:
    """The application that a scenario deploys."""
    return read_application(application_folder(scenario), scenario.application.reviews, namespace=namespace)


def entered(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Application:
    """The application as a configuration's load enters it: through the gateway, if the configuration's manifests have
    one. Raises InputError."""
    if settings.mesh == "none":
        return application
    gateway = MESHES[settings.mesh].read_gateway([manifests[place] for place in settings.manifests], application)
    return application.entered_by(gateway) if gateway else application


def readers_in(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> tuple[Reader, ...]:
    """Who asks for pages in a configuration, and which version of reviews each has to see. Raises InputError."""
    return readers_of(MESHES.get(settings.mesh), policies_of(settings, application, manifests), application)


def policies_of(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Policies | None:
    """A configuration's policies, from the folders of `manifests` that it names; None without a mesh. Raises
    InputError."""
    if settings.mesh == "none":
        return None
    application = entered(settings, application, manifests)
    return MESHES[settings.mesh].read_policies([manifests[place] for place in settings.manifests], application)


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
