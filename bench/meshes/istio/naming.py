"""Build Istio's names of hosts and clusters."""

from typing import Final

from bench.application.model import Application, Service, Workload

DOMAIN: Final = "istio.io"  # of its kinds, labels and annotations
CLUSTER_DOMAIN: Final = "svc.cluster.local"


def full_name(application: Application, service: Service) -> str:
    """Return a service's full host name, `api.shop.svc.cluster.local`."""
    return f"{service.name}.{application.namespace_of(service.workload)}.{CLUSTER_DOMAIN}"


def cluster_to(application: Application, service: Service, subset: str = "") -> str:
    """Return `outbound|9080||api.shop.svc.cluster.local`, with a subset's name between the last bars."""
    return f"outbound|{service.port}|{subset}|{full_name(application, service)}"


def inbound_cluster(workload: Workload) -> str:
    """Return `inbound|9080||`."""
    return f"inbound|{workload.port}||"


def is_wildcard(host: str) -> bool:
    """Return whether a host of a DestinationRule is of many services: `*.shop.svc.cluster.local`, `*`."""
    return host.startswith("*")


def find_services(host: str, application: Application, *, namespace: str, within: str = "") -> tuple[Service, ...]:
    """Return the Services of a host, see `find_service`: those that a wildcard matches, else the one of that name."""
    if is_wildcard(host):
        names = {one: _written_name(one, namespace) for one in application.services}
        return tuple(one for one, name in names.items() if name.endswith(host[1:]))
    found = find_service(host, application, namespace=namespace, within=within)
    return (found,) if found else ()


def find_service(host: str, application: Application, *, namespace: str, within: str = "") -> Service | None:
    """Return the Service of a host in a manifest, by its full name, or in its own namespace by its short name.

    `namespace` is that of objects that name none, and `within` that of the manifest, by default the same. Istio does
    not complete any other name with a dot.
    """
    for service in application.services:
        home = service.workload.namespace or namespace
        if host == _written_name(service, namespace) or (host == service.name and home == (within or namespace)):
            return service
    return None


def _written_name(service: Service, namespace: str) -> str:
    """Return a service's full host name in manifests, whatever namespaces a run has."""
    return f"{service.name}.{service.workload.namespace or namespace}.{CLUSTER_DOMAIN}"
