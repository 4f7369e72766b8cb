"""Resolve a scenario's folders: application, gateway, policies and user groups per configuration."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from bench.application.manifests import Read, Untranslated, read_folders, read_manifests
from bench.application.model import GATEWAY, Application, Workload, read_application
from bench.application.objects import CLUSTER_SCOPED, TEMPLATES, find_left_out, register_secrets
from bench.application.replacements import Replacement, find_own_objects
from bench.envoy.wire import Mode, Wire
from bench.errors import InputError, Problem
from bench.files.folders import find_shipped
from bench.files.objects import ManifestReader, Omission
from bench.files.yaml_source import Document, Loc, format_path, format_suggestion, read_documents, value_at
from bench.meshes import MESHES
from bench.meshes.application_names import find_mentions, move_application
from bench.meshes.equalise import equalise_wire, policy_objects
from bench.meshes.gateway_objects import separate_supporting
from bench.meshes.probe import Outcome, Probe
from bench.meshes.protocols import EVERY_EFFECT, Effect, Mesh, Policies
from bench.meshes.rewriting import OUTSIDE, REFERENCE, Moved, Namespaces, Rewrite, find_texts, keep_namespaces
from bench.meshes.routing import Route
from bench.meshes.user_groups import UserGroup, user_groups_of
from bench.results.issues import Issue, IssueCode
from bench.scenario.design import settle_as
from bench.scenario.loader import (
    NO_OVERRIDES,
    Inputs,
    find_inputs,
    find_scenario,
    find_stored_inputs,
    settle_scenario,
)
from bench.scenario.model import Configuration, Equal, Load, Scenario
from bench.scenario.overrides import Overrides, list_configurations
from bench.scenario.placement import NamespaceSettings
from bench.scenario.probes import OUTSIDE as OUTSIDE_CALLER
from bench.scenario.probes import ScenarioProbe
from bench.scenario.types import Design

_NEEDS_CLUSTER: Final = "needs a cluster: run with --context NAME"
UNPROBED: Final = "applied, accepted by the control plane, not probed"
_GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
_CHOOSES_SIDECAR: Final = ("/rev", "/dataplane-mode")  # ends of labels that choose the mesh's version or mode
UNNAMED: Final = "RUN"  # in place of the end of a run's id, until it has one
_LONGEST_NAMESPACE: Final = 63 - len(OUTSIDE)
_DIGEST: Final = 6  # letters of a name that was shortened


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfiguration:
    """A configuration of a scenario with everything that its manifests define.

    `application` is as the manifests name it, with their gateway if they have one, and policies are evaluated for it;
    `deployed` has the names of a run. `mesh` and `policies` are None without a mesh. `objects` are the manifests, with
    those that a mesh needs for what the scenario equalises; the `untranslated` ones are applied on a cluster only, and
    are no part of `policies`. `warnings` are parts of the manifests without an effect. `things` are the application's
    own objects for every version, with the configuration's `replacements`.
    """

    settings: Configuration
    application: Application
    mesh: Mesh | None
    policies: Policies | None
    objects: tuple[Document, ...]
    untranslated: tuple[Untranslated, ...]
    warnings: tuple[Problem, ...]
    things: tuple[Document, ...]
    replacements: tuple[Replacement, ...]
    groups: tuple[UserGroup, ...]
    load: Load
    equalise: tuple[Equal, ...]
    namespaces: Namespaces
    scenario_probes: tuple[ScenarioProbe, ...] = ()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def deployed(self) -> Application:
        """The application in the namespace and the mesh of the run."""
        names, written = self.namespaces, self.application
        return replace(
            written,
            namespace=names.of(written.namespace),
            namespaces={one: runs for one, runs in names.runs.items() if one != runs},
            mesh=names.run_mesh or written.mesh,
        )

    def in_namespaces(self, namespaces: Namespaces) -> "ResolvedConfiguration":
        """Return the configuration as it is deployed in these namespaces."""
        return replace(self, namespaces=namespaces)

    @property
    def moved(self) -> tuple[Moved, ...]:
        """The manifests as the run applies them, in this order."""
        return self.mesh.policies.mesh_objects(self.objects, self.namespaces) if self.mesh else ()

    @property
    def moved_application(self) -> tuple[Moved, ...]:
        """The application's own objects as the run applies them."""
        return move_application(self.application, self.things, self.namespaces)

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
        return {one.name: names[one.identity][0] for one in self.application.everyone if names.get(one.identity)}

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The requests whose responses show that each policy is in force."""
        return self.policies.probes(self.application) if self.policies else ()

    @property
    def unproven(self) -> frozenset[Effect]:
        """What untranslated objects may change: no proof of it is derived."""
        effects = self.mesh.policies.EFFECTS if self.mesh else {}
        found = (effects.get(one.document.value["kind"], EVERY_EFFECT) for one in self.untranslated)
        return frozenset(effect for some in found for effect in some)

    def mode(self, workload: Workload) -> Mode:
        """Return what the sidecar of a workload accepts; `DISABLE` without a mesh."""
        return self.policies.mode(workload) if self.policies else "DISABLE"

    def is_secured(self, workload: Workload) -> bool:
        """Return whether the workload's sidecar takes mutual TLS; the gateway's caller is outside of the mesh."""
        return workload.name != GATEWAY and self.mode(workload) != "DISABLE"

    def is_encrypted(self, workload: Workload) -> bool:
        """Return whether the sidecars of callers use mutual TLS to the workload."""
        used = self.policies is not None and self.policies.encrypts(self.deployed, workload)
        return used and self.is_secured(workload)

    def outcome(self, caller: str, callee: str) -> Outcome:
        """Return what the policies make of a call's usual request; a caller that is no workload with a certificate
        sends it in plaintext."""
        application, workload = self.application, self.application.workload(callee)
        if self.policies is None:
            return Outcome(application.usual_request(workload.app).status)
        inside = {one.name: one for one in application.everyone}
        return self.policies.outcome(application, caller=inside.get(caller), workload=workload)

    @property
    def knows_counts(self) -> bool:
        """Whether the requests on each hop follow from those of the load: all calls are known, and neither the weights
        of a route nor a proxy that answers itself leave them to chance."""
        return self.application.knows_calls and not any(
            route.is_split or route.answers for route in self._list_routes()
        )

    def _list_routes(self) -> Iterator[Route]:
        application = self.deployed
        if self.policies is not None:
            for caller, service in product(application.everyone, application.services):
                yield from self.policies.routes(application, caller=caller, service=service)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedScenario:
    """A scenario with everything that its folders define. `application` is without a gateway, and `objects` are its
    manifests, for every version. `omissions` are what of the files is not applied. `remarks` say why the design is not
    the one that was asked for, which manifests have no effect, and what of them is not applied; `design_asked` is
    whether the file or the command line names it; `sequential` as in SettledScenario."""

    scenario: Scenario
    inputs: Inputs
    application: Application
    objects: tuple[Document, ...]
    configurations: tuple[ResolvedConfiguration, ...]
    omissions: tuple[Omission, ...] = ()
    remarks: tuple[Issue, ...] = ()
    design_asked: bool = False
    sequential: Scenario | None = None

    def with_design(self, design: Design, why: str) -> "ResolvedScenario":
        """Return the scenario with another design than was asked for; the remarks then say why."""
        settled = settle_as(self.scenario, design, why)
        scenario = self.sequential if design == "sequential" and self.sequential else settled.scenario
        loads = {one.name: scenario.load_of(one.name) for one in self.configurations}
        configurations = tuple(replace(one, load=loads[one.name]) for one in self.configurations)
        return replace(self, scenario=scenario, configurations=configurations).remark(*settled.remarks)

    def remark(self, *texts: str) -> "ResolvedScenario":
        """Return the scenario with further remarks about its design."""
        made = (Issue(code=IssueCode.DESIGN, severity="warning", detail=text) for text in texts)
        return replace(self, remarks=(*self.remarks, *made))

    def configuration(self, name: str) -> ResolvedConfiguration:
        """Return the configuration of that name. Raises KeyError where there is none."""
        return {one.name: one for one in self.configurations}[name]

    @property
    def counts_decisions(self) -> bool:
        """Whether the sidecars of all configurations count what their filters decide: for objects that nothing
        proves."""
        return any(one.untranslated for one in self.configurations)

    def list_local_obstacles(self) -> tuple[Problem, ...]:
        """Return why processes of this machine cannot be what the scenario describes, each once: an application without
        a program, own images or objects of a configuration, and manifests that are not translated. Measured without
        them, a configuration would be another one under its name."""
        definition = self.application.definition
        found: list[Problem] = []
        if definition.local is None:
            found.append(Problem(str(definition.file), 0, "local", f"{definition.name} has no program"))
        found += self.application.local_obstacles
        for one in self.configurations:
            parts = {"images": one.settings.images, "objects": one.replacements}
            what = " and ".join(name for name, own in parts.items() if own)
            found += [Problem("", 0, "", f"{one.name} with {what} of its own")] if what else []
            found += [problem for each in one.untranslated for problem in each.problems]
        return tuple(replace(one, message=f"{one.message}; {_NEEDS_CLUSTER}") for one in dict.fromkeys(found))

    def require_local(self) -> None:
        """Raise InputError with all problems of `list_local_obstacles`."""
        if problems := self.list_local_obstacles():
            raise InputError(problems)

    def list_cluster_obstacles(self, *, existing_mesh: bool = False) -> tuple[Problem, ...]:
        """Return why no cluster can have what the scenario describes, each once: objects of the whole cluster, and in
        an existing mesh those of the whole mesh without a form for the run alone."""
        found = [
            problem
            for one in self.configurations
            for document in one.objects
            for problem in _find_cluster_obstacles(document, one, [*self._written_names()], existing_mesh=existing_mesh)
        ]
        return tuple(dict.fromkeys(found))

    def name_namespaces(self, run: str, configuration: str, *, existing_mesh: bool, block: int = 0) -> Namespaces:
        """Return the namespaces of a run: `APPLICATION-7f3a` for the application's first, `NAMESPACE-7f3a` for others.

        Side by side they are of the `configuration` alone, `APPLICATION-7f3a-CONFIGURATION`, and with a `block` of that
        block alone, `APPLICATION-7f3a-2-CONFIGURATION`; a name that is too long ends in a digest. The part of a mesh
        that belongs to the configuration, in all blocks, has the name of the first without the block.
        """
        written, mesh = self._written_names(), _fit_name(f"{self.application.name}-{run}-{configuration}")
        if not self.scenario.is_paired:
            names = {one: f"{name}-{run}" for one, name in written.items()}
            return Namespaces(names, mesh if existing_mesh else "")
        part = f"{run}-{block}" if block else run
        return Namespaces({one: _fit_name(f"{name}-{part}-{configuration}") for one, name in written.items()}, mesh)

    def _written_names(self) -> dict[str, str]:
        """Return what the run's namespaces are named after, by those that manifests name."""
        every = {one: one for one in self.application.definition.namespaces or ()}
        return {**every, self.application.namespace: self.application.name}

    def name_configurations(
        self, run: str = UNNAMED, *, existing_mesh: bool, block: int = 0
    ) -> Mapping[str, Namespaces]:
        """Return the namespaces of each configuration: its own where a block's are deployed side by side, else the
        run's; the part of a mesh is its own in either case."""
        return {
            one.name: self.name_namespaces(run, one.name, existing_mesh=existing_mesh, block=block)
            for one in self.configurations
        }

    def list_rewrites(self, names: Mapping[str, Namespaces]) -> tuple[Rewrite, ...]:
        """Return what differs from the manifests in the namespaces of each configuration, each once; files are named as
        in the scenario."""
        placed = [self.configuration(name).in_namespaces(own) for name, own in names.items()]
        moved = [one for each in placed for one in (*each.moved_application, *each.moved)]
        found = (rewrite for one in moved for rewrite in one.rewrites)
        return tuple(dict.fromkeys(replace(one, file=self.shorten(Path(one.file))) for one in found))

    def report_left_out(self) -> "ResolvedScenario":
        """Return the scenario with one remark for each part that is left out, and for each mention of a namespace."""
        found = (*self.list_left_out(), *map(str, self.list_mentions()))
        issues = (Issue(code=IssueCode.LEFT_OUT, severity="warning", detail=text) for text in found)
        return replace(self, remarks=(*self.remarks, *issues))

    def list_left_out(self) -> tuple[str, ...]:
        """Return the parts of the manifests that a run does not apply, each with the reason."""
        every = (*self.omissions, *self.application.left_out)
        return tuple(str(replace(one, file=self.shorten(Path(one.file)))) for one in every)

    def list_mentions(self) -> tuple[Problem, ...]:
        """Return where programs of the application are given a namespace's name that a run does not rewrite; files are
        named as in the scenario."""
        names = self.name_configurations(existing_mesh=False)
        found = (
            one
            for each in self.configurations
            for one in find_mentions(each.application, each.things, names[each.name])
        )
        return tuple(dict.fromkeys(replace(one, file=self.shorten(Path(one.file))) for one in found))

    def shorten(self, file: Path) -> str:
        """Return the name of a manifest's file as the scenario names its folder."""
        own = {str(self.scenario.application.manifests): self.inputs.application} if self.inputs.application else {}
        folders = {**self.inputs.manifests, **own, "": find_shipped("manifests")}
        return next(
            ((Path(name) / file.relative_to(at)).as_posix() for name, at in folders.items() if file.is_relative_to(at)),
            str(file),
        )


