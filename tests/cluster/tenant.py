"""A second team on the lab's cluster, which uses it all the time, and what of it a test changed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_for_rollout, wait_until_deleted
from bench.meshes.istio import control_plane as istio
from bench.system.cancellation import CancelToken, wait_until
from tests.cluster.job import delete_named, list_objects

SPACES: Final = ("team-shop", "team-data")
IMAGE: Final = "docker.io/meshlab/python:3.11"
_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.3
_READY_TO_USE: Final = ("metadata", "status", "apiVersion", "kind")
_COUNTED: Final = ("uid", "generation", "labels", "annotations")
_LABELS: Final = {"app": "gateway", "version": "v1"}  # as the pods of a run's gateway have them
_KIND: Final = Ref("apiextensions.k8s.io/v1", "CustomResourceDefinition", "gateways.team.example.com")


def _make(api_version: str, kind: str, name: str, namespace: str = "", **parts: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def _list_plain() -> Iterator[Object]:
    """Yield what any team may have, with names and labels like those of a mesh and of a run."""
    for space in SPACES:
        yield _make("v1", "Namespace", space, metadata={"labels": {"istio-injection": "enabled", "team": "shop"}})
        yield _make("v1", "ConfigMap", "settings", space, data={"owner": "shop"})
        own = {"labels": {"istio.io/config": "true"}, "annotations": {"example.com/by": "shop"}}
        yield _make("v1", "ConfigMap", "rules", space, data={"root-cert.pem": "theirs"}, metadata=own)
        half = {"labels": {"app.kubernetes.io/managed-by": "meshbench"}}  # by their own tool of that name
        yield _make("v1", "ConfigMap", "half", space, data={"a": "1"}, metadata=half)
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Gateway", "plural": "gateways", "singular": "gateway"}
    spec = {"group": "team.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    yield _make(_KIND.api_version, _KIND.kind, _KIND.name, spec=spec)
    for space in SPACES:
        yield _make("team.example.com/v1", "Gateway", "gateway", space, spec={"selector": {"app": "gateway"}})


def _make_pods(**container: Any) -> Object:
    """Return the team's gateway: a program of its own, or a proxy that a mesh injects."""
    parts = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
        **container,
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{key: one for key, one in parts.items() if one}]}
    injected = {"sidecar.istio.io/inject": str(bool(container)).lower()}
    template = {
        "metadata": {"labels": {**_LABELS, **injected}, "annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": spec,
    }
    return _make(
        "apps/v1", "Deployment", "gateway", SPACES[0], spec={"selector": {"matchLabels": _LABELS}, "template": template}
    )


def _list_istios() -> Iterator[Object]:
    """Yield objects of a mesh that is there already: a gateway of the team's own, its routes, and a policy."""
    server = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["shop.example.com"]}
    network, security = "networking.istio.io/v1", "security.istio.io/v1"
    yield _make(network, "Gateway", "gateway", SPACES[0], spec={"selector": {"app": "gateway"}, "servers": [server]})
    route = {"directResponse": {"status": 418}}
    own = {"hosts": ["shop.example.com"], "gateways": ["gateway"], "http": [route]}
    yield _make(network, "VirtualService", "gateway", SPACES[0], spec=own)
    yield _make(security, "AuthorizationPolicy", "all", SPACES[1], spec={"action": "ALLOW", "rules": [{}]})


@contextmanager
def second_team(cluster: Cluster, *, in_mesh: bool) -> Iterator[None]:
    """The team's objects, and with `in_mesh` also those for the Istio that is there; its gateway is ready."""
    pods = _make_pods(name="istio-proxy", image="auto", command=None) if in_mesh else _make_pods()
    things = (*_list_plain(), *(_list_istios() if in_mesh else ()), pods)
    try:
        for thing in things:
            assert wait_for(partial(_is_created, cluster, thing)), f"{ref_of(thing)}: its kind is not served"
        wait_for_rollout(cluster, SPACES[0], ["gateway"], timeout_s=_TIMEOUT_S, watch=CancelToken())
        yield
    finally:
        gone = [Ref("v1", "Namespace", space) for space in SPACES]
        for ref in (*gone, _KIND):
            delete_named(cluster, ref)
        wait_until_deleted(cluster, [*gone, _KIND], timeout_s=_TIMEOUT_S, watch=CancelToken())


def _is_created(cluster: Cluster, thing: Object) -> bool:
    """Create an object; return False where its kind is not served yet, as after its definition was created."""
    try:
        cluster.create(thing)
    except ClusterError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return False
        raise
    return True


def snapshot_team(cluster: Cluster) -> Mapping[str, Object]:
    """Return the uid, generation, labels, annotations, spec and data of everything that is the team's, or in its
    namespaces; but not what a mesh puts into every namespace, as long as it is there."""
    found = list_objects(cluster)
    made = {f"{one['apiVersion']} {ref_of(one)}" for one in istio.find_leftovers(cluster, since="")}
    return {name: _core(one) for name, one in found.items() if _is_the_teams(one) and name not in made}


def _is_the_teams(thing: Object) -> bool:
    ref = ref_of(thing)
    named = ref.name in SPACES or ref == _KIND
    return thing["kind"] not in ("Event", "Lease") and (named or ref.namespace in SPACES)


def _core(thing: Object) -> Object:
    metadata = {key: thing["metadata"].get(key) for key in _COUNTED}
    return {**metadata, **{key: one for key, one in thing.items() if key not in _READY_TO_USE}}


def find_changes(before: Mapping[str, Object], after: Mapping[str, Object]) -> list[str]:
    """Return the objects of the team that differ, or that are in one of the two snapshots alone."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def read_routes(cluster: Cluster) -> str:
    """Return the routes that the team's gateway has from its mesh."""
    (pod,) = cluster.list("v1", "Pod", namespace=SPACES[0], labels="app=gateway")
    return istio.admin(
        cluster, pod["metadata"]["name"], "/config_dump?resource=dynamic_route_configs", namespace=SPACES[0]
    )


def wait_for(check: Callable[[], bool]) -> bool:
    """Return whether `check` holds within a minute."""
    return bool(wait_until(check, timeout_s=_TIMEOUT_S, watch=CancelToken(), poll_s=_POLL_S))
