"""What a run may do on a cluster: one table, from which the pre-flight's checks and the shipped ClusterRoles come.

`RUN` is `manifests/rbac/run.yaml`, `INSTALL` is `manifests/rbac/install-mesh.yaml`, `PLUGIN` is
`manifests/rbac/install-cni.yaml`, `PROMETHEUS` is `manifests/rbac/prometheus.yaml`; a test keeps them equal. All but
the last are for the whole cluster, since a run creates its namespaces itself, under names that are not known before.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.check_result import CheckResult
from bench.files.folders import find_shipped
from bench.k8s.client import Cluster
from bench.k8s.objects import release_of
from bench.units import format_counted

_READ: Final = ("get", "list")
_KEEP: Final = ("get", "list", "create", "patch", "delete")
_STREAM: Final = ("get", "create")  # a WebSocket's
_CREATES_STREAMS: Final = (1, 35)  # the first Kubernetes that requires `create` for them in addition to `get`
_OWN: Final = ("get", "create", "patch", "delete")
_GRANT: Final = (*_OWN, "escalate", "bind")

_WEBHOOKS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")

# What the meshes call their own roles and bindings.
ISTIO_ROLES: Final = (
    "istio-reader-clusterrole-istio-system",
    "istiod-clusterrole-istio-system",
    "istiod-gateway-controller-istio-system",
)
_ISTIO_END: Final = re.compile(r"(-istio-system)?$")  # where a revision stands in such a name
KUMA_ROLES: Final = ("kuma-control-plane", "kuma-control-plane-workloads")
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be allowed, and what for. `names` limits it to objects of these names, `namespace` to that one;
    `mesh` to runs with that mesh, empty for all runs."""

    verbs: tuple[str, ...]
    group: str
    resource: str
    purpose: str
    names: tuple[str, ...] = ()
    mesh: str = ""
    namespace: str = ""

    @property
    def resource_name(self) -> str:
        """The resource as kubectl names it: `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


def _needs(
    verbs: tuple[str, ...],
    group: str,
    resources: Sequence[str],
    purpose: str,
    *,
    names: tuple[str, ...] = (),
    mesh: str = "",
) -> Iterator[Need]:
    return (Need(verbs, group, resource, purpose, names, mesh) for resource in resources)


def _rights(mesh: str, *, cluster_roles: tuple[str, ...], roles: tuple[str, ...]) -> Iterator[Need]:
    """Yield the mesh's own rights, by name. A user who grants rights has to have them or be allowed to `escalate` and
    `bind`."""
    purpose = "the control plane's own rights"
    yield from _cluster_rights(mesh, purpose, roles=cluster_roles, bindings=cluster_roles)
    yield from _needs(_GRANT, _RBAC, ("roles",), purpose, names=roles, mesh=mesh)
    yield from _needs(_OWN, _RBAC, ("rolebindings",), purpose, names=roles, mesh=mesh)


def _cluster_rights(mesh: str, purpose: str, *, roles: tuple[str, ...], bindings: tuple[str, ...]) -> Iterator[Need]:
    yield from _needs(_GRANT, _RBAC, ("clusterroles",), purpose, names=roles, mesh=mesh)
    yield from _needs(_OWN, _RBAC, ("clusterrolebindings",), purpose, names=bindings, mesh=mesh)


RUN: Final = (
    *_needs(_KEEP, "", ("namespaces",), "namespaces of the run's own"),
    *_needs(_KEEP, "", ("pods", "services", "serviceaccounts", "configmaps"), "application, load and probes"),
    *_needs(_KEEP, "apps", ("deployments",), "application and load"),
    *_needs(_READ, "apps", ("replicasets",), "why a pod was not made"),
    *_needs(("list",), "", ("events",), "why a pod does not start"),
    *_needs(("get",), "", ("pods/log",), "the last lines of a container that ended"),
    *_needs(_STREAM, "", ("pods/exec",), "questions to sidecars and probe agents, samples of the load"),
    *_needs(_STREAM, "", ("pods/portforward",), "Locust's web page"),
    *_needs(_READ, "", ("nodes",), "capacity, pressure, where pods run"),
    *_needs(("get",), "", ("nodes/proxy",), "the kubelet's summary: CPU and memory of each container"),
    *_needs(("get", "list", "create", "update", "delete"), "coordination.k8s.io", ("leases",), "one run at a time"),
    *_needs(("list",), "discovery.k8s.io", ("endpointslices",), "services that answer"),
    *_needs(_READ, "admissionregistration.k8s.io", _WEBHOOKS, "no webhook of a mesh in the baseline"),
    *_needs(_READ, "apiextensions.k8s.io", ("customresourcedefinitions",), "meshes that are there already"),
    *_needs(("list",), "apiregistration.k8s.io", ("apiservices",), "namespaces that can be deleted"),
    *_needs(_KEEP, "security.istio.io", ("authorizationpolicies", "peerauthentications"), "policies", mesh="istio"),
    *_needs(_KEEP, "networking.istio.io", ("destinationrules", "gateways", "virtualservices"), "routes", mesh="istio"),
    *_needs(_KEEP, "kuma.io", ("meshes", "meshidentities"), "the mesh and its identities", mesh="kuma"),
    *_needs(("delete",), "kuma.io", ("meshtrusts",), "what Kuma makes of an identity and leaves", mesh="kuma"),
    *_needs(_KEEP, "kuma.io", ("meshtrafficpermissions", "trafficpermissions"), "policies", mesh="kuma"),
    *_needs(_KEEP, "kuma.io", ("meshgateways", "meshgatewayinstances"), "built-in gateways", mesh="kuma"),
    *_needs(_KEEP, "kuma.io", ("meshgatewayroutes", "meshhttproutes"), "routes", mesh="kuma"),
    *_needs(_KEEP, "kuma.io", ("meshretries", "meshtlses"), "what is set equally in all meshes", mesh="kuma"),
    *_needs(_READ, "kuma.io", ("dataplaneinsights", "meshservices"), "configuration that has arrived", mesh="kuma"),
)

INSTALL: Final = (
    *_needs(_KEEP, "apiextensions.k8s.io", ("customresourcedefinitions",), "the mesh's kinds"),
    *_needs(_KEEP, "admissionregistration.k8s.io", _WEBHOOKS, "the mesh's webhooks"),
    *_needs(_KEEP, "policy", ("poddisruptionbudgets",), "the control plane"),
    *_needs(_KEEP, "autoscaling", ("horizontalpodautoscalers",), "the control plane"),
    *_needs(
        ("list",),
        _RBAC,
        ("clusterroles", "clusterrolebindings", "roles", "rolebindings"),
        "what earlier runs left",
    ),
    *_rights("istio", cluster_roles=ISTIO_ROLES, roles=("istiod",)),
    *_rights("kuma", cluster_roles=KUMA_ROLES, roles=("kuma-control-plane",)),
    *_needs(
        ("list", "delete"),
        "gateway.networking.k8s.io",
        ("gatewayclasses",),
        "what istiod makes where there is the Gateway API",
        mesh="istio",
    ),
    *_needs(
        ("list", "delete"),
        "kuma.io",
        ("meshinsights", "serviceinsights", "zoneinsights", "zones"),
        "what Kuma's control plane makes for the cluster",
        mesh="kuma",
    ),
    *_needs(_OWN, "", ("secrets",), "the certificate of Kuma's webhooks", names=("kuma-tls-cert",), mesh="kuma"),
)

# Needed where the user's values make a mesh install its CNI plugin.
PLUGIN: Final = (
    *_needs(_KEEP, "apps", ("daemonsets",), "a CNI plugin, which runs on every node"),
    *_cluster_rights(
        "istio",
        "the own rights of istio's CNI plugin",
        roles=("istio-cni", "istio-cni-repair-role"),
        bindings=("istio-cni", "istio-cni-repair-rolebinding"),
    ),
    *_needs(
        _KEEP,
        "k8s.cni.cncf.io",
        ("network-attachment-definitions",),
        "by which pods request Istio's plugin on OpenShift",
        mesh="istio",
    ),
    *_cluster_rights("kuma", "the own rights of kuma's CNI plugin", roles=("kuma-cni",), bindings=("kuma-cni",)),
)

# `manifests/rbac/prometheus.yaml`: needed with `--prometheus`, in the namespace and for the service that it names.
PROMETHEUS: Final = tuple(_needs(("get",), "", ("services/proxy",), "CPU and memory from a Prometheus of the cluster"))


def needs_of(meshes: Sequence[str], *, install: bool, revision: str = "") -> tuple[Need, ...]:
    """Return what a run with these meshes has to be allowed; with `install`, also what installs them.

    `revision` is Istio's: it is part of the names of its roles.
    """
    table = (*RUN, *INSTALL) if install and meshes else RUN
    return tuple(_add_revision(need, revision) for need in table if need.mesh in ("", *meshes))


def plugin_needs(mesh: str) -> tuple[Need, ...]:
    """Return what a run with this mesh and its CNI plugin has to be allowed in addition."""
    return tuple(need for need in PLUGIN if need.mesh in ("", mesh))


def adapt_to_server(needs: Iterable[Need], version: str) -> tuple[Need, ...]:
    """Return the needs as a server of this version checks them."""
    if release_of(version) >= _CREATES_STREAMS:
        return tuple(needs)
    return tuple(replace(need, verbs=("get",)) if need.verbs == _STREAM else need for need in needs)


def _add_revision(need: Need, revision: str) -> Need:
    if need.mesh != "istio" or not revision:
        return need
    return replace(need, names=tuple(_ISTIO_END.sub(rf"-{revision}\1", name, count=1) for name in need.names))


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
        f"have an administrator apply and bind {find_shipped('manifests') / 'rbac' / _role_file(need)}",
    )


def _role_file(need: Need) -> str:
    """Return the shipped file with the role that grants it. A need that was narrowed keeps resource and purpose."""
    tables = {"run.yaml": RUN, "install-cni.yaml": PLUGIN, "prometheus.yaml": PROMETHEUS}
    for file, table in tables.items():
        if any((one.resource, one.purpose) == (need.resource, need.purpose) for one in table):
            return file
    return "install-mesh.yaml"