def _find_cluster_obstacles(
    document: Document, configuration: ResolvedConfiguration, own: Sequence[str], *, existing_mesh: bool
) -> Iterator[Problem]:
    kind, metadata = document.value["kind"], document.value["metadata"]
    if kind in (*CLUSTER_SCOPED, "Namespace"):
        message = f"a {kind} is of the whole cluster, and a run creates objects in its own namespaces only"
        yield document.problem(("kind",), f"{message}; hint: leave it out, or apply it before the run")
    yield from _find_attachments(document, configuration, own, existing_mesh=existing_mesh)
    movable = configuration.mesh.policies.MOVABLE if configuration.mesh else frozenset[str]()
    if existing_mesh and metadata.get("namespace") not in (None, *own) and kind not in movable:
        message = f"in an existing mesh nothing is created in {metadata['namespace']}, and elsewhere a {kind}"
        yield document.problem(("metadata", "namespace"), f"{message} would mean something else")


def _find_attachments(
    document: Document, configuration: ResolvedConfiguration, own: Sequence[str], *, existing_mesh: bool
) -> Iterator[Problem]:
    """Yield the gateways and namespaces of others that an object would change."""
    policies = configuration.mesh.policies if configuration.mesh else None
    if policies is None:
        return
    roots = () if existing_mesh else (kind.root_namespace for kind in policies.KINDS.values())
    known = {"", ".", "~", "*", *own, *roots}  # what stands for none, for its own and for all is limited to the run
    for path, place in policies.ATTACHED.get(document.value["kind"], {}).items():
        for loc, text in find_texts(document.value, path):
            if (text.rpartition("/")[0] if place is REFERENCE else text) not in known:
                message = f"{text} is not the run's, and would change requests of others"
                yield document.problem(loc, f"{message}; hint: name what is in the manifests")


