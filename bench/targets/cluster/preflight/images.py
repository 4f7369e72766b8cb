"""Check the images of a run: whether the nodes have them already, and whether they can be pulled."""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from bench.check_result import CheckResult
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.objects import node_name
from bench.k8s.ownership import add_run_labels
from bench.scenario.placement import NO_PLACEMENT, NamespaceSettings, Placement
from bench.system.cancellation import CancelToken, wait_until
from bench.targets.cluster.pod_placement import place_pods

_ACCOUNT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.5
# A container waits for these only once its image is on the node; the program that no image has may end in either.
_AFTER_PULL: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)
_NOT_PULLED: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
# Nothing of an image is ever run: no image has this program, so that its container ends as soon as it was pulled.
_NO_PROGRAM: Final = "/meshbench-only-pulls"


def canonical(image: str) -> str:
    """Return an image's full name, as nodes list it: `docker.io/library/busybox:latest` for `busybox`."""
    name, at, digest = image.partition("@")
    host, slash, path = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", name if slash else f"library/{name}"
    last = path.rpartition("/")[2]
    if at:
        path = path.removesuffix(last) + last.partition(":")[0]  # the digest decides; nodes list no tag with one
    elif ":" not in last:
        path += ":latest"
    return f"{host}/{path}{at}{digest}"


def find_lacking_nodes(image: str, nodes: Sequence[Object]) -> tuple[str, ...]:
    """List the nodes whose kubelet does not list an image. A node may have it all the same: a kubelet lists its largest
    images only (50 by default, `nodeStatusMaxImages`), and what was loaded moments ago only with its next status."""
    wanted = canonical(image)
    return tuple(node_name(node) for node in nodes if wanted not in _listed_images(node))


def _listed_images(node: Object) -> Collection[str]:
    images = node["status"].get("images") or ()
    return {canonical(name) for image in images for name in image.get("names") or ()}


def examine_images(
    cluster: Cluster,
    images: Sequence[str],
    nodes: Sequence[Object],
    *,
    pull: bool,
    placement: Placement = NO_PLACEMENT,
    registries: Sequence[Object] = (),
) -> tuple[CheckResult, ...]:
    """Return one result for the images that all nodes list, and one for each other. With `pull`, a pod of ours, which
    is removed at once, decides on those; without it they are open, which is no warning. `placement` is the
    scenario's, and `registries` are the Secrets of registries."""
    lacking = {image: names for image in dict.fromkeys(images) if (names := find_lacking_nodes(image, nodes))}
    there = len(dict.fromkeys(images)) - len(lacking)
    present = CheckResult("images", "ok", f"{there} of {there + len(lacking)} on every node")
    if not lacking:
        return (present,)
    problems = find_pull_problems(cluster, tuple(lacking), placement, registries) if pull else None
    judged = (_judge(image, names, problems, timeout_s=cluster.timing.pull_s) for image, names in lacking.items())
    return (present, *judged) if there else tuple(judged)


def _judge(
    image: str, lacking: Sequence[str], problems: Mapping[str, str | None] | None, *, timeout_s: float
) -> CheckResult:
    if problems is None:
        detail = f"{image} is not listed by {', '.join(lacking)}, which may have it all the same or pull it"
        return CheckResult("image", "ok", f"{detail}; with --yes a pod checks that")
    problem = problems[image]
    if problem is None:
        detail = f"{image} was tried, and is not there after {timeout_s:.0f} s"
        return CheckResult(
            "image", "warning", detail, "check again when it is on the nodes, or give a nearer one: --registry MIRROR"
        )
    if problem:
        hint = "check its name, the node's route to its registry, or give another: --image NAME=REF, --registry MIRROR"
        return CheckResult("image", "error", f"{image} cannot be pulled: {problem}", hint)
    return CheckResult("image", "ok", f"{image} is available: a pod found or pulled it")


def find_pull_problems(
    cluster: Cluster,
    images: Sequence[str],
    placement: Placement = NO_PLACEMENT,
    registries: Sequence[Object] = (),
) -> Mapping[str, str | None]:
    """Pull images by a pod that ends at once, where the application's may be, and return what was wrong with each:
    empty where it was pulled, None where that had not ended after `cluster.timing.pull_s`."""
    watch = CancelToken()
    name = f"meshbench-images-{secrets.token_hex(4)}"
    with _namespace(cluster, name, placement.namespaces) as namespace:
        for secret in registries:
            copy = {**secret, "metadata": {"name": secret["metadata"]["name"], "namespace": namespace}}
            cluster.create(add_run_labels(copy, "probe", run_id=namespace, now=datetime.now(UTC)))
        thing = _pod(namespace, images, [secret["metadata"]["name"] for secret in registries])
        pod = _create(cluster, place_pods(thing, placement.application), watch)

        def is_settled() -> bool:
            return None not in _read_pull_problems(cluster.get(pod) or {}, images).values()

        wait_until(is_settled, timeout_s=cluster.timing.pull_s, watch=watch, poll_s=_POLL_S)
        return _read_pull_problems(cluster.get(pod) or {}, images)


@contextmanager
def _namespace(cluster: Cluster, name: str, settings: NamespaceSettings) -> Iterator[str]:
    """Create a namespace of ours, removed at the end without waiting for it; cleanup finds it by its labels."""
    own = {"labels": dict(settings.labels), "annotations": dict(settings.annotations)}
    thing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **own}}
    made = cluster.create(add_run_labels(thing, "namespace", run_id=name, now=datetime.now(UTC)))
    try:
        yield name
    finally:
        cluster.delete(made)


def _pod(namespace: str, images: Sequence[str], registries: Iterable[str]) -> Object:
    """Return a pod with one container for each image, within the strictest rules for pods; it requests nothing, so that
    full nodes take it too. `registries` are the names of Secrets of registries."""
    secured = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    containers = [
        {
            "name": f"image-{number}",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [_NO_PROGRAM],
            "securityContext": secured,
        }
        for number, image in enumerate(images)
    ]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
        "imagePullSecrets": [{"name": name} for name in registries],
    }
    metadata = {"name": "pull", "namespace": namespace}
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return add_run_labels(thing, "probe", run_id=namespace, now=datetime.now(UTC))


def _create(cluster: Cluster, pod: Object, watch: CancelToken) -> Ref:
    """Create the pod as soon as its namespace has got its default service account, without which it is refused."""
    account = Ref("v1", "ServiceAccount", "default", pod["metadata"]["namespace"])
    wait_until(lambda: cluster.get(account) is not None, timeout_s=_ACCOUNT_TIMEOUT_S, watch=watch, poll_s=_POLL_S)
    cluster.create(pod)
    return ref_of(pod)


def _read_pull_problems(pod: Object, images: Sequence[str]) -> dict[str, str | None]:
    """Return what is wrong with each image; None while that is open."""
    status = pod.get("status") or {}
    states = {one["name"]: one.get("state") or {} for one in status.get("containerStatuses") or ()}
    return {image: _read_pull_problem(states.get(f"image-{number}", {})) for number, image in enumerate(images)}


def _read_pull_problem(state: Object) -> str | None:
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _NOT_PULLED:
        return str(waiting.get("message") or waiting["reason"])
    pulled = "terminated" in state or "running" in state or waiting.get("reason") in _AFTER_PULL
    return "" if pulled else None
