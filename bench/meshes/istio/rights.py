"""List what Istio needs to be allowed on a cluster."""

import re
from typing import Final

from bench.meshes.rights import KEEP, Rights, list_kinds, make_needs, own_cluster_rights, own_rights

_ROLES: Final = (
    "istio-reader-clusterrole-istio-system",
    "istiod-clusterrole-istio-system",
    "istiod-gateway-controller-istio-system",
)
_POLICIES: Final = ("authorizationpolicies", "peerauthentications", "requestauthentications")
_KINDS: Final = {
    "extensions.istio.io": ("trafficextensions", "wasmplugins"),
    "networking.istio.io": (
        "destinationrules", "envoyfilters", "gateways", "proxyconfigs", "serviceentries", "sidecars",
        "virtualservices", "workloadentries", "workloadgroups",
    ),
    "security.istio.io": _POLICIES,
    "telemetry.istio.io": ("telemetries",),
}  # fmt: skip
_END: Final = re.compile(r"(-istio-system)?$")  # where a revision stands in such a name


def rights(revision: str = "") -> Rights:
    """Return what a run needs to be allowed; a revision is part of the names of the control plane's roles."""
    return Rights(
        run=(
            *make_needs(KEEP, "security.istio.io", _POLICIES, "policies"),
            *make_needs(KEEP, "networking.istio.io", ("destinationrules", "gateways", "virtualservices"), "routes"),
        ),
        install=(
            *own_rights(cluster_roles=_add_revision(_ROLES, revision), roles=_add_revision(("istiod",), revision)),
            *make_needs(
                ("list", "delete"),
                "gateway.networking.k8s.io",
                ("gatewayclasses",),
                "what istiod makes where there is the Gateway API",
            ),
            *list_kinds(_KINDS),
        ),
        plugin=(
            *own_cluster_rights(
                "the own rights of istio's CNI plugin",
                roles=("istio-cni", "istio-cni-repair-role"),
                bindings=("istio-cni", "istio-cni-repair-rolebinding"),
            ),
            *make_needs(
                KEEP,
                "k8s.cni.cncf.io",
                ("network-attachment-definitions",),
                "by which pods request Istio's plugin on OpenShift",
            ),
        ),
    )


def _add_revision(names: tuple[str, ...], revision: str) -> tuple[str, ...]:
    return tuple(_END.sub(rf"-{revision}\1", name, count=1) for name in names) if revision else names
