"""A small API server on loopback for the real command: it keeps objects in memory, and repeats the credentials of a
request in its refusals, as some proxies do."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.files.folders import find_shipped

Json = dict[str, Any]

KINDS = {
    "v1": ("Namespace", "Node", "Pod", "ServiceAccount", "ConfigMap", "Service", "Event", "PersistentVolumeClaim"),
    "apps/v1": ("Deployment", "ReplicaSet", "DaemonSet"),
    "coordination.k8s.io/v1": ("Lease",),
}
CLUSTER_WIDE = ("Namespace", "Node")
MANIFESTS = [path for folder in ("bookinfo", "load") for path in (find_shipped("manifests") / folder).rglob("*.yaml")]
IMAGES = [image for path in MANIFESTS for image in re.findall(r"image: (\S+)", path.read_text("utf-8"))]
NODE: Json = {
    "metadata": {"name": "one", "uid": "1", "labels": {"kubernetes.io/hostname": "one"}},
    "spec": {},
    "status": {
        "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
        "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {
            "kubeletVersion": "v1.34.2",
            "osImage": "Linux",
            "kernelVersion": "6.1",
            "architecture": "amd64",
        },
        "images": [{"names": IMAGES}],  # all images of a run: none is pulled
    },
}


def _never(_method: str, _path: str) -> bool:
    return False


@dataclass
class ApiServer:
    """An API server that answers the requests in `refuses` with 403, and repeats their headers."""

    refuses: Callable[[str, str], bool] = _never
    objects: dict[str, Json] = field(default_factory=lambda: {"/api/v1/nodes/one": NODE})
    headers: list[dict[str, str]] = field(default_factory=list)
    _uids: Any = field(default_factory=lambda: count(1))

    def answer(self, method: str, url: str, body: Json, headers: dict[str, str]) -> tuple[int, Json]:
        self.headers.append(headers)
        path, selector = urlsplit(url).path, "".join(parse_qs(urlsplit(url).query).get("labelSelector", ()))
        if self.refuses(method, path):
            echoed = "; ".join(f"{name}: {value}" for name, value in headers.items() if "authorization" in name.lower())
            return 403, {"kind": "Status", "message": f"forbidden for a request with {echoed}", "code": 403}
        if path == "/version":
            return 200, {"gitVersion": "v1.34.2"}
        if path.endswith("/selfsubjectaccessreviews"):
            return 201, {**body, "status": {"allowed": True}}
        return self._discover(path) or self._act(method, path, body, selector)

    def _discover(self, path: str) -> tuple[int, Json] | None:
        if path == "/apis":
            versions = [version for version in KINDS if "/" in version]
            groups = [
                {"preferredVersion": {"groupVersion": one}, "versions": [{"groupVersion": one}]} for one in versions
            ]
            return 200, {"groups": groups}
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if version not in KINDS:
            return None
        verbs = ["get", "list", "create", "delete", "patch", "update"]
        resources = [
            {"name": f"{kind.lower()}s", "kind": kind, "namespaced": kind not in CLUSTER_WIDE, "verbs": verbs}
            for kind in KINDS[version]
        ]
        return 200, {"resources": resources}

    def _act(self, method: str, path: str, body: Json, selector: str) -> tuple[int, Json]:
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return 409, {"message": "already exists"}
        if method in ("POST", "PUT", "PATCH"):
            uid = next(self._uids)
            metadata = {"uid": str(uid), "generation": 1, **body["metadata"], "resourceVersion": str(uid)}
            self.objects[path] = {**body, "metadata": metadata}
            return 200, self.objects[path]
        if method == "DELETE":
            deleted = [one for one in self.objects if one == path or one.startswith(f"{path}/")]
            for one in deleted:
                del self.objects[one]
            return (200, {}) if deleted else (404, {"message": "not found"})
        if path in self.objects:
            return 200, self.objects[path]
        plural = path.rpartition("/")[2]
        if any(plural == f"{kind.lower()}s" for kinds in KINDS.values() for kind in kinds):
            there = [one for key, one in self.objects.items() if key.split("/")[-2] == plural]
            return 200, {"items": [one for one in there if _matches(one, selector)]}
        return 404, {"message": "not found"}


def _matches(one: Json, selector: str) -> bool:
    """Whether an object has the labels of a selector such as `a=b,c`."""
    labels = one["metadata"].get("labels") or {}
    parts = [part.partition("=") for part in selector.split(",") if part]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in parts)


@contextmanager
def serve(server: Any) -> Iterator[str]:
    """Serve an ApiServer, or an object with its `answer`, on a port of its own; yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            status, content = server.answer(self.command, self.path, body, dict(self.headers))
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_CONNECT = _reply  # noqa: N815  # as http.server looks

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Print nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
