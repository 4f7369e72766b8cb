"""Retries, renewed credentials and errors of requests to an API server; the server is a small one on loopback."""

import json
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from bench.errors import BadAnswerError, ClusterError, ErrorKind, RefusedError, exit_code_of
from bench.k8s.client import Cluster, Ref, connect, ref_of
from bench.k8s.connection import read_kind_info
from bench.k8s.exec import read_exit_code
from bench.system.timing import Timing
from tests.web_server import Answer, serve_answers

POD = Ref("v1", "Pod", "details", "shop")
THERE = {"kind": "Pod", "metadata": {"name": "details"}, "spec": {"containers": []}}
CORE = {"resources": [{"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["get", "create"]}]}

Reply = tuple[int, dict[str, Any]]


class FakeServer:
    """Responds with `replies` in order and repeats the last one, except for what it implements itself."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.seen: list[str] = []
        self.tokens: list[str] = []
        self.bodies: list[Any] = []

    def answer(self, method: str, path: str, token: str, body: bytes) -> Reply:
        if path == "/api/v1":
            return 200, CORE
        self.seen.append(f"{method} {path}")
        self.tokens.append(token)
        self.bodies.append(json.loads(body) if body else None)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def _serving(fake: FakeServer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("authorization", "")
            status, content = fake.answer(self.command, self.path, token, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _reply  # noqa: N815  # names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _write(path: Path, server: str, token: str) -> None:
    content = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content), "utf-8")


@contextmanager
def _cluster(
    folder: Path, fake: FakeServer, renew: Callable[[Path, str], None] | None = None, request_s: float = 2
) -> Iterator[Cluster]:
    config = folder / "config"
    with _serving(fake) as server:
        _write(config, server, "first")
        renewing = (lambda: renew(config, server)) if renew else (lambda: None)
        with connect(
            config, context="fake", cluster_name="fake", renew=renewing, timing=Timing(request_s=request_s)
        ) as cluster:
            yield cluster


def test_retries_until_server_recovers(tmp_path: Path) -> None:
    """Requests are retried after 429 and after failures on the server's side."""
    fake = FakeServer((429, {}), (503, {}), (200, THERE))
    with _cluster(tmp_path, fake) as cluster:
        assert cluster.get(POD) == THERE
    assert fake.seen == ["GET /api/v1/namespaces/shop/pods/details"] * 3


def test_permanent_failure_is_one_line(tmp_path: Path) -> None:
    """The message names the verb, the object, the status, and the server's message."""
    fake = FakeServer((403, {"kind": "Status", "message": "pods is forbidden:\n  not you"}))
    with _cluster(tmp_path, fake) as cluster, pytest.raises(ClusterError) as caught:
        cluster.get(POD)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert exit_code_of(caught.value) == 4
    assert str(caught.value) == f"reading Pod shop/details: {cluster.server} answered 403: pods is forbidden: not you"
    assert len(fake.seen) == 1


def test_retries_end_at_deadline(tmp_path: Path) -> None:
    """The error is that of the last attempt."""
    overloaded = pytest.raises(ClusterError, match="503: overloaded")
    fake = FakeServer((503, {"message": "overloaded"}))
    with _cluster(tmp_path, fake, request_s=0.3) as cluster, overloaded as caught:
        cluster.get(POD)
    assert caught.value.kind is ErrorKind.UNAVAILABLE


def test_repeated_creation_ends_in_a_conflict(tmp_path: Path) -> None:
    """A creation whose answer was lost may have happened: the next request finds the object, and the caller decides
    whose it is."""
    fake = FakeServer((500, {"message": "webhook failed"}), (409, {"message": "already exists"}))
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "details", "namespace": "shop"}}
    with _cluster(tmp_path, fake) as cluster, pytest.raises(ClusterError, match="409: already exists") as refused:
        cluster.create(thing)
    assert refused.value.kind is ErrorKind.CONFLICT
    assert fake.seen == ["POST /api/v1/namespaces/shop/pods?fieldManager=meshbench&fieldValidation=Strict"] * 2


def test_account_for_certain_names_creates_what_was_not_there(tmp_path: Path) -> None:
    """Its rights have names, and a POST has none in its path: the object is applied, without force, where none was."""
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "details", "namespace": "shop"}}
    denied = (403, {"message": "you may not"})
    fake = FakeServer(denied, (404, {"message": "not found"}), (200, THERE))
    with _cluster(tmp_path, fake) as cluster:
        assert cluster.create(thing) == THERE
    assert [one.partition("?")[0] for one in fake.seen] == [
        "POST /api/v1/namespaces/shop/pods",
        "GET /api/v1/namespaces/shop/pods/details",
        "PATCH /api/v1/namespaces/shop/pods/details",
    ]
    assert "force" not in fake.seen[2]
    for answers, kind in (((denied, denied), ErrorKind.FORBIDDEN), ((denied, (200, THERE)), ErrorKind.CONFLICT)):
        with _cluster(tmp_path, FakeServer(*answers)) as cluster, pytest.raises(ClusterError) as refused:
            cluster.create(thing)
        assert refused.value.kind is kind
        assert str(refused.value).startswith("creating Pod shop/details: ")


