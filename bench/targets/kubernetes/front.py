"""The proxy of a delegated gateway on a cluster, which its mesh knows nothing of: what it has counted itself."""

import json
from typing import Any

from bench.meshes.application import GATEWAY, Application
from bench.targets import proxies
from bench.targets.gateway_routes import FRONT
from bench.targets.kubernetes.pages import page_of
from bench.targets.kubernetes.sidecars import Sidecars


def front_requests(application: Application, sidecars: Sidecars) -> dict[str, dict[str, int]]:
    """Requests that it has sent on so far, by cluster, under its name; nothing where there is none. Raises DeployError
    where it does not answer on the admin interface of its configuration."""
    gateway = application.gateway
    if gateway is None or gateway.proxy is None:
        return {}
    port, pod = gateway.proxy["admin"]["address"]["socket_address"]["port_value"], sidecars.pods[GATEWAY]

    def ask(path: str) -> Any:
        who = f"the proxy of {sidecars.namespace}/{pod}"
        return json.loads(page_of(sidecars.cluster, pod, port, namespace=sidecars.namespace, path=path, who=who))

    return {FRONT: proxies.requests_by_cluster(ask(proxies.CLUSTERS), ask(proxies.RETRIES))}
