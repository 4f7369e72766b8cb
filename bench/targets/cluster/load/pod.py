"""Make the load pod's objects, and read its containers' status. Pure."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object
from bench.k8s.connection import KindInfo
from bench.load import recorder_path
from bench.load.generator import LoadSpec

NAME: Final = "locust"  # of the pod, and of the container that runs Locust
KEEPER: Final = "keeper"
FOLDER: Final = "/load"
GO: Final = "go"  # Locust starts as soon as the folder has a file of this name
UI_PORT: Final = 8089
_PACKAGE: Final = recorder_path().parents[1]
_CODE: Final = "/meshbench"
_OPENSHIFT: Final = "security.openshift.io/"
_UID: Final = 1000  # the image names its user, and Kubernetes accepts only a number as not root


def load_objects(
    order: LoadSpec,
    *,
    namespace: str,
    image: str = "",
    affinity: Object | None = None,
    uid: int | None = _UID,
    annotations: Mapping[str, str] | None = None,
    ui: bool = False,
) -> tuple[Object, ...]:
    """Return account, ConfigMap and pod, in the order in which they are to be applied; the pod waits for the file `go`.

    `image` replaces the manifests'. `affinity` limits the pod's nodes, see `place_load`. `uid` None leaves the user to
    the cluster. `annotations` are for its sidecar. `ui`: Locust has its web page, on the pod's own loopback.
    """
    code = _code(order)
    pod = _with_code(_pod(order, image=image, affinity=affinity, uid=uid, ui=ui), order, code["metadata"]["name"])
    things = (_account(), code, _add_annotations(pod, annotations or {}))
    return tuple({**thing, "metadata": {**thing["metadata"], "namespace": namespace}} for thing in things)


def default_image() -> str:
    """Return the manifests' image, which is the released Locust's own."""
    return str(_manifest("pod.yaml")["spec"]["containers"][0]["image"])


def uid_for(kinds: Iterable[KindInfo]) -> int | None:
    """Return the user that the pod is given, from the kinds that a cluster has: OpenShift chooses one by itself, and
    refuses any other."""
    return None if any(kind.api_version.startswith(_OPENSHIFT) for kind in kinds) else _UID


def locust_argv(order: LoadSpec, *, ui: bool) -> list[str]:
    """Return Locust's command line in the pod. Its page listens where only a forwarded port can connect, since whoever
    reaches it may send load anywhere."""
    argv = order.argv("python", locustfile=f"{_CODE}/locustfile.py", recorder=f"{_CODE}/recorder.py", folder=FOLDER)
    page = ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(UI_PORT)]
    shown = [word for word in argv if word != "--headless"] + page if ui else argv
    # Workers find their master on the pod's loopback, and no other process does.
    return [*shown, "--master-bind-host", "127.0.0.1"] if order.workers > 1 else shown


def _account() -> Object:
    return _manifest("account.yaml")


def _code(order: LoadSpec) -> Object:
    """Make the ConfigMap with what Locust runs, and what that imports of this package; empty packages lead there."""
    paths = {one["key"]: one["path"] for one in _items(order)}
    ours = {key: path for key, path in paths.items() if path.startswith("bench/") and key != "package.py"}
    data = {key: (_PACKAGE.parent / path).read_text("utf-8") for key, path in ours.items()}
    data |= {
        "locustfile.py": order.locustfile.read_text("utf-8"),
        "recorder.py": recorder_path().read_text("utf-8"),
        "package.py": "",
    }
    digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:10]
    # Named by its content: a kubelet may give a new pod what it remembers of an immutable one of the same name.
    metadata = {"name": f"{NAME}-{digest}", "labels": {"app": NAME}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def _items(order: LoadSpec) -> Sequence[Mapping[str, str]]:
    """Return the files of the load's ConfigMap: the manifest's, and the application's check of answers."""
    (items,) = (one["configMap"]["items"] for one in _manifest("pod.yaml")["spec"]["volumes"] if "configMap" in one)
    check = order.check.replace(".", "/")
    package = {"key": "package.py", "path": f"{Path(check).parent}/__init__.py"}
    return [*items, package, {"key": "check.py", "path": f"{check}.py"}] if check else items


