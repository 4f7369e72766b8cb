"""The kind of an API server's refusal."""

import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import urllib3

import bench
from bench.errors import ClusterError, ErrorKind
from bench.k8s import connection, websocket
from bench.k8s.connection import kind_of_refusal
from bench.k8s.retry import may_repeat
from bench.k8s.socks import SocksError

BENCH = Path(bench.__file__).parent
CONFLICTING = {"message": "Apply failed with 1 conflict", "details": {"causes": [{"reason": "FieldManagerConflict"}]}}
UNKNOWN_FIELD = {"message": "failed to create typed patch object (x; y): .spec.nonsense: field not declared in schema"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {}, ErrorKind.REJECTED),
        (400, {"message": "Upgrade request required"}, ErrorKind.UNSUPPORTED),
        (401, {}, ErrorKind.UNAUTHORIZED),
        (403, {}, ErrorKind.FORBIDDEN),
        (404, {}, ErrorKind.NOT_FOUND),
        (405, {}, ErrorKind.UNSUPPORTED),
        (409, {}, ErrorKind.CONFLICT),
        (409, {"message": "Apply failed with 1 conflict"}, ErrorKind.CONFLICT),
        (409, {"details": {"causes": [{}]}}, ErrorKind.CONFLICT),
        (409, CONFLICTING, ErrorKind.FIELD_CONFLICT),
        (422, {}, ErrorKind.REJECTED),
        (429, {}, ErrorKind.TOO_MANY_REQUESTS),
        (500, {"message": "etcd is away"}, ErrorKind.UNAVAILABLE),
        (500, UNKNOWN_FIELD, ErrorKind.REJECTED),
        (503, {}, ErrorKind.UNAVAILABLE),
        (599, {}, ErrorKind.UNAVAILABLE),
    ],
)
def test_status_and_body_decide_the_kind(status: int, body: object, kind: ErrorKind) -> None:
    """The body decides only where one status is of several kinds."""
    assert kind_of_refusal(status, json.dumps(body).encode()) is kind


@pytest.mark.parametrize("body", [b"", b"\xff", b"3", b"[" * 100_000, b'{"details": 3}', b'{"details": {"causes": 3}}'])
def test_body_that_is_no_status_does_not_matter(body: bytes) -> None:
    """A proxy may answer in the place of the API server."""
    assert kind_of_refusal(409, body) is ErrorKind.CONFLICT


POOL = cast("Any", None)


def caused_by(cause: Exception) -> Exception:
    """Return the failure to connect that the client raises for a cause at a proxy."""
    error = urllib3.exceptions.ProxyError("Unable to connect to proxy", cause)
    error.__cause__ = cause
    return error


UNTRUSTED = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("self-signed"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (urllib3.exceptions.NewConnectionError(POOL, "refused"), ErrorKind.UNREACHABLE),
        (urllib3.exceptions.NameResolutionError("there", POOL, socket.gaierror()), ErrorKind.UNREACHABLE),
        (urllib3.exceptions.ConnectTimeoutError("late"), ErrorKind.UNREACHABLE),
        (urllib3.exceptions.ReadTimeoutError(POOL, "", "late"), ErrorKind.TIMEOUT),
        (urllib3.exceptions.ProtocolError("reset"), ErrorKind.INTERRUPTED),
        (urllib3.exceptions.SSLError("handshake"), ErrorKind.INTERRUPTED),
        (UNTRUSTED, ErrorKind.CERTIFICATE),
        (ConnectionResetError(), ErrorKind.INTERRUPTED),
        (caused_by(UNTRUSTED), ErrorKind.CERTIFICATE),
        (caused_by(urllib3.exceptions.NewConnectionError(POOL, "refused")), ErrorKind.UNREACHABLE),
        (caused_by(OSError("Tunnel connection failed: 407 Proxy Authentication Required")), ErrorKind.REJECTED),
        (caused_by(OSError("Tunnel connection failed: 403 Forbidden")), ErrorKind.REJECTED),
        (caused_by(OSError("Tunnel connection failed: 502 Bad Gateway")), ErrorKind.UNREACHABLE),
        (caused_by(SocksError("host unreachable")), ErrorKind.UNREACHABLE),
        (caused_by(SocksError("wrong password", permanent=True)), ErrorKind.REJECTED),
    ],
    ids=repr,
)
def test_exception_decides_the_kind_without_an_answer(error: Exception, kind: ErrorKind) -> None:
    """A creation is repeated only where no server can have seen it."""
    assert connection.kind_of_failure(error) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ClientConnectorError(POOL, OSError("refused")), ErrorKind.UNREACHABLE),
        (aiohttp.ClientConnectorCertificateError(POOL, ssl.CertificateError("self-signed")), ErrorKind.CERTIFICATE),
        (aiohttp.ServerDisconnectedError(), ErrorKind.INTERRUPTED),
        (aiohttp.ServerTimeoutError(), ErrorKind.TIMEOUT),
        (TimeoutError(), ErrorKind.TIMEOUT),
    ],
    ids=lambda one: type(one).__name__,
)
def test_stream_has_the_same_kinds(error: TimeoutError, kind: ErrorKind) -> None:
    """Commands and forwarded ports are retried like other requests."""
    assert websocket.kind_of_failure(error) is kind


SAFE = {ErrorKind.UNREACHABLE, ErrorKind.TOO_MANY_REQUESTS}
PASSING = {*SAFE, ErrorKind.INTERRUPTED, ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE}


@pytest.mark.parametrize("kind", ErrorKind)
def test_kind_decides_what_is_repeated(kind: ErrorKind) -> None:
    """A refusal is permanent; what the server may have acted on is repeated only where that changes nothing."""
    error = ClusterError("no", kind=kind)
    assert error.is_retryable is (kind in PASSING)
    assert may_repeat(error, idempotent=True) is (kind in PASSING)
    assert may_repeat(error, idempotent=False) is (kind in SAFE)


def test_answered_kinds_are_not_of_the_whole_server() -> None:
    """A refusal of one request says nothing of the next one."""
    unanswered = {kind for kind in ErrorKind if kind.is_unanswered}
    assert unanswered == {*PASSING, ErrorKind.CERTIFICATE, ErrorKind.UNSENDABLE} - {
        ErrorKind.TOO_MANY_REQUESTS,
        ErrorKind.UNAVAILABLE,
    }


SEARCHES = r"\bin (str|format_error)\((error|problem)|str\((error|problem)\)\.(startswith|partition|find)"
READS_HTTP = {
    "k8s/connection.py",  # the API server's answers
    "k8s/exec.py",
    "k8s/websocket.py",
    "k8s/pod_page.py",  # a page of a pod
    "meshes/probe.py",  # what a policy makes a user see
    "meshes/istio/probes.py",
    "verification/checks.py",
    "envoy/parts.py",  # the statuses that a proxy tries again
    "verification/evidence.py",
}


def test_control_flow_reads_kinds() -> None:
    """The text of a failure is for people, and HTTP statuses are read only where answers are."""
    files = {path.relative_to(BENCH).as_posix(): path.read_text("utf-8") for path in BENCH.rglob("*.py")}
    assert [name for name, text in files.items() if re.search(SEARCHES, text)] == []
    assert {name for name, text in files.items() if "HTTPStatus" in text} <= READS_HTTP
