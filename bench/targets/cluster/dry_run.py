"""Compute what a run would do on a cluster, for `meshbench plan --context`: nothing is created, and the user is not
asked."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.k8s.client import Cluster, Object
from bench.k8s.kubeconfig import credentials_folder, describe_cluster, open_cluster
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.resolved import ResolvedScenario
from bench.scenario.model import Scenario
from bench.scenario.plan import ON_A_CLUSTER, Plan, estimate_seconds
from bench.targets.cluster.options import ClusterOptions, meshes_of
from bench.targets.cluster.preflight.capacity import (
    NO_RESOURCES,
    add_mesh,
    build_manifests,
    plan_trials,
    render_mesh,
)
from bench.targets.cluster.preflight.examination import settle_context
from bench.targets.cluster.preflight.mesh import existing_versions, tool_versions
from bench.targets.cluster.trial_manifests import TrialManifests
from bench.units import format_counted

_SECONDS_FOR_A_MESH: Final = 30.0  # to install and remove a control plane, as measured on one node with four CPUs


@dataclass(frozen=True, slots=True)
class DryRun:
    """The cluster dry run. `objects` are counted by kind, for each configuration and each control plane that is
    installed; `asked` are the requests of the pods that are there at once; `seconds` is the whole run; `paired` is
    whether those of all configurations are."""

    cluster: str
    seconds: float
    trials: Mapping[str, Mapping[str, int]]
    control_planes: Mapping[str, Mapping[str, int]]
    versions: Mapping[str, str]
    images: tuple[str, ...]
    asked: str
    paired: bool = False
    placement: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines for people."""
        what = "block creates at once, each configuration" if self.paired else "trial creates,"
        return (
            f"each {what} in two namespaces of its own, and deletes again:",
            *(f"  {name}: {_format_counts(kinds)}" for name, kinds in self.trials.items()),
            "control planes:",
            *(self._plane(mesh) for mesh in self.control_planes),
            *([] if self.control_planes else ["  none"]),
            f"at once: {self.asked}",
            *(["placement of pods:"] if self.placement else []),
            *(f"  {line}" for line in self.placement),
            "images:",
            *(f"  {image}" for image in self.images),
        )

    def _plane(self, mesh: str) -> str:
        kinds, version = self.control_planes[mesh], self.versions.get(mesh, "version unknown")
        made = f"the run creates {_format_counts(kinds)}, and deletes them" if kinds else "exists already, and stays"
        return f"  {mesh} {version}: {made}"


def dry_run_context(resolved: ResolvedScenario, options: ClusterOptions, *, plan: Plan) -> DryRun:
    """Return the dry run of this plan on a cluster. Raises RefusedError where the cluster or a mesh's
    tool is not available, InputError for manifests or values that are wrong."""
    with credentials_folder() as private, open_cluster(options.context, private_folder=private) as cluster:
        return dry_run(cluster, resolved, options, plan=plan)


def settle_for_context(resolved: ResolvedScenario, options: ClusterOptions) -> ResolvedScenario:
    """Return the scenario with the design that a run on the cluster would have. Raises RefusedError and InputError as
    `dry_run_context`, and InputError where the scenario asks for a design that its manifests do not allow."""
    with credentials_folder() as private, open_cluster(options.context, private_folder=private) as cluster:
        return settle_context(resolved, options, cluster)


def dry_run(cluster: Cluster, resolved: ResolvedScenario, options: ClusterOptions, *, plan: Plan) -> DryRun:
    """Return the dry run on a cluster that is open."""
    scenario, manifests = resolved.scenario, build_manifests(resolved, options)
    meshes = meshes_of(scenario)
    planned = plan_trials(manifests.values(), at_once=scenario.is_paired)
    for mesh in meshes:
        planned = add_mesh(planned, mesh, cluster=cluster, options=options, equalise=scenario.equalise)
    total = sum((pod.resources for pod in planned.requests), NO_RESOURCES)
    return DryRun(
        cluster=describe_cluster(cluster),
        seconds=_seconds(scenario, plan, installing=not options.existing_mesh),
        trials={name: _count_trial_objects(one) for name, one in manifests.items()},
        control_planes={mesh: _count_control_plane_objects(mesh, scenario, options) for mesh in meshes},
        versions=existing_versions(cluster, meshes) if options.existing_mesh else tool_versions(meshes),
        images=planned.images,
        paired=scenario.is_paired,
        placement=options.placement.describe(),
        asked=f"{format_counted(len(planned.requests), 'pod')} that request {total}",
    )


def _count_control_plane_objects(mesh: str, scenario: Scenario, options: ClusterOptions) -> Mapping[str, int]:
    if options.existing_mesh:
        return {}
    plane = CONTROL_PLANES[mesh]
    rendered = render_mesh(options, mesh, scenario.equalise)
    return _count_kinds((*rendered, *plane.base_objects()))


def _count_trial_objects(manifests: TrialManifests) -> dict[str, int]:
    made = (thing for part in manifests.pods(None).values() for thing in part)
    return _count_kinds((*manifests.namespaces(), *manifests.policies, *made))


def _count_kinds(things: Iterable[Object]) -> dict[str, int]:
    """Return how many objects there are of each kind, most first."""
    return dict(Counter(str(thing["kind"]) for thing in things).most_common())


def _format_counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _seconds(scenario: Scenario, plan: Plan, *, installing: bool) -> float:
    """Return the seconds of windows, warm-ups, trials and control planes."""
    if not installing:
        planes = 0
    elif scenario.isolation == "full":
        planes = sum(scenario.configuration(trial.configuration).mesh != "none" for trial in plan.trials)
    else:
        planes = len(meshes_of(scenario))
    return estimate_seconds(scenario, plan, ON_A_CLUSTER) + planes * _SECONDS_FOR_A_MESH