def test_unreachable_server_is_named(tmp_path: Path) -> None:
    """The message has the server's address and the system's reason."""
    _write(tmp_path / "config", "http://127.0.0.1:1", "first")
    with (
        connect(
            tmp_path / "config", context="fake", cluster_name="fake", renew=lambda: None, timing=Timing(request_s=0.3)
        ) as cluster,
        pytest.raises(ClusterError, match=r"no answer from http://127.0.0.1:1: .*refused") as caught,
    ):
        cluster.read("/version")
    assert caught.value.kind is ErrorKind.UNREACHABLE


def test_expired_credentials_are_renewed_once(tmp_path: Path) -> None:
    """The call that got 401 continues with the new credentials, as do all calls after it."""
    fake = FakeServer((401, {}), (200, {"gitVersion": "v1.34.2"}))
    renewed: list[str] = []

    def renew(config: Path, server: str) -> None:
        renewed.append(server)
        _write(config, server, "second")

    with _cluster(tmp_path, fake, renew) as cluster:
        assert cluster.version == "v1.34.2"
        cluster.read("/version")
    assert fake.tokens == ["Bearer first", "Bearer second", "Bearer second"]
    assert len(renewed) == 1


def test_unrenewable_credentials_end_with_401(tmp_path: Path) -> None:
    """The error is 401 whether the server refuses the new credentials too or there are none."""

    def renew(config: Path, server: str) -> None:
        raise RefusedError("log in again")

    stays = FakeServer((401, {"message": "Unauthorized"}))
    with _cluster(tmp_path, stays) as cluster, pytest.raises(ClusterError, match="401: Unauthorized") as refused:
        cluster.read("/version")
    with _cluster(tmp_path, FakeServer((401, {})), renew) as cluster, pytest.raises(ClusterError) as gone:
        cluster.read("/version")
    assert {refused.value.kind, gone.value.kind} == {ErrorKind.UNAUTHORIZED}
    assert "log in again" in str(gone.value)


def test_field_of_another_manager_is_not_taken_over(tmp_path: Path) -> None:
    """The refusal names the manager; only a dry run, which changes nothing, goes on."""
    message = 'Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas'
    causes = {"causes": [{"reason": "FieldManagerConflict", "field": ".spec.replicas"}]}
    refusal: Reply = (409, {"message": message, "details": causes})
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b", "managedFields": [{}]}}
    fake = FakeServer(refusal)
    with _cluster(tmp_path, fake) as cluster, pytest.raises(ClusterError, match='conflict with "kubectl"') as refused:
        cluster.apply(thing)
    assert refused.value.kind is ErrorKind.FIELD_CONFLICT
    assert fake.bodies[-1]["metadata"] == {"name": "a", "namespace": "b"}
    tried = FakeServer(refusal, (200, THERE))
    with _cluster(tmp_path, tried) as cluster:
        cluster.apply(thing, dry_run=True)
    assert tried.seen[1].endswith("?fieldManager=meshbench&dryRun=All&fieldValidation=Strict&force=true")


def test_object_is_created_changed_and_deleted_as_it_was_read(tmp_path: Path) -> None:
    """Creation is no change of what exists; change and deletion name the very object."""
    metadata = {"name": "a", "namespace": "b"}
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"x": 1}}
    read = {**thing, "metadata": {**metadata, "uid": "u", "resourceVersion": "7"}, "status": {}, "old": {}}
    fake = FakeServer((200, THERE))
    with _cluster(tmp_path, fake) as cluster:
        cluster.create(thing)
        cluster.change(read, thing)
        cluster.delete(read)
        cluster.delete(read, unchanged=True)
    assert [one.partition("?")[0] for one in fake.seen] == [
        "POST /api/v1/namespaces/b/pods",
        "PATCH /api/v1/namespaces/b/pods/a",
        "DELETE /api/v1/namespaces/b/pods/a",
        "DELETE /api/v1/namespaces/b/pods/a",
    ]
    assert fake.bodies[1] == [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/spec", "value": {"x": 1}},
        {"op": "remove", "path": "/old"},
    ]
    assert [body["preconditions"] for body in fake.bodies[2:]] == [{"uid": "u"}, {"uid": "u", "resourceVersion": "7"}]


