"""Examine a cluster before anything is created on it; and the guard before that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.check_result import CheckResult
from bench.errors import ClusterError, ErrorKind, InputError, RefusedError
from bench.k8s.client import Cluster, Object
from bench.k8s.kubeconfig import describe_cluster, looks_like_production
from bench.k8s.objects import node_name
from bench.k8s.ownership import run_of
from bench.k8s.scheduling import is_open, schedulable_nodes
from bench.meshes.control_planes import CONTROL_PLANES, find_gateway_maker
from bench.meshes.resolved import ResolvedScenario
from bench.meshes.rights import Need
from bench.scenario.model import Scenario
from bench.scenario.placement import NO_PLACEMENT, PARTS, Part, Placement
from bench.targets.cluster.flags import CLUSTER_FLAGS
from bench.targets.cluster.load.placement import LoadPlacement, place_load
from bench.targets.cluster.options import ClusterOptions, find_meshes_with_images, meshes_of
from bench.targets.cluster.pod_placement import constraints_of
from bench.targets.cluster.preflight.application import (
    application_needs,
    examine_application,
    list_application_objects,
    list_pull_secrets,
)
from bench.targets.cluster.preflight.capacity import (
    FreeNode,
    PodPlan,
    add_mesh,
    build_manifests,
    daemons_of,
    examine_capacity,
    find_free,
    find_unschedulable,
    plan_trials,
    subtract_daemons,
)
from bench.targets.cluster.preflight.cluster import (
    examine_admission,
    examine_dangling,
    examine_earlier_runs,
    examine_local_port,
    examine_meshes,
    examine_nodes,
    examine_terminating,
    examine_version,
)
from bench.targets.cluster.preflight.images import examine_images
from bench.targets.cluster.preflight.mesh import examine_existing_mesh, examine_tools
from bench.targets.cluster.preflight.permissions import adapt_to_server, examine_permissions, needs_of, needs_of_objects
from bench.targets.cluster.prometheus import examine_prometheus, prometheus_needs
from bench.targets.cluster.side_by_side import settle_obstacles
from bench.targets.cluster.teardown.blockers import find_dangling
from bench.units import format_counted

MANY_NODES: Final = 20
MANY_PODS: Final = 200  # of others: with fewer, it is a cluster for tests


@dataclass(frozen=True, slots=True)
class Examination:
    """The check results of a cluster, those of them about telemetry, and what is decided here alone: where the load is
    to run, and the design of the `resolved` scenario."""

    resolved: ResolvedScenario
    findings: tuple[CheckResult, ...]
    telemetry: tuple[CheckResult, ...]
    load_place: LoadPlacement


def examine_cluster(cluster: Cluster, resolved: ResolvedScenario, options: ClusterOptions) -> Examination:
    """Check everything that a run of this scenario needs of a cluster, in the order in which the run would meet it.

    Nothing is created, except that image pulls are tried once the user agreed (`--yes`) and no other check failed.
    Raises RefusedError where the permissions do not suffice to examine it, and InputError where the scenario asks for
    a design that its manifests do not allow.
    """
    given = resolved
    if problems := resolved.list_cluster_obstacles(existing_mesh=options.existing_mesh):
        raise InputError(problems)
    resolved = resolved if options.resumed else settle_obstacles(resolved)
    meshes = meshes_of(resolved.scenario)
    things = list_application_objects(resolved)
    needs = (*_needs(resolved.scenario, options), *application_needs(things, cluster.kinds()))
    untranslated = (one.document.value for each in resolved.configurations for one in each.untranslated)
    needs = (*needs, *needs_of_objects(untranslated, cluster.kinds(), needs))
    permitted = require_permissions(cluster, adapt_to_server(needs, cluster.version))
    nodes = cluster.list("v1", "Node")
    tools = () if options.existing_mesh else examine_tools(CONTROL_PLANES[mesh].TOOL for mesh in meshes)
    planned, refusals = _plan_pods(cluster, resolved, options, installing=not _has_errors(tools))
    free = _find_free(cluster, nodes, planned)
    place = _place_load(nodes, free, planned, options)
    if not options.resumed:
        resolved = settle_room(resolved, planned, free, load_node=place.node)
    if not resolved.scenario.is_paired and planned.at_once:
        planned = replace(planned, at_once=False)
        place = _place_load(nodes, free, planned, options)
    results = (
        permitted,
        examine_version(cluster.version, nodes),
        *examine_nodes(nodes, options.placement, context=cluster.context),
        *_examine_made_gateways(planned, options.placement),
        *_examine_idle_parts(resolved, options),
        *tools,
        *refusals,
        *planned.telemetry,
        *planned.remarks,
        *examine_earlier_runs(cluster),
        *examine_meshes(cluster, meshes, existing=options.existing_mesh),
        *(examine_existing_mesh(cluster, meshes, options) if options.existing_mesh else ()),
        *examine_dangling(find_dangling(cluster), needs, cluster.context),
        *examine_terminating(cluster),
        # A mesh with a CNI plugin needs no rights in its pods.
        *(examine_admission(cluster, cluster.kinds()) if len(daemons_of(planned.control)) < len(meshes) else ()),
        *examine_application(cluster, things),
        *_list_remarks(given, resolved),
        examine_capacity(planned.requests, free, load_node=place.node),
        *([examine_prometheus(options.prometheus, cluster)] if options.prometheus else ()),
        *(examine_local_port(port) for port in list_page_ports(resolved.scenario, options)),
    )
    pull = not _has_errors(results) and _is_agreed(cluster, options)
    images = examine_images(
        cluster,
        planned.images,
        _list_used_nodes(nodes, options.placement),
        pull=pull,
        placement=options.placement,
        registries=list_pull_secrets(things),
    )
    return Examination(resolved, (*results, *images), planned.telemetry, place)


def settle_context(resolved: ResolvedScenario, options: ClusterOptions, cluster: Cluster) -> ResolvedScenario:
    """Return the scenario with the design that a run on this cluster would have; see `examine_cluster`."""
    settled = settle_obstacles(resolved)
    if not settled.scenario.is_paired:
        return settled
    planned, _ = _plan_pods(cluster, settled, options, installing=True)
    nodes = cluster.list("v1", "Node")
    free = _find_free(cluster, nodes, planned)
    return settle_room(settled, planned, free, load_node=_place_load(nodes, free, planned, options).node)


def settle_room(
    resolved: ResolvedScenario, planned: PodPlan, free: Sequence[FreeNode], *, load_node: str
) -> ResolvedScenario:
    """Return the scenario with a design for which the nodes have room: sequential, with a remark, where the pods of all
    configurations do not fit at once. Loads in turn need the same room as loads at the same time."""
    if not resolved.scenario.is_paired:
        return resolved
    lacking = find_unschedulable(planned.requests, free, load_node=load_node)
    if not lacking:
        return resolved
    first = lacking[0]
    why = (
        "the nodes have no room for all configurations at once, nor for loads in turn, which need the same: "
        f"{format_counted(len(lacking), 'pod')} of {len(planned.requests)} would be unschedulable, such as "
        f"{first.name} ({first.resources}); hint: {CLUSTER_FLAGS['scale_requests'].text} 25%"
    )
    return resolved.with_design("sequential", why)


def _place_load(
    nodes: Sequence[Object], free: Sequence[FreeNode], planned: PodPlan, options: ClusterOptions
) -> LoadPlacement:
    requests = planned.requests
    return place_load(
        nodes,
        load=constraints_of(options.placement.of("load")),
        application=constraints_of(options.placement.of("application")),
        before=options.load_node,
        fits=lambda one: not find_unschedulable(requests, free, load_node=one.node),
    )


def _list_used_nodes(nodes: Sequence[Object], placement: Placement) -> tuple[Object, ...]:
    """Return the nodes that take pods of any part."""
    used = {node_name(one) for part in PARTS for one in schedulable_nodes(nodes, constraints_of(placement.of(part)))}
    return tuple(node for node in nodes if node_name(node) in used)


def _examine_idle_parts(resolved: ResolvedScenario, options: ClusterOptions) -> tuple[CheckResult, ...]:
    """Check parts that are placed, and that the run has not."""
    idle: dict[Part, str] = {}
    if options.existing_mesh:
        idle["mesh"] = "the mesh is installed already, and stays where it is"
    elif not meshes_of(resolved.scenario):
        idle["mesh"] = "no configuration has a mesh"
    if not any(one.application.gateway for one in resolved.configurations):
        idle["gateway"] = "no configuration has a gateway"
    return tuple(
        CheckResult("placement", "warning", f"placement.{part} has no effect: {why}", "leave it out")
        for part, why in idle.items()
        if getattr(options.placement, part) != NO_PLACEMENT.application
    )


def _examine_made_gateways(planned: PodPlan, placement: Placement) -> tuple[CheckResult, ...]:
    """Check gateways whose pods a control plane makes: it has no setting for their nodes."""
    made = [
        thing
        for trial in planned.trials
        for things in trial.values()
        for thing in things
        if find_gateway_maker(thing["kind"])
    ]
    if not made or not str(placement.of("gateway")):
        return ()
    asked = bool(str(placement.gateway))
    detail = (
        f"{made[0]['kind']} {made[0]['metadata']['name']}: its control plane makes the pods, and places them itself"
    )
    hint = "use a gateway with a Deployment, or leave out placement.gateway" if asked else "they may be on any node"
    return (CheckResult("gateway", "error" if asked else "warning", detail, hint),)


def _list_remarks(given: ResolvedScenario, settled: ResolvedScenario) -> tuple[CheckResult, ...]:
    """Return why the design is not the one that was given, as warnings."""
    new = settled.remarks[len(given.remarks) :]
    hint = "or choose the design: --design sequential"
    return tuple(CheckResult("design", "warning", one.detail, hint) for one in new)


def list_page_ports(scenario: Scenario, options: ClusterOptions) -> range:
    """Return the local ports of Locust's pages: one, or the next ones for the other configurations of a block."""
    count = len(scenario.configurations) if scenario.is_paired else 1
    return range(0) if options.locust_ui is None else range(options.locust_ui, options.locust_ui + count)


