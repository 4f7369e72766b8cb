"""Examine the cluster itself: version, nodes, dangling webhooks, other runs and meshes, the port for Locust's page."""

import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bench.check_result import CheckResult
from bench.errors import ClusterError, LockedError
from bench.k8s.client import Cluster, Object
from bench.k8s.connection import KindInfo
from bench.k8s.objects import PRESSURES, has_condition, node_name, release_of, schedulable
from bench.k8s.ownership import OURS
from bench.k8s.wait import holding
from bench.meshes.control_planes import CONTROL_PLANES
from bench.targets.cluster.lock import Holder, read_holder, seems_dead
from bench.targets.cluster.preflight.permissions import Need
from bench.targets.cluster.teardown.blockers import Residue, deletion_command
from bench.targets.cluster.teardown.inventory import find_leftovers, told
from bench.targets.cluster.teardown.stages import Found
from bench.units import format_counted

OLDEST: Final = (1, 30)  # the first whose API server can end a command's input, by which every proof asks
_OLDER_KUBELETS: Final = 3  # minor versions that a kubelet may be behind its API server
_OPENSHIFT: Final = "config.openshift.io"
_VERBS: Final = {"CREATE": "create", "UPDATE": "patch", "DELETE": "delete", "CONNECT": "create"}


def examine_version(version: str, nodes: Sequence[Object]) -> CheckResult:
    """The API server's version, and that of the kubelets beside it."""
    found = f"Kubernetes {version}"
    server = release_of(version)
    if server < OLDEST:
        needed = ".".join(map(str, OLDEST))
        return CheckResult(
            "version", "error", f"{found} is too old", f"use a cluster with Kubernetes {needed} or later"
        )
    kubelets = {str(node["status"]["nodeInfo"]["kubeletVersion"]) for node in nodes}
    apart = sorted(one for one in kubelets if not server[1] - _OLDER_KUBELETS <= release_of(one)[1] <= server[1])
    if apart:
        detail = f"{found}, with kubelets of {', '.join(apart)}, which it does not support"
        return CheckResult("version", "warning", detail, "bring the nodes to the API server's version")
    return CheckResult("version", "ok", found)


def examine_nodes(nodes: Sequence[Object]) -> tuple[CheckResult, ...]:
    """Whether there are nodes for the run, whether one is short of something, and whether load and application can be
    apart."""
    able = schedulable(nodes)
    found = f"{len(able)} of {format_counted(len(nodes), 'node')} ready and open to pods"
    if not able:
        return (CheckResult("nodes", "error", found, "see: kubectl describe nodes"),)
    alone = (
        "load, application and sidecars share its processors, so that numbers from here compare with each other only"
    )
    head = CheckResult("nodes", "warning", found, alone) if len(able) == 1 else CheckResult("nodes", "ok", found)
    return (head, *(finding for node in nodes for finding in _node_troubles(node)))


def _node_troubles(node: Object) -> Iterator[CheckResult]:
    if not has_condition(node, "Ready"):
        detail = f"{node_name(node)} is not ready"
        yield CheckResult("node", "warning", detail, f"see: kubectl describe node {node_name(node)}")
    for kind in PRESSURES:
        if has_condition(node, kind):
            detail = f"{node_name(node)} has {kind}: its pods are evicted"
            yield CheckResult("node", "error", detail, f"make room on it, or: kubectl cordon {node_name(node)}")


def examine_residue(residue: Sequence[Residue], needs: Sequence[Need], context: str) -> tuple[CheckResult, ...]:
    """Webhooks and APIs that nobody serves. `needs` are what a run makes and removes: a dead webhook that is asked
    about none of it is only a doubt."""
    if not residue:
        return (CheckResult("webhooks, APIs", "ok", "all are served"),)
    return tuple(_residue(one, needs, context) for one in residue)


def _residue(one: Residue, needs: Sequence[Need], context: str) -> CheckResult:
    api = one.found.ref.kind == "APIService"
    state = "error" if api or is_blocking(one.found.thing, needs) else "warning"
    result = "; no namespace can be deleted until it is" if api else ""
    hint = f"bring its service back, or: {deletion_command(one.found, context=context)}"
    return CheckResult("API" if api else "webhook", state, f"{one.found.ref}: {one.why}{result}", hint)  # type: ignore[arg-type]  # of three texts


def is_blocking(configuration: Object, needs: Sequence[Need]) -> bool:
    """Whether a webhook of it that does not answer would refuse anything that a run makes, changes or removes."""
    return any(
        _covers(rule, need)
        for webhook in configuration.get("webhooks") or ()
        if webhook.get("failurePolicy", "Fail") == "Fail"
        for rule in webhook.get("rules") or ()
        for need in needs
    )


