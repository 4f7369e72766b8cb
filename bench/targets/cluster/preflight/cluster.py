"""Examine the cluster itself: version, nodes, dangling webhooks, other runs and meshes, the port for Locust's page."""

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bench.check_result import CheckResult
from bench.errors import ClusterError, LockedError
from bench.k8s.client import Cluster, Object
from bench.k8s.connection import KindInfo
from bench.k8s.objects import PRESSURES, has_condition, node_name, release_of
from bench.k8s.ownership import OURS, format_cleanup
from bench.k8s.scheduling import TAINT, find_exclusion, format_taint, is_open, list_taints, schedulable_nodes
from bench.k8s.wait import describe_blockers
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.rights import Need
from bench.scenario.placement import NO_PLACEMENT, PARTS, Part, Placement
from bench.system.output import format_command
from bench.targets.cluster.lock import Holder, read_holder, seems_dead
from bench.targets.cluster.pod_placement import constraints_of
from bench.targets.cluster.teardown.blockers import Dangling, deletion_command
from bench.targets.cluster.teardown.inventory import find_leftovers, format_objects
from bench.targets.cluster.teardown.stages import RunObject
from bench.units import format_counted

OLDEST: Final = (1, 30)  # the first whose API server can end a command's input, which every proof needs
_OLDER_KUBELETS: Final = 3  # minor versions that a kubelet may be behind its API server
_PORT_CHECK: Final = "Locust's page"
_OPENSHIFT: Final = "config.openshift.io"
_VERBS: Final = {"CREATE": "create", "UPDATE": "patch", "DELETE": "delete", "CONNECT": "create"}


def examine_version(version: str, nodes: Sequence[Object]) -> CheckResult:
    """Check the API server's version, and that of the kubelets."""
    detail = f"Kubernetes {version}"
    server = release_of(version)
    if server < OLDEST:
        needed = ".".join(map(str, OLDEST))
        return CheckResult(
            "version", "error", f"{detail} is too old", f"use a cluster with Kubernetes {needed} or later"
        )
    kubelets = {str(node["status"]["nodeInfo"]["kubeletVersion"]) for node in nodes}
    skewed = sorted(one for one in kubelets if not server[1] - _OLDER_KUBELETS <= release_of(one)[1] <= server[1])
    if skewed:
        detail = f"{detail}, with kubelets of {', '.join(skewed)}, which it does not support"
        return CheckResult("version", "warning", detail, "bring the nodes to the API server's version")
    return CheckResult("version", "ok", detail)


def examine_nodes(
    nodes: Sequence[Object], placement: Placement = NO_PLACEMENT, *, context: str
) -> tuple[CheckResult, ...]:
    """Check whether there are nodes for each part of the run, whether one is short of something, and whether load and
    application can have different nodes."""
    able = {part: schedulable_nodes(nodes, constraints_of(placement.of(part))) for part in PARTS}
    found = f"{len(able['application'])} of {format_counted(len(nodes), 'node')} ready and open to pods"
    lacking = tuple(
        _judge_lacking(nodes, placement, part, context)
        for part in PARTS
        if not able[part] and (part == "application" or placement.of(part) != placement.application)
    )
    if lacking:
        return lacking
    alone = "load, application and sidecars share its CPUs, so that numbers from here compare with each other only"
    is_alone = len({node_name(node) for part in ("application", "load") for node in able[part]}) == 1
    head = CheckResult("nodes", "warning", found, alone) if is_alone else CheckResult("nodes", "ok", found)
    return (head, *(finding for node in nodes for finding in _find_node_problems(node, context)))


def _judge_lacking(nodes: Sequence[Object], placement: Placement, part: Part, context: str) -> CheckResult:
    """Return the error for a part that has no node, with what excludes them, and the taints to tolerate where only they
    do."""
    ready, constraints = [node for node in nodes if is_open(node)], constraints_of(placement.of(part))
    exclusions = [find_exclusion(node, constraints) for node in ready]
    tainted = [node for node, why in zip(ready, exclusions, strict=True) if why.startswith(TAINT)]
    excluded = Counter(exclusions)
    reasons = [f"{why} on {format_counted(count, 'node')}" for why, count in excluded.most_common()]
    shut = [f"{count} not ready or cordoned"] if (count := len(nodes) - len(ready)) else []
    found = f"0 of {format_counted(len(nodes), 'node')} ready and open to pods"
    who = "" if part == "application" else f" of the {part}"
    detail = f"{found}{who}: {', '.join((*reasons, *shut))}" if nodes else f"{found}{who}"
    see = f"see: {format_command('kubectl', '--context', context, 'describe', 'nodes')}"
    return CheckResult("nodes", "error", detail, _hint_taints(tainted, part) or see)


