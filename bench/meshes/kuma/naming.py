"""Build Kuma's names of service tags, identities and clusters, in one zone and the default mesh."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from bench.application.model import GATEWAY, MESH, Application, Service, Workload

DOMAIN: Final = "kuma.io"  # of its kinds, labels and annotations
ZONE: Final = "default"
MESH_LABEL: Final = "kuma.io/mesh"  # the mesh of a policy or a namespace
ROOT_NAMESPACE: Final = "kuma-system"
DOMAIN_TEMPLATE: Final = "{{ .Mesh }}.{{ .Zone }}.mesh.local"  # of a MeshIdentity that names no other
DOMAIN_VARIABLE: Final = re.compile(r"\{\{ *\.(Mesh|Zone) *\}\}")

_PORT_NAME: Final = "http"  # of every Service


def service_tag(application: Application, service: Service) -> str:
    """Return `api_shop_svc_9080`, the tag `kuma.io/service` of a Service's workloads."""
    return f"{service.name}_{application.namespace_of(service.workload)}_svc_{service.port}"


def service_tags(application: Application, workload: Workload) -> tuple[str, ...]:
    """Return the service tags of a workload; one without a Service has a tag without a port."""
    own = (service for service in application.services if workload in service.workloads)
    tags = tuple(sorted(service_tag(application, service) for service in own))
    if application.gateway is not None and application.gateway.proxy is not None and workload.name == GATEWAY:
        return (service_tag(application, application.gateway.service),)
    return tags or (f"{workload.name}_{application.namespace_of(workload)}_svc",)


def inbound_cluster(workload: Workload) -> str:
    """Return `localhost:9080`."""
    return f"localhost:{workload.port}"


def mesh_service(application: Application, service: Service) -> str:
    """Return `default_api_shop_default_msvc_9080`, a Service's cluster with exclusive MeshServices."""
    return f"{application.mesh}_{service.name}_{application.namespace_of(service.workload)}_{ZONE}_msvc_{service.port}"


def mesh_service_kri(application: Application, service: Service) -> str:
    """Return `kri_msvc_default_default_shop_api_http`."""
    return f"kri_msvc_{MESH}_{ZONE}_{application.namespace_of(service.workload)}_{service.name}_{_PORT_NAME}"


def permission_kri(namespace: str, name: str) -> str:
    """Return `kri_mtp_default_default_shop_api-viewer_`, a MeshTrafficPermission's name in RBAC filters."""
    return f"kri_mtp_{MESH}_{ZONE}_{namespace}_{name}_"


def route_kri(namespace: str, name: str) -> str:
    """Return `kri_mhttpr_default_default_shop_api-by-user_`, the name of a MeshHTTPRoute's routes."""
    return f"kri_mhttpr_{MESH}_{ZONE}_{namespace}_{name}_"


def spiffe_id(application: Application, workload: Workload, template: str = DOMAIN_TEMPLATE) -> str:
    """Return the SPIFFE id of a workload's service account from a MeshIdentity with this trust domain."""
    namespace = application.namespace_of(workload)
    return f"spiffe://{trust_domain(application.mesh, template)}/ns/{namespace}/sa/{workload.account}"


def trust_domain(mesh: str, template: str = DOMAIN_TEMPLATE) -> str:
    """Return the trust domain of a mesh's identities."""
    values = {"Mesh": mesh, "Zone": ZONE}
    return DOMAIN_VARIABLE.sub(lambda found: values[found[1]], template)


def builtin_id(tag: str, mesh: str = MESH) -> str:
    """Return the SPIFFE id of a service tag from the builtin authority of a mesh."""
    return f"spiffe://{mesh}/{tag}"


def builtin_ids(application: Application, identity: str) -> tuple[str, ...]:
    """Return all names in a certificate of the builtin authority: SPIFFE ids by service, then a name for each tag."""
    workloads = [workload for workload in application.everyone if workload.identity == identity]
    services = [tag for workload in workloads for tag in service_tags(application, workload)]
    tags = [f"kuma://{key}/{value}" for one in workloads for key, value in _all_tags(application, one)]
    return tuple(dict.fromkeys((*(builtin_id(tag, application.mesh) for tag in services), *tags)))


def inbound_tags(application: Application, workload: Workload, tag: str) -> Mapping[str, str]:
    """Return the tags of a workload's inbound; a cluster adds the node's name and the hash of the pod's template."""
    namespace = application.namespace_of(workload)
    service, _, port = tag.partition(f"_{namespace}_svc")
    return {
        **workload.labels,
        "k8s.kuma.io/namespace": namespace,
        **({"k8s.kuma.io/service-name": service, "k8s.kuma.io/service-port": port.removeprefix("_")} if port else {}),
        "kuma.io/protocol": "http" if port else "tcp",
        "kuma.io/service": tag,
        "kuma.io/zone": ZONE,
    }


def _all_tags(application: Application, workload: Workload) -> Iterator[tuple[str, str]]:
    for tag in service_tags(application, workload):
        yield from sorted(inbound_tags(application, workload, tag).items())
