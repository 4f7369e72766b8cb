"""A Kubernetes cluster, reached through its API server only: create, read, change and delete objects, run commands,
read logs, forward ports."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bench.errors import ClusterError, ErrorKind
from bench.k8s.connection import Connection, Discovery, KindInfo, Query, Request, make_foreign_answer
from bench.k8s.exec import MOST_BYTES, ExecResult, run_command
from bench.k8s.port_forward import forward_port
from bench.k8s.retry import REQUEST
from bench.k8s.shapes import check_object, check_review
from bench.system.cancellation import CancelToken, wait_until

if TYPE_CHECKING:
    from bench.system.timing import Timing

Object = dict[str, Any]

FIELD_MANAGER = "meshbench"
_MANAGER = (("fieldManager", FIELD_MANAGER),)
_APPLY = "application/apply-patch+yaml"
_PATCH = "application/json-patch+json"
_STRICT = (("fieldValidation", "Strict"),)  # a field that the server does not know is an error, and not dropped
_DRY_RUN = (("dryRun", "All"), *_STRICT)
_IDENTITY = ("apiVersion", "kind", "metadata", "status")  # of an object: everything else says what it is to be
_POLL_S = 0.25
_VERSION = re.compile(r"v?\d+\.\d+")
_LOG_BYTES = 1024 * 1024  # of one log: 500 lines of 2 KiB


@dataclass(frozen=True)
class Ref:
    """One object of a cluster, whether or not it exists."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def ref_of(thing: Object) -> Ref:
    """Return which object a manifest, or an answer of the API server, is about."""
    metadata = thing["metadata"]
    return Ref(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace", ""))


@contextmanager
def connect(
    kubeconfig: Path, *, context: str, cluster_name: str, renew: Callable[[], None], timing: "Timing"
) -> Iterator["Cluster"]:
    """Open the cluster of a private kubeconfig with one context; `renew` writes newer credentials into that file."""
    connection = Connection(kubeconfig, renew, policy=replace(REQUEST, patience_s=timing.request_s))
    try:
        yield Cluster(connection, kubeconfig, context=context, cluster_name=cluster_name, timing=timing)
    finally:
        connection.close()


class Cluster:
    """An open cluster; safe to use from several threads. Failures are ClusterErrors of one line.

    `kubeconfig` is the private copy that child tools get. `timing` holds polling intervals and timeouts.
    """

    def __init__(
        self, connection: Connection, kubeconfig: Path, *, context: str, cluster_name: str, timing: "Timing"
    ) -> None:
        self.context = context
        self.timing = timing
        self.cluster_name = cluster_name
        self.kubeconfig = kubeconfig
        self._connection = connection
        self._discovery = Discovery(connection)
        self._version = ""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._connection.credentials.server

    @property
    def version(self) -> str:
        """The API server's version: `v1.34.2`."""
        self._version = self._version or self._read_version()
        return self._version

    def _read_version(self, *, retried: bool = True) -> str:
        found = self._read(Request("reading /version", "GET", "/version", retried=retried))
        if not _VERSION.match(str(found.get("gitVersion"))):
            raise make_foreign_answer("reading /version", json.dumps(found))
        return str(found["gitVersion"])

    def check_reachable(self) -> None:
        """Send one request, without retries. Raises ClusterError where the API server does not answer, or refuses, or
        where what answers is none."""
        self._read_version(retried=False)

    def apply(self, thing: Object, *, dry_run: bool = False) -> Object:
        """Create or change an object so that the fields of `thing` hold (server-side apply).

        Raises ClusterError of the kind FIELD_CONFLICT for fields that another manager has set. A dry run accepts those,
        and refuses fields that the server does not know and would otherwise drop silently.
        """
        request = self._apply_request(thing, _DRY_RUN if dry_run else ())
        try:
            return self._object(request)
        except ClusterError as error:
            if error.kind is not ErrorKind.FIELD_CONFLICT or not dry_run:
                raise
        return self._object(replace(request, query=(*request.query, ("force", "true"))))

    def _apply_request(self, thing: Object, options: Query) -> Request:
        ref = ref_of(thing)
        body = {**thing, "metadata": {key: value for key, value in thing["metadata"].items() if key != "managedFields"}}
        query = (*_MANAGER, *options)
        return Request(f"applying {ref}", "PATCH", self._path(ref), query, body=body, content_type=_APPLY)

    def create(self, thing: Object) -> Object:
        """Create an object. Raises ClusterError of the kind CONFLICT where it exists, which it also does where an
        earlier request created it, whose answer was lost.

        An account that may create objects of certain names only is not allowed to POST, which has the name in its body:
        for it the object is applied to the path with its name, where there was none.
        """
        path = self._path(replace(ref_of(thing), name=""))
        try:
            return self._object(Request(f"creating {ref_of(thing)}", "POST", path, (*_MANAGER, *_STRICT), body=thing))
        except ClusterError as error:
            if error.kind is not ErrorKind.FORBIDDEN:
                raise
            forbidden = error
        try:
            return self._apply_new(thing)
        except ClusterError as failed:
            if failed.kind is ErrorKind.FORBIDDEN:
                raise forbidden from None
            raise

    def _apply_new(self, thing: Object) -> Object:
        ref = ref_of(thing)
        if self.get(ref) is not None:
            raise ClusterError(f"creating {ref}: it exists already", kind=ErrorKind.CONFLICT)
        return self._object(self._apply_request(thing, _STRICT))

    def change(self, existing: Object, thing: Object) -> Object:
        """Make an object that was read what `thing` describes; labels and annotations of others stay. Raises
        ClusterError of the kind CONFLICT where it has been changed or replaced since it was read."""
        ref = ref_of(existing)
        body = [*_list_changes(existing, thing)]
        query = (*_MANAGER, *_STRICT)
        return self._object(Request(f"changing {ref}", "PATCH", self._path(ref), query, body=body, content_type=_PATCH))

    def replace(self, thing: Object) -> Object:
        """Replace an object. Raises ClusterError of the kind CONFLICT if its `resourceVersion` is an old one."""
        ref = ref_of(thing)
        request = Request(f"replacing {ref}", "PUT", self._path(ref), _MANAGER, body=thing, idempotent=False)
        return self._object(request)

    def get(self, ref: Ref) -> Object | None:
        """Return an object; None if there is no such object, or no such kind."""
        path, what = self._known_path(ref), f"reading {ref}"
        found = self._read_if_present(Request(what, "GET", path)) if path else None
        return None if found is None else check_object(found, ref.api_version, ref.kind, what)

    def list(self, api_version: str, kind: str, *, namespace: str = "", labels: str = "") -> tuple[Object, ...]:
        """Return all objects of a kind, of every namespace unless one is given; none where the kind is not known."""
        info = self._discovery.find(api_version, kind)
        if info is None:
            return ()
        query = (("labelSelector", labels),) if labels else ()
        request = Request(f"listing {info.plural}", "GET", info.path(namespace), query)
        answer = self._read_if_present(request)
        items = answer.get("items") or () if answer else ()
        if not isinstance(items, list | tuple) or not all(isinstance(one, dict) for one in items):
            raise make_foreign_answer(request.what, json.dumps(answer))
        found = (check_object(one, api_version, kind, request.what) for one in items)
        return tuple({**one, "apiVersion": api_version, "kind": kind} for one in found)

    def delete(self, thing: Object, *, grace_s: int | None = None, unchanged: bool = False) -> None:
        """Request the deletion of an object that was read, and of all it owns, without waiting: of this very object,
        not of another that has its name by now, and with `unchanged` only as it was read. One that is deleted or
        terminating, or is not the one that was read, is no error."""
        ref, metadata = ref_of(thing), thing["metadata"]
        path = self._known_path(ref)
        if not path:
            return
        exact = {"resourceVersion": metadata["resourceVersion"]} if unchanged else {}
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": metadata["uid"], **exact},
        }
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._connection.send(Request(f"deleting {ref}", "DELETE", path, body=options))
        except ClusterError as error:
            if error.kind not in (ErrorKind.NOT_FOUND, ErrorKind.CONFLICT):
                raise

    def kinds(self) -> tuple[KindInfo, ...]:
        """Return every kind that the API server serves now, each once. APIs that do not answer are in `broken_apis`."""
        return self._discovery.all()[0]

    def broken_apis(self) -> tuple[str, ...]:
        """Return the aggregated APIs that do not answer: as long as one does not, no namespace can be deleted."""
        return self._discovery.all()[1]

    def read(self, path: str, **query: str) -> Any:
        """Send a GET to any path; return the parsed answer if it is JSON, else its text."""
        answer = self._connection.send(Request(f"reading {path}", "GET", path, tuple(query.items())))
        if "json" not in answer.content_type:
            return answer.body.decode("utf-8", "replace")
        return answer.read_object(f"reading {path}")

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        namespace: str,
        container: str,
        stdin: bytes = b"",
        timeout_s: float = 30,
        most_bytes: int = MOST_BYTES,
    ) -> ExecResult:
        """Run a command in a container to its end. The command has to read all of the `stdin` that it is given:
        Kubernetes may not report the end of one that does not, and then the timeout ends it. Raises ClusterError, also
        for output of more than `most_bytes`."""
        streams = (("stdin", "true"),) if stdin else ()
        query = (("container", container), ("stdout", "true"), ("stderr", "true"), *streams)
        what = f"running {argv[0]} in Pod {namespace}/{pod}, container {container}"
        path = f"{_pod_path(namespace, pod)}/exec"
        command = tuple(("command", part) for part in argv)
        request = Request(what, "GET", path, (*query, *command), idempotent=False)
        return run_command(self._connection, request, stdin=stdin, timeout_s=timeout_s, most_bytes=most_bytes)

    def logs(self, pod: str, *, namespace: str, container: str, lines: int = 12, previous: bool = False) -> str:
        """Return the last lines of a container's log; with `previous`, of the container before its restart."""
        options = {"tailLines": str(lines), "limitBytes": str(_LOG_BYTES), "previous": str(previous).lower()}
        query = (("container", container), *options.items())
        what = f"reading the log of Pod {namespace}/{pod}, container {container}"
        path = f"{_pod_path(namespace, pod)}/log"
        answer = self._connection.send(Request(what, "GET", path, query, most_bytes=2 * _LOG_BYTES))
        return answer.body.decode("utf-8", "replace")

    def forward(self, pod: str, port: int, *, namespace: str, local_port: int = 0) -> AbstractContextManager[int]:
        """Serve a pod's port on 127.0.0.1 while the block lasts; yields the local port."""
        path = f"{_pod_path(namespace, pod)}/portforward"
        request = Request(f"forwarding port {port} of Pod {namespace}/{pod}", "GET", path, (("ports", str(port)),))
        return forward_port(self._connection, request, local_port=local_port)

    def allowed(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Return whether our user may do it; `resource` as in RBAC (`pods/exec`), in all namespaces and for all names
        unless one is given."""
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        attributes |= {"namespace": namespace, "name": name}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        request = Request(f"checking whether our user may {verb} {resource}", "POST", path, body=body)
        return bool(check_review(self._read(request), request.what)["status"]["allowed"])

    def _object(self, request: Request) -> Object:
        found = self._read(request)
        return check_object(found, str(found.get("apiVersion")), str(found.get("kind")), request.what)

    def _read(self, request: Request) -> Object:
        return self._connection.send(request).read_object(request.what)

    def _read_if_present(self, request: Request) -> Object | None:
        try:
            return self._read(request)
        except ClusterError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise

    def _known_path(self, ref: Ref) -> str:
        """Return the path; empty if the server does not know the kind."""
        return self._path(ref) if self._discovery.find(ref.api_version, ref.kind) else ""

    def _path(self, ref: Ref) -> str:
        info = self._discovery.find(ref.api_version, ref.kind) or self._wait_for_definition(ref)
        if info is None:
            text = f"{ref}: the cluster has no kind {ref.kind} in {ref.api_version}; is its definition installed?"
            raise ClusterError(text, kind=ErrorKind.NOT_FOUND)
        if info.namespaced and not ref.namespace:
            text = f"{ref}: its kind is namespaced, and no namespace is given"
            raise ClusterError(text, kind=ErrorKind.REJECTED)
        return info.path(quote(ref.namespace), quote(ref.name))

    def _wait_for_definition(self, ref: Ref) -> KindInfo | None:
        """Wait for a kind that is served some moments after its definition was accepted."""
        group = ref.api_version.partition("/")[0]
        definitions = (one["spec"] for one in self.list("apiextensions.k8s.io/v1", "CustomResourceDefinition"))
        if not any(one["group"] == group and one["names"]["kind"] == ref.kind for one in definitions):
            return None
        find = partial(self._discovery.find, ref.api_version, ref.kind)
        return wait_until(find, timeout_s=self.timing.request_s, watch=CancelToken(), poll_s=_POLL_S)


def _list_changes(existing: Object, thing: Object) -> Iterator[Object]:
    """Yield the operations of a JSON Patch that makes one object another, if the first is still as it was read."""
    now, wanted = existing["metadata"], thing["metadata"]
    yield {"op": "replace", "path": "/metadata/resourceVersion", "value": now["resourceVersion"]}
    for key in ("labels", "annotations"):
        yield {"op": "add", "path": f"/metadata/{key}", "value": {**(now.get(key) or {}), **(wanted.get(key) or {})}}
    for key in thing.keys() - _IDENTITY:
        yield {"op": "add", "path": f"/{key}", "value": thing[key]}
    for key in existing.keys() - thing.keys() - {*_IDENTITY}:
        yield {"op": "remove", "path": f"/{key}"}


def _pod_path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}"
