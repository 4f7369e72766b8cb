"""Resolve a scenario's folders: application, gateway, policies and user groups per configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from bench.application.manifests import read_folders
from bench.application.model import GATEWAY, Application, Workload, read_application
from bench.envoy.wire import Mode, Wire
from bench.errors import InputError, Problem
from bench.files.yaml_source import Document, format_path, read_documents
from bench.meshes import MESHES
from bench.meshes.equalise import equalise_wire, policy_objects
from bench.meshes.probe import Probe
from bench.meshes.protocols import Mesh, Policies
from bench.meshes.rewriting import Moved, Namespaces, keep_namespaces
from bench.meshes.user_groups import UserGroup, user_groups_of
from bench.scenario.loader import (
    NO_OVERRIDES,
    Inputs,
    find_inputs,
    find_scenario,
    find_stored_inputs,
    load_scenario,
)
from bench.scenario.model import Configuration, Equal, Load, Scenario
from bench.scenario.overrides import Overrides, list_configurations


def application_of(scenario: Scenario) -> Application:
    """Return the application that a scenario deploys."""
    return read_application(scenario.application.definition, scenario.application.versions)


def add_gateway(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Application:
    """Return the application with the gateway that the configuration's manifests define, if any. Raises InputError."""
    if settings.mesh == "none":
        return application
    gateway = MESHES[settings.mesh].policies.read_gateway([manifests[name] for name in settings.manifests], application)
    return application.entered_by(gateway) if gateway else application


def user_groups_in(
    settings: Configuration, application: Application, manifests: Mapping[str, Path]
) -> tuple[UserGroup, ...]:
    """Return the user groups of a configuration, with their versions. Raises InputError."""
    return user_groups_of(policies_of(settings, application, manifests), application)


def policies_of(settings: Configuration, application: Application, manifests: Mapping[str, Path]) -> Policies | None:
    """Return a configuration's policies, from the folders of `manifests` that it names; None without a mesh.

    Raises InputError.
    """
    if settings.mesh == "none":
        return None
    application = add_gateway(settings, application, manifests)
    return MESHES[settings.mesh].policies.read_policies([manifests[name] for name in settings.manifests], application)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfiguration:
    """A configuration of a scenario with everything that its manifests define.

    `application` is as the manifests name it, with their gateway if they have one, and policies are evaluated for it;
    `deployed` has the names of a run. `mesh` and `policies` are None without a mesh. `objects` are the manifests, with
    those that a mesh needs for what the scenario equalises.
    """

    settings: Configuration
    application: Application
    mesh: Mesh | None
    policies: Policies | None
    objects: tuple[Document, ...]
    groups: tuple[UserGroup, ...]
    load: Load
    equalise: tuple[Equal, ...]
    namespaces: Namespaces

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def deployed(self) -> Application:
        """The application in the namespace and the mesh of the run."""
        names, written = self.namespaces, self.application
        return replace(written, namespace=names.of(written.namespace), mesh=names.run_mesh or written.mesh)

    def in_namespaces(self, namespaces: Namespaces) -> "ResolvedConfiguration":
        """Return the configuration as it is deployed in these namespaces."""
        return replace(self, namespaces=namespaces)

    @property
    def moved(self) -> tuple[Moved, ...]:
        """The manifests as the run applies them, in this order."""
        return self.mesh.policies.mesh_objects(self.objects, self.namespaces) if self.mesh else ()

    @property
    def wire(self) -> Wire:
        """The TLS settings that its sidecars agree on. Only for a configuration with a mesh."""
        assert self.mesh is not None  # noqa: S101  # without a mesh there are no sidecars
        return equalise_wire(self.mesh.data_plane.wire, self.equalise)

    @property
    def identities(self) -> Mapping[str, tuple[str, ...]]:
        """The names in the certificate of each service account in the run, its SPIFFE id first; empty without any."""
        return self.policies.identities(self.deployed) if self.policies else {}

    @property
    def ids(self) -> Mapping[str, str]:
        """The SPIFFE ids in the run by workload name; empty where no workload has a certificate."""
        names = self.identities
        return {one.name: names[one.account][0] for one in self.application.everyone if names.get(one.account)}

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The requests whose responses show that each policy is in force."""
        return self.policies.probes(self.application) if self.policies else ()

    def mode(self, workload: Workload) -> Mode:
        """Return what the sidecar of a workload accepts; `DISABLE` without a mesh."""
        return self.policies.mode(workload) if self.policies else "DISABLE"

    def is_secured(self, workload: Workload) -> bool:
        """Return whether sidecars use mutual TLS to the workload; the gateway's caller is outside of the mesh."""
        return workload.name != GATEWAY and self.mode(workload) != "DISABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedScenario:
    """A scenario with everything that its folders define. `application` is without a gateway, and `objects` are its
    manifests, for every version."""

    scenario: Scenario
    inputs: Inputs
    application: Application
    objects: tuple[Document, ...]
    configurations: tuple[ResolvedConfiguration, ...]

    def configuration(self, name: str) -> ResolvedConfiguration:
        """Return the configuration of that name. Raises KeyError where there is none."""
        return {one.name: one for one in self.configurations}[name]