def _with_code(pod: Object, order: LoadSpec, name: str) -> Object:
    """Return the pod with the files of the ConfigMap `name`."""
    volumes = [
        {**one, "configMap": {"name": name, "items": _items(order)}} if "configMap" in one else one
        for one in pod["spec"]["volumes"]
    ]
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def _pod(order: LoadSpec, *, image: str, affinity: Object | None, uid: int | None, ui: bool) -> Object:
    pod = _manifest("pod.yaml")
    locust, *others = (_container(one, image=image, uid=uid) for one in pod["spec"]["containers"])
    loaded = {**locust, "args": locust_argv(order, ui=ui), "resources": _resources(locust, order.workers)}
    limits = {"affinity": affinity} if affinity else {}
    return {**pod, "spec": {**pod["spec"], "containers": [loaded, *others], **limits}}


def _add_annotations(pod: Object, annotations: Mapping[str, str]) -> Object:
    noted = {**pod["metadata"].get("annotations", {}), **annotations}
    return {**pod, "metadata": {**pod["metadata"], "annotations": noted}}


def _container(container: Object, *, image: str, uid: int | None) -> Object:
    """Return the container with its image and user. The user is the container's, not the pod's: sidecars have one of
    their own."""
    user = {} if uid is None else {"runAsUser": uid}
    return {
        **container,
        "image": image or container["image"],
        "securityContext": {**container["securityContext"], **user},
    }


def _resources(container: Object, workers: int) -> Object:
    """Multiply the requests of one Locust by the workers; the master, which only adds up, is not counted."""
    return {
        kind: {what: _multiply(size, workers) for what, size in sizes.items()}
        for kind, sizes in container["resources"].items()
    }


def _multiply(quantity: str, count: int) -> str:
    number = quantity.rstrip("mMGKi")
    return f"{int(number) * count}{quantity[len(number) :]}"


@cache
def _manifest(name: str) -> Object:
    (document,) = read_documents(find_shipped("manifests") / "load" / name)
    thing: Object = document.value
    return thing


def find_load_problem(pod: Object | None) -> str:
    """Return why the load pod no longer works; empty while Locust runs and can be read."""
    if pod is None:
        return "the load pod was deleted"
    for name, what in ((NAME, "Locust"), (KEEPER, "the container that keeps Locust's samples")):
        ended = find_termination(pod, name)
        if ended is not None:
            return f"{what} ended during the load ({format_termination(ended)})"
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return f"the load pod failed: {status.get('reason', '')} {status.get('message', '')}".strip()
    if pod["metadata"].get("deletionTimestamp"):
        return "the load pod is being deleted"
    return next((f"container {one['name']} of the load pod was restarted" for one in _find_restarted(pod)), "")


def find_termination(pod: Object, container: str) -> Object | None:
    """Return how a container ended; None while it runs, or has not begun."""
    states = (one.get("state") or {} for one in container_statuses(pod) if one["name"] == container)
    ended: Object | None = next((state.get("terminated") for state in states), None)
    return ended


def format_termination(ended: Mapping[str, Any]) -> str:
    """Format how a container ended: `exit code 137, OOMKilled`."""
    reason = ended.get("reason", "")
    suffix = "" if reason in ("", "Error", "Completed") else f", {reason}"
    return f"exit code {ended.get('exitCode')}{suffix}"


def find_load_pod(pods: Sequence[Object]) -> Object | None:
    """Return the load pod among the pods of its namespace."""
    return next((pod for pod in pods if pod["metadata"]["name"] == NAME), None)


def find_missing(before: Collection[str], pods: Sequence[Object]) -> str:
    """Return the pods that were there before and were removed: whatever replaced them is new, and was not warm."""
    gone = sorted(set(before) - {pod["metadata"]["name"] for pod in pods})
    return f"deleted meanwhile: Pod {', Pod '.join(gone)}" if gone else ""


def _find_restarted(pod: Object) -> Iterator[Object]:
    """Yield the containers that were restarted."""
    yield from (status for status in container_statuses(pod) if status.get("restartCount"))


def container_statuses(pod: Object) -> Iterator[Object]:
    """Yield the status of all containers; native sidecars are among the init containers."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()
