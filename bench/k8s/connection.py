"""Send requests to an API server: retried where that is safe, bounded by a timeout, with one clear error; discover its
kinds."""

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

from bench import __version__
from bench.errors import BadAnswerError, ClusterError, ErrorKind, RefusedError
from bench.k8s.credentials import Credentials, read_credentials
from bench.k8s.retry import ONCE, RetryPolicy, may_repeat, retry
from bench.k8s.socks import SocksError
from bench.k8s.transport import make_pool
from bench.system.redaction import one_line

TIMEOUT_S = 30.0
MOST_BYTES = 256 * 1024 * 1024
"""Of an answer: the pods of a cluster with thousands of nodes are less."""
_MOST_PARSED = 1024 * 1024
_SHOWN = 120  # characters of an answer that no API server gives
_RENEWAL_PAUSE_S = 10.0
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}) ?(.*)")  # of http.client
_KINDS: Mapping[int, ErrorKind] = {
    HTTPStatus.UNAUTHORIZED: ErrorKind.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: ErrorKind.FORBIDDEN,
    HTTPStatus.NOT_FOUND: ErrorKind.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorKind.UNSUPPORTED,
    HTTPStatus.CONFLICT: ErrorKind.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS: ErrorKind.TOO_MANY_REQUESTS,
}
_FIELD_CONFLICT = "FieldManagerConflict"  # the reason of a cause in a Status
# What a Status says in its message alone: the first comes as a 500, though it is permanent, the second as a 400.
_WRONG_FIELDS = b"failed to create typed patch object"
_NO_UPGRADE = b"Upgrade request required"

T = TypeVar("T")
Query = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `what` is its name in error messages. `idempotent`: sent twice, it does the same as sent once."""

    what: str
    method: str
    path: str
    query: Query = ()
    body: Any = None
    content_type: str = "application/json"
    idempotent: bool = True
    retried: bool = True
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the API server that is not a refusal."""

    body: bytes
    content_type: str = ""

    def read_object(self, what: str) -> dict[str, Any]:
        """Return the JSON object of the answer to the request `what`. Raises BadAnswerError for anything else, such as
        a captive portal's page."""
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise make_foreign_answer(what, self.body.decode("utf-8", "replace"))
        return parsed


class Connection:
    """One API server and our credentials for it. Safe to use from several threads."""

    def __init__(self, kubeconfig: Path, renew: Callable[[], None], *, policy: RetryPolicy) -> None:
        """`kubeconfig` is the private copy with one context; `renew` brings newer credentials into it."""
        self.policy = policy
        self._kubeconfig = kubeconfig
        self._renew = renew
        self._lock = Lock()
        self._retired: list[urllib3.PoolManager] = []
        self._failed: tuple[float, str] | None = None
        self.credentials = read_credentials(kubeconfig)
        self._pool = make_pool(self.credentials)

    def close(self) -> None:
        for pool in (*self._retired, self._pool):
            pool.clear()

    def send(self, request: Request) -> Answer:
        """Send a request and return the server's answer. Raises ClusterError for every failure."""
        return retry(
            partial(self._send_once, request),
            self.policy if request.retried else ONCE,
            may_retry=partial(may_repeat, idempotent=request.idempotent),
        )

    def renew(self, used: Credentials) -> None:
        """Read the credentials again, unless another thread has done so since `used` was handed out. A failure holds
        for some seconds, so that a clean-up of many objects does not run a credential plugin for each."""
        with self._lock:
            if self.credentials is not used:
                return
            if self._failed is None or time.monotonic() > self._failed[0] + _RENEWAL_PAUSE_S:
                self._failed = self._try_renewal()
            if self._failed is not None:
                text = f"the credentials are no longer accepted: {self._failed[1]}"
                raise ClusterError(text, kind=ErrorKind.UNAUTHORIZED)

    def _try_renewal(self) -> tuple[float, str] | None:
        """Renew the credentials; return when and why that failed, None where it did not."""
        try:
            self._renew()
            self.credentials = read_credentials(self._kubeconfig, in_run=True)
        except (RefusedError, OSError) as error:
            return time.monotonic(), str(error)
        self._retired.append(self._pool)  # another thread may be using it
        self._pool = make_pool(self.credentials)
        return None

    def _send_once(self, request: Request) -> Answer:
        used = self.credentials
        try:
            return self._exchange(request)
        except ClusterError as error:
            if error.kind is not ErrorKind.UNAUTHORIZED:
                raise
        self.renew(used)
        return self._exchange(request)

    def _exchange(self, request: Request) -> Answer:
        headers = {
            "Accept": "application/json, */*",
            "Content-Type": request.content_type,
            "User-Agent": f"meshbench/{__version__}",
            **self.credentials.headers,
        }
        url = f"{self.credentials.server}{request.path}" + (f"?{urlencode(request.query)}" if request.query else "")
        try:
            response = self._pool.request(
                request.method,
                url,
                body=None if request.body is None else json.dumps(request.body),
                headers=headers,
                timeout=urllib3.Timeout(total=TIMEOUT_S),
                preload_content=False,
                redirect=False,
            )
            body = _read_bounded(response, request)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            why, kind = _describe_failure(error), kind_of_failure(error)
            raise make_unanswered(request.what, self.credentials.server, why, kind=kind) from None
        except ValueError as error:
            raise make_unsendable_error(request.what, error) from None
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            place = response.headers.get("Location", "elsewhere")
            raise make_foreign_answer(request.what, f"{response.status}, a redirect to {place}")
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise make_refusal(request.what, self.credentials.server, response.status, body)
        return Answer(body, str(response.headers.get("Content-Type", "")))