@pytest.mark.parametrize("status", [404, 409])
def test_deleting_missing_object_succeeds(tmp_path: Path, status: int) -> None:
    """Deleted and terminating objects count as deleted, so that a cleanup can be repeated."""
    with _cluster(tmp_path, FakeServer((status, {}))) as cluster:
        cluster.delete({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b", "uid": "u"}})


def test_missing_namespace_is_an_error(tmp_path: Path) -> None:
    """An object without a namespace never ends up in the namespace `default`."""
    with _cluster(tmp_path, FakeServer((200, {}))) as cluster, pytest.raises(ClusterError, match="is namespaced"):
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})


def test_ref_has_kind_namespace_and_name() -> None:
    """An object is named by its kind, its namespace if it has one, and its name."""
    thing = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "details-v1", "namespace": "bookinfo"}}
    assert str(ref_of(thing)) == "Deployment bookinfo/details-v1"
    assert str(Ref("v1", "Namespace", "bookinfo")) == "Namespace bookinfo"


def test_paths_follow_group_and_scope() -> None:
    """The core group has its own root, and cluster-wide kinds have no namespace in their path."""
    pods = read_kind_info("v1", {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["get"]})
    roles = read_kind_info("rbac/v1", {"name": "clusterroles", "kind": "ClusterRole", "namespaced": False, "verbs": []})
    assert pods.path("shop", "a") == "/api/v1/namespaces/shop/pods/a"
    assert pods.path() == "/api/v1/pods"
    assert roles.path("shop", "a") == "/apis/rbac/v1/clusterroles/a"
    assert (pods.group, roles.group) == ("", "rbac")


def test_exit_code_is_read_from_status_message() -> None:
    """The last message of the stream is success, the command's exit code, or the error of a command that never ran."""
    failed = {"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "137"}]}}
    assert read_exit_code("x", b'{"status": "Success"}') == 0
    assert read_exit_code("x", json.dumps(failed).encode()) == 137
    with pytest.raises(ClusterError, match="x: no such container"):
        read_exit_code("x", b'{"status": "Failure", "message": "no such container"}')


def test_stream_without_status_is_an_error() -> None:
    """Output without a final status is incomplete, and so it is never used."""
    with pytest.raises(ClusterError, match="broke before the command had ended"):
        read_exit_code("x", b"")


ODD_STATUSES = [
    b"no json",
    b"[]",
    b"null",
    b"3",
    b"\xff",
    b"[" * 100_000,
    b'{"status": "Failure", "details": [1]}',
    b'{"status": "Failure", "details": {"causes": 3}}',
    b'{"status": "Failure", "details": {"causes": ["a"]}}',
    b'{"status": "Failure", "details": {"causes": [{"reason": "ExitCode"}]}}',
    b'{"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "one"}]}}',
    '{"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "\u00b2"}]}}'.encode(),
]


@pytest.mark.parametrize("status", ODD_STATUSES)
def test_malformed_status_is_one_error(status: bytes) -> None:
    """Whatever ends the stream, the result is an exit code or an error of one line."""
    with pytest.raises(BadAnswerError, match=r"x: the stream (did not end|ended) with a") as caught:
        read_exit_code("x", status)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("code", ["503", None, [], 10**40, -1, True])
def test_invalid_http_status_is_a_server_error(code: object) -> None:
    """A status that is not an HTTP status code counts as a failure of the server."""
    with pytest.raises(ClusterError, match="x: no") as caught:
        read_exit_code("x", json.dumps({"status": "Failure", "message": "no", "code": code}).encode())
    assert caught.value.kind is ErrorKind.UNAVAILABLE


Handle = Callable[[web.WebSocketResponse], Awaitable[None]]


def _streaming(handle: Handle, seen: list[str]) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("authorization", ""))
        stream = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await stream.prepare(request)
        with suppress(ConnectionError):
            await handle(stream)
        return stream

    return answer


