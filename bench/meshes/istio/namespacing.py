"""Move Istio's configuration into the namespaces of a run. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.files.yaml_source import Document, Loc
from bench.meshes.istio.kinds import EXPORTED, MOVABLE
from bench.meshes.istio.policies import ROOT_NAMESPACE
from bench.meshes.rewriting import (
    ANY_OBJECT,
    COMMON_PLACES,
    HOST,
    IDENTITY,
    NAME,
    NAMESPACE,
    REFERENCE,
    URL,
    Moved,
    Namespaces,
    Place,
    Places,
    move_object,
)

_EVERYWHERE: Final = "*"  # in `exportTo`
_NAMESPACE_LABEL: Final = "meshbench.dev/namespace"
_MESH_LABEL: Final = "meshbench.dev/mesh"
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


def _change_cluster(text: str, names: Namespaces) -> str:
    """Return the name of a cluster, `outbound|9080||HOST`, as a run has it."""
    before, bar, host = text.rpartition("|")
    return f"{before}{bar}{HOST.change(host, names)}"


_CLUSTER: Final = Place("cluster", _change_cluster)
_LABEL: Final = Place("label", lambda text, _: text)
_SERVER_HOST: Final = Place("host", _change_server_host)
_TARGETS: Final[Places] = {"spec targetRef namespace": NAMESPACE, "spec targetRefs * namespace": NAMESPACE}
_EXPORTED: Final[Places] = {"spec exportTo *": NAMESPACE}
_PLACES: Final[Mapping[str, Places]] = {
    **COMMON_PLACES,
    "AuthorizationPolicy": {
        **_TARGETS,
        "spec rules * from * source serviceAccounts *": REFERENCE,
        "spec rules * from * source notServiceAccounts *": REFERENCE,
        "spec rules * from * source principals *": IDENTITY,
        "spec rules * from * source notPrincipals *": IDENTITY,
        "spec rules * from * source namespaces *": NAMESPACE,
        "spec rules * from * source notNamespaces *": NAMESPACE,
        "spec rules * to * operation hosts *": HOST,
        "spec rules * to * operation notHosts *": HOST,
    },
    "RequestAuthentication": {**_TARGETS, "spec jwtRules * jwksUri": URL},
    "VirtualService": {
        **_EXPORTED,
        "spec hosts *": HOST,
        "spec http * match * authority *": HOST,
        "spec http * match * gateways *": REFERENCE,
        "spec http * match * sourceNamespace": NAMESPACE,
        "spec http * rewrite authority": HOST,
        "spec http * redirect authority": HOST,
        "spec http * delegate namespace": NAMESPACE,
        "spec http * mirror host": HOST,
        "spec http * mirrors * destination host": HOST,
        "spec tcp * route * destination host": HOST,
        "spec tls * route * destination host": HOST,
        "spec tls * match * sniHosts *": HOST,
        "spec gateways *": REFERENCE,
        "spec http * route * destination host": HOST,
    },
    "DestinationRule": {
        **_EXPORTED,
        "spec host": HOST,
        "spec trafficPolicy tls sni": HOST,
        "spec trafficPolicy tls subjectAltNames *": IDENTITY,
    },
    "EnvoyFilter": {
        **_TARGETS,
        "spec configPatches * match cluster name": _CLUSTER,
        "spec configPatches * match cluster service": HOST,
        "spec configPatches * match routeConfiguration gateway": REFERENCE,
        "spec configPatches * match routeConfiguration vhost name": HOST,
    },
    "Gateway": {**COMMON_PLACES["Gateway"], "spec servers * hosts *": _SERVER_HOST},
    "ServiceEntry": {
        **_EXPORTED,
        "spec hosts *": HOST,
        "spec endpoints * address": HOST,
        "spec subjectAltNames *": IDENTITY,
    },
    "Sidecar": {"spec egress * hosts *": _SERVER_HOST, "spec outboundTrafficPolicy egressProxy host": HOST},
    "Telemetry": _TARGETS,
    "TrafficExtension": _TARGETS,
    "WasmPlugin": _TARGETS,
    "WorkloadEntry": {"spec address": HOST},
}


# What the values of a condition hold, by its key.
_BY_CONDITION: Final[Mapping[str, Place]] = {
    "connection.sni": HOST,
    "source.namespace": NAMESPACE,
    "source.principal": IDENTITY,
    "source.serviceAccount": REFERENCE,
}


def mesh_objects(documents: Sequence[Document], names: Namespaces) -> tuple[Moved, ...]:
    """Return the manifests moved into the namespaces of a run, in the order to apply.

    Policies of the whole mesh stay in Istio's root namespace. In a mesh that others share (with `run_mesh`) they apply
    to the run's namespaces only, with the same effect on the application (one copy in each), and a Gateway selects pods
    of that namespace only. What sidecars of all namespaces would see is for those of the run: a route for a host of
    others, or for one outside the cluster, would change their requests.
    """
    moved = [move_object(one, names, _find_places(one)) for one in documents]
    if names.run_mesh:
        spaces = dict.fromkeys(names.runs.values())
        limited = _limit_to_namespaces(moved, tuple(spaces))
        moved = [_limit_export(_mark_gateway(one, names), tuple(spaces)) for one in limited]
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


def _mark_gateway(moved: Moved, names: Namespaces) -> Moved:
    """Return a Gateway that selects, and a Deployment whose pods have, labels that name the namespace and the part of
    the mesh, which is the configuration's: Istio looks for the pods of a Gateway in all namespaces, and would open its
    port at the gateways of others."""
    if (loc := _GATEWAY_LABELS.get(moved.value["kind"])) is None:
        return moved
    return moved.put((*loc, _NAMESPACE_LABEL), _LABEL, names.home).put((*loc, _MESH_LABEL), _LABEL, names.run_mesh)


def _limit_export(moved: Moved, namespaces: Sequence[str]) -> Moved:
    """Return an object that only the namespaces see, if all would."""
    written = (moved.value.get("spec") or {}).get("exportTo") or (_EVERYWHERE,)
    if moved.value["kind"] not in EXPORTED or _EVERYWHERE not in written:
        return moved
    return moved.put_all(("spec", "exportTo"), NAMESPACE, namespaces)


def _limit_to_namespaces(policies: Sequence[Moved], namespaces: Sequence[str]) -> Iterator[Moved]:
    """Yield the policies with mesh-wide ones limited to the namespaces.

    A PeerAuthentication of a namespace overrides the mesh-wide one there. Other policies add up, whatever their names.
    """
    own = [one for one in policies if not _is_mesh_wide(one)]
    names = [_name_of(one) for one in own]
    overridden = {
        one.value["metadata"]["namespace"]
        for one in own
        if one.value["kind"] == "PeerAuthentication" and _has_no_selector(one)
    }
    for policy in policies:
        if not _is_mesh_wide(policy) or policy.value["kind"] not in MOVABLE:
            yield policy
            continue
        for namespace in namespaces:
            if policy.value["kind"] == "PeerAuthentication" and namespace in overridden:
                continue
            limited = policy.put(("metadata", "namespace"), NAMESPACE, namespace)
            name = _name_of(limited)
            yield limited.put(("metadata", "name"), NAME, f"{name[1]}-mesh-wide") if name in names else limited


def _name_of(policy: Moved) -> tuple[str, str, str]:
    metadata = policy.value["metadata"]
    return policy.value["kind"], metadata["name"], metadata["namespace"]


def _is_mesh_wide(policy: Moved) -> bool:
    return bool(policy.value["metadata"]["namespace"] == ROOT_NAMESPACE)


def _has_no_selector(policy: Moved) -> bool:
    return not (policy.value.get("spec") or {}).get("selector")


def _rank(policy: Moved) -> int:
    kind = policy.value["kind"]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
