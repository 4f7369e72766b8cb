"""The load pod's objects: the plain manifests with a trial's load in them, and the code that Locust runs. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.bookinfo import pages
from bench.load import recorder_path
from bench.load.generator import LoadOrder
from bench.shipped import shipped
from bench.targets.kubernetes.client import KindInfo, Object
from bench.yamlfile import read_documents

NAME: Final = "locust"  # of the pod, and of the container that runs Locust
KEEPER: Final = "keeper"
FOLDER: Final = "/load"
GO: Final = "go"  # Locust starts as soon as the folder has a file of this name
UI_PORT: Final = 8089
_CODE: Final = "/meshbench"
_OPENSHIFT: Final = "security.openshift.io/"
_UID: Final = 1000  # the image names its user, and Kubernetes believes only a number that it is not root


def load_objects(
    order: LoadOrder,
    *,
    namespace: str,
    image: str = "",
    affinity: Object | None = None,
    uid: int | None = _UID,
    annotations: Mapping[str, str] | None = None,
    ui: bool = False,
) -> tuple[Object, ...]:
    """Account, ConfigMap and pod, in the order in which they are to be applied; the pod waits until it is told to go.

    `image` replaces the manifests'. `affinity` is where the pod may be, see `load_place`. `uid` None leaves the user
    to the cluster. `annotations` are for its sidecar. `ui`: Locust has its web page, on the pod's own loopback.
    """
    code = _code(order)
    pod = _with_code(_pod(order, image=image, affinity=affinity, uid=uid, ui=ui), code["metadata"]["name"])
    things = (_account(), code, _annotated(pod, annotations or {}))
    return tuple({**thing, "metadata": {**thing["metadata"], "namespace": namespace}} for thing in things)


def default_image() -> str:
    """The manifests' image, which is the released Locust's own."""
    return str(_manifest("pod.yaml")["spec"]["containers"][0]["image"])


def uid_for(kinds: Iterable[KindInfo]) -> int | None:
    """The user that the pod is given, from the kinds that a cluster has: OpenShift chooses one by itself, and refuses
    any other."""
    return None if any(kind.api_version.startswith(_OPENSHIFT) for kind in kinds) else _UID


def locust_argv(order: LoadOrder, *, ui: bool) -> list[str]:
    """Locust's command line in the pod. Its page listens where only a forwarded port comes from, since whoever
    reaches it may send load anywhere."""
    argv = order.argv("python", locustfile=f"{_CODE}/locustfile.py", recorder=f"{_CODE}/recorder.py", folder=FOLDER)
    page = ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(UI_PORT)]
    shown = [word for word in argv if word != "--headless"] + page if ui else argv
    # Workers find their master on the pod's loopback, and nobody else does.
    return [*shown, "--master-bind-host", "127.0.0.1"] if order.workers > 1 else shown


def _account() -> Object:
    return _manifest("account.yaml")


def _code(order: LoadOrder) -> Object:
    """What Locust runs, with what that imports of this package; empty packages lead there."""
    data = {
        "locustfile.py": order.locustfile.read_text("utf-8"),
        "recorder.py": recorder_path().read_text("utf-8"),
        "pacing.py": recorder_path().with_name("pacing.py").read_text("utf-8"),
        "timing.py": recorder_path().with_name("timing.py").read_text("utf-8"),
        "package.py": "",
        "pages.py": Path(pages.__file__).read_text("utf-8"),
    }
    digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:10]
    # Named by its content: a kubelet may give a new pod what it remembers of an immutable one of the same name.
    metadata = {"name": f"{NAME}-{digest}", "labels": {"app": NAME}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def _with_code(pod: Object, name: str) -> Object:
    """The pod, which has the files of the ConfigMap `name`."""
    volumes = [
        {**one, "configMap": {**one["configMap"], "name": name}} if "configMap" in one else one
        for one in pod["spec"]["volumes"]
    ]
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def _pod(order: LoadOrder, *, image: str, affinity: Object | None, uid: int | None, ui: bool) -> Object:
    pod = _manifest("pod.yaml")
    locust, *others = (_container(one, image=image, uid=uid) for one in pod["spec"]["containers"])
    loaded = {**locust, "args": locust_argv(order, ui=ui), "resources": _resources(locust, order.workers)}
    placed = {"affinity": affinity} if affinity else {}
    return {**pod, "spec": {**pod["spec"], "containers": [loaded, *others], **placed}}


def _annotated(pod: Object, annotations: Mapping[str, str]) -> Object:
    noted = {**pod["metadata"].get("annotations", {}), **annotations}
    return {**pod, "metadata": {**pod["metadata"], "annotations": noted}}


def _container(container: Object, *, image: str, uid: int | None) -> Object:
    """The user is the container's, not the pod's: sidecars have one of their own."""
    user = {} if uid is None else {"runAsUser": uid}
    return {
        **container,
        "image": image or container["image"],
        "securityContext": {**container["securityContext"], **user},
    }


def _resources(container: Object, workers: int) -> Object:
    """Room for one Locust is room for one worker; the master, which only adds up, is not counted."""
    return {
        kind: {what: _times(size, workers) for what, size in sizes.items()}
        for kind, sizes in container["resources"].items()
    }


def _times(quantity: str, count: int) -> str:
    number = quantity.rstrip("mMGKi")
    return f"{int(number) * count}{quantity[len(number) :]}"


def _manifest(name: str) -> Object:
    (document,) = read_documents(shipped("manifests") / "load" / name)
    thing: Object = document.value
    return thing
