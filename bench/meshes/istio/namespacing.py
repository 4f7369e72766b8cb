"""Move Istio's configuration into the namespaces of a run. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.files.yaml_source import Document, Loc
from bench.meshes.istio.policies import ROOT_NAMESPACE
from bench.meshes.rewriting import (
    ANY_OBJECT,
    HOST,
    IDENTITY,
    NAME,
    NAMESPACE,
    REFERENCE,
    Moved,
    Namespaces,
    Place,
    Places,
    move_object,
)

GATEWAY_LABEL: Final = "meshbench.dev/namespace"
_GATEWAY_LABELS: Final[Mapping[str, Loc]] = {
    "Gateway": ("spec", "selector"),
    "Deployment": ("spec", "template", "metadata", "labels"),
}

# A VirtualService before the subsets that it names would respond with 503 in between.
_ORDER: Final = ("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy", "DestinationRule")


def _change_server_host(text: str, names: Namespaces) -> str:
    """Return a host of a Gateway, NAMESPACE/HOST, as a run has it."""
    namespace, slash, host = text.rpartition("/")
    return f"{names.of(namespace)}{slash}{HOST.change(host, names)}"


_PLACES: Final[Mapping[str, Places]] = {
    "AuthorizationPolicy": {
        "spec rules * from * source principals *": IDENTITY,
        "spec rules * from * source notPrincipals *": IDENTITY,
        "spec rules * from * source namespaces *": NAMESPACE,
        "spec rules * from * source notNamespaces *": NAMESPACE,
        "spec rules * from * source serviceAccounts *": REFERENCE,
        "spec rules * from * source notServiceAccounts *": REFERENCE,
        "spec rules * to * operation hosts *": HOST,
        "spec rules * to * operation notHosts *": HOST,
    },
    "VirtualService": {
        "spec hosts *": HOST,
        "spec gateways *": REFERENCE,
        "spec http * route * destination host": HOST,
    },
    "DestinationRule": {"spec host": HOST},
    "Gateway": {"spec servers * hosts *": Place("host", _change_server_host)},
}

_BY_CONDITION: Final[Mapping[str, Place]] = {"source.principal": IDENTITY, "source.namespace": NAMESPACE}


def mesh_objects(documents: Sequence[Document], names: Namespaces) -> tuple[Moved, ...]:
    """Return the manifests moved into the namespaces of a run, in the order to apply.

    Policies of the whole mesh stay in Istio's root namespace. In a mesh that others share (with `run_mesh`) they apply
    to the run's namespace only, with the same effect on the application, and a Gateway selects pods of that namespace
    only.
    """
    moved = [move_object(one, names, _find_places(one)) for one in documents]
    if names.run_mesh:
        moved = [_mark_gateway(one, names.home) for one in _limit_to_namespace(moved, names.home)]
    return tuple(sorted(moved, key=_rank))


def _find_places(document: Document) -> Places:
    """Return the places of an object; what the values of a condition are depends on its key."""
    kind, rules = document.value["kind"], (document.value.get("spec") or {}).get("rules") or ()
    conditions = {
        f"spec rules {index} when {number} {field} *": _BY_CONDITION[when["key"]]
        for index, rule in enumerate(rules if kind == "AuthorizationPolicy" else ())
        for number, when in enumerate((rule or {}).get("when") or ())
        for field in ("values", "notValues")
        if when.get("key") in _BY_CONDITION
    }
    return {**ANY_OBJECT, **_PLACES.get(kind, {}), **conditions}


def _mark_gateway(moved: Moved, namespace: str) -> Moved:
    """Return a Gateway that selects, and a Deployment whose pods have, a label that names the namespace: Istio looks
    for the pods of a Gateway in all namespaces, and would open its port at the gateways of others."""
    loc = _GATEWAY_LABELS.get(moved.value["kind"])
    return moved.put((*loc, GATEWAY_LABEL), NAMESPACE, namespace) if loc else moved


def _limit_to_namespace(policies: Sequence[Moved], namespace: str) -> Iterator[Moved]:
    """Yield the policies with mesh-wide ones limited to the namespace.

    A PeerAuthentication of the namespace overrides the mesh-wide one. Other policies add up, whatever their names.
    """
    own = [one for one in policies if not _is_mesh_wide(one)]
    names = [_name_of(one) for one in own]
    overridden = any(one.value["kind"] == "PeerAuthentication" and _has_no_selector(one) for one in own)
    for policy in policies:
        if not _is_mesh_wide(policy):
            yield policy
        elif policy.value["kind"] != "PeerAuthentication" or not overridden:
            limited = policy.put(("metadata", "namespace"), NAMESPACE, namespace)
            kind, name = _name_of(policy)
            yield limited.put(("metadata", "name"), NAME, f"{name}-mesh-wide") if (kind, name) in names else limited


def _name_of(policy: Moved) -> tuple[str, str]:
    return policy.value["kind"], policy.value["metadata"]["name"]


def _is_mesh_wide(policy: Moved) -> bool:
    return bool(policy.value["metadata"]["namespace"] == ROOT_NAMESPACE)


def _has_no_selector(policy: Moved) -> bool:
    return not (policy.value.get("spec") or {}).get("selector")


def _rank(policy: Moved) -> int:
    kind = policy.value["kind"]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
