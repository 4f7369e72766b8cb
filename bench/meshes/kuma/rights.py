"""List what Kuma needs to be allowed on a cluster."""

from typing import Final

from bench.meshes.rights import KEEP, OWN, READ, Rights, list_kinds, make_needs, own_cluster_rights, own_rights

_GROUP: Final = "kuma.io"
_KINDS: Final = (
    "circuitbreakers", "containerpatches", "dataplaneinsights", "dataplanes", "externalservices",
    "faultinjections", "healthchecks", "hostnamegenerators", "meshaccesslogs", "meshcircuitbreakers", "meshes",
    "meshexternalservices", "meshfaultinjections", "meshgatewayconfigs", "meshgatewayinstances",
    "meshgatewayroutes", "meshgateways", "meshhealthchecks", "meshhttproutes", "meshidentities", "meshinsights",
    "meshloadbalancingstrategies", "meshmetrics", "meshmultizoneservices", "meshopentelemetrybackends",
    "meshpassthroughs", "meshproxypatches", "meshratelimits", "meshretries", "meshservices", "meshtcproutes",
    "meshtimeouts", "meshtlses", "meshtraces", "meshtrafficpermissions", "meshtrusts", "meshzoneaddresses",
    "proxytemplates", "ratelimits", "retries", "serviceinsights", "timeouts", "trafficlogs",
    "trafficpermissions", "trafficroutes", "traffictraces", "virtualoutbounds", "workloads", "zoneegresses",
    "zoneegressinsights", "zoneingresses", "zoneingressinsights", "zoneinsights", "zones",
)  # fmt: skip
_RIGHTS: Final = Rights(
    run=(
        *make_needs(KEEP, _GROUP, ("meshes", "meshidentities"), "the mesh and its identities"),
        *make_needs(("delete",), _GROUP, ("meshtrusts",), "what Kuma makes of an identity and leaves"),
        *make_needs(KEEP, _GROUP, ("meshtrafficpermissions", "trafficpermissions"), "policies"),
        *make_needs(KEEP, _GROUP, ("meshgateways", "meshgatewayinstances"), "built-in gateways"),
        *make_needs(KEEP, _GROUP, ("meshgatewayroutes", "meshhttproutes"), "routes"),
        *make_needs(
            KEEP, _GROUP, ("meshretries", "meshtimeouts", "meshtlses"), "retries, timeouts and versions of TLS"
        ),
        *make_needs(READ, _GROUP, ("dataplaneinsights", "meshservices"), "configuration that has arrived"),
    ),
    sidecar_image=tuple(make_needs(KEEP, _GROUP, ("containerpatches",), "sidecars with an image of their own")),
    install=(
        *own_rights(
            cluster_roles=("kuma-control-plane", "kuma-control-plane-workloads"), roles=("kuma-control-plane",)
        ),
        *make_needs(
            ("list", "delete"),
            _GROUP,
            ("meshinsights", "serviceinsights", "zoneinsights", "zones"),
            "what Kuma's control plane makes for the cluster",
        ),
        *list_kinds({_GROUP: _KINDS}),
        *make_needs(OWN, "", ("secrets",), "the certificate of Kuma's webhooks", names=("kuma-tls-cert",)),
    ),
    plugin=tuple(
        own_cluster_rights("the own rights of kuma's CNI plugin", roles=("kuma-cni",), bindings=("kuma-cni",))
    ),
)


def rights(revision: str = "") -> Rights:  # noqa: ARG001 - no revisions
    """Return what a run needs to be allowed."""
    return _RIGHTS
