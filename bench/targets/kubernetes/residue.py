"""What makes a cluster unusable after its owner is gone: webhooks and APIs behind which nobody answers.

A webhook without its service refuses what it was asked about; an API without its service holds every namespace that is
being deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.targets.kubernetes.client import Cluster, Object, ref_of
from bench.targets.kubernetes.deletion import Found

_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_REGISTRATION: Final = "apiregistration.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Residue:
    """A webhook configuration or API that leads nowhere; `namespace` is that of the service it asks for."""

    found: Found
    namespace: str
    why: str

    def told(self, context: str) -> str:
        """One line, with the command that removes it."""
        ref = self.found.ref
        return f"{ref}: {self.why}; to remove it: {deletion_command(self.found, context=context)}"


def find_residue(cluster: Cluster) -> tuple[Residue, ...]:
    """Everything of that sort on the cluster, whoever left it."""
    return (*dead_webhooks(cluster), *_dead_apis(cluster))


def dead_webhooks(cluster: Cluster) -> tuple[Residue, ...]:
    """The webhook configurations of which a service is missing or has no pod that is ready."""
    answered: dict[tuple[str, str], str] = {}
    return tuple(
        Residue(Found(ref_of(configuration), configuration), place[0], answered[place])
        for kind in _WEBHOOK_KINDS
        for configuration in cluster.list(_ADMISSION, kind)
        for place in services_of(configuration)[:1] or ()
        if answered.setdefault(place, _silence(cluster, *place))
    )


def services_of(configuration: Object) -> tuple[tuple[str, str], ...]:
    """Namespace and name of the services that a webhook configuration asks, each once."""
    services = [webhook["clientConfig"].get("service") for webhook in configuration.get("webhooks") or ()]
    return tuple(dict.fromkeys((service["namespace"], service["name"]) for service in services if service))


def _silence(cluster: Cluster, namespace: str, name: str) -> str:
    """Why nobody answers for a service; empty if somebody does."""
    slices = cluster.list(
        "discovery.k8s.io/v1", "EndpointSlice", namespace=namespace, labels=f"kubernetes.io/service-name={name}"
    )
    if any(map(_is_ready, (endpoint for one in slices for endpoint in one.get("endpoints") or ()))):
        return ""
    return f"its service {namespace}/{name} " + ("has no pod that is ready" if slices else "does not exist")


def _is_ready(endpoint: dict[str, Any]) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _dead_apis(cluster: Cluster) -> Iterator[Residue]:
    for api in cluster.list(_REGISTRATION, "APIService"):
        conditions = (api.get("status") or {}).get("conditions") or ()
        down = next((one for one in conditions if one["type"] == "Available" and one["status"] == "False"), None)
        if down is not None:
            namespace = (api["spec"].get("service") or {}).get("namespace", "")
            why = f"not available: {down.get('message', 'no reason given')}"
            yield Residue(Found(ref_of(api), api), namespace, why)


def deletion_command(one: Found, *, context: str) -> str:
    """The command that deletes an object."""
    place = f" -n {one.ref.namespace}" if one.ref.namespace else ""
    return f"kubectl --context {context}{place} delete {one.ref.kind.lower()} {one.ref.name}"
