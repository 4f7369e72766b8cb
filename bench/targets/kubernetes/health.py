"""The cluster itself, as a run finds it: version, nodes, and what of it does not answer."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.errors import ClusterError
from bench.findings import CheckResult
from bench.targets.kubernetes.client import Cluster, KindInfo, Object
from bench.targets.kubernetes.nodes import PRESSURES, has_condition, node_name, schedulable
from bench.targets.kubernetes.ownership import OURS
from bench.targets.kubernetes.permissions import Need
from bench.targets.kubernetes.residue import Residue, deletion_command
from bench.targets.kubernetes.versions import release_of
from bench.targets.kubernetes.waits import holding
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