def _find_free(cluster: Cluster, nodes: Sequence[Object], planned: PodPlan) -> tuple[FreeNode, ...]:
    return subtract_daemons(planned.everywhere, find_free(filter(is_open, nodes), cluster.list("v1", "Pod")))


def _needs(scenario: Scenario, options: ClusterOptions) -> tuple[Need, ...]:
    needs = needs_of(
        meshes_of(scenario),
        install=not options.existing_mesh,
        revision=options.revision,
        own_images=find_meshes_with_images(scenario),
        has_secrets=any(one.is_secret for one in scenario.load.env.values()),
    )
    return (*needs, *prometheus_needs(options.prometheus))


def _is_agreed(cluster: Cluster, options: ClusterOptions) -> bool:
    """Return whether a flag already answers what `guard` would ask."""
    return options.yes_this_cluster == cluster.context or (options.agreed and not production_reason(cluster))


def _has_errors(findings: Sequence[CheckResult]) -> bool:
    return any(finding.status == "error" for finding in findings)


def require_permissions(cluster: Cluster, needs: Sequence[Need]) -> CheckResult:
    """Return the result that everything is allowed. Raises RefusedError that names every verb and resource that is
    not."""
    findings = examine_permissions(cluster, needs)
    if _has_errors(findings):
        lines = "\n".join(f"  {finding.detail}" for finding in findings)
        hints = " and ".join(dict.fromkeys(finding.hint for finding in findings))
        raise RefusedError(
            f"context {cluster.context}: its user lacks permissions for this run:\n{lines}\nhint: {hints}"
        )
    return findings[0]


