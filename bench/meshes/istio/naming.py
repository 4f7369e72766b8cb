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


def find_services(host: str, application: Application, *, namespace: str) -> tuple[Service, ...]:
    """Return the Services of a host in manifests for `namespace`: those that a wildcard matches, else the one of that
    name."""
    if is_wildcard(host):
        return tuple(one for one in application.services if full_name(application, one).endswith(host[1:]))
    found = find_service(host, application, namespace=namespace)
    return (found,) if found else ()


def find_service(host: str, application: Application, *, namespace: str) -> Service | None:
    """Return the Service of a host in manifests for `namespace`, by its short or full name.

    Istio does not complete any other name with a dot.
    """
    for service in application.services:
        home = service.workload.namespace or namespace
        if host == f"{service.name}.{home}.{CLUSTER_DOMAIN}" or (host == service.name and home == namespace):
            return service
    return None
