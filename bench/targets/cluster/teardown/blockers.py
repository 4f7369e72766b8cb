"""Find what blocks deletion or the cluster itself: finalizers, dangling webhooks and APIs; and the command for each.

A webhook without its service refuses the requests that it is called for; an API without its service blocks the deletion
of every namespace.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import describe_blockers
from bench.system.output import format_command
from bench.targets.cluster.teardown.stages import RunObject
from bench.units import format_first

_WEBHOOK_KINDS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_REGISTRATION: Final = "apiregistration.k8s.io/v1"
_LINES_AT_MOST: Final = 20
_NAMED_AT_MOST: Final = 4


@dataclass(frozen=True, slots=True)
class Dangling:
    """A dangling webhook configuration or API; `namespace` is that of the service it names."""

    found: RunObject
    namespace: str
    why: str

    def describe(self, context: str) -> str:
        """Format one line, with the command that deletes it."""
        ref = self.found.ref
        return f"{ref}: {self.why}; hint: to delete it: {deletion_command(self.found, context=context)}"


def find_dangling(cluster: Cluster) -> tuple[Dangling, ...]:
    """Return all dangling webhooks and APIs on the cluster, whichever program left them."""
    return (*find_dangling_webhooks(cluster), *_find_unavailable_apis(cluster))


def find_dangling_webhooks(cluster: Cluster) -> tuple[Dangling, ...]:
    """Return the webhook configurations of which a service is missing or has no pod that is ready."""
    problems: dict[tuple[str, str], str] = {}
    return tuple(
        Dangling(RunObject(ref_of(configuration), configuration), service[0], problems[service])
        for kind in _WEBHOOK_KINDS
        for configuration in cluster.list(_ADMISSION, kind)
        for service in services_of(configuration)[:1] or ()
        if problems.setdefault(service, _find_service_problem(cluster, *service))
    )


def services_of(configuration: Object) -> tuple[tuple[str, str], ...]:
    """Return namespace and name of the services that a webhook configuration calls, each once."""
    services = [webhook["clientConfig"].get("service") for webhook in configuration.get("webhooks") or ()]
    return tuple(dict.fromkeys((service["namespace"], service["name"]) for service in services if service))


def _find_service_problem(cluster: Cluster, namespace: str, name: str) -> str:
    """Return why a service does not answer; empty if it does."""
    slices = cluster.list(
        "discovery.k8s.io/v1", "EndpointSlice", namespace=namespace, labels=f"kubernetes.io/service-name={name}"
    )
    if any(map(_is_ready, (endpoint for one in slices for endpoint in one.get("endpoints") or ()))):
        return ""
    return f"its service {namespace}/{name} " + ("has no pod that is ready" if slices else "does not exist")


def _is_ready(endpoint: dict[str, Any]) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _find_unavailable_apis(cluster: Cluster) -> Iterator[Dangling]:
    for api in cluster.list(_REGISTRATION, "APIService"):
        conditions = (api.get("status") or {}).get("conditions") or ()
        down = next((one for one in conditions if one["type"] == "Available" and one["status"] == "False"), None)
        if down is not None:
            namespace = (api["spec"].get("service") or {}).get("namespace", "")
            why = f"not available: {down.get('message', 'no reason given')}"
            yield Dangling(RunObject(ref_of(api), api), namespace, why)


def deletion_command(one: RunObject, *, context: str) -> str:
    """Return the command that deletes an object."""
    return _format_kubectl(context, one.ref, "delete")


def explain_used(definition: Ref, others: Sequence[Ref], *, context: str) -> Iterator[str]:
    """Yield lines for a definition that stays: the objects of others, and the command that deletes all of them."""
    yield f"{definition}: {format_first([*map(str, others)], _NAMED_AT_MOST)}"
    yield f"  to delete all of them with it: {_format_kubectl(context, definition, 'delete')}"


def explain_leftovers(cluster: Cluster, left: Iterable[RunObject], refused: Mapping[Ref, str]) -> tuple[str, ...]:
    """Return lines for what is left of a run: each object with what blocks its deletion and with a command. What blocks
    a namespace from inside is left out where the API server does not list it."""
    things = tuple(left)
    namespaces = {one.ref.name: one for one in things if one.ref.kind == "Namespace"}
    heads = [one for one in things if one.ref.namespace not in namespaces and not one.is_owned]
    inside = _find_terminating(cluster, [name for name, one in namespaces.items() if one.is_terminating])
    lines = [f"  {line}" for one in heads for line in _explain_object(cluster, one, inside, refused.get(one.ref, ""))]
    more = len(lines) - _LINES_AT_MOST
    return (*lines[:_LINES_AT_MOST], f"  ... and {more} more") if more > 0 else tuple(lines)


def _explain_object(
    cluster: Cluster, one: RunObject, inside: Mapping[str, Sequence[Object]], refused: str
) -> Iterator[str]:
    if not one.is_terminating:
        why = f"its deletion was refused: {refused}" if refused else "not deleted yet"
        yield f"{one.ref}: {why}; {deletion_command(one, context=cluster.context)}"
        return
    yield f"{one.ref}: being deleted; {describe_blockers(one.thing)}"
    blocked = inside.get(one.ref.name, ()) if one.ref.kind == "Namespace" else [one.thing]
    for thing in blocked:
        finalizers = thing["metadata"].get("finalizers") or ()
        if finalizers:
            yield (
                f"  {ref_of(thing)} waits for {', '.join(finalizers)}; if its controller no longer runs: "
                f"{_release_command(ref_of(thing), cluster.context)}"
            )


def _find_terminating(cluster: Cluster, namespaces: Iterable[str]) -> Mapping[str, Sequence[Object]]:
    """Return, by namespace, its objects that are being deleted; those found until the API server did not answer any
    more."""
    held: defaultdict[str, list[Object]] = defaultdict(list)
    with suppress(ClusterError):  # then the namespaces' own conditions have to suffice
        for namespace in namespaces:
            for thing in _list_all(cluster, namespace):
                if thing["metadata"].get("deletionTimestamp"):
                    held[namespace].append(thing)
    return held


def _list_all(cluster: Cluster, namespace: str) -> Iterator[Object]:
    """Yield everything in a namespace, of the kinds that can be listed. Raises ClusterError where the API server does
    not answer."""
    for kind in cluster.kinds():
        if kind.namespaced and "list" in kind.verbs:
            try:
                yield from cluster.list(kind.api_version, kind.kind, namespace=namespace)
            except ClusterError as error:
                if error.kind.is_unanswered or error.kind is ErrorKind.UNAUTHORIZED:  # others are of one kind alone
                    raise


def _release_command(ref: Ref, context: str) -> str:
    return _format_kubectl(context, ref, "patch", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def _format_kubectl(context: str, ref: Ref, verb: str, *options: str) -> str:
    namespace = ("-n", ref.namespace) if ref.namespace else ()
    return format_command("kubectl", "--context", context, *namespace, verb, ref.kind.lower(), ref.name, *options)
