"""How Istio calls things: hosts and clusters."""

from typing import Final

from bench.application.model import Application, Service, Workload

CLUSTER_DOMAIN: Final = "svc.cluster.local"


def full_name(application: Application, service: Service) -> str:
    """`reviews.bookinfo.svc.cluster.local`."""
    return f"{service.name}.{application.namespace}.{CLUSTER_DOMAIN}"


def cluster_to(application: Application, service: Service, subset: str = "") -> str:
    """`outbound|9080||reviews.bookinfo.svc.cluster.local`; a subset's name stands between the bars."""
    return f"outbound|{service.port}|{subset}|{full_name(application, service)}"


def inbound_cluster(workload: Workload) -> str:
    """`inbound|9080||`."""
    return f"inbound|{workload.port}||"


def service_called(host: str, application: Application, *, namespace: str) -> Service | None:
    """The Service that a host means in manifests for `namespace`: by its short name, or the full one. Istio takes any
    other name with a dot as it is."""
    names = {
        name: service
        for service in application.services
        for name in (service.name, f"{service.name}.{namespace}.{CLUSTER_DOMAIN}")
    }
    return names.get(host)
