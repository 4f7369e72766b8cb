"""Examine what a cluster needs for an application's own objects: their kinds, permissions, and volumes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bench.check_result import CheckResult
from bench.k8s.client import Cluster, Object
from bench.k8s.connection import KindInfo
from bench.meshes.resolved import ResolvedScenario
from bench.meshes.rights import KEEP, Need
from bench.targets.cluster.preflight.permissions import RUN

_PURPOSE: Final = "objects of the application"
_PULL_SECRETS: Final = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
_CLASSES: Final = ("storage.k8s.io/v1", "StorageClass")
_VOLUMES: Final = (
    Need(("list",), "", "persistentvolumes", "volumes that are deleted with the run"),
    Need(("list",), "storage.k8s.io", "storageclasses", "volumes that are deleted with the run"),
)
_IS_DEFAULT: Final = "storageclass.kubernetes.io/is-default-class"


def list_application_objects(resolved: ResolvedScenario) -> tuple[Object, ...]:
    """Return the application's own objects of all configurations, each once."""
    every = (one.value for each in resolved.configurations for one in each.moved_application)
    found = {
        (one["apiVersion"], one["kind"], one["metadata"]["name"], one["metadata"]["namespace"]): one for one in every
    }
    return tuple(found.values())


def list_pull_secrets(things: Iterable[Object]) -> tuple[Object, ...]:
    """Return the Secrets among objects with which nodes pull images."""
    return tuple(one for one in things if one["kind"] == "Secret" and one.get("type") in _PULL_SECRETS)


def application_needs(things: Sequence[Object], kinds: Sequence[KindInfo]) -> tuple[Need, ...]:
    """Return what a run has to be allowed for these objects, in addition to what every run needs."""
    known = {(need.group, need.resource) for need in RUN if set(KEEP) <= set(need.verbs)}
    infos = _index(kinds)
    found = [info for one in things if (info := infos.get(_kind_of(one)))]
    needed = dict.fromkeys((one.group, one.plural) for one in found if (one.group, one.plural) not in known)
    volumes = _VOLUMES if any(map(list_claims, things)) else ()
    return (*(Need(KEEP, group, plural, _PURPOSE) for group, plural in needed), *volumes)


def examine_application(cluster: Cluster, things: Sequence[Object]) -> tuple[CheckResult, ...]:
    """Return one result for each kind of the application's objects that the cluster does not serve, or not in a
    namespace, and for each StorageClass that would not give volumes, or not delete them."""
    return (*_examine_kinds(things, cluster.kinds()), *_examine_volumes(cluster, things))


def _index(kinds: Iterable[KindInfo]) -> Mapping[tuple[str, str], KindInfo]:
    """Return the kinds by group and name: of several versions only one is listed, and a dry run tries the others."""
    return {(one.group, one.kind): one for one in kinds}


def _kind_of(thing: Object) -> tuple[str, str]:
    """Return the group and the name of an object's kind."""
    group, slash, _ = thing["apiVersion"].partition("/")
    return group if slash else "", thing["kind"]


def _examine_kinds(things: Iterable[Object], kinds: Sequence[KindInfo]) -> Iterator[CheckResult]:
    infos, names = _index(kinds), dict[tuple[str, str], list[str]]()
    for one in things:
        names.setdefault(_kind_of(one), []).append(one["metadata"]["name"])
    for (group, kind), named in names.items():
        info = infos.get((group, kind))
        if info is None:
            detail = f"the cluster has no {kind} of {group or 'v1'}, which {', '.join(named)} is"
            yield CheckResult("application", "error", detail, "install what defines the kind, or leave the object out")
        elif not info.namespaced:
            detail = f"{kind} {', '.join(named)} is of the whole cluster, where a run makes nothing for an application"
            hint = "apply it before the run, and leave it out of the manifests"
            yield CheckResult("application", "error", detail, hint)


def list_claims(thing: Object) -> tuple[Object, ...]:
    """Return the claims of volumes that an object is, or that are made for its pods."""
    if thing["kind"] == "PersistentVolumeClaim":
        return (thing,)
    if thing["kind"] != "StatefulSet":
        return ()
    return tuple(thing["spec"].get("volumeClaimTemplates") or ())


def _examine_volumes(cluster: Cluster, things: Iterable[Object]) -> Iterator[CheckResult]:
    claims = [(f"{one['kind']} {one['metadata']['name']}", claim) for one in things for claim in list_claims(one)]
    if not claims:
        return
    classes = {one["metadata"]["name"]: one for one in cluster.list(*_CLASSES)}
    default = next((name for name, one in classes.items() if _is_default(one)), "")
    for owner, claim in claims:
        yield from _examine_class(owner, claim["spec"].get("storageClassName", default), classes)


def _is_default(storage_class: Object) -> bool:
    annotations: Mapping[str, Any] = storage_class["metadata"].get("annotations") or {}
    return annotations.get(_IS_DEFAULT) == "true"


def _examine_class(owner: str, name: str | None, classes: Mapping[str, Object]) -> Iterator[CheckResult]:
    known = f"known: {', '.join(sorted(classes)) or 'none'}"
    if not name:
        detail = f"{owner} names no StorageClass, and the cluster has no default one"
        yield CheckResult("volumes", "error", detail, f"set `storageClassName`; {known}")
    elif name not in classes:
        yield CheckResult("volumes", "error", f"{owner}: the cluster has no StorageClass {name}", known)
    elif classes[name].get("reclaimPolicy") == "Retain":
        detail = f"{owner}: volumes of the StorageClass {name} would stay when the run is deleted"
        yield CheckResult("volumes", "error", detail, "use one with `reclaimPolicy: Delete`")
