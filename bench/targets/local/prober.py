"""Answer the questions of proofs on loopback: requests in plaintext or TLS, pages as a browser does, counters."""

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from bench.application.definition import Login
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Identity
from bench.errors import DeployError
from bench.meshes.protocols import RequestPage
from bench.system.processes import Process
from bench.targets.local.sidecars import Sidecars
from bench.verification.prober import State, Topic
from bench.verification.questions import OUTSIDE, Answer, Handshake, Question, format_error

T = TypeVar("T")

TIMEOUT_S = 10.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_OMITTED: Final = {
    Topic.NAMESPACE: "processes have no labels, and no webhook changes them",
    Topic.PODS: "a process that ends is not restarted, and ends the trial's load",
    Topic.SYNCED: "sidecars are started with their whole configuration",
    Topic.SIDECAR_CERTIFICATES: "the requests of proofs have the same certificates",
}


@dataclass(frozen=True, slots=True)
class LocalProber:
    """See `bench.verification.prober.Prober`; `sidecars` is None without a mesh."""

    placement: Placement
    sidecars: Sidecars | None
    processes: Sequence[Process]

    @property
    def omitted(self) -> Mapping[Topic, str]:
        return _OMITTED

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        return tuple(map(self._ask, questions))

    def _ask(self, question: Question) -> Answer:
        application, callee = self.placement.application, question.workload
        identity = None
        if question.tls and self.sidecars is not None:
            owner = callee if question.caller == OUTSIDE else question.caller
            identity = self.sidecars.certificates.identity(application.workload(owner).account)
        return call(
            self._find_port(question),
            question.method,
            question.path or application.path_of(application.workload(callee).app),
            host=self.placement.host_of(callee),
            identity=identity,
            anonymous=question.caller == OUTSIDE,
            headers=dict(question.headers),
        )

    def _find_port(self, question: Question) -> int:
        if question.tls or question.caller == OUTSIDE:  # directly at the callee's sidecar
            return self.placement.inbound.get(question.workload, self.placement.gateway)
        return self.placement.reached_by(question.caller, question.workload)

    def pages(self, user: str, count: int) -> tuple[Answer, ...]:
        application = self.placement.application
        caller, entry = application.calls[0]
        return request_pages(
            self.placement.reached_by(caller, entry),
            host=self.placement.host_of(entry),
            path=application.path_of(application.workload(entry).app),
            count=count,
            user=user,
            login=application.definition.login,
        )

    def read_state(self) -> State:
        return State(running=tuple(process.name for process in self.processes if process.role == "sidecar"))

    def proxies(self) -> Mapping[str, RequestPage]:
        admins = self.sidecars.admins if self.sidecars else {}
        return {name: partial(_request_page, path) for name, path in admins.items()}

    def read_configurations(self, kept: Path) -> Mapping[str, str]:  # noqa: ARG002  # kept at their start
        sidecars = self.sidecars
        if sidecars is None:
            return {}
        names = (one.name for one in self.placement.application.everyone)
        return {name: sidecars.configuration(name) for name in names}

    def retry(self, act: Callable[[], T]) -> T:
        return act()


def _request_page(admin: Path, path: str) -> str:
    try:
        return query_admin(admin, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeployError(f"{admin.stem}-sidecar does not respond on its admin socket: {error}") from error


def call(
    port: int,
    method: str,
    path: str,
    *,
    host: str,
    identity: Identity | None = None,
    anonymous: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a new connection to 127.0.0.1:`port`, with `host` as Host header: in plaintext, or in TLS as
    `identity`, which shows no certificate where it is `anonymous`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    handshake = None
    try:
        if identity is not None:
            handshake = _connect(connection, port, identity, anonymous=anonymous)
        connection.request(method, path, headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        lowered = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, answer.read(), lowered, handshake)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, b"", {}, handshake, _format(error))
    finally:
        connection.close()


def query_admin(path: Path, query: str) -> str:
    """Return the response of Envoy's admin interface on the Unix socket `path` to `query`. Raises OSError."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(str(path))
        connection.request("GET", query)
        return connection.getresponse().read().decode("utf-8")
    finally:
        connection.close()


def query_admin_json(path: Path, query: str) -> Any:
    """Return the parsed response of Envoy's admin interface. Raises OSError or ValueError."""
    return json.loads(query_admin(path, query))


def _format(error: Exception) -> str:
    return format_error(type(error).__name__, getattr(error, "reason", None) or str(error), timeout_s=TIMEOUT_S)


def _connect(connection: http.client.HTTPConnection, port: int, identity: Identity, *, anonymous: bool) -> Handshake:
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    try:
        secured = _make_context(identity, anonymous=anonymous).wrap_socket(plain)
    except BaseException:
        plain.close()
        raise
    connection.sock = secured
    agreed = secured.cipher()
    names = (secured.getpeercert() or {}).get("subjectAltName", ())
    peer = next((str(name[1]) for name in names if name[0] == "URI"), "")
    own = "" if anonymous else identity.spiffe_id
    return Handshake(secured.version() or "", agreed[0] if agreed else "", own, peer)


def _make_context(identity: Identity, *, anonymous: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # SPIFFE ids are URIs, not host names: the caller compares them
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(identity.roots)
    if not anonymous:
        context.load_cert_chain(identity.certificate, identity.key)
    context.maximum_version = ssl.TLSVersion[identity.tls.replace(".", "_")]
    context.set_alpn_protocols([identity.alpn])
    return context


def request_pages(
    port: int, *, host: str, path: str, count: int, user: str = "", login: Login | None = None
) -> tuple[Answer, ...]:
    """Request `count` pages at 127.0.0.1:`port`, logged in as `user`, or not logged in with an empty name.

    Returns fewer answers, the last one with the reason, where the login or the connection failed.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    answers: list[Answer] = []
    headers = {"Host": host}
    try:
        if login and user:
            form = urlencode(login.fill_form(user))
            connection.request("POST", login.path, body=form, headers={**headers, **_FORM})
            answer = _read_answer(connection)
            if login.cookie not in answer.headers.get("set-cookie", ""):
                return (answer,)
            headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]
        for _ in range(count):
            connection.request("GET", path, headers=headers)
            answers.append(_read_answer(connection))
    except (OSError, http.client.HTTPException) as error:
        answers.append(Answer(0, b"", {}, refused=_format(error)))
    finally:
        connection.close()
    return tuple(answers)


def _read_answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
