"""The client's verbs on a real API server: complete streams in both directions, rights, credentials, and nothing left
open."""

import contextlib
import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.errors import ClusterError, ErrorKind, RefusedError
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.kubeconfig import describe_cluster, open_cluster
from bench.k8s.pod_page import fetch_page
from bench.k8s.wait import wait_for
from bench.system.cancellation import CancelToken, wait_until
from bench.system.processes import run_tool
from tests.cluster.job import delete_named
from tests.cluster.lab import CONTEXT
from tests.cluster.relay import open_relay

IMAGE = "locustio/locust:2.47.0"
POD, CONTAINER = "worker", "main"
MEGABYTES = 5
# Echoes each connection's data until the other side closes.
ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
print("echo is up", flush=True)
socketserver.ThreadingTCPServer(("", 8080), Echo).serve_forever()
"""
# Answers its first request only by a file that records it, and each later one normally.
LATE = """
import http.server, pathlib
class Late(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = pathlib.Path("asked")
        if not asked.exists():
            asked.touch()
            self.rfile.read(1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"later")
server = http.server.ThreadingHTTPServer(("", 8082), Late)
pathlib.Path("listens").touch()
server.serve_forever()
"""


def _pod(namespace: str) -> Object:
    container = {
        "name": CONTAINER,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", ECHO],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace with a pod that echoes on port 8080."""
    name = f"t-client-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        account = Ref("v1", "ServiceAccount", "default", name)
        wait_for(cluster, account, bool, timeout_s=30, watch=CancelToken())
        cluster.create(_pod(name))
        wait_for(cluster, Ref("v1", "Pod", POD, name), _is_ready, timeout_s=60, watch=CancelToken())
        assert wait_until(lambda: "up" in _log(cluster, name), timeout_s=30, watch=CancelToken(), poll_s=0.1)
        yield name
    finally:
        delete_named(cluster, Ref("v1", "Namespace", name))


@pytest.fixture(scope="module")
def kubectl(lab_kubeconfig: Path) -> str:
    """The lab's own kubectl."""
    return str(lab_kubeconfig.parent.parent / "bin" / "kubectl")


def _is_ready(pods: tuple[Object, ...]) -> bool:
    conditions = pods[0].get("status", {}).get("conditions", ()) if pods else ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _log(cluster: Cluster, namespace: str) -> str:
    return cluster.logs(POD, namespace=namespace, container=CONTAINER)


def _config_map(namespace: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"m-{secrets.token_hex(3)}", "namespace": namespace},
        "data": data,
    }


def test_cluster_is_printed_first(cluster: Cluster) -> None:
    """Context, server, version and number of nodes are on one line."""
    assert describe_cluster(cluster) == f"context meshlab: {cluster.server}, Kubernetes {cluster.version}, 1 node"
    assert cluster.server.startswith("https://")
    assert cluster.version.startswith("v1.")


def test_object_is_created_changed_listed_and_deleted(cluster: Cluster, namespace: str) -> None:
    """An applied object exists, also after a second apply, and only our own fields change."""
    thing = _config_map(namespace, a="1")
    thing["metadata"]["labels"] = {"probe": thing["metadata"]["name"]}
    ref = Ref("v1", "ConfigMap", thing["metadata"]["name"], namespace)
    assert cluster.get(ref) is None
    made = cluster.apply(thing)
    cluster.apply({**thing, "data": {"a": "2"}})
    assert (cluster.get(ref) or {})["data"] == {"a": "2"}
    listed = cluster.list("v1", "ConfigMap", labels=f"probe={ref.name}")
    assert [(one["kind"], one["metadata"]["uid"]) for one in listed] == [("ConfigMap", made["metadata"]["uid"])]
    cluster.delete(made)
    cluster.delete(made)
    assert cluster.get(ref) is None


def test_dry_run_changes_nothing_and_refuses_unknown_fields(cluster: Cluster, namespace: str) -> None:
    """An unknown field is refused at once, with its name."""
    thing = _config_map(namespace, a="1")
    assert cluster.apply(thing, dry_run=True)["data"] == {"a": "1"}
    assert cluster.get(Ref("v1", "ConfigMap", thing["metadata"]["name"], namespace)) is None
    with pytest.raises(ClusterError, match=r"dat.*field not declared"):
        cluster.apply({**thing, "dat": {}}, dry_run=True)


def test_second_create_or_replace_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    """The second request is refused, which a lock requires."""
    thing = _config_map(namespace, holder="first")
    made = cluster.create(thing)
    with pytest.raises(ClusterError) as exists:
        cluster.create(thing)
    cluster.replace({**made, "data": {"holder": "second"}})
    with pytest.raises(ClusterError) as late:
        cluster.replace({**made, "data": {"holder": "third"}})
    assert {exists.value.kind, late.value.kind} == {ErrorKind.CONFLICT}
    assert (cluster.get(Ref("v1", "ConfigMap", thing["metadata"]["name"], namespace)) or {})["data"] == {
        "holder": "second"
    }