def _read_bounded(response: urllib3.BaseHTTPResponse, request: Request) -> bytes:
    """Return the body. Raises BadAnswerError where it is larger than the request's limit."""
    body = response.read(request.most_bytes + 1)
    if len(body) > request.most_bytes:
        response.close()
        raise BadAnswerError(f"{request.what}: the answer is larger than {request.most_bytes} bytes")
    return body


def make_unsendable_error(what: str, error: Exception) -> ClusterError:
    """Make the error for a request that the HTTP library does not send. Its text is left out: it may show headers, and
    so credentials."""
    text = f"{what}: the request cannot be sent, its address or headers are not valid ({type(error).__name__})"
    return ClusterError(text, kind=ErrorKind.UNSENDABLE)


def kind_of_failure(error: Exception) -> ErrorKind:
    """Return the kind of an exception in place of an answer."""
    cause = error.__cause__ or error
    if isinstance(cause, urllib3.exceptions.SSLError) and isinstance(cause.args[0], ssl.SSLCertVerificationError):
        return ErrorKind.CERTIFICATE
    if isinstance(cause, SocksError):
        return ErrorKind.REJECTED if cause.permanent else ErrorKind.UNREACHABLE
    if refused := _TUNNEL.search(str(cause)):
        return kind_of_proxy_refusal(int(refused[1]))
    unmade = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    if isinstance(error, unmade) or isinstance(cause, unmade):
        return ErrorKind.UNREACHABLE
    return ErrorKind.TIMEOUT if isinstance(error, urllib3.exceptions.ReadTimeoutError) else ErrorKind.INTERRUPTED


def _describe_failure(error: Exception) -> str:
    """Format an exception in place of an answer."""
    text = str(error.__cause__ or error)
    refused = _TUNNEL.search(text)
    return f"the proxy answered {refused[1]} {refused[2]}" if refused else text


def kind_of_proxy_refusal(status: int) -> ErrorKind:
    """Return the kind of a proxy's refusal to connect: the API server has not seen the request."""
    passes = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    return ErrorKind.UNREACHABLE if passes else ErrorKind.REJECTED


def make_unanswered(what: str, server: str, why: str, *, kind: ErrorKind) -> ClusterError:
    """Make the error for a request without an answer: one line."""
    return ClusterError(f"{what}: no answer from {server}: {one_line(why)}", kind=kind)


def make_refusal(what: str, server: str, status: int, body: bytes) -> ClusterError:
    """Make the error for an answer that is a refusal: one line with the request and the answer."""
    text = f"{what}: {server} answered {status}: {read_status_message(body)}"
    return ClusterError(text, kind=kind_of_refusal(status, body))


def make_foreign_answer(what: str, text: str) -> BadAnswerError:
    """Make the error for an answer that no API server gives; `text` is the answer."""
    shown = one_line(text)[:_SHOWN]
    why = f"the answer is not that of a Kubernetes API server: {shown or 'nothing'}"
    return BadAnswerError(f"{what}: {why}; hint: check `server` in the kubeconfig, and proxies")