def _fit_name(name: str) -> str:
    """Return a name that a namespace can have, and one with `OUTSIDE` at its end: what does not fit, or could be the
    name outside of another configuration, gets a digest in place of its end."""
    if len(name) <= _LONGEST_NAMESPACE and not name.endswith(("-", OUTSIDE)):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: _LONGEST_NAMESPACE - _DIGEST - 1].rstrip('-')}-{digest}"


def resolve_scenario(name_or_path: str, overrides: Overrides) -> ResolvedScenario:
    """Load a scenario and read its folders as a run would. Raises InputError with all problems."""
    file = find_scenario(name_or_path)
    try:
        settled = settle_scenario(name_or_path, overrides)
    except InputError as error:
        raise InputError((*error.problems, *_list_unknown_meshes(file))) from None
    resolved = resolve(settled.scenario, find_inputs(settled.scenario, name_or_path), file)
    return replace(resolved, design_asked=settled.asked, sequential=settled.sequential).remark(*settled.remarks)


def resolve_stored(scenario: Scenario, run: Path) -> ResolvedScenario:
    """Read the folders of a scenario as a run's folder has them. Raises InputError with all problems."""
    return resolve(scenario, find_stored_inputs(scenario, run))


def resolve(scenario: Scenario, inputs: Inputs, file: Path | None = None) -> ResolvedScenario:
    """Read the folders of a scenario. Raises InputError with all problems; those without a position in a manifest have
    that of their configuration in `file`, the scenario's."""
    reader = ManifestReader(inputs.labels)
    read = reader.read
    definition = scenario.application.definition
    if inputs.application is not None:
        definition = definition.place(inputs.application, file)
    try:
        application = read_application(definition, scenario.application.versions, read=read)
    except InputError as error:
        raise InputError([_locate_key(one, file) for one in error.problems]) from None
    configurations: list[ResolvedConfiguration] = []
    objects = _keep_applied(read_folders([application.definition.folder], read))
    problems = [*list_mesh_settings(objects, is_strict=application.definition.local is not None)]
    problems += (
        _add_position(text, file, loc) for loc, text in _list_namespace_settings(scenario.placement.namespaces)
    )
    for index, settings in enumerate(scenario.configurations):
        loc: Loc = ("configurations", index)
        try:
            if problem := _mesh_problem(settings.mesh):
                loc = (*loc, "mesh")
                raise InputError(problem)
            folders = [inputs.manifests[name] for name in settings.manifests]
            configurations.append(_resolve_configuration(settings, scenario, application, folders=folders, read=read))
        except InputError as error:
            found = error.problems or (str(error),)
            problems += (_add_position(problem, file, loc) for problem in found)
    for one in configurations:
        loc = ("configurations", [each.name for each in scenario.configurations].index(one.name))
        problems += (_add_position(text, file, path) for path, text in _list_probe_problems(one, loc))
    if problems:
        raise InputError(tuple(dict.fromkeys(problems)))
    return ResolvedScenario(
        scenario=scenario,
        inputs=inputs,
        application=application,
        objects=objects,
        configurations=tuple(configurations),
        omissions=reader.omissions,
        remarks=tuple(_list_issues(configurations)),
    ).report_left_out()