def _plan_pods(
    cluster: Cluster, resolved: ResolvedScenario, options: ClusterOptions, *, installing: bool
) -> tuple[PodPlan, tuple[CheckResult, ...]]:
    """Return the pods to come, and what the meshes' tools refuse to render; without them the meshes are left out."""
    trials = build_manifests(resolved, options).values()
    planned, refusals = plan_trials(trials, at_once=resolved.scenario.is_paired), list[CheckResult]()
    for mesh in meshes_of(resolved.scenario) if options.existing_mesh or installing else ():
        try:
            planned = add_mesh(planned, mesh, cluster=cluster, options=options, equalise=resolved.scenario.equalise)
        except (InputError, RefusedError) as error:
            refusals.append(CheckResult(f"{mesh}, rendered", "error", str(error), "see --mesh-values", type(error)))
    return planned, tuple(refusals)


def guard(cluster: Cluster, *, yes: bool, yes_this_cluster: str | None, confirm: Callable[[str], bool] | None) -> str:
    """Return the line that names the cluster, after the user agreed to act on it. Raises RefusedError.

    `confirm` asks the user; None where there is no terminal.
    """
    line = describe_cluster(cluster)
    if yes_this_cluster not in (None, cluster.context):
        raise RefusedError(
            f"--yes-this-cluster {yes_this_cluster} does not name the cluster of --context {cluster.context}"
        )
    if yes_this_cluster:
        return line
    if reason := production_reason(cluster):
        flag = f"--yes-this-cluster {cluster.context}"
        raise RefusedError(f"this looks like production: {reason}; hint: if a load test may run there, add {flag}")
    if not yes and confirm is None:
        raise RefusedError(f"{line}: there is no terminal on which to ask for consent; hint: add --yes")
    if not yes and confirm is not None and not confirm(f"Deploy and load the application on {cluster.context}?"):
        raise RefusedError("not agreed to; nothing was changed")
    return line


def production_reason(cluster: Cluster) -> str:
    """Return why a cluster may be in production use: its names, its size, what others run on it; empty if nothing
    suggests it."""
    if named := looks_like_production(cluster.context, cluster.cluster_name, cluster.server):
        return named
    nodes, pods = _list_allowed(cluster, "Node"), [pod for pod in _list_allowed(cluster, "Pod") if is_foreign(pod)]
    if len(nodes) > MANY_NODES:
        return f"it has {len(nodes)} nodes, more than {MANY_NODES}"
    return f"others run {len(pods)} pods on it, more than {MANY_PODS}" if len(pods) > MANY_PODS else ""


def is_foreign(pod: Object) -> bool:
    """Return whether a pod is neither ours nor the cluster's own."""
    own = pod["metadata"]["namespace"].startswith(("kube-", "openshift-"))
    return not own and not run_of(pod) and pod.get("status", {}).get("phase") in ("Running", "Pending")


def _list_allowed(cluster: Cluster, kind: str) -> tuple[Object, ...]:
    """List objects; none where that is not allowed, which the pre-flight reports."""
    try:
        return cluster.list("v1", kind)
    except ClusterError as error:
        if error.kind is not ErrorKind.FORBIDDEN:
            raise
        return ()
