"""Find what blocks deletion or the cluster itself: finalizers, dangling webhooks and APIs; and the command for each.

A webhook without its service refuses what it was asked about; an API without its service holds every namespace that is
being deleted.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import holding
from bench.targets.cluster.teardown.stages import Found

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


_LINES_AT_MOST: Final = 20
_NOBODY_ANSWERS: Final = (0, 401)  # nor will anybody to the next question; other refusals concern one kind alone


def explain(cluster: Cluster, left: Iterable[Found], refused: Mapping[Ref, str]) -> tuple[str, ...]:
    """Lines for what is left of a run: each object with what holds it and with a command. What holds a namespace from
    inside is left out where the API server does not tell it."""
    things = tuple(left)
    namespaces = {one.ref.name: one for one in things if one.ref.kind == "Namespace"}
    heads = [one for one in things if one.ref.namespace not in namespaces and not one.derived]
    inside = _held_in(cluster, [name for name, one in namespaces.items() if one.going])
    lines = [f"  {line}" for one in heads for line in _reasons(cluster, one, inside, refused.get(one.ref, ""))]
    more = len(lines) - _LINES_AT_MOST
    return (*lines[:_LINES_AT_MOST], f"  ... and {more} more") if more > 0 else tuple(lines)


def _reasons(cluster: Cluster, one: Found, inside: Mapping[str, Sequence[Object]], refused: str) -> Iterator[str]:
    if not one.going:
        why = f"its deletion was refused: {refused}" if refused else "not deleted yet"
        yield f"{one.ref}: {why}; {deletion_command(one, context=cluster.context)}"
        return
    yield f"{one.ref}: being deleted; {holding(one.thing)}"
    held = inside.get(one.ref.name, ()) if one.ref.kind == "Namespace" else [one.thing]
    for thing in held:
        finalizers = thing["metadata"].get("finalizers") or ()
        if finalizers:
            yield (
                f"  {ref_of(thing)} waits for {', '.join(finalizers)}; if nobody serves that any more: "
                f"{_release_command(ref_of(thing), cluster.context)}"
            )


def _held_in(cluster: Cluster, namespaces: Iterable[str]) -> Mapping[str, Sequence[Object]]:
    """By namespace, its objects that are being deleted; what was found until the API server did not answer any more."""
    held: defaultdict[str, list[Object]] = defaultdict(list)
    with suppress(ClusterError):  # then the namespaces' own conditions have to do
        for namespace in namespaces:
            for thing in _listed(cluster, namespace):
                if thing["metadata"].get("deletionTimestamp"):
                    held[namespace].append(thing)
    return held


def _listed(cluster: Cluster, namespace: str) -> Iterator[Object]:
    """Everything in a namespace, of the kinds that can be listed. Raises ClusterError where nobody answers."""
    for kind in cluster.kinds():
        if kind.namespaced and "list" in kind.verbs:
            try:
                yield from cluster.list(kind.api_version, kind.kind, namespace=namespace)
            except ClusterError as error:
                if error.status in _NOBODY_ANSWERS:
                    raise


def _release_command(ref: Ref, context: str) -> str:
    place = f" -n {ref.namespace}" if ref.namespace else ""
    patch = """--type=merge -p '{"metadata":{"finalizers":null}}'"""
    return f"kubectl --context {context}{place} patch {ref.kind.lower()} {ref.name} {patch}"
