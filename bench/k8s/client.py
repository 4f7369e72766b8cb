"""A cluster as meshbench sees it: plain verbs on plain objects, reached through its API server only.

This module and those beside it named `client_*` are the only ones that import the package `kubernetes`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bench.errors import ClusterError
from bench.k8s.connection import Connection, Discovery, KindInfo, Query, Request
from bench.k8s.exec import MOST_BYTES, Ran, run_command
from bench.k8s.port_forward import forwarded
from bench.system.cancellation import Watch, wait_until

if TYPE_CHECKING:
    from bench.k8s.timing import Timing

Object = dict[str, Any]

FIELD_MANAGER = "meshbench"
_MANAGER = (("fieldManager", FIELD_MANAGER),)
_APPLY = "application/apply-patch+yaml"
_DRY_RUN = (("dryRun", "All"), ("fieldValidation", "Strict"))
_OWNED_BY_OTHERS = "Apply failed with"  # as the API server puts it; other conflicts are of another kind
_BAD_REQUEST = 400
_NOT_FOUND = 404
_CONFLICT = 409
_POLL_S = 0.25
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
    """Which object a manifest, or an answer of the API server, is about."""
    metadata = thing["metadata"]
    return Ref(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace", ""))


@contextmanager
def connect(
    kubeconfig: Path, *, context: str, cluster_name: str, renew: Callable[[], None], timing: "Timing"
) -> Iterator["Cluster"]:
    """Opens the cluster of a private kubeconfig with one context; `renew` brings newer credentials into that file."""
    connection = Connection(kubeconfig, renew, patience_s=timing.request_s)
    try:
        yield Cluster(connection, kubeconfig, context=context, cluster_name=cluster_name, timing=timing)
    finally:
        connection.close()


class Cluster:
    """An open cluster. Failures are ClusterErrors of one line; safe to use from several threads.

    `kubeconfig` is the private copy that child tools get; `timing` is how long is waited for what; `conflicts` tells
    the fields that `apply` took from others.
    """

    def __init__(
        self, connection: Connection, kubeconfig: Path, *, context: str, cluster_name: str, timing: "Timing"
    ) -> None:
        self.context = context
        self.timing = timing
        self.cluster_name = cluster_name
        self.kubeconfig = kubeconfig
        self.conflicts: list[str] = []
        self._connection = connection
        self._discovery = Discovery(connection)
        self._version = ""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._connection.credentials.server

    @property
    def version(self) -> str:
        """Of the API server: `v1.34.2`."""
        self._version = self._version or str(self.read("/version")["gitVersion"])
        return self._version

    @property
    def patience_s(self) -> float:
        """For how long calls that are safe to repeat are, while the API server is away, overloaded or failing."""
        return self._connection.patience_s

    @patience_s.setter
    def patience_s(self, seconds: float) -> None:
        self._connection.patience_s = seconds

    def apply(self, thing: Object, *, dry_run: bool = False) -> Object:
        """Creates or changes an object so that the fields of `thing` hold (server-side apply).

        Fields that somebody else had set are taken over, and told in `conflicts`. A dry run also refuses fields that
        the server does not know and that it would otherwise drop silently.
        """
        request = self._apply_request(thing, _DRY_RUN if dry_run else ())
        try:
            return self._object(request)
        except ClusterError as error:
            if error.status != _CONFLICT or _OWNED_BY_OTHERS not in str(error):
                raise
            if not dry_run:
                self.conflicts.append(str(error))
        return self._object(replace(request, query=(*request.query, ("force", "true"))))

    def _apply_request(self, thing: Object, options: Query) -> Request:
        ref = ref_of(thing)
        body = {**thing, "metadata": {key: value for key, value in thing["metadata"].items() if key != "managedFields"}}
        query = (*_MANAGER, *options)
        return Request(f"applying {ref}", "PATCH", self._path(ref), query, body=body, content_type=_APPLY)

    def create(self, thing: Object) -> Object:
        """A new object; ClusterError with status 409 where it exists."""
        ref = ref_of(thing)
        path = self._path(replace(ref, name=""))
        return self._object(Request(f"creating {ref}", "POST", path, _MANAGER, body=thing, idempotent=False))

    def replace(self, thing: Object) -> Object:
        """Puts `thing` in the object's place; ClusterError with status 409 if its `resourceVersion` is an old one."""
        ref = ref_of(thing)
        request = Request(f"replacing {ref}", "PUT", self._path(ref), _MANAGER, body=thing, idempotent=False)
        return self._object(request)

    def get(self, ref: Ref) -> Object | None:
        """None if there is no such object, or no such kind."""
        path = self._known_path(ref)
        return self._unless_missing(Request(f"reading {ref}", "GET", path)) if path else None

    def list(self, api_version: str, kind: str, *, namespace: str = "", labels: str = "") -> tuple[Object, ...]:
        """All objects of a kind, of every namespace unless one is given; none where the kind is not known."""
        info = self._discovery.find(api_version, kind)
        if info is None:
            return ()
        query = (("labelSelector", labels),) if labels else ()
        found = self._unless_missing(Request(f"listing {info.plural}", "GET", info.path(namespace), query))
        items = found["items"] if found else ()
        return tuple({"apiVersion": api_version, "kind": kind, **item} for item in items)

    def delete(self, ref: Ref, *, grace_s: int | None = None) -> None:
        """Asks for its removal, and that of all it owns, without waiting. One that is gone or on its way is fine."""
        path = self._known_path(ref)
        if not path:
            return
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._connection.send(Request(f"deleting {ref}", "DELETE", path, body=options))
        except ClusterError as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise

    def kinds(self) -> tuple[KindInfo, ...]:
        """Every kind that the API server has just now, each once. APIs that do not answer are in `broken_apis`."""
        return self._discovery.all()[0]

    def broken_apis(self) -> tuple[str, ...]:
        """The aggregated APIs that do not answer: as long as one does not, no namespace can be removed."""
        return self._discovery.all()[1]

    def read(self, path: str, **query: str) -> Any:
        """A GET of any path; parsed if the answer is JSON, else its text."""
        answer = self._connection.send(Request(f"reading {path}", "GET", path, tuple(query.items())))
        return json.loads(answer.body) if "json" in answer.content_type else answer.body.decode("utf-8", "replace")

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
    ) -> Ran:
        """Runs a command in a container to its end. It has to read all of the `stdin` that it is given: Kubernetes
        may not tell the end of one that does not, and then the time-out does. Raises ClusterError, also for output of
        more than `most_bytes`."""
        streams = (("stdin", "true"),) if stdin else ()
        query = (("container", container), ("stdout", "true"), ("stderr", "true"), *streams)
        what = f"running {argv[0]} in Pod {namespace}/{pod}, container {container}"
        path = f"{_pod_path(namespace, pod)}/exec"
        command = tuple(("command", part) for part in argv)
        request = Request(what, "GET", path, (*query, *command), idempotent=False)
        return run_command(self._connection, request, stdin=stdin, timeout_s=timeout_s, most_bytes=most_bytes)

    def logs(self, pod: str, *, namespace: str, container: str, lines: int = 12, previous: bool = False) -> str:
        """The last lines of a container's log; with `previous`, of the container before its restart."""
        options = {"tailLines": str(lines), "limitBytes": str(_LOG_BYTES), "previous": str(previous).lower()}
        query = (("container", container), *options.items())
        what = f"reading the log of Pod {namespace}/{pod}, container {container}"
        path = f"{_pod_path(namespace, pod)}/log"
        answer = self._connection.send(Request(what, "GET", path, query, most_bytes=2 * _LOG_BYTES))
        return answer.body.decode("utf-8", "replace")

    def forward(self, pod: str, port: int, *, namespace: str, local_port: int = 0) -> AbstractContextManager[int]:
        """Serves a pod's port on 127.0.0.1 while the block lasts, and gives the local port."""
        path = f"{_pod_path(namespace, pod)}/portforward"
        request = Request(f"forwarding port {port} of Pod {namespace}/{pod}", "GET", path, (("ports", str(port)),))
        return forwarded(self._connection, request, local_port=local_port)

    def allowed(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Whether we may; `resource` as in RBAC (`pods/exec`), in all namespaces and for all names unless one is
        given."""
        plural, _, subresource = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        asked |= {"namespace": namespace, "name": name}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self._object(Request(f"asking whether we may {verb} {resource}", "POST", path, body=body))
        return bool(answer["status"]["allowed"])

    def _object(self, request: Request) -> Object:
        answer: Object = json.loads(self._connection.send(request).body)
        return answer

    def _unless_missing(self, request: Request) -> Object | None:
        try:
            return self._object(request)
        except ClusterError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def _known_path(self, ref: Ref) -> str:
        """Empty if the server does not know the kind."""
        return self._path(ref) if self._discovery.find(ref.api_version, ref.kind) else ""

    def _path(self, ref: Ref) -> str:
        info = self._discovery.find(ref.api_version, ref.kind) or self._defined_just_now(ref)
        if info is None:
            text = f"{ref}: the cluster has no kind {ref.kind} in {ref.api_version}; is what defines it installed?"
            raise ClusterError(text, status=_NOT_FOUND)
        if info.namespaced and not ref.namespace:
            raise ClusterError(f"{ref}: its kind lives in namespaces, and none is given", status=_BAD_REQUEST)
        return info.path(quote(ref.namespace), quote(ref.name))

    def _defined_just_now(self, ref: Ref) -> KindInfo | None:
        """A kind is served some moments after its definition was accepted."""
        group = ref.api_version.partition("/")[0]
        definitions = (one["spec"] for one in self.list("apiextensions.k8s.io/v1", "CustomResourceDefinition"))
        if not any(one["group"] == group and one["names"]["kind"] == ref.kind for one in definitions):
            return None
        find = partial(self._discovery.find, ref.api_version, ref.kind)
        return wait_until(find, timeout_s=self.patience_s, watch=Watch(), poll_s=_POLL_S)


def _pod_path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}"
