"""What a run may do on a cluster: one table, from which the pre-flight's checks and the shipped ClusterRoles come.

With those of all meshes (`bench.meshes.rights`), `RUN` is `manifests/rbac/run.yaml`, `INSTALL` is
`manifests/rbac/install-mesh.yaml` and `PLUGIN` is `manifests/rbac/install-cni.yaml`; `PROMETHEUS` is
`manifests/rbac/prometheus.yaml`. A test keeps them equal. All but the last are for the whole cluster, since a run
creates its namespaces itself, under names that are not known before.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from bench.check_result import CheckResult
from bench.files.folders import find_shipped
from bench.k8s.client import Cluster, Object
from bench.k8s.connection import KindInfo
from bench.k8s.objects import release_of
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.rights import KEEP, OWN, RBAC, READ, Need, make_needs
from bench.targets.cluster.load.pod import VARIABLES
from bench.units import format_counted

_STREAM: Final = ("get", "create")  # a WebSocket's
_CREATES_STREAMS: Final = (1, 35)  # the first Kubernetes that requires `create` for them in addition to `get`

_WEBHOOKS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")

OBJECTS: Final = "objects of the scenario's manifests"

RUN: Final = (
    *make_needs(KEEP, "", ("namespaces",), "namespaces of the run's own"),
    *make_needs(KEEP, "", ("pods", "services", "serviceaccounts", "configmaps"), "application, load and probes"),
    *make_needs(KEEP, "apps", ("deployments",), "application and load"),
    *make_needs(READ, "apps", ("replicasets",), "why a pod was not made"),
    *make_needs(("list",), "", ("events",), "why a pod does not start"),
    *make_needs(("get",), "", ("pods/log",), "the last lines of a container that ended"),
    *make_needs(_STREAM, "", ("pods/exec",), "questions to sidecars and probe agents, samples of the load"),
    *make_needs(_STREAM, "", ("pods/portforward",), "Locust's web page"),
    *make_needs(READ, "", ("nodes",), "capacity, pressure, where pods run"),
    *make_needs(("get",), "", ("nodes/proxy",), "the kubelet's summary: CPU and memory of each container"),
    *make_needs(("get", "list", "create", "update", "delete"), "coordination.k8s.io", ("leases",), "one run at a time"),
    *make_needs(("list",), "discovery.k8s.io", ("endpointslices",), "services that answer"),
    *make_needs(READ, "admissionregistration.k8s.io", _WEBHOOKS, "no webhook of a mesh in the baseline"),
    *make_needs(READ, "apiextensions.k8s.io", ("customresourcedefinitions",), "meshes that are there already"),
    *make_needs(("list",), "apiregistration.k8s.io", ("apiservices",), "namespaces that can be deleted"),
)

# Needed where a scenario names variables of the load whose values are recorded nowhere.
LOAD_VARIABLES: Final = tuple(make_needs(OWN, "", ("secrets",), "variables of the load", names=(VARIABLES,)))

INSTALL: Final = (
    *make_needs(KEEP, "apiextensions.k8s.io", ("customresourcedefinitions",), "the mesh's kinds"),
    *make_needs(KEEP, "admissionregistration.k8s.io", _WEBHOOKS, "the mesh's webhooks"),
    *make_needs(KEEP, "policy", ("poddisruptionbudgets",), "the control plane"),
    *make_needs(KEEP, "autoscaling", ("horizontalpodautoscalers",), "the control plane"),
    *make_needs(
        ("list",),
        RBAC,
        ("clusterroles", "clusterrolebindings", "roles", "rolebindings"),
        "what earlier runs left",
    ),
)

# Needed where the user's values make a mesh install its CNI plugin.
PLUGIN: Final = tuple(make_needs(KEEP, "apps", ("daemonsets",), "a CNI plugin, which runs on every node"))

# `manifests/rbac/prometheus.yaml`: needed with `--prometheus`, in the namespace and for the service that it names.
PROMETHEUS: Final = tuple(
    make_needs(("get",), "", ("services/proxy",), "CPU and memory from a Prometheus of the cluster")
)


def needs_of(
    meshes: Iterable[str],
    *,
    install: bool,
    revision: str = "",
    own_images: Collection[str] | None = None,
    has_secrets: bool = True,
) -> tuple[Need, ...]:
    """Return what a run with these meshes has to be allowed; with `install`, also what installs them in this
    revision. `own_images` are the meshes whose sidecars get another image in some configuration; None means all.
    `has_secrets` is whether the load has variables from a Secret."""
    rights = {mesh: CONTROL_PLANES[mesh].rights(revision) for mesh in meshes}
    chosen = rights if own_images is None else own_images
    replaced = (need for mesh, one in rights.items() if mesh in chosen for need in one.sidecar_image)
    running = (
        *RUN,
        *(LOAD_VARIABLES if has_secrets else ()),
        *(need for one in rights.values() for need in one.run),
        *replaced,
    )
    return (*running, *install_needs(rights, revision)) if install and rights else running


def install_needs(meshes: Iterable[str], revision: str = "") -> tuple[Need, ...]:
    """Return what installs these meshes."""
    return (*INSTALL, *(need for mesh in meshes for need in CONTROL_PLANES[mesh].rights(revision).install))


def plugin_needs(meshes: Iterable[str]) -> tuple[Need, ...]:
    """Return what a run with these meshes and their CNI plugins has to be allowed in addition."""
    return (*PLUGIN, *(need for mesh in meshes for need in CONTROL_PLANES[mesh].rights().plugin))


def needs_of_objects(
    objects: Iterable[Object], served: Iterable[KindInfo], granted: Iterable[Need]
) -> tuple[Need, ...]:
    """Return what applying these objects has to be allowed in addition to the needs that are `granted`. A kind that is
    not `served` before the run has the plural of its name."""
    plurals = {(one.group, one.kind): one.plural for one in served}
    kept = {(one.group, one.resource) for one in granted if {*KEEP} <= {*one.verbs} and not one.names}
    found: dict[tuple[str, str], Need] = {}
    for one in objects:
        group, kind = one["apiVersion"].rpartition("/")[0], one["kind"]
        resource = plurals.get((group, kind)) or _make_plural(kind)
        if (group, resource) not in kept:
            found[group, resource] = Need(KEEP, group, resource, OBJECTS)
    return tuple(found.values())


def _make_plural(kind: str) -> str:
    word = kind.lower()
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "sh", "ch", "x")) else f"{word}s"


def adapt_to_server(needs: Iterable[Need], version: str) -> tuple[Need, ...]:
    """Return the needs as a server of this version checks them."""
    if release_of(version) >= _CREATES_STREAMS:
        return tuple(needs)
    return tuple(replace(need, verbs=("get",)) if need.verbs == _STREAM else need for need in needs)


def examine_permissions(cluster: Cluster, needs: Sequence[Need]) -> tuple[CheckResult, ...]:
    """Return one result for each resource of which too little is allowed; a single one if everything is."""
    lacking = [(need, verbs) for need in needs if (verbs := _find_refused_verbs(cluster, need))]
    if not lacking:
        return (CheckResult("permissions", "ok", f"all that a run needs, of {format_counted(len(needs), 'resource')}"),)
    return tuple(_make_result(need, verbs) for need, verbs in lacking)


def _find_refused_verbs(cluster: Cluster, need: Need) -> tuple[str, ...]:
    """Return the verbs that are not allowed for all of the need's names."""
    return tuple(
        verb
        for verb in need.verbs
        if not all(
            cluster.allowed(verb, need.resource, group=need.group, namespace=need.namespace, name=name)
            for name in need.names or ("",)
        )
    )


def _make_result(need: Need, verbs: tuple[str, ...]) -> CheckResult:
    named = f" named {', '.join(need.names)}" if need.names else ""
    named += f" in namespace {need.namespace}" if need.namespace else ""
    return CheckResult(
        "permission",
        "error",
        f"not allowed: {', '.join(verbs)} {need.resource_name}{named} (for: {need.purpose})",
        _format_remedy(need),
    )


def _format_remedy(need: Need) -> str:
    if need.purpose == OBJECTS:
        return "have an administrator allow it in a ClusterRole of its own"
    return f"have an administrator apply and bind {find_shipped('manifests') / 'rbac' / _role_file(need)}"


def _role_file(need: Need) -> str:
    """Return the shipped file with the role that grants it. A need that was narrowed keeps resource and purpose."""
    tables = {
        "run.yaml": needs_of(CONTROL_PLANES, install=False),
        "install-cni.yaml": plugin_needs(CONTROL_PLANES),
        "prometheus.yaml": PROMETHEUS,
    }
    for file, table in tables.items():
        if any((one.resource, one.purpose) == (need.resource, need.purpose) for one in table):
            return file
    return "install-mesh.yaml"