def kind_of_refusal(status: int, body: bytes = b"") -> ErrorKind:
    """Return the kind of a refusal: by its HTTP status, and by its body where the status is of several kinds."""
    if _WRONG_FIELDS in body:
        return ErrorKind.REJECTED
    if _NO_UPGRADE in body:
        return ErrorKind.UNSUPPORTED
    if status == HTTPStatus.CONFLICT and _FIELD_CONFLICT in _read_causes(body):
        return ErrorKind.FIELD_CONFLICT
    server_failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return _KINDS.get(status, ErrorKind.UNAVAILABLE if server_failed else ErrorKind.REJECTED)


def _read_causes(body: bytes) -> tuple[str, ...]:
    """Return the reasons of the causes in a Kubernetes Status; none for anything else."""
    try:
        return tuple(cause["reason"] for cause in json.loads(body[:_MOST_PARSED])["details"]["causes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def read_status_message(body: bytes) -> str:
    """Return the message of a Kubernetes Status, or whatever else the body holds, on one line."""
    text = body[:_MOST_PARSED].decode("utf-8", "replace")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text) or "no message"
    message = parsed.get("message") if isinstance(parsed, dict) else None
    return one_line(message if isinstance(message, str) and message else text)


@dataclass(frozen=True)
class KindInfo:
    """A kind that the API server knows. `verbs`: what it supports, whether or not our user may."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of the collection, or of one object in it."""
        parts = [api_root(self.api_version)]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        return "/".join([*parts, self.plural, *([name] if name else [])])


def api_root(api_version: str) -> str:
    """Return the path below which a group's version is served."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


class Discovery:
    """The kinds that one API server serves. Known kinds are cached; unknown kinds are requested again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[str, str], KindInfo] = {}

    def find(self, api_version: str, kind: str) -> KindInfo | None:
        """Return a kind; None if the server does not know it."""
        if (api_version, kind) not in self._known:
            try:
                self._known |= {(one.api_version, one.kind): one for one in self._kinds_of(api_version)}
            except ClusterError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
        return self._known.get((api_version, kind))

    def all(self) -> tuple[tuple[KindInfo, ...], tuple[str, ...]]:
        """Return every kind once (in its group's preferred version, if it is there), and the APIs that did not
        answer."""
        kinds: dict[tuple[str, str], KindInfo] = {}
        broken = []
        for api_version in self._api_versions():
            try:
                served = self._kinds_of(api_version, retried=False)
            except ClusterError as error:
                if error.kind.is_unanswered or error.kind in (ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN):
                    raise
                broken.append(f"{api_version}: {error}")
                continue
            for one in served:
                kinds.setdefault((one.group, one.kind), one)
        return tuple(kinds.values()), tuple(broken)

    def _api_versions(self) -> list[str]:
        def read(answer: dict[str, Any]) -> list[str]:
            groups = answer["groups"]
            preferred = [group["preferredVersion"]["groupVersion"] for group in groups]
            others = [version["groupVersion"] for group in groups for version in group["versions"]]
            return list(dict.fromkeys(["v1", *preferred, *others]))

        return self._read("/apis", read)

    def _kinds_of(self, api_version: str, *, retried: bool = True) -> tuple[KindInfo, ...]:
        def read(answer: dict[str, Any]) -> tuple[KindInfo, ...]:
            resources = answer.get("resources") or ()
            return tuple(read_kind_info(api_version, one) for one in resources if "/" not in one["name"])

        return self._read(api_root(api_version), read, retried=retried)

    def _read(self, path: str, read: Callable[[dict[str, Any]], T], *, retried: bool = True) -> T:
        request = Request(f"reading which kinds {path} serves", "GET", path, retried=retried)
        answer = self._connection.send(request)
        try:
            return read(answer.read_object(request.what))
        except (KeyError, TypeError, AttributeError):
            raise make_foreign_answer(request.what, answer.body.decode("utf-8", "replace")) from None


def read_kind_info(api_version: str, resource: dict[str, Any]) -> KindInfo:
    """Read one entry of an APIResourceList."""
    return KindInfo(
        api_version=api_version,
        kind=resource["kind"],
        plural=resource["name"],
        namespaced=resource["namespaced"],
        verbs=frozenset(resource["verbs"]),
    )