def _covers(rule: dict[str, Any], need: Need) -> bool:
    asked = {verb for operation, verb in _VERBS.items() if {operation, "*"} & set(rule["operations"])}
    resource, _, sub = need.resource.partition("/")
    patterns = {"*/*", need.resource, f"{resource}/*", f"*/{sub}" if sub else "*"}
    return bool(
        asked & set(need.verbs) and {"*", need.group} & set(rule["apiGroups"]) and patterns & set(rule["resources"])
    )


def examine_terminating(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Namespaces of ours that are still being deleted, and what holds them."""
    going = [one for one in cluster.list("v1", "Namespace", labels=OURS) if one["metadata"].get("deletionTimestamp")]
    return tuple(
        CheckResult(
            "namespace",
            "warning",
            f"{one['metadata']['name']}, of an earlier run, is still being deleted: {holding(one)}",
            "wait for it to go; what is in it takes part of the nodes until then",
        )
        for one in going
    )


def examine_admission(cluster: Cluster, kinds: Sequence[KindInfo]) -> tuple[CheckResult, ...]:
    """Whether pods with sidecars are let in: setting up their redirection takes rights that a cluster may keep from
    pods. Nothing is made: the API server only says what it would do."""
    openshift = any(kind.group == _OPENSHIFT for kind in kinds)
    hint = (
        "use the mesh's CNI plug-in (docs/cluster.md), or allow it: "
        "oc adm policy add-scc-to-group privileged system:serviceaccounts:NAMESPACE"
        if openshift
        else "use the mesh's CNI plug-in (docs/cluster.md), or let Pod Security allow NET_ADMIN in new namespaces"
    )
    found = "OpenShift: " if openshift else ""
    try:
        cluster.apply(_SIDECAR_LIKE, dry_run=True)
    except ClusterError as error:
        if error.status == 0:
            raise
        return (CheckResult("admission", "warning", f"{found}a pod like one with a sidecar is refused: {error}", hint),)
    return (CheckResult("admission", "ok", f"{found}pods with a sidecar's rights are let in"),)


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
    """What runs left, or have there now; what is on its way out already is told by its namespace."""
    holder = read_holder(cluster)
    everything = find_leftovers(cluster).by_run()
    found = (
        _run_left(cluster, run, _staying(things), holder) for run, things in everything.items() if _staying(things)
    )
    return tuple(found) or (CheckResult("earlier runs", "ok", "nothing left"),)


def _staying(things: Sequence[Found]) -> tuple[Found, ...]:
    """What nobody has asked to go yet."""
    going = {one.ref.name for one in things if one.ref.kind == "Namespace" and one.going}
    return tuple(one for one in things if not one.going and one.ref.namespace not in going)


def _run_left(cluster: Cluster, run: str, things: Sequence[Found], holder: Holder | None) -> CheckResult:
    command = f"meshbench cleanup --context {cluster.context} --run-id {run}"
    who, hint = f"{run} left", command
    if holder is not None and holder.run_id == run:
        named = holder.told(datetime.now(UTC))
        if seems_dead(holder):
            who = f"{named} ended without cleaning up and left"
        else:
            who, hint = f"{named} has the lock, and there is", f"wait for it to end; if it is dead: {command}"
    return CheckResult("earlier runs", "error", f"{who} {told(things)}", hint, LockedError)


def examine_meshes(cluster: Cluster, meshes: Sequence[str], *, existing: bool) -> tuple[CheckResult, ...]:
    """Meshes that are there, against those that the scenario needs."""
    there = {name: plane.present(cluster) for name, plane in CONTROL_PLANES.items()}
    return (
        *(_wanted_mesh(name, there[name], existing=existing) for name in meshes),
        *(_idle_mesh(name, found) for name, found in there.items() if found and name not in meshes),
    )


def _idle_mesh(name: str, there: str) -> CheckResult:
    detail = f"on the cluster, and not measured: {there}; it takes its part of the nodes"
    return CheckResult(name, "warning", detail, "use a cluster without it")


def _wanted_mesh(name: str, there: str, *, existing: bool) -> CheckResult:
    if existing and not there:
        return CheckResult(name, "error", "not on the cluster", "leave out --use-existing-mesh, and it is installed")
    if there and not existing:
        hint = "--use-existing-mesh takes it as it is and leaves it there; or remove it, as by meshbench cleanup"
        return CheckResult(name, "error", f"on the cluster already: {there}", hint)
    return CheckResult(name, "ok", there or "not there yet; the run installs and removes it")


_WHAT: Final = "Locust's page"


def examine_own_port(port: int) -> CheckResult:
    """Whether `--locust-ui PORT` could listen there now; each load would only find out after a mesh was installed."""
    place = f"port {port} of this machine"
    try:
        _listen(port)
    except OSError as error:
        hint = f"another --locust-ui PORT, or end what has this one: ss -ltnp 'sport = :{port}'"
        return CheckResult(_WHAT, "error", f"{place}: {error.strerror}", hint)
    return CheckResult(_WHAT, "ok", f"{place} is free")


def _listen(port: int) -> None:
    """As the forwarded port will: one whose last connections have only just ended is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        held.listen()
