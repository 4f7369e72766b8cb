"""Make the load pod's objects, and read its containers' status. Pure."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.files.folders import find_shipped
from bench.files.locust_folder import LocustFolder
from bench.files.yaml_source import read_documents
from bench.k8s.client import Object
from bench.k8s.connection import KindInfo
from bench.load import recorder_path
from bench.load.generator import LoadSpec
from bench.scenario.load_settings import read_environment

NAME: Final = "locust"  # of the pod, and of the container that runs Locust
KEEPER: Final = "keeper"
FOLDER: Final = "/load"
GO: Final = "go"  # Locust starts as soon as the folder has a file of this name
UI_PORT: Final = 8089
VARIABLES: Final = "locust-environment"  # the Secret with the values that are recorded nowhere
_PACKAGE: Final = recorder_path().parents[1]
_CODE: Final = "code"  # the volume that is mounted at `_MOUNT`
_MOUNT: Final = "/meshbench"
_WORK: Final = "/locust"  # where the Locust file's folder is unpacked
_PART: Final = "part"
_PART_BYTES: Final = 768 * 1024  # of an archive in one ConfigMap, which may have 1 MiB
_OPENSHIFT: Final = "security.openshift.io/"
_UID: Final = 1000  # the image names its user, and Kubernetes accepts only a number as not root


def load_objects(
    order: LoadSpec,
    *,
    namespace: str,
    image: str = "",
    uid: int | None = _UID,
    annotations: Mapping[str, str] | None = None,
    ui: bool = False,
) -> tuple[Object, ...]:
    """Return account, ConfigMaps, Secret and pod, in the order in which they are to be applied. The Secret has no
    values, see `fill_secret`; the pod waits for the file `go`.

    `image` replaces the manifests'. `uid` None leaves the user to the cluster. `annotations` are for its sidecar. `ui`:
    Locust has its web page, on the pod's own loopback.
    """
    code, archives = _code(order), _archives(order)
    secrets = (_secret(order),) if order.secrets else ()
    pod = _with_code(_pod(order, image=image, uid=uid, ui=ui), order, code, archives)
    things = (_account(), code, *archives, *secrets, _add_annotations(pod, annotations or {}))
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
    argv = order.argv(
        "python", locustfile=f"{_WORK}/{order.locustfile.name}", recorder=f"{_MOUNT}/recorder.py", folder=FOLDER
    )
    page = ["--autostart", "--web-host", "127.0.0.1", "--web-port", str(UI_PORT)]
    shown = [word for word in argv if word != "--headless"] + page if ui else argv
    # Workers find their master on the pod's loopback, and no other process does.
    return [*shown, "--master-bind-host", "127.0.0.1"] if order.workers > 1 else shown


def _account() -> Object:
    return _manifest("account.yaml")


def _code(order: LoadSpec) -> Object:
    """Make the ConfigMap with the recorder, and what Locust imports of this package; empty packages lead there."""
    paths = {one["key"]: one["path"] for one in _items(order)}
    ours = {key: path for key, path in paths.items() if path.startswith("bench/") and key != "package.py"}
    data = {key: (_PACKAGE.parent / path).read_text("utf-8") for key, path in ours.items()}
    data |= {"recorder.py": recorder_path().read_text("utf-8"), "package.py": ""}
    return _make_config_map(f"{NAME}-{_digest(json.dumps(data).encode())}", data=data)


def _archives(order: LoadSpec) -> tuple[Object, ...]:
    """Make the ConfigMaps with the Locust file and what travels with it, as parts of one archive: they keep names,
    modes and binary content, and a file may be larger than a ConfigMap."""
    content = pack_files(order.locust)
    name = f"{NAME}-files-{_digest(content)}"
    parts = [content[at : at + _PART_BYTES] for at in range(0, len(content), _PART_BYTES)]
    return tuple(
        _make_config_map(f"{name}-{number}", binaryData={_PART: base64.b64encode(part).decode()})
        for number, part in enumerate(parts)
    )


def pack_files(locust: LocustFolder) -> bytes:
    """Return a Locust file and what travels with it as an archive (tar, gzip), equal for equal files and modes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in locust.files:
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), locust.mode_of(name)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def _make_config_map(name: str, **content: Object) -> Object:
    """Make a ConfigMap that is named by its content: a kubelet may give a new pod what it remembers of an immutable one
    of the same name."""
    metadata = {"name": name, "labels": {"app": NAME}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, **content}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]


def _items(order: LoadSpec) -> Sequence[Mapping[str, str]]:
    """Return the files of the load's own ConfigMap: the manifest's, and the application's check of answers."""
    (sources,) = (
        one["projected"]["sources"] for one in _manifest("pod.yaml")["spec"]["volumes"] if one["name"] == _CODE
    )
    (items,) = (one["configMap"]["items"] for one in sources)
    check = order.check.replace(".", "/")
    package = {"key": "package.py", "path": f"{Path(check).parent}/__init__.py"}
    return [*items, package, {"key": "check.py", "path": f"{check}.py"}] if check else items


def _with_code(pod: Object, order: LoadSpec, code: Object, archives: Sequence[Object]) -> Object:
    """Return the pod with the files of these ConfigMaps."""
    parts = [(one, [{"key": _PART, "path": f"files/{at:03}"}]) for at, one in enumerate(archives)]
    sources = [
        {"configMap": {"name": one["metadata"]["name"], "items": items}}
        for one, items in ((code, _items(order)), *parts)
    ]
    volumes = [
        {**one, "projected": {"sources": sources}} if one["name"] == _CODE else one for one in pod["spec"]["volumes"]
    ]
    return {**pod, "spec": {**pod["spec"], "volumes": volumes}}


def _secret(order: LoadSpec) -> Object:
    """Make the Secret with the variables whose values are recorded nowhere; `fill_secret` adds these."""
    metadata = {"name": VARIABLES, "labels": {"app": NAME}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": dict.fromkeys(order.secrets, "")}


def fill_secret(thing: Object, order: LoadSpec) -> Object:
    """Return an object of the load as it is applied: its Secret with values, which are read now, any other one as it
    is. No plan and no record has them. Raises InputError where one has none."""
    if (thing["kind"], thing["metadata"]["name"]) != ("Secret", VARIABLES):
        return thing
    values = read_environment(order.env, secrets_only=True)
    return {**thing, "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}}


def _variables(order: LoadSpec) -> Iterator[Object]:
    """Yield the variables that the scenario gives to Locust."""
    for name, one in order.env.items():
        if one.is_secret:
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": VARIABLES, "key": name}}}
        else:
            yield {"name": name, "value": _escape_dollars(one.read())}


def _escape_dollars(text: str) -> str:
    """Return a text of which Kubernetes expands nothing: it reads `$(NAME)` as a variable, and `$$` as a dollar."""
    return text.replace("$", "$$")


def _pod(order: LoadSpec, *, image: str, uid: int | None, ui: bool) -> Object:
    pod = _manifest("pod.yaml")
    locust, *others = (_container(one, image=image, uid=uid) for one in pod["spec"]["containers"])
    loaded = {
        **locust,
        "args": [_escape_dollars(word) for word in locust_argv(order, ui=ui)],
        "env": [*locust["env"], *_variables(order)],
        "resources": _resources(locust, order.workers),
    }
    return {**pod, "spec": {**pod["spec"], "containers": [loaded, *others]}}


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
