"""Build Kuma's objects of a run: the Mesh, and a configuration's manifests moved into the run's namespaces. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from bench.application.model import MESH
from bench.files.yaml_source import Document
from bench.meshes.kuma.kinds import CLUSTER_WIDE
from bench.meshes.kuma.naming import DOMAIN_TEMPLATE, MESH_LABEL, ROOT_NAMESPACE, trust_domain
from bench.meshes.rewriting import (
    ANY_OBJECT,
    COMMON_PLACES,
    HOST,
    IDENTITY,
    NAME,
    NAMESPACE,
    Moved,
    Namespaces,
    Object,
    Place,
    Places,
    move_object,
    rewrite_object,
)

API_VERSION: Final = "kuma.io/v1alpha1"

# The control plane's default: no mutual TLS, so no permissions, and Services by their tags. Policies include their own
# Mesh with exclusive MeshServices, which MeshIdentity needs: sidecars then have other names of clusters and listeners,
# and handle requests in exactly the same way.
BASE_MESH: Final[Object] = {"apiVersion": API_VERSION, "kind": "Mesh", "metadata": {"name": MESH}, "spec": {}}

_FIRST: Final = ("Mesh", "MeshIdentity")  # needed by others: the mesh, then its identities
_TAG: Final = re.compile(r"([^_]+_)([^_]+)(_svc(?:_[0-9]+)?)")


def _change_tag(text: str, names: Namespaces) -> str:
    found = _TAG.fullmatch(text)
    return f"{found[1]}{names.of(found[2])}{found[3]}" if found else text


def _change_spiffe_id(text: str, names: Namespaces, template: str) -> str:
    scheme, domain, path = text.partition(trust_domain(MESH, template))
    if names.run_mesh and scheme == "spiffe://" and path[:1] in ("", "/"):
        domain = trust_domain(names.run_mesh, template)
    return IDENTITY.change(f"{scheme}{domain}{path}", names)


_MESH: Final = Place("mesh", lambda text, names: names.run_mesh or text)
_SERVICE_TAG: Final = Place("service tag", _change_tag)  # api_shop_svc_9080
_SPIFFE_IDS: Final = ("spec rules * matches * spiffeID value", "spec rules * default * * spiffeID value")


def _reference(path: str) -> Places:
    """Return the places of a reference to proxies or services."""
    return {
        f"{path} name": _SERVICE_TAG,
        f"{path} namespace": NAMESPACE,
        f"{path} labels k8s.kuma.io/namespace": NAMESPACE,
        f"{path} labels kuma.io/service": _SERVICE_TAG,
        f"{path} tags k8s.kuma.io/namespace": NAMESPACE,
        f"{path} tags kuma.io/service": _SERVICE_TAG,
    }


# Of every policy: they have the same forms of references.
_POLICY: Final[Places] = {
    **_reference("spec targetRef"),
    **_reference("spec from * targetRef"),
    **_reference("spec to * targetRef"),
    **_reference("spec to * rules * default backendRefs *"),
    **_reference("spec to * rules * default filters * requestMirror backendRef"),
    "spec endpoints * address": HOST,
    "sources * match kuma.io/service": _SERVICE_TAG,
    "destinations * match kuma.io/service": _SERVICE_TAG,
    "spec sources * match kuma.io/service": _SERVICE_TAG,
    "spec destinations * match kuma.io/service": _SERVICE_TAG,
    "spec selectors * match kuma.io/service": _SERVICE_TAG,
}
_PLACES: Final[Mapping[str, Places]] = {
    **COMMON_PLACES,
    "Mesh": {"metadata name": _MESH},
    "MeshGatewayRoute": {"spec conf http rules * backends * destination kuma.io/service": _SERVICE_TAG},
}


def mesh_objects(documents: Sequence[Document], names: Namespaces) -> tuple[Moved, ...]:
    """Return the manifests moved into the namespaces of a run, and with `run_mesh` into the mesh of that name, in the
    order to apply."""
    identity = Place("identity", partial(_change_spiffe_id, template=_find_domain(documents)))
    moved = (_move_to_mesh(_move(one, names, identity), names.run_mesh) for one in documents)
    return tuple(sorted(moved, key=_rank))


def _find_domain(documents: Iterable[Document]) -> str:
    """Return the template of the trust domain in a configuration's identities."""
    specs = (one.value.get("spec") or {} for one in documents if one.value["kind"] == "MeshIdentity")
    given = ((spec.get("spiffeID") or {}).get("trustDomain") for spec in specs)
    return next((str(one) for one in given if one), DOMAIN_TEMPLATE)


def build_mesh(run_mesh: str = "") -> Object:
    """Return the Mesh without policies: the default one, or the run's own next to existing ones."""
    return {**BASE_MESH, "metadata": {"name": run_mesh or MESH}}


def mesh_label(policy: Object) -> str:
    """Return the mesh of a policy."""
    return str((policy["metadata"].get("labels") or {}).get(MESH_LABEL, MESH))


def _move(document: Document, names: Namespaces, identity: Place) -> Moved:
    kind = document.value["kind"]
    places = {**ANY_OBJECT, **_POLICY, **_PLACES.get(kind, {})}
    for loc in _SPIFFE_IDS:  # spiffe://default.default.mesh.local/ns/shop/sa/api
        places[loc] = identity
    return (rewrite_object if kind in CLUSTER_WIDE else move_object)(document, places=places, names=names)


def _move_to_mesh(moved: Moved, mesh: str) -> Moved:
    """Name the mesh of an object, if it is one of the run's own; outside the run's namespace with a unique name."""
    kind, metadata = moved.value["kind"], moved.value["metadata"]
    if not mesh or kind == "Mesh":
        return moved
    if kind in CLUSTER_WIDE or metadata["namespace"] == ROOT_NAMESPACE:
        moved = moved.put(("metadata", "name"), NAME, f"{metadata['name']}-{mesh}")
    return moved.put(("mesh",) if kind in CLUSTER_WIDE else ("metadata", "labels", MESH_LABEL), _MESH, mesh)


def _rank(policy: Moved) -> int:
    kind = policy.value["kind"]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
