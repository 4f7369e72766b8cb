"""Whether a mesh that others installed and rule serves a run: what would end it in the middle is found before."""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.findings import CheckResult
from bench.targets.kubernetes.client import Cluster, Object
from bench.targets.kubernetes.control_plane import ControlPlane
from bench.targets.kubernetes.control_planes import CONTROL_PLANES
from bench.targets.kubernetes.injection import WEBHOOKS, selecting_webhooks
from bench.targets.kubernetes.options import ClusterOptions
from bench.targets.kubernetes.waits import unavailable

_POD: Final[Object] = {"metadata": {"name": "meshbench-guest", "labels": {"app": "meshbench-guest"}}}
_GUEST: Final = "meshbench-guest"


def examine_guest(cluster: Cluster, meshes: Sequence[str], options: ClusterOptions) -> tuple[CheckResult, ...]:
    """One finding for each mesh that serves, or for each reason why it does not; none for one that is not there."""
    there = [CONTROL_PLANES[mesh] for mesh in meshes if CONTROL_PLANES[mesh].present(cluster)]
    return tuple(finding for plane in there for finding in _examine(cluster, plane, options))


def found_versions(cluster: Cluster, meshes: Sequence[str]) -> dict[str, str]:
    """The versions of meshes that are there, by mesh: the tag of the control plane's image."""
    there = {
        mesh: cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
        for mesh, plane in CONTROL_PLANES.items()
        if mesh in meshes
    }
    return {mesh: _tag(found[0]["spec"]["template"]["spec"]["containers"][0]) for mesh, found in there.items() if found}


def _tag(container: Object) -> str:
    name = str(container["image"]).rpartition("/")[2]
    return name.partition(":")[2] or name


def _examine(cluster: Cluster, plane: ControlPlane, options: ClusterOptions) -> Iterator[CheckResult]:
    deployments = cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
    troubles = [*_absent(plane, deployments), *_deaf(cluster, plane, options.revision), *plane.unfit(cluster)]
    what, hint = f"{plane.NAME}, as a guest", "correct it there, or leave out --use-existing-mesh on another cluster"
    yield from (CheckResult(what, "error", trouble, hint) for trouble in troubles)
    if not troubles:
        yield CheckResult(what, "ok", "what is for a whole mesh will be for the run's own namespace alone")


def _absent(plane: ControlPlane, deployments: Sequence[Object]) -> Iterator[str]:
    if not deployments:
        yield f"no Deployment with {plane.PODS} in {plane.NAMESPACE}"
    yield from (trouble for one in deployments if (trouble := unavailable(one)))


def _deaf(cluster: Cluster, plane: ControlPlane, revision: str) -> Iterator[str]:
    """Nobody would give the run's pods their sidecars."""
    labels = plane.namespace_labels(revision, _GUEST)
    namespace = {"metadata": {"name": _GUEST, "labels": {**labels, "kubernetes.io/metadata.name": _GUEST}}}
    asked = selecting_webhooks(namespace, [_POD], cluster.list(*WEBHOOKS))
    if not any(name.endswith(f"{plane.NAME}.io") for name in asked):
        told = " and ".join(f"{key}={value}" for key, value in labels.items())
        yield f"no webhook of it would give pods of a namespace with {told} a sidecar"