def test_field_of_another_manager_is_not_taken_over(cluster: Cluster, namespace: str, kubectl: str) -> None:
    """The refusal names the manager, here kubectl, which uses the private kubeconfig as every external tool does; a dry
    run accepts the field, since it changes nothing."""
    thing = _config_map(namespace, a="1")
    name = thing["metadata"]["name"]
    cluster.apply(thing)
    where = ["--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace]
    done = run_tool([kubectl, *where, "patch", "configmap", name, "--patch", '{"data": {"a": "theirs"}}'])
    assert done.returncode == 0, done.stderr
    with pytest.raises(ClusterError, match=f'applying ConfigMap {namespace}/{name}: .*conflict with "kubectl-patch"'):
        cluster.apply({**thing, "data": {"a": "2"}})
    assert cluster.apply({**thing, "data": {"a": "2"}}, dry_run=True)["data"] == {"a": "2"}


def test_object_is_changed_only_as_it_was_read(cluster: Cluster, namespace: str) -> None:
    """Fields that are no longer wanted are removed, labels of others stay, and who comes second is refused."""
    thing = _config_map(namespace, a="1")
    thing["metadata"]["labels"] = {"others": "stay"}
    made = cluster.create(thing)
    now = cluster.change(made, {**_config_map(namespace, b="2"), "metadata": {"labels": {"ours": "come"}}})
    assert (now["data"], now["metadata"]["labels"]) == ({"b": "2"}, {"others": "stay", "ours": "come"})
    with pytest.raises(ClusterError) as late:
        cluster.change(made, _config_map(namespace, c="3"))
    assert late.value.kind is ErrorKind.CONFLICT


def test_only_the_object_that_was_read_is_deleted(cluster: Cluster, namespace: str) -> None:
    """Not another one of its name, and with `unchanged` not a newer version of it."""
    thing = _config_map(namespace, a="1")
    first = cluster.create(thing)
    cluster.delete(first)
    second = cluster.create(thing)
    cluster.delete(first)
    third = cluster.change(second, _config_map(namespace, a="2"))
    cluster.delete(second, unchanged=True)
    ref = Ref("v1", "ConfigMap", thing["metadata"]["name"], namespace)
    assert (cluster.get(ref) or {})["data"] == {"a": "2"}
    cluster.delete(third, unchanged=True)
    assert cluster.get(ref) is None


def test_creation_refuses_unknown_fields(cluster: Cluster, namespace: str) -> None:
    """The server would otherwise drop them silently."""
    with pytest.raises(ClusterError, match="unknown field"):
        cluster.create({**_config_map(namespace, a="1"), "dat": {}})


def test_kinds_are_those_of_this_server(cluster: Cluster) -> None:
    """Each kind is listed once, with its scope; an unknown kind has no objects and cannot be created."""
    kinds = {(kind.group, kind.kind): kind for kind in cluster.kinds()}
    assert len(kinds) == len(cluster.kinds())
    assert kinds["apps", "Deployment"].namespaced
    assert not kinds["rbac.authorization.k8s.io", "ClusterRole"].namespaced
    assert "list" in kinds["", "Pod"].verbs
    assert cluster.broken_apis() == ()
    assert cluster.list("example.com/v1", "Nothing") == ()
    assert cluster.get(Ref("example.com/v1", "Nothing", "a")) is None
    unknown = {"apiVersion": "example.com/v1", "kind": "Nothing", "metadata": {"name": "a", "uid": "1"}}
    cluster.delete(unknown)
    with pytest.raises(ClusterError, match=r"has no kind Nothing in example.com/v1"):
        cluster.apply(unknown)


def test_any_path_can_be_read(cluster: Cluster, namespace: str) -> None:
    """JSON is parsed, all else is text."""
    node = cluster.list("v1", "Node")[0]["metadata"]["name"]
    assert cluster.read(f"/api/v1/nodes/{node}/proxy/stats/summary")["node"]["nodeName"] == node
    assert "# TYPE" in cluster.read(f"/api/v1/nodes/{node}/proxy/metrics/resource")
    assert [one["metadata"]["name"] for one in cluster.read(f"/api/v1/namespaces/{namespace}/pods", limit="1")["items"]]


def test_stdout_stderr_and_exit_code_are_separate(cluster: Cluster, namespace: str) -> None:
    """Standard output is bytes, standard error is text."""
    ran = cluster.exec(
        POD, ["sh", "-c", "printf 'a\\000\\377'; echo why >&2; exit 7"], namespace=namespace, container=CONTAINER
    )
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"a\0\xff", "why\n")


def test_command_echoes_megabytes(cluster: Cluster, namespace: str) -> None:
    """Data arrives unchanged in both directions at once, and so does the end of the input."""
    sent = os.urandom(MEGABYTES << 20)
    ran = cluster.exec(POD, ["cat"], namespace=namespace, container=CONTAINER, stdin=sent, timeout_s=60)
    assert ran.exit_code == 0
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(sent).digest()


def test_output_of_short_command_is_complete(cluster: Cluster, namespace: str) -> None:
    """The last output of a command that ends at once is not lost."""
    program = f"import sys; sys.stdout.buffer.write(bytes(range(256)) * {MEGABYTES << 12})"
    ran = cluster.exec(POD, ["python", "-c", program], namespace=namespace, container=CONTAINER, timeout_s=60)
    assert ran.stdout == bytes(range(256)) * (MEGABYTES << 12)


