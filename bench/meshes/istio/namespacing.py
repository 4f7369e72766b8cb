"""Move Istio's configuration into the namespace of a run: labels, annotations and the objects to apply. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench.application.model import NAMESPACE as APPLICATION
from bench.k8s.client import Object
from bench.meshes.istio.policies import ROOT_NAMESPACE

# A VirtualService before the subsets that it names would respond with 503 in between.
_ORDER: Final = ("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy", "DestinationRule")

_PRINCIPAL: Final = f"/ns/{APPLICATION}/"
_HOST: Final = re.compile(rf"\.{APPLICATION}(?=$|:|\.svc(?:$|[.:]))")
_NAMESPACE_KEYS: Final = ("namespace", "namespaces", "notNamespaces", "exportTo", "kubernetes.io/metadata.name")
_HOST_KEYS: Final = ("host", "hosts", "notHosts")


def namespace_labels(revision: str = "", run_mesh: str = "") -> Mapping[str, str]:  # noqa: ARG001  # Istio has one mesh
    """Return the label of a namespace that gets sidecars; with a revision, from that control plane only."""
    return {"istio.io/rev": revision} if revision else {"istio-injection": "enabled"}


def outside_labels() -> Mapping[str, str]:
    """Return the label of a pod that gets no sidecar, although its namespace does."""
    return {"sidecar.istio.io/inject": "false"}


def pod_annotations() -> Mapping[str, str]:
    """Return the annotations of every pod with a sidecar: statistics that proofs need, in addition to Istio's few.

    Each statistic costs memory, and CPU when it changes. These change with a connection, a handshake or a retry, never
    with an ordinary request. They are in the sidecar's start-up configuration, so they have no effect on a running pod.
    The local target's sidecars keep the same statistics.
    """
    return {
        "sidecar.istio.io/statsInclusionSuffixes": "ssl.handshake,upstream_rq_retry",
        "sidecar.istio.io/statsInclusionRegexps": ",".join(
            (r".*\.ssl\.(versions|ciphers|curves)\..*", r".*\.upstream_cx_http[12]_total")
        ),
    }


def mesh_objects(policies: Sequence[Object], namespace: str, run_mesh: str = "") -> tuple[Object, ...]:
    """Return the manifests moved into `namespace`, in the order to apply.

    A manifest moves if it names no namespace or the application's, with the identities, hosts and namespaces in it.
    Policies of the whole mesh stay in Istio's root namespace. In an existing mesh (with `run_mesh`) they apply to
    `namespace` only, with the same effect on the application.
    """
    moved = tuple(_move_policy(policy, namespace) for policy in policies)
    return tuple(sorted(_limit_to_namespace(moved, namespace) if run_mesh else moved, key=_rank))


def _limit_to_namespace(policies: Sequence[Object], namespace: str) -> Iterator[Object]:
    """Yield the policies with mesh-wide ones limited to the namespace.

    A PeerAuthentication of the namespace overrides the mesh-wide one. Other policies add up, whatever their names.
    """
    own = [(one["kind"], one["metadata"]["name"]) for one in policies if not _is_mesh_wide(one)]
    overridden = any(
        one["kind"] == "PeerAuthentication" and _has_no_selector(one) for one in policies if not _is_mesh_wide(one)
    )
    for policy in policies:
        name = policy["metadata"]["name"]
        if not _is_mesh_wide(policy):
            yield policy
        elif policy["kind"] != "PeerAuthentication" or not overridden:
            free = f"{name}-mesh-wide" if (policy["kind"], name) in own else name
            yield {**policy, "metadata": {**policy["metadata"], "name": free, "namespace": namespace}}


def _is_mesh_wide(policy: Object) -> bool:
    return bool(policy["metadata"]["namespace"] == ROOT_NAMESPACE)


def _has_no_selector(policy: Object) -> bool:
    return not (policy.get("spec") or {}).get("selector")


def _rank(policy: Object) -> int:
    return _ORDER.index(policy["kind"]) if policy["kind"] in _ORDER else len(_ORDER)


def _move_policy(policy: Object, namespace: str) -> Object:
    metadata = policy["metadata"]
    written = metadata.get("namespace") or APPLICATION
    target = namespace if written == APPLICATION else written
    rest = {key: _replace_namespace(value, key, namespace) for key, value in policy.items() if key != "metadata"}
    return {**rest, "metadata": {**metadata, "namespace": target}}


def _replace_namespace(value: Any, key: str, namespace: str) -> Any:
    """Return the value of `key` with `namespace` in place of the application's namespace."""
    if isinstance(value, Mapping):
        return {name: _replace_namespace(item, name, namespace) for name, item in value.items()}
    if isinstance(value, list):
        return [_replace_namespace(item, key, namespace) for item in value]
    return _replace_in_text(value, key, namespace) if isinstance(value, str) else value


def _replace_in_text(text: str, key: str, namespace: str) -> str:
    if key in _NAMESPACE_KEYS:
        return namespace if text == APPLICATION else text
    if key in _HOST_KEYS:
        return _HOST.sub(f".{namespace}", text)
    if key == "gateways":  # NAMESPACE/NAME
        return re.sub(rf"^{APPLICATION}/", f"{namespace}/", text)
    return text.replace(_PRINCIPAL, f"/ns/{namespace}/")