def _list_probe_problems(configuration: ResolvedConfiguration, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Yield unknown workloads in probes of the scenario, and of the configuration at `loc`, with their paths."""
    application, own = configuration.application, configuration.settings.probes
    called = [one.name for one in application.workloads if application.find_service(one)]
    called += [GATEWAY] if application.gateway else []
    callers = [*(one.name for one in application.everyone), application.client.name, OUTSIDE_CALLER]
    shared = len(configuration.scenario_probes) - len(own)
    for number, probe in enumerate(configuration.scenario_probes):
        place: Loc = ("probes", number) if number < shared else (*loc, "probes", number - shared)
        for key, name, known in (("as", probe.caller, callers), ("to", probe.to, called)):
            if name not in known:
                yield (*place, key), f"no workload {name!r} in {configuration.name}{format_suggestion(name, known)}"
        if application.gateway and probe.caller == application.client.name and probe.to != GATEWAY:
            yield (*place, "to"), f"in {configuration.name} the load reaches {GATEWAY} only"


def _list_issues(configurations: Iterable[ResolvedConfiguration]) -> Iterator[Issue]:
    """Yield one issue for all parts of the manifests without an effect, and one for all that nothing proves."""
    every = [*configurations]
    without = [str(problem) for one in every for problem in one.warnings]
    unprobed = [format_unprobed(one.document) for configuration in every for one in configuration.untranslated]
    for code, found in ((IssueCode.NO_EFFECT, without), (IssueCode.UNPROBED, unprobed)):
        distinct = [*dict.fromkeys(found)]
        if distinct:
            more = f", and {len(distinct) - 1} more like it" if len(distinct) > 1 else ""
            note = "; sidecars of all configurations count decisions" if code is IssueCode.UNPROBED else ""
            yield Issue(code=code, severity="warning", detail=f"{distinct[0]}{more}{note}")


def format_unprobed(document: Document) -> str:
    """Format what is known of an object that is not translated."""
    value = document.value
    where = f"{document.file}:{document.line_of(())}"
    return f"{where}: {value['kind']} {value['metadata']['name']}: {UNPROBED}"


def _keep_applied(documents: Iterable[Document]) -> tuple[Document, ...]:
    """Return the application's objects that a run applies."""
    return tuple(one for one in documents if find_left_out(one) is None)


def list_mesh_settings(objects: Iterable[Document], *, is_strict: bool = True) -> Iterator[Problem]:
    """Yield objects of a mesh among the application's, which only configurations with that mesh can have, and labels
    and annotations of its pods that a mesh reads: they would change its sidecars. Unless `is_strict`, only those that
    decide whether there is a sidecar."""
    for document in objects:
        thing = document.value
        if _is_of_mesh(thing["apiVersion"].rpartition("/")[0]):
            message = "is of a mesh; hint: move it into a folder of the `manifests` of configurations that have it"
            yield document.problem(("apiVersion",), f"{thing['kind']} {thing['metadata']['name']} {message}")
        for kind in ("labels", "annotations"):
            loc: Loc = (*TEMPLATES.get(thing["kind"], ("spec", "template")), "metadata", kind)
            for key in value_at(thing, loc) or {}:
                is_read = any(mesh.reads(str(key)) for mesh in MESHES.values())
                if is_read and (is_strict or "inject" in key or key.endswith(_CHOOSES_SIDECAR)):
                    yield document.problem((*loc, key), f"{key} changes the sidecar, which meshbench does not support")


def _is_of_mesh(group: str) -> bool:
    domains = (_GATEWAY_GROUP, *(mesh.domain for mesh in MESHES.values()))
    return any(group == one or group.endswith(f".{one}") for one in domains)


def _list_namespace_settings(settings: NamespaceSettings) -> Iterator[tuple[Loc, str]]:
    """Yield labels and annotations of the run's namespaces that a mesh reads, with their path in the scenario: the
    configurations decide which mesh a namespace is in."""
    for kind in ("labels", "annotations"):
        for key in getattr(settings, kind):
            for mesh in (one for one in MESHES.values() if one.reads(key)):
                loc = ("placement", "namespaces", kind, key)
                yield (
                    loc,
                    f"{mesh.title} reads it, and the mesh of a namespace is that of its configuration; leave it out",
                )


def reject_mesh_settings(objects: Iterable[Document], *, is_strict: bool) -> None:
    """Raise InputError with all problems of `list_mesh_settings`."""
    if problems := tuple(list_mesh_settings(objects, is_strict=is_strict)):
        raise InputError(problems)


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
    near = [f"; did you mean {name}?" for name in get_close_matches(mesh.lower(), known, n=1)]
    return f"unknown mesh {mesh!r}{''.join(near)} (meshes: {', '.join(known)})"


def _resolve_configuration(
    settings: Configuration, scenario: Scenario, application: Application, *, folders: Sequence[Path], read: Read
) -> ResolvedConfiguration:
    mesh, objects = MESHES.get(settings.mesh), tuple[Document, ...]()
    definition, home = application.definition, application.namespace
    own = find_own_objects(folders, definition.folder, namespace=home, read=read)
    if own.replacements:
        reject_mesh_settings((one.document for one in own.replacements), is_strict=definition.local is not None)
        application = read_application(definition, scenario.application.versions, read=own.read_application)
    kinds, read_rest = mesh.policies.KINDS if mesh else {}, own.read_rest
    if mesh is not None:
        read_rest = partial(_read_converted, read=own.read_rest, convert=mesh.policies.convert)
    manifests = read_manifests(folders, kinds, namespace=home, others=application.spaces, read=read_rest)
    register_secrets(manifests.documents)
    reading, untranslated = None, manifests.untranslated
    if mesh is not None:
        manifests = separate_supporting(manifests, mesh.policies.is_gateway_part)
        if gateway := mesh.policies.read_gateway(manifests.sources, application):
            application = application.entered_by(gateway)
        reading = mesh.policies.read_policies(manifests.sources, application)
        untranslated = (*manifests.untranslated, *reading.untranslated)
        objects = (*manifests.documents, *policy_objects(mesh, scenario.equalise, read))
    return ResolvedConfiguration(
        settings=settings,
        application=application,
        mesh=mesh,
        policies=reading.policies if reading else None,
        objects=objects,
        untranslated=untranslated,
        warnings=reading.warnings if reading else (),
        things=_keep_applied((*read_folders([definition.folder], own.read_application), *own.rest)),
        replacements=own.replacements,
        groups=user_groups_of(reading.policies if reading else None, application, complete=not untranslated),
        load=scenario.load_of(settings.name),
        equalise=scenario.equalise,
        scenario_probes=(*scenario.probes, *settings.probes),
        namespaces=keep_namespaces(*application.spaces),
    )


def _read_converted(file: Path, *, read: Read, convert: Callable[[Document], Document]) -> tuple[Document, ...]:
    return tuple(map(convert, read(file)))


def resolve_file(file: Path) -> ResolvedScenario:
    """Load a scenario from this file, whatever its name. Raises InputError with all problems."""
    return resolve_scenario(name_source(file), NO_OVERRIDES)


def name_source(file: Path) -> str:
    """Return the path by which a file is no name of a shipped scenario."""
    return str(file) if "/" in str(file) else f"./{file}"


def try_resolve(file: Path) -> tuple[ResolvedScenario | None, tuple[Problem, ...]]:
    """Load a scenario from this file; return None where it has problems, and all of them: its own and those of the
    meshes that it names or, if it has none, of its manifests."""
    try:
        return resolve_file(file), ()
    except InputError as error:
        return None, error.problems or (Problem(str(file), 0, "", str(error)),)


def find_problems(file: Path) -> tuple[Problem, ...]:
    """Return all problems that `try_resolve` finds."""
    return try_resolve(file)[1]


def _locate_key(problem: Problem, file: Path | None) -> Problem:
    """Give a problem of a key of the application the position of the key in the scenario's file."""
    if file is None or problem.file != str(file) or problem.line:
        return problem
    (document,) = read_documents(file)
    return document.problem(("application", problem.path), problem.message)


def _add_position(problem: Problem | str, file: Path | None, loc: Loc) -> Problem:
    """Give a problem without a position in a manifest the position of its configuration."""
    if isinstance(problem, Problem):
        return problem
    if file is None:
        return Problem("", 0, format_path(loc), problem)
    (document,) = read_documents(file)
    return document.problem(loc, problem)