@pytest.mark.parametrize(
    ("pod", "container", "argv", "message"),
    [
        (POD, CONTAINER, "no-such-program", "executable file not found"),
        (POD, "missing", "true", "container.*missing|missing.*container"),
        ("missing", CONTAINER, "true", 'pods "missing" not found'),
    ],
)
def test_command_that_cannot_start_names_the_cause(
    cluster: Cluster, namespace: str, pod: str, container: str, argv: str, message: str
) -> None:
    """The message names the missing program, container or pod."""
    with pytest.raises(ClusterError, match=message) as caught:
        cluster.exec(pod, [argv], namespace=namespace, container=container)
    assert f"running {argv} in Pod {namespace}/{pod}" in str(caught.value)
    assert not caught.value.kind.is_unanswered


def test_command_ends_at_its_timeout(cluster: Cluster, namespace: str) -> None:
    """No call blocks for longer than its timeout."""
    with pytest.raises(ClusterError, match=r"has not ended after 0\.5 s"):
        cluster.exec(POD, ["sleep", "20"], namespace=namespace, container=CONTAINER, timeout_s=0.5)


def test_logs_are_the_last_lines(cluster: Cluster, namespace: str) -> None:
    """The last lines are of one container; a missing container is an error."""
    assert _log(cluster, namespace) == "echo is up\n"
    with pytest.raises(ClusterError, match="container missing"):
        cluster.logs(POD, namespace=namespace, container="missing")


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def _echoed(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        sending = threading.Thread(target=_send, args=(connection, sent))
        sending.start()
        parts = list(iter(lambda: connection.recv(65536), b""))
        sending.join()
    return b"".join(parts)


def test_forwarded_port_carries_many_connections(cluster: Cluster, namespace: str) -> None:
    """Bytes arrive in both directions over several connections at once, on loopback only; no thread runs after the
    block."""
    sent = [os.urandom(1 << 20) for _ in range(MEGABYTES)]
    before = threading.active_count()
    with cluster.forward(POD, 8080, namespace=namespace) as port, ThreadPoolExecutor(len(sent)) as pool:
        assert list(pool.map(lambda data: _echoed(port, data), sent)) == sent
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        _echoed(port, b"late")


def test_forward_ends_while_peers_do_not_read(cluster: Cluster, namespace: str) -> None:
    """The forward ends at once, also with bytes in transit in both directions."""
    with contextlib.ExitStack() as stack:
        with cluster.forward(POD, 8080, namespace=namespace) as port:
            stuck = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
            with pytest.raises(TimeoutError):  # once all buffers on the way and back are full
                stuck.sendall(bytes(1 << 30))
            started = time.monotonic()
        assert time.monotonic() - started < 5


def test_forward_survives_a_closed_port(cluster: Cluster, namespace: str) -> None:
    """A port without a listener closes the connection; the next connection is opened anew."""
    serve = ["python", "-c", ECHO.replace("8080", "8081")]
    with cluster.forward(POD, 8081, namespace=namespace) as port:
        assert _echoed(port, b"") == b""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_run_for_a_while, cluster, namespace, serve)
            assert wait_until(lambda: _answers(port), timeout_s=60, watch=CancelToken(), poll_s=0.2)


def _answers(port: int) -> bool:
    try:
        return _echoed(port, b"hello") == b"hello"
    except OSError:
        return False


def _run_for_a_while(cluster: Cluster, namespace: str, argv: list[str]) -> None:
    with pytest.raises(ClusterError, match="has not ended"):
        cluster.exec(POD, argv, namespace=namespace, container=CONTAINER, timeout_s=5)


def test_page_is_retried_when_the_connection_breaks(
    lab_kubeconfig: Path, cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is requested again when the connection to the cluster breaks in the middle of a response."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with (
        open_relay(lab_kubeconfig, tmp_path / "config") as link,
        open_cluster(CONTEXT, private_folder=tmp_path) as beyond,
        ThreadPoolExecutor(2) as pool,
    ):
        pool.submit(_run_for_a_while, cluster, namespace, ["python", "-c", LATE])
        _until_there(cluster, namespace, "listens")
        page = pool.submit(fetch_page, beyond, POD, 8082, namespace=namespace, path="/", who="it")
        _until_there(cluster, namespace, "asked")
        link.cut()
        assert page.result(timeout=60) == "later"


def _until_there(cluster: Cluster, namespace: str, name: str) -> None:
    def is_there() -> bool:
        return cluster.exec(POD, ["test", "-e", name], namespace=namespace, container=CONTAINER).exit_code == 0

    assert wait_until(is_there, timeout_s=60, watch=CancelToken(), poll_s=0.2), name


def test_local_port_in_use_is_an_error(cluster: Cluster, namespace: str) -> None:
    """The error has the port's number and the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(RefusedError, match=f"port {port} of this machine: .*in use"),
            cluster.forward(POD, 8080, namespace=namespace, local_port=port),
        ):
            pytest.fail("it was served")
