"""How many proxies a page crosses on its way through an application."""

from bench.hops import Way
from bench.meshes.application import CLIENT, GATEWAY, Application


def way_of_a_page(application: Application, mesh: str) -> Way | None:
    """The calls that make one page, which follow each other (productpage has details before it asks for reviews), and
    the proxies that they cross. None where pages go different ways, since a service has several versions."""
    called = [application.workload(name).app for _, name in application.calls]
    if len(set(called)) < len(called):
        return None
    proxies = sum(_calls_through_a_proxy(application, caller) + 1 for caller, _ in application.calls)
    return Way(hops=len(application.calls), proxies=0 if mesh == "none" else proxies)


def _calls_through_a_proxy(application: Application, caller: str) -> bool:
    """Whether there is a proxy on the caller's side: a sidecar. With a gateway the client is outside of the mesh and
    has none; a gateway is itself the proxy that was called, unless it is no part of the mesh and has a sidecar."""
    gateway = application.gateway
    if gateway is None:
        return True
    return gateway.proxy is not None if caller == GATEWAY else caller != CLIENT