def _hint_taints(tainted: Sequence[Object], part: Part) -> str:
    """Return how to tolerate the taints of the node that has the fewest; empty where no node has any."""
    if not tainted:
        return ""
    fewest: tuple[Object, ...] = min((list_taints(node) for node in tainted), key=len)
    taints = ", ".join(map(format_taint, fewest))
    return f"where pods may be there, add --set 'placement.{part}.tolerations=[{taints}]' (docs/cluster.md)"


def _find_node_problems(node: Object, context: str) -> Iterator[CheckResult]:
    kubectl = ("kubectl", "--context", context)
    if not has_condition(node, "Ready"):
        command = format_command(*kubectl, "describe", "node", node_name(node))
        yield CheckResult("node", "warning", f"{node_name(node)} is not ready", f"see: {command}")
    for kind in PRESSURES:
        if has_condition(node, kind):
            detail = f"{node_name(node)} has {kind}: its pods are evicted"
            command = format_command(*kubectl, "cordon", node_name(node))
            yield CheckResult("node", "error", detail, f"free resources on it, or: {command}")


def examine_dangling(dangling: Sequence[Dangling], needs: Sequence[Need], context: str) -> tuple[CheckResult, ...]:
    """Check webhooks and APIs that are not served. `needs` are what a run creates and deletes: a dangling webhook that
    is called for none of it is only a warning."""
    if not dangling:
        return (CheckResult("webhooks, APIs", "ok", "all are served"),)
    return tuple(_judge_dangling(one, needs, context) for one in dangling)


def _judge_dangling(one: Dangling, needs: Sequence[Need], context: str) -> CheckResult:
    api = one.found.ref.kind == "APIService"
    status = "error" if api or is_blocking(one.found.thing, needs) else "warning"
    result = "; no namespace can be deleted until it is" if api else ""
    hint = f"restore its service, or: {deletion_command(one.found, context=context)}"
    return CheckResult("API" if api else "webhook", status, f"{one.found.ref}: {one.why}{result}", hint)  # type: ignore[arg-type]  # of three texts


def is_blocking(configuration: Object, needs: Sequence[Need]) -> bool:
    """Return whether a webhook of it that does not answer would refuse anything that a run creates, changes or
    deletes."""
    return any(
        _covers(rule, need)
        for webhook in configuration.get("webhooks") or ()
        if webhook.get("failurePolicy", "Fail") == "Fail"
        for rule in webhook.get("rules") or ()
        for need in needs
    )


def _covers(rule: dict[str, Any], need: Need) -> bool:
    verbs = {verb for operation, verb in _VERBS.items() if {operation, "*"} & set(rule["operations"])}
    resource, _, sub = need.resource.partition("/")
    patterns = {"*/*", need.resource, f"{resource}/*", f"*/{sub}" if sub else "*"}
    return bool(
        verbs & set(need.verbs) and {"*", need.group} & set(rule["apiGroups"]) and patterns & set(rule["resources"])
    )


