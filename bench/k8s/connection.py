"""Send requests to an API server: retried where that is safe, bounded by a timeout, with one clear error; discover its
kinds."""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, ApiException

from bench import __version__
from bench.errors import BadAnswerError, ClusterError, ErrorKind, RefusedError
from bench.k8s.credentials import Credentials, read_credentials
from bench.k8s.retry import ONCE, RetryPolicy, may_repeat, retry
from bench.system.redaction import redact

TIMEOUT_S = 30.0
MOST_BYTES = 256 * 1024 * 1024
"""Of an answer: the pods of a cluster with thousands of nodes are less."""
_MOST_PARSED = 1024 * 1024
_LONGEST_TEXT = 2000  # characters of an answer in a message
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


class Connection:
    """One API server and our credentials for it. Safe to use from several threads."""

    def __init__(self, kubeconfig: Path, renew: Callable[[], None], *, policy: RetryPolicy) -> None:
        """`kubeconfig` is the private copy with one context; `renew` brings newer credentials into it."""
        self.policy = policy
        self._kubeconfig = kubeconfig
        self._renew = renew
        self._lock = Lock()
        self._retired: list[ApiClient] = []
        self.credentials = read_credentials(kubeconfig)
        self._client = ApiClient(self.credentials.configuration)

    def close(self) -> None:
        for client in (*self._retired, self._client):
            client.close()  # type: ignore[no-untyped-call]  # has no types

    def send(self, request: Request) -> Answer:
        """Send a request and return the server's answer. Raises ClusterError for every failure."""
        return retry(
            partial(self._send_once, request),
            self.policy if request.retried else ONCE,
            may_retry=partial(may_repeat, idempotent=request.idempotent),
        )

    def renew(self, used: Credentials) -> None:
        """Read the credentials again, unless another thread has done so since `used` was handed out."""
        with self._lock:
            if self.credentials is not used:
                return
            try:
                self._renew()
                self.credentials = read_credentials(self._kubeconfig)
            except RefusedError as error:
                text = f"the credentials are no longer accepted: {error}"
                raise ClusterError(text, kind=ErrorKind.UNAUTHORIZED) from error
            self._retired.append(self._client)  # another thread may be using it
            self._client = ApiClient(self.credentials.configuration)

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
            response = self._client.call_api(
                request.method, url, header_params=headers, body=request.body, _request_timeout=TIMEOUT_S
            )
            body = _read_bounded(response.response, request)
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            why = str(error.__cause__ or error)
            raise make_unanswered(request.what, self.credentials.server, why, kind=kind_of_failure(error)) from None
        except ValueError as error:
            raise make_unsendable_error(request.what, error) from None
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
    tls = error.__context__ if isinstance(error, ApiException) else error.__cause__ or error  # the client makes it text
    if isinstance(tls, urllib3.exceptions.SSLError) and isinstance(tls.args[0], ssl.SSLCertVerificationError):
        return ErrorKind.CERTIFICATE
    if isinstance(error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
        return ErrorKind.UNREACHABLE
    return ErrorKind.TIMEOUT if isinstance(error, urllib3.exceptions.ReadTimeoutError) else ErrorKind.INTERRUPTED


def make_unanswered(what: str, server: str, why: str, *, kind: ErrorKind) -> ClusterError:
    """Make the error for a request without an answer: one line."""
    return ClusterError(f"{what}: no answer from {server}: {one_line(why)}", kind=kind)


def make_refusal(what: str, server: str, status: int, body: bytes) -> ClusterError:
    """Make the error for an answer that is a refusal: one line with the request and the answer."""
    text = f"{what}: {server} answered {status}: {read_status_message(body)}"
    return ClusterError(text, kind=kind_of_refusal(status, body))


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


def one_line(text: str) -> str:
    """Format text from elsewhere as a part of a message: on one line, without secrets, and not too long. Secrets are
    removed before the text is cut, since a secret that is cut would no longer be recognised."""
    line = " ".join(redact(text).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}..."


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
        groups = self._read("/apis")["groups"]
        preferred = [group["preferredVersion"]["groupVersion"] for group in groups]
        others = [version["groupVersion"] for group in groups for version in group["versions"]]
        return list(dict.fromkeys(["v1", *preferred, *others]))

    def _kinds_of(self, api_version: str, *, retried: bool = True) -> tuple[KindInfo, ...]:
        resources = self._read(api_root(api_version), retried=retried).get("resources", ())
        return tuple(read_kind_info(api_version, one) for one in resources if "/" not in one["name"])

    def _read(self, path: str, *, retried: bool = True) -> Any:
        request = Request(f"reading which kinds {path} serves", "GET", path, retried=retried)
        return json.loads(self._connection.send(request).body)


def read_kind_info(api_version: str, resource: dict[str, Any]) -> KindInfo:
    """Read one entry of an APIResourceList."""
    return KindInfo(
        api_version=api_version,
        kind=resource["kind"],
        plural=resource["name"],
        namespaced=resource["namespaced"],
        verbs=frozenset(resource["verbs"]),
    )