def resolve_scenario(name_or_path: str, overrides: Overrides) -> ResolvedScenario:
    """Load a scenario and read its folders as a run would. Raises InputError with all problems."""
    try:
        scenario = load_scenario(name_or_path, overrides)
    except InputError as error:
        raise InputError((*error.problems, *_list_unknown_meshes(find_scenario(name_or_path)))) from None
    (document,) = read_documents(find_scenario(name_or_path))
    return resolve(scenario, find_inputs(scenario, name_or_path), document)


def resolve_stored(scenario: Scenario, run: Path) -> ResolvedScenario:
    """Read the folders of a scenario as a run's folder has them. Raises InputError with all problems."""
    return resolve(scenario, find_stored_inputs(scenario, run))


def resolve(scenario: Scenario, inputs: Inputs, document: Document | None = None) -> ResolvedScenario:
    """Read the folders of a scenario. Raises InputError with all problems; those without a position in a manifest have
    that of their configuration in `document`, the scenario's file."""
    application = application_of(scenario)
    configurations: list[ResolvedConfiguration] = []
    problems: list[Problem] = []
    for index, settings in enumerate(scenario.configurations):
        if problem := _mesh_problem(settings.mesh):
            loc = ("configurations", index, "mesh")
            problems.append(document.problem(loc, problem) if document else Problem("", 0, format_path(loc), problem))
            continue
        try:
            configurations.append(_resolve_configuration(settings, scenario, inputs, application))
        except InputError as error:
            found = error.problems or (str(error),)
            problems += (_add_position(problem, document, index) for problem in found)
    if problems:
        raise InputError(tuple(dict.fromkeys(problems)))
    return ResolvedScenario(
        scenario=scenario,
        inputs=inputs,
        application=application,
        objects=read_folders([application.definition.folder]),
        configurations=tuple(configurations),
    )


def _list_unknown_meshes(file: Path) -> Iterator[Problem]:
    """Yield the unknown meshes of a scenario that has other problems, too."""
    try:
        (document,) = read_documents(file)
    except (InputError, ValueError):
        return
    for index, entry in enumerate(list_configurations(document.value)):
        mesh = entry.get("mesh")
        if isinstance(mesh, str) and (problem := _mesh_problem(mesh)):
            yield document.problem(("configurations", index, "mesh"), problem)


def _mesh_problem(mesh: str) -> str:
    """Return the problem of an unknown mesh; empty for one that configurations can name."""
    known = ("none", *MESHES)
    if mesh in known:
        return ""
    near = [f"; did you mean {name}?" for name in get_close_matches(mesh, known, n=1)]
    return f"unknown mesh {mesh!r}{''.join(near)} (meshes: {', '.join(known)})"


def _resolve_configuration(
    settings: Configuration, scenario: Scenario, inputs: Inputs, application: Application
) -> ResolvedConfiguration:
    mesh = MESHES.get(settings.mesh)
    return ResolvedConfiguration(
        settings=settings,
        application=add_gateway(settings, application, inputs.manifests),
        mesh=mesh,
        policies=policies_of(settings, application, inputs.manifests),
        objects=(
            *read_folders([inputs.manifests[folder] for folder in settings.manifests]),
            *(policy_objects(mesh, scenario.equalise) if mesh else ()),
        ),
        groups=user_groups_in(settings, application, inputs.manifests),
        load=scenario.load_of(settings.name),
        equalise=scenario.equalise,
        namespaces=keep_namespaces(application.namespace),
    )


def find_problems(file: Path) -> tuple[Problem, ...]:
    """Return all problems of a scenario file and of the meshes that it names or, if it has none, of its manifests."""
    try:
        resolve_scenario(str(file) if "/" in str(file) else f"./{file}", NO_OVERRIDES)
    except InputError as error:
        return error.problems or (Problem(str(file), 0, "", str(error)),)
    return ()


def _add_position(problem: Problem | str, document: Document | None, index: int) -> Problem:
    """Give a problem without a position in a manifest the position of its configuration."""
    if isinstance(problem, Problem):
        return problem
    return document.problem(("configurations", index), problem) if document else Problem("", 0, "", problem)