def examine_terminating(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Check namespaces of ours that are still being deleted, and what blocks that."""
    terminating = [
        one for one in cluster.list("v1", "Namespace", labels=OURS) if one["metadata"].get("deletionTimestamp")
    ]
    return tuple(
        CheckResult(
            "namespace",
            "warning",
            f"{one['metadata']['name']}, of an earlier run, is still being deleted: {describe_blockers(one)}",
            "wait until it is deleted; its pods use resources of the nodes until then",
        )
        for one in terminating
    )


def examine_admission(cluster: Cluster, kinds: Sequence[KindInfo]) -> tuple[CheckResult, ...]:
    """Check whether pods with sidecars are admitted: setting up their redirection takes rights that a cluster may deny
    to pods. Nothing is created: it is a dry run."""
    openshift = any(kind.group == _OPENSHIFT for kind in kinds)
    hint = (
        "use the mesh's CNI plugin (docs/cluster.md), or allow it: "
        "oc adm policy add-scc-to-group privileged system:serviceaccounts:NAMESPACE"
        if openshift
        else "use the mesh's CNI plugin (docs/cluster.md), or let Pod Security allow NET_ADMIN in new namespaces"
    )
    prefix = "OpenShift: " if openshift else ""
    try:
        cluster.apply(_SIDECAR_LIKE, dry_run=True)
    except ClusterError as error:
        if error.kind.is_unanswered:
            raise
        return (
            CheckResult("admission", "warning", f"{prefix}a pod like one with a sidecar is refused: {error}", hint),
        )
    return (CheckResult("admission", "ok", f"{prefix}pods with a sidecar's rights are admitted"),)


_SIDECAR_LIKE: Final[Object] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "meshbench-admission", "namespace": "default"},
    "spec": {
        "containers": [{"name": "application", "image": "meshbench.invalid/never-pulled"}],
        "initContainers": [
            {
                "name": "redirection",
                "image": "meshbench.invalid/never-pulled",
                "securityContext": {
                    "runAsUser": 0,
                    "runAsNonRoot": False,
                    "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
                },
            }
        ],
    },
}


def examine_earlier_runs(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Check what runs left, or have there now; objects that are terminating are reported by their namespace."""
    holder = read_holder(cluster)
    everything = find_leftovers(cluster).by_run()
    results = (
        _judge_earlier_run(cluster, run, _select_staying(things), holder)
        for run, things in everything.items()
        if _select_staying(things)
    )
    return tuple(results) or (CheckResult("earlier runs", "ok", "nothing left"),)


def _select_staying(things: Sequence[RunObject]) -> tuple[RunObject, ...]:
    """Return the objects whose deletion was not requested yet."""
    terminating = {one.ref.name for one in things if one.ref.kind == "Namespace" and one.is_terminating}
    return tuple(one for one in things if not one.is_terminating and one.ref.namespace not in terminating)


def _judge_earlier_run(cluster: Cluster, run: str, things: Sequence[RunObject], holder: Holder | None) -> CheckResult:
    command = format_cleanup(cluster.context, run)
    who, hint = f"{run} left", command
    if holder is not None and holder.run_id == run:
        named = holder.describe(datetime.now(UTC))
        if seems_dead(holder):
            who = f"{named} ended without cleaning up and left"
        else:
            who, hint = f"{named} has the lock, and there is", f"wait for it to end; if it is dead: {command}"
    return CheckResult("earlier runs", "error", f"{who} {format_objects(things)}", hint, LockedError)


def examine_meshes(cluster: Cluster, meshes: Sequence[str], *, existing: bool) -> tuple[CheckResult, ...]:
    """Compare the meshes that are there with those that the scenario needs."""
    there = {name: plane.find_installed(cluster) for name, plane in CONTROL_PLANES.items()}
    return (
        *(_judge_wanted_mesh(name, there[name], existing=existing) for name in meshes),
        *(_judge_idle_mesh(name, detail) for name, detail in there.items() if detail and name not in meshes),
    )


def _judge_idle_mesh(name: str, there: str) -> CheckResult:
    detail = f"on the cluster, and not measured: {there}; it uses resources of the nodes"
    return CheckResult(name, "warning", detail, "use a cluster without it")


def _judge_wanted_mesh(name: str, there: str, *, existing: bool) -> CheckResult:
    if existing and not there:
        return CheckResult(
            name, "error", "not on the cluster", "leave out --use-existing-mesh, and the run installs it"
        )
    if there and not existing:
        hint = "--use-existing-mesh measures it and leaves it there; or delete it, as by meshbench cleanup"
        return CheckResult(name, "error", f"on the cluster already: {there}", hint)
    return CheckResult(name, "ok", there or "not there yet; the run installs and deletes it")


def examine_local_port(port: int) -> CheckResult:
    """Check whether `--locust-ui PORT` could listen there now; otherwise the first load would fail, after a mesh was
    installed."""
    address = f"port {port} of this machine"
    try:
        _listen(port)
    except OSError as error:
        hint = f"give another --locust-ui PORT, or end what has this one: ss -ltnp 'sport = :{port}'"
        return CheckResult(_PORT_CHECK, "error", f"{address}: {error.strerror}", hint)
    return CheckResult(_PORT_CHECK, "ok", f"{address} is free")


def _listen(port: int) -> None:
    """Listen as the forwarded port will: one whose last connections have only just ended is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        held.listen()
