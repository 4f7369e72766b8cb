"""Istio's configuration in the namespace of a run. Pure: parsed manifests in, objects to apply out."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.application.model import NAMESPACE as APPLICATION
from bench.k8s.client import Object
from bench.meshes.istio.policies import ROOT_NAMESPACE

# A VirtualService that comes before the subsets it names would answer 503 meanwhile.
_ORDER: Final = ("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy", "DestinationRule")

_PRINCIPAL: Final = f"/ns/{APPLICATION}/"
_HOST: Final = re.compile(rf"\.{APPLICATION}(?=$|:|\.svc(?:$|[.:]))")
_NAMESPACE_KEYS: Final = ("namespace", "namespaces", "notNamespaces", "exportTo", "kubernetes.io/metadata.name")
_HOST_KEYS: Final = ("host", "hosts", "notHosts")


def namespace_labels(revision: str = "", guest: str = "") -> Mapping[str, str]:  # noqa: ARG001  # Istio's has no name
    """The label by which a namespace asks for sidecars; with a revision only that control plane answers."""
    return {"istio.io/rev": revision} if revision else {"istio-injection": "enabled"}


def outside_labels() -> Mapping[str, str]:
    """The label by which a pod gets no sidecar, although its namespace asks for them."""
    return {"sidecar.istio.io/inject": "false"}


def pod_annotations() -> Mapping[str, str]:
    """For the template of every pod with a sidecar: statistics that proofs need, besides the few that Istio keeps.

    Each one more is some memory, and CPU when it moves: these move with a connection, a handshake or a retry, never
    with an ordinary request. They are in the sidecar's start-up configuration, so that they come too late for a pod
    that runs. The local target's sidecars keep the same ones.
    """
    return {
        "sidecar.istio.io/statsInclusionSuffixes": "ssl.handshake,upstream_rq_retry",
        "sidecar.istio.io/statsInclusionRegexps": ",".join(
            (r".*\.ssl\.(versions|ciphers|curves)\..*", r".*\.upstream_cx_http[12]_total")
        ),
    }


def mesh_objects(policies: Sequence[Object], namespace: str, guest: str = "") -> tuple[Object, ...]:
    """The manifests moved into `namespace`, in the order in which they are to be applied.

    What says nothing about its namespace, or names the application's, moves there, and so do identities, hosts and
    namespaces inside; what belongs to the whole mesh stays in Istio's root namespace. But a guest in the mesh of others
    has no say in it: there it is for `namespace`, and means the same to the application.
    """
    moved = tuple(_placed(policy, namespace) for policy in policies)
    return tuple(sorted(_of_guest(moved, namespace) if guest else moved, key=_rank))


def _of_guest(policies: Sequence[Object], namespace: str) -> Iterator[Object]:
    """What is for the whole mesh, for the namespace alone. There its own PeerAuthentication comes before the mesh's;
    other policies add up, whatever their names."""
    own = [(one["kind"], one["metadata"]["name"]) for one in policies if not _is_root(one)]
    decided = any(one["kind"] == "PeerAuthentication" and _is_for_all(one) for one in policies if not _is_root(one))
    for policy in policies:
        name = policy["metadata"]["name"]
        if not _is_root(policy):
            yield policy
        elif policy["kind"] != "PeerAuthentication" or not decided:
            free = f"{name}-mesh-wide" if (policy["kind"], name) in own else name
            yield {**policy, "metadata": {**policy["metadata"], "name": free, "namespace": namespace}}


def _is_root(policy: Object) -> bool:
    return bool(policy["metadata"]["namespace"] == ROOT_NAMESPACE)


def _is_for_all(policy: Object) -> bool:
    return not (policy.get("spec") or {}).get("selector")


def _rank(thing: Object) -> int:
    return _ORDER.index(thing["kind"]) if thing["kind"] in _ORDER else len(_ORDER)


def _placed(policy: Object, namespace: str) -> Object:
    metadata = policy["metadata"]
    written = metadata.get("namespace") or APPLICATION
    place = namespace if written == APPLICATION else written
    rest = {key: _moved(value, key, namespace) for key, value in policy.items() if key != "metadata"}
    return {**rest, "metadata": {**metadata, "namespace": place}}


def _moved(value: Any, key: str, namespace: str) -> Any:
    """A value below `key`, with every mention of the application's namespace turned into `namespace`."""
    if isinstance(value, Mapping):
        return {name: _moved(item, name, namespace) for name, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, key, namespace) for item in value]
    return _renamed(value, key, namespace) if isinstance(value, str) else value


def _renamed(text: str, key: str, namespace: str) -> str:
    if key in _NAMESPACE_KEYS:
        return namespace if text == APPLICATION else text
    if key in _HOST_KEYS:
        return _HOST.sub(f".{namespace}", text)
    if key == "gateways":  # NAMESPACE/NAME
        return re.sub(rf"^{APPLICATION}/", f"{namespace}/", text)
    return text.replace(_PRINCIPAL, f"/ns/{namespace}/")