@contextmanager
def _stream_server(handle: Handle, seen: list[str] | None = None) -> Iterator[str]:
    """An API server whose commands do what `handle` does; `seen` collects the credentials of their requests."""
    with serve_answers(_streaming(handle, [] if seen is None else seen)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _commands(folder: Path, handle: Handle, token: str = "first", seen: list[str] | None = None) -> Iterator[Cluster]:  # noqa: S107
    with _stream_server(handle, seen) as server:
        _write(folder / "config", server, token)
        with connect(
            folder / "config", context="fake", cluster_name="fake", renew=lambda: None, timing=Timing()
        ) as cluster:
            yield cluster


async def _flood(stream: web.WebSocketResponse) -> None:
    while True:
        await stream.send_bytes(b"\1" + bytes(32 * 1024))


async def _huge(stream: web.WebSocketResponse) -> None:
    await stream.send_bytes(b"\1" + bytes(17 << 20))
    await stream.receive()


async def _flood_of_errors(stream: web.WebSocketResponse) -> None:
    while True:
        await stream.send_bytes(b"\3" + bytes(32 * 1024))


@pytest.mark.parametrize("handle", [_flood, _huge, _flood_of_errors])
def test_endless_output_is_an_error(tmp_path: Path, handle: Handle) -> None:
    """A command's output has a limit per channel, in one message or in many; more output is one error."""
    refused = pytest.raises(BadAnswerError, match="its output is larger than 1000000 bytes")
    with _commands(tmp_path, handle) as cluster, refused:
        cluster.exec("p", ["yes"], namespace="n", container="c", most_bytes=1_000_000)


async def _megabyte(stream: web.WebSocketResponse) -> None:
    for _ in range(10):
        await stream.send_bytes(b"\1" + bytes(100_000))
    await stream.send_bytes(b'\3{"status": "Success"}')


def test_output_within_limit_is_complete(tmp_path: Path) -> None:
    """Output within the limit arrives to the last byte."""
    with _commands(tmp_path, _megabyte) as cluster:
        ran = cluster.exec("p", ["cat"], namespace="n", container="c", most_bytes=1_000_000)
    assert (ran.exit_code, len(ran.stdout)) == (0, 1_000_000)


def test_token_is_trimmed(tmp_path: Path) -> None:
    """A token is trimmed for requests and for the streams of commands."""
    seen: list[str] = []
    with _commands(tmp_path, _megabyte, " first\n", seen) as cluster:
        cluster.exec("p", ["true"], namespace="n", container="c")
    fake = FakeServer((200, {"gitVersion": "v1"}))
    with _serving(fake) as server:
        _write(tmp_path / "config", server, "first\r\n")
        with connect(
            tmp_path / "config", context="fake", cluster_name="fake", renew=lambda: None, timing=Timing()
        ) as cluster:
            cluster.read("/version")
    assert [*seen, *fake.tokens] == ["Bearer first", "Bearer first"]


def test_invalid_header_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that passed the check of credentials and cannot be sent is not in the error, although the HTTP
    libraries' errors include it."""
    with _cluster(tmp_path, FakeServer((200, {}))) as cluster:
        monkeypatch.setitem(cluster._connection.credentials.headers, "authorization", "Bearer hid\nden")
        with pytest.raises(ClusterError, match=r"reading /version: the request cannot be sent") as plain:
            cluster.read("/version")
        with pytest.raises(ClusterError, match=r"in Pod n/p, container c: the request cannot be sent") as stream:
            cluster.exec("p", ["true"], namespace="n", container="c")
    for caught in (plain, stream):
        assert "Bearer" not in "".join(traceback.format_exception(caught.value))
        assert not caught.value.is_retryable


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>log in to the wireless network"),
        (200, ""),
        (200, "[]"),
        (200, "null"),
        (200, "[" * 100_000),
        (200, '{"gitVersion": 3}'),
        (200, '{"status": "up"}'),
        (302, "moved"),
        (307, ""),
    ],
)
def test_server_that_is_no_api_server_is_named(tmp_path: Path, answer: tuple[int, str]) -> None:
    """A captive portal, a login page or a wrong address: one line, without a retry, whatever is asked first."""
    status, body = answer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status > 300:
                self.send_header("Location", "https://portal.example/login")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    _write(tmp_path / "config", f"http://127.0.0.1:{server.server_address[1]}", "first")
    try:
        with connect(
            tmp_path / "config", context="fake", cluster_name="fake", renew=lambda: None, timing=Timing(request_s=5)
        ) as cluster:
            for ask in (lambda: cluster.version, cluster.kinds):
                with pytest.raises(BadAnswerError, match="is not that of a Kubernetes API server: ") as caught:
                    ask()
                assert "\n" not in str(caught.value)
                assert len(str(caught.value)) < 400
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_endless_response_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log has a requested limit and an enforced one."""
    monkeypatch.setattr("bench.k8s.client._LOG_BYTES", 1000)
    fake = FakeServer((200, {"text": "x" * 3000}))
    too_large = pytest.raises(BadAnswerError, match="the answer is larger than 2000 bytes")
    with _cluster(tmp_path, fake) as cluster, too_large:
        cluster.logs("p", namespace="n", container="c")
    assert "limitBytes=1000" in fake.seen[0]


def test_secrets_are_redacted_before_truncation(tmp_path: Path) -> None:
    """A message is redacted before it is cut, because half of a token at its end would not be recognised."""
    message = "x " * 990 + "Bearer abcdefgh12345678abcdefgh"
    fake = FakeServer((403, {"message": message * 3}))
    with _cluster(tmp_path, fake) as cluster, pytest.raises(ClusterError) as caught:
        cluster.get(POD)
    assert "abcd" not in str(caught.value)
    assert len(str(caught.value)) < 2200
